//! What a vSMMU is to show: `host=smmu3.0x...,ats=off,ssidsize=8`, or the same keys in a table.

use std::fmt;
use std::str::FromStr;

use nestling_devices::smmuv3::capabilities::{Wish, Wishes};
use serde::de::value::MapAccessDeserializer;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::options;
use super::wish;

/// Wishes for the vSMMU of one host SMMU, or of all: a string or a table with the same keys. A key that is not given is
/// said elsewhere, or `auto`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", remote = "Self", default)]
pub struct VsmmuRequest {
    /// The host SMMU as sysfs names it (`/sys/class/iommu`); all of them if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// PCIe ATS.
    #[serde(with = "wish", skip_serializing_if = "Option::is_none")]
    pub ats: Option<Wish<bool>>,
    /// SubstreamID (PASID) bits, 0 to 20.
    #[serde(with = "wish", skip_serializing_if = "Option::is_none", alias = "pasid")]
    pub ssidsize: Option<Wish<u8>>,
    /// Output address bits: 32, 36, 40, 42, 44, 48 or 52.
    #[serde(with = "wish", skip_serializing_if = "Option::is_none")]
    pub oas: Option<Wish<u8>>,
    /// Range invalidation.
    #[serde(with = "wish", skip_serializing_if = "Option::is_none")]
    pub ril: Option<Wish<bool>>,
    /// Break-before-make level, 0 to 2.
    #[serde(with = "wish", skip_serializing_if = "Option::is_none")]
    pub bbml: Option<Wish<u8>>,
    /// 4 KiB granule.
    #[serde(with = "wish", skip_serializing_if = "Option::is_none")]
    pub gran4k: Option<Wish<bool>>,
    /// 16 KiB granule.
    #[serde(with = "wish", skip_serializing_if = "Option::is_none")]
    pub gran16k: Option<Wish<bool>>,
    /// 64 KiB granule.
    #[serde(with = "wish", skip_serializing_if = "Option::is_none")]
    pub gran64k: Option<Wish<bool>>,
    /// 16-bit ASIDs.
    #[serde(with = "wish", skip_serializing_if = "Option::is_none")]
    pub asid16: Option<Wish<bool>>,
    /// 2-level stream tables.
    #[serde(with = "wish", skip_serializing_if = "Option::is_none")]
    pub two_level_streams: Option<Wish<bool>>,
    /// 2-level context descriptor tables.
    #[serde(with = "wish", skip_serializing_if = "Option::is_none")]
    pub two_level_contexts: Option<Wish<bool>>,
    /// SMMU_IDR0.STALL_MODEL; there is only 1, no stalls.
    #[serde(with = "wish", skip_serializing_if = "Option::is_none")]
    pub stall_model: Option<Wish<u8>>,
    /// SMMU_IDR0.TERM_MODEL, 0 or 1.
    #[serde(with = "wish", skip_serializing_if = "Option::is_none")]
    pub term_model: Option<Wish<u8>>,
}

impl VsmmuRequest {
    /// The wishes alone, for whichever host SMMU: what is not said here is what `others` say.
    pub fn over(&self, others: &Self) -> Self {
        Self {
            host: None,
            ats: self.ats.or(others.ats),
            ssidsize: self.ssidsize.or(others.ssidsize),
            oas: self.oas.or(others.oas),
            ril: self.ril.or(others.ril),
            bbml: self.bbml.or(others.bbml),
            gran4k: self.gran4k.or(others.gran4k),
            gran16k: self.gran16k.or(others.gran16k),
            gran64k: self.gran64k.or(others.gran64k),
            asid16: self.asid16.or(others.asid16),
            two_level_streams: self.two_level_streams.or(others.two_level_streams),
            two_level_contexts: self.two_level_contexts.or(others.two_level_contexts),
            stall_model: self.stall_model.or(others.stall_model),
            term_model: self.term_model.or(others.term_model),
        }
    }

    /// Whether nothing is wished for.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The host SMMU, with as many digits as the kernel writes: `smmu3.0xc000000` is `smmu3.0x000000000c000000`.
    pub fn host_smmu(&self) -> Option<String> {
        let host = self.host.as_ref()?;
        let address = host.strip_prefix("smmu3.0x").and_then(|digits| u64::from_str_radix(digits, 16).ok());
        Some(address.map_or_else(|| host.clone(), |address| format!("smmu3.0x{address:016x}")))
    }

    /// As the negotiation takes them.
    pub fn wishes(&self) -> Wishes {
        Wishes {
            ats: self.ats.unwrap_or_default(),
            ssidsize: self.ssidsize.unwrap_or_default(),
            oas: self.oas.unwrap_or_default(),
            ril: self.ril.unwrap_or_default(),
            bbml: self.bbml.unwrap_or_default(),
            gran4k: self.gran4k.unwrap_or_default(),
            gran16k: self.gran16k.unwrap_or_default(),
            gran64k: self.gran64k.unwrap_or_default(),
            asid16: self.asid16.unwrap_or_default(),
            two_level_streams: self.two_level_streams.unwrap_or_default(),
            two_level_contexts: self.two_level_contexts.unwrap_or_default(),
            stall_model: self.stall_model.unwrap_or_default(),
            term_model: self.term_model.unwrap_or_default(),
        }
    }
}

