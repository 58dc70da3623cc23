//! Values of the form `first,key=value,flag`, read by serde into the same structs as a TOML table.
//!
//! The first part may leave its key out, a key without a value means `true`. Unknown keys and values list the valid
//! ones.

use std::fmt;

use serde::de::value::MapDeserializer;
use serde::de::{self, Deserialize, IntoDeserializer, Visitor};
use serde::forward_to_deserialize_any;

/// Reads `text`; its first part is the value of `first_key` if it has no key of its own.
pub fn from_str<'a, T: Deserialize<'a>>(text: &'a str, first_key: &'static str) -> Result<T, Error> {
    let mut pairs = Vec::new();
    for (position, part) in text.split(',').enumerate() {
        pairs.push(match part.split_once('=') {
            Some(("", _)) => return Err(Error(format!("'{part}' has no key"))),
            Some((key, value)) => (key, Value { key, text: value }),
            None if part.is_empty() => return Err(Error("a part between commas is empty".into())),
            None if position == 0 => (first_key, Value { key: first_key, text: part }),
            None => (part, Value { key: part, text: "true" }),
        });
    }
    T::deserialize(MapDeserializer::new(pairs.into_iter()))
}

/// What is wrong in a value, in words.
#[derive(Debug, PartialEq, Eq)]
pub struct Error(String);

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Error {}

impl de::Error for Error {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self(message.to_string())
    }

    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Self {
        Self(format!("unknown key '{field}'; valid keys: {}", expected.join(", ")))
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        Self(format!("unknown value '{variant}'; valid values: {}", expected.join(", ")))
    }

    fn missing_field(field: &'static str) -> Self {
        Self(format!("key '{field}' is missing"))
    }

    fn duplicate_field(field: &'static str) -> Self {
        Self(format!("key '{field}' is given twice"))
    }
}

/// One value; how it is read depends on the type that wants it.
struct Value<'a> {
    key: &'a str,
    text: &'a str,
}

impl<'a> IntoDeserializer<'a, Error> for Value<'a> {
    type Deserializer = Self;
    fn into_deserializer(self) -> Self {
        self
    }
}

impl Value<'_> {
    fn number(&self) -> Result<u64, Error> {
        let parsed = match self.text.strip_prefix("0x") {
            Some(digits) => u64::from_str_radix(digits, 16),
            None => self.text.parse(),
        };
        parsed.map_err(|_| Error(format!("{}: '{}' is not a whole number", self.key, self.text)))
    }

    /// Says which key a refused value belongs to.
    fn named(&self, error: Error) -> Error {
        Error(format!("{}: {error}", self.key))
    }
}

macro_rules! numbers {
    ($($function:ident)*) => {$(
        fn $function<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            let number = self.number()?;
            visitor.visit_u64(number).map_err(|error: Error| self.named(error))
        }
    )*};
}

impl<'de> de::Deserializer<'de> for Value<'de> {
    type Error = Error;

    numbers! { deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64 }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_borrowed_str(self.text).map_err(|error: Error| self.named(error))
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.text {
            "true" | "on" => visitor.visit_bool(true),
            "false" | "off" => visitor.visit_bool(false),
            other => Err(Error(format!("{}: '{other}' is neither on nor off", self.key))),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        let variant: de::value::StrDeserializer<'_, Error> = self.text.into_deserializer();
        variant.deserialize_enum(name, variants, visitor).map_err(|error| self.named(error))
    }

    forward_to_deserialize_any! {
        i8 i16 i32 i64 i128 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple tuple_struct map
        struct identifier ignored_any
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Eq, serde::Deserialize)]
    #[serde(deny_unknown_fields, rename_all = "kebab-case")]
    struct Disk {
        path: String,
        #[serde(default)]
        read_only: bool,
        queues: Option<u16>,
        cache: Option<Cache>,
    }

    #[derive(Debug, PartialEq, Eq, serde::Deserialize)]
    #[serde(rename_all = "kebab-case")]
    enum Cache {
        WriteBack,
        None,
    }

    fn disk(text: &str) -> Result<Disk, String> {
        from_str(text, "path").map_err(|error| error.to_string())
    }

    #[test]
    fn the_first_key_may_be_left_out_and_a_bare_key_means_true() {
        let all = Disk { path: "a".into(), read_only: true, queues: Some(4), cache: Some(Cache::WriteBack) };
        assert_eq!(disk("a,read-only,queues=4,cache=write-back"), Ok(all));
        let plain = Disk { path: "a=b".into(), read_only: false, queues: None, cache: None };
        assert_eq!(disk("path=a=b,read-only=off"), Ok(plain));
    }

    #[test]
    fn what_is_wrong_is_said_with_the_valid_choices() {
        for (text, message) in [
            ("a,ro", "unknown key 'ro'; valid keys: path, read-only, queues, cache"),
            ("a,cache=fast", "cache: unknown value 'fast'; valid values: write-back, none"),
            ("a,read-only=maybe", "read-only: 'maybe' is neither on nor off"),
            ("a,queues=many", "queues: 'many' is not a whole number"),
            ("a,queues=65536", "queues: invalid value: integer `65536`, expected u16"),
            ("a,queues=1,queues=2", "key 'queues' is given twice"),
            ("queues=1", "key 'path' is missing"),
            ("a,,read-only", "a part between commas is empty"),
            ("", "a part between commas is empty"),
            ("a,=1", "'=1' has no key"),
        ] {
            assert_eq!(disk(text), Err(message.to_owned()), "{text}");
        }
    }
}
