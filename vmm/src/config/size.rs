//! Sizes as people write them: `512M`, `4G`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A number of bytes; written with a binary unit (`K`, `M`, `G`, `T`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

const UNITS: [(char, u32); 4] = [('T', 40), ('G', 30), ('M', 20), ('K', 10)];

impl Size {
    /// The number of bytes.
    pub const fn bytes(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match UNITS.iter().find(|(_, shift)| self.0 != 0 && self.0.is_multiple_of(1 << shift)) {
            Some((unit, shift)) => write!(f, "{}{unit}", self.0 >> shift),
            None => write!(f, "{}", self.0),
        }
    }
}

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        // A bare `B` is neither: a size in bytes has no unit at all.
        let shift = match unit.strip_suffix("iB").unwrap_or(unit).to_ascii_uppercase().as_str() {
            "" if unit.is_empty() => Some(0),
            unit => UNITS.iter().find(|(name, _)| unit.len() == 1 && unit.starts_with(*name)).map(|(_, shift)| *shift),
        };
        let (Ok(number), Some(shift)) = (number.parse::<u64>(), shift) else {
            return Err(format!("'{text}' is not a size; write a whole number with K, M, G or T, such as 512M or 4G"));
        };
        match number.checked_mul(1 << shift) {
            Some(bytes) => Ok(Self(bytes)),
            None => Err(format!("'{text}' is larger than any memory")),
        }
    }
}

impl Serialize for Size {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Size;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a size such as \"4G\", or a number of bytes")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Size, E> {
                text.parse().map_err(E::custom)
            }
            fn visit_u64<E: de::Error>(self, bytes: u64) -> Result<Size, E> {
                Ok(Size(bytes))
            }
            fn visit_i64<E: de::Error>(self, bytes: i64) -> Result<Size, E> {
                u64::try_from(bytes).map(Size).map_err(|_| E::custom(format!("{bytes} is not a size")))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_people_write_them() {
        for (text, bytes) in [
            ("0", 0),
            ("4096", 4096),
            ("4K", 4096),
            ("512M", 512 << 20),
            ("512m", 512 << 20),
            ("1G", 1 << 30),
            ("1GiB", 1 << 30),
            ("2T", 2 << 40),
        ] {
            assert_eq!(text.parse(), Ok(Size(bytes)), "{text}");
        }
    }

    #[test]
    fn what_is_no_size_is_refused_with_an_example() {
        for text in ["", "G", "iB", "1GB", "1.5G", "-1G", "1 G", "1GG", "0x1000", "four"] {
            let refused = text.parse::<Size>().unwrap_err();
            assert!(refused.contains("such as 512M or 4G"), "{text}: {refused}");
        }
        assert!("16777216T".parse::<Size>().unwrap_err().contains("larger than any memory"));
    }

    #[test]
    fn sizes_are_shown_in_the_largest_exact_unit() {
        for text in ["0", "1", "4097", "4K", "1536M", "1G", "3T"] {
            assert_eq!(text.parse::<Size>().unwrap().to_string(), text);
        }
    }
}
