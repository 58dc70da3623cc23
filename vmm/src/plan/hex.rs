//! Addresses as hexadecimal strings: JSON and TOML have no 64-bit unsigned integers that everybody reads.

use serde::{Deserialize, Deserializer, Serializer, de};

pub fn serialize<S: Serializer>(value: &u64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&format!("{value:#x}"))
}

pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let text = String::deserialize(deserializer)?;
    let digits =
        text.strip_prefix("0x").ok_or_else(|| de::Error::custom(format!("'{text}' does not start with 0x")))?;
    u64::from_str_radix(digits, 16).map_err(|_| de::Error::custom(format!("'{text}' is not a hexadecimal number")))
}
