//! `auto`, `on`, `off` or a number, as serde reads and writes it (`#[serde(with = "wish")]`).

use std::fmt;
use std::marker::PhantomData;

use nestling_devices::smmuv3::capabilities::{Value, Wish};
use serde::{Deserializer, Serialize, Serializer, de};

/// What can be wished for.
pub trait Wishable: Copy + Into<Value> {
    /// The values that there are.
    const VALID: &'static str;
    /// From `on` or `off`.
    fn from_flag(flag: bool) -> Option<Self>;
    /// From a number.
    fn from_number(number: u64) -> Option<Self>;
}

impl Wishable for bool {
    const VALID: &'static str = "auto, on, off";

    fn from_flag(flag: bool) -> Option<Self> {
        Some(flag)
    }

    fn from_number(_: u64) -> Option<Self> {
        None
    }
}

impl Wishable for u8 {
    const VALID: &'static str = "auto, off, a number";

    fn from_flag(flag: bool) -> Option<Self> {
        (!flag).then_some(0)
    }

    fn from_number(number: u64) -> Option<Self> {
        number.try_into().ok()
    }
}

/// Reads one; who leaves the key out gets none without this.
pub fn deserialize<'de, T: Wishable, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Wish<T>>, D::Error> {
    deserializer.deserialize_any(Visitor(PhantomData)).map(Some)
}

/// Writes one as it is read.
pub fn serialize<T: Wishable, S: Serializer>(wish: &Option<Wish<T>>, serializer: S) -> Result<S::Ok, S::Error> {
    match *wish {
        None | Some(Wish::Auto) => serializer.serialize_str("auto"),
        Some(Wish::Exactly(value)) => value.into().serialize(serializer),
    }
}

struct Visitor<T>(PhantomData<T>);

fn known<T: Wishable, E: de::Error>(value: Option<T>, given: impl fmt::Display) -> Result<Wish<T>, E> {
    value.map(Wish::Exactly).ok_or_else(|| E::custom(format!("'{given}' is none of {}", T::VALID)))
}

impl<T: Wishable> de::Visitor<'_> for Visitor<T> {
    type Value = Wish<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(T::VALID)
    }

    fn visit_bool<E: de::Error>(self, flag: bool) -> Result<Wish<T>, E> {
        known(T::from_flag(flag), if flag { "on" } else { "off" })
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Wish<T>, E> {
        known(T::from_number(number), number)
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<Wish<T>, E> {
        known(number.try_into().ok().and_then(T::from_number), number)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Wish<T>, E> {
        match text {
            "auto" => Ok(Wish::Auto),
            "on" | "true" => known(T::from_flag(true), text),
            "off" | "false" => known(T::from_flag(false), text),
            number => known(number.parse().ok().and_then(T::from_number), number),
        }
    }
}
