//! The address of a host PCI function, as sysfs and lspci write it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Domain, bus, device and function of a host PCI function: `0009:01:00.0`.
///
/// Read with or without the domain (then 0000), in any case. A domain can have more than 16 bits (VMD).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostAddress {
    /// PCI domain (segment) of the host.
    pub domain: u32,
    /// Bus number.
    pub bus: u8,
    /// Device number, below 32.
    pub device: u8,
    /// Function number, below 8.
    pub function: u8,
}

impl fmt::Display for HostAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04x}:{:02x}:{:02x}.{:x}", self.domain, self.bus, self.device, self.function)
    }
}

impl FromStr for HostAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        parse(text).ok_or_else(|| {
            format!("'{text}' is not a PCI address; write DDDD:BB:DD.F, such as 0000:01:00.0 ('lspci -D' lists them)")
        })
    }
}

fn parse(text: &str) -> Option<HostAddress> {
    let hex = |digits: &str, most: usize| {
        let plain = (1..=most).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_hexdigit());
        plain.then(|| u32::from_str_radix(digits, 16).ok()).flatten()
    };
    let (domain, rest) = match text.matches(':').count() {
        1 => ("0", text),
        _ => text.split_once(':')?,
    };
    let (bus, rest) = rest.split_once(':')?;
    let (device, function) = rest.split_once('.')?;
    let address = HostAddress {
        domain: hex(domain, 8)?,
        bus: hex(bus, 2)? as u8,
        device: hex(device, 2)? as u8,
        function: hex(function, 1)? as u8,
    };
    (address.device < 32 && address.function < 8).then_some(address)
}

impl Serialize for HostAddress {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for HostAddress {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_with_and_without_their_domain() {
        for (text, full) in [
            ("0009:01:00.0", "0009:01:00.0"),
            ("11:00.0", "0000:11:00.0"),
            ("9:1:1f.7", "0009:01:1f.7"),
            ("10000:E1:00.0", "10000:e1:00.0"),
        ] {
            assert_eq!(text.parse::<HostAddress>().unwrap().to_string(), full);
        }
    }

    #[test]
    fn what_is_no_address_is_refused_with_an_example() {
        for text in ["", "nvme0", "11", "11:00", "11:00.8", "11:20.0", "0000:111:00.0", "0:0:0:0.0", "+1:00.0", "1:.0"]
        {
            assert!(text.parse::<HostAddress>().unwrap_err().contains("such as 0000:01:00.0"), "{text}");
        }
    }
}