impl Serialize for VsmmuRequest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // The function that `remote` derives comes before the trait's.
        Self::serialize(self, serializer)
    }
}

impl<'de> Deserialize<'de> for VsmmuRequest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = VsmmuRequest;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a vSMMU: \"host=smmu3.0x...,key=value\" or a table")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<VsmmuRequest, E> {
                text.parse().map_err(E::custom)
            }
            fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<VsmmuRequest, A::Error> {
                VsmmuRequest::deserialize(MapAccessDeserializer::new(map))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

impl FromStr for VsmmuRequest {
    type Err = options::Error;

    fn from_str(text: &str) -> Result<Self, options::Error> {
        options::from_str(text, "host")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vsmmu(text: &str) -> Result<VsmmuRequest, String> {
        text.parse().map_err(|error: options::Error| error.to_string())
    }

    fn table(text: &str) -> Result<VsmmuRequest, String> {
        toml::from_str(text).map_err(|error: toml::de::Error| error.message().replace('\n', " "))
    }

    #[test]
    fn wishes_are_keys_in_text_and_in_tables() {
        let expected = VsmmuRequest {
            host: Some("smmu3.0xc000000".into()),
            ats: Some(Wish::Exactly(false)),
            ssidsize: Some(Wish::Exactly(8)),
            oas: Some(Wish::Auto),
            two_level_streams: Some(Wish::Exactly(true)),
            ..VsmmuRequest::default()
        };
        let text = "host=smmu3.0xc000000,ats=off,pasid=8,oas=auto,two-level-streams";
        assert_eq!(vsmmu(text), Ok(expected.clone()));
        assert_eq!(vsmmu("smmu3.0xc000000,ats=off,ssidsize=8,oas=auto,two-level-streams=on"), Ok(expected.clone()));
        let toml = "host = \"smmu3.0xc000000\"\nats = false\nssidsize = 8\noas = \"auto\"\ntwo-level-streams = \"on\"";
        assert_eq!(table(toml), Ok(expected.clone()));
        assert_eq!(table(&toml::to_string(&expected).unwrap()), Ok(expected));
    }

    #[test]
    fn off_turns_a_number_off() {
        assert_eq!(vsmmu("ssidsize=off").unwrap().ssidsize, Some(Wish::Exactly(0)));
        assert_eq!(table("bbml = false").unwrap().bbml, Some(Wish::Exactly(0)));
    }

    #[test]
    fn what_cannot_be_read_says_what_is_valid() {
        let unknown = vsmmu("ats=on,asid=1").unwrap_err();
        assert!(unknown.starts_with("unknown key 'asid'; valid keys: host, ats, pasid, ssidsize, "), "{unknown}");
        assert_eq!(vsmmu("ats=maybe"), Err("ats: 'maybe' is none of auto, on, off".into()));
        assert_eq!(vsmmu("ats=1"), Err("ats: '1' is none of auto, on, off".into()));
        assert_eq!(vsmmu("ssidsize=many"), Err("ssidsize: 'many' is none of auto, off, a number".into()));
        assert_eq!(vsmmu("ssidsize=on"), Err("ssidsize: 'on' is none of auto, off, a number".into()));
        assert_eq!(vsmmu("ssidsize=256"), Err("ssidsize: '256' is none of auto, off, a number".into()));
        assert!(table("ats = 3").unwrap_err().contains("'3' is none of auto, on, off"));
        assert!(table("oas = -1").unwrap_err().contains("'-1' is none of auto, off, a number"));
    }

    #[test]
    fn wishes_for_one_smmu_come_before_those_for_all() {
        let all = vsmmu("ats=off,ril=off,ssidsize=4").unwrap();
        let one = vsmmu("host=smmu3.0xc000000,ats=auto,ssidsize=8").unwrap();
        assert_eq!(one.over(&all), vsmmu("ats=auto,ril=off,ssidsize=8").unwrap());
        let Wishes { ats, ril, ssidsize, oas, .. } = one.over(&all).wishes();
        assert_eq!((ats, ril), (Wish::Auto, Wish::Exactly(false)));
        assert_eq!((ssidsize, oas), (Wish::Exactly(8), Wish::Auto));
    }

    #[test]
    fn a_host_smmu_may_be_written_without_its_zeroes() {
        let name = |text: &str| vsmmu(text).unwrap().host_smmu().unwrap();
        assert_eq!(name("smmu3.0xc000000"), "smmu3.0x000000000c000000");
        assert_eq!(name("smmu3.0x000000000c000000,ats=off"), "smmu3.0x000000000c000000");
        assert_eq!(name("dmar0"), "dmar0");
        assert_eq!(vsmmu("ats=off").unwrap().host_smmu(), None);
    }
}
