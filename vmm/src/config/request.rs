//! What a machine is asked to be. The help text of every option is the documentation of its field.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::de::value::MapAccessDeserializer;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::{Error, HostAddress, Size, VsmmuRequest, options};

/// A machine as the user asks for it. What is not given has a default, or is an error of the Plan.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::Args)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Request {
    /// The guest's kernel: an arm64 Image, plain or compressed with gzip.
    #[arg(long, value_name = "IMAGE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kernel: Option<PathBuf>,

    /// The guest's initial RAM disk.
    #[arg(long, value_name = "FILE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub initrd: Option<PathBuf>,

    /// The kernel's command line [default: empty].
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cmdline: Option<String>,

    /// Number of vCPUs [default: 1].
    #[arg(long, value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpus: Option<u16>,

    /// Guest memory, such as 512M or 4G [default: 1G].
    #[arg(long, value_name = "SIZE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<Size>,

    /// Give a host PCI function to the guest, behind the vSMMU of its host SMMU; may be repeated.
    ///
    /// Keys: host=DDDD:BB:DD.F (the key itself may be left out); slot=N, its physical slot number in the guest, of which
    /// udev makes the names of network interfaces.
    #[arg(long, value_name = "BDF[,KEY=VALUE...]")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub device: Vec<DeviceRequest>,

    /// What the vSMMUs show to the guest; may be repeated.
    ///
    /// Keys: host=smmu3.0x... names one host SMMU, which gets a vSMMU even without devices; without it the others hold
    /// for all. ats, ril, gran4k, gran16k, gran64k, asid16, two-level-streams and two-level-contexts are auto, on or
    /// off; ssidsize (or pasid), oas, bbml, stall-model and term-model are auto, off or a number. 'auto' is what the host
    /// and all devices behind it have; what is asked for and not had is an error.
    #[arg(long, value_name = "KEY=VALUE[,...]")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub vsmmu: Vec<VsmmuRequest>,

    /// What a reset by the guest does: boot again in place, or end nestling [default: reboot].
    #[arg(long, value_name = "reboot|exit")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_reset: Option<OnReset>,

    /// Write counters of the vSMMUs and vCPUs to this file at the end, as JSON.
    #[arg(long, value_name = "FILE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stats: Option<PathBuf>,
}

impl Request {
    /// Memory if nothing is said about it.
    pub const DEFAULT_MEMORY: Size = Size(1 << 30);

    /// Reads a TOML file. Paths of files in it are relative to its folder.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let text = std::fs::read_to_string(path).map_err(|source| Error::Read { path: path.into(), source })?;
        let mut request: Self = toml::from_str(&text).map_err(|error| {
            let before = &text.as_bytes()[..error.span().map_or(0, |span| span.start.min(text.len()))];
            let line = 1 + before.iter().filter(|&&byte| byte == b'\n').count();
            Error::Toml { path: path.into(), line, message: error.message().replace('\n', " ") }
        })?;
        if let Some(folder) = path.parent() {
            for file in [&mut request.kernel, &mut request.initrd, &mut request.stats].into_iter().flatten() {
                // Joining an absolute path gives that path.
                *file = folder.join(&*file);
            }
        }
        Ok(request)
    }

    /// This request where `over` says nothing; devices of `over` replace all devices of this, and so do vSMMUs.
    pub fn overridden_by(self, over: Self) -> Self {
        Self {
            kernel: over.kernel.or(self.kernel),
            initrd: over.initrd.or(self.initrd),
            cmdline: over.cmdline.or(self.cmdline),
            cpus: over.cpus.or(self.cpus),
            memory: over.memory.or(self.memory),
            device: if over.device.is_empty() { self.device } else { over.device },
            vsmmu: if over.vsmmu.is_empty() { self.vsmmu } else { over.vsmmu },
            on_reset: over.on_reset.or(self.on_reset),
            stats: over.stats.or(self.stats),
        }
    }

    /// What is no part of the machine but of running it.
    pub fn run_options(&self) -> RunOptions {
        RunOptions { on_reset: self.on_reset.unwrap_or_default(), stats: self.stats.clone() }
    }
}

/// How a machine is run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RunOptions {
    /// What a reset by the guest does.
    pub on_reset: OnReset,
    /// Where counters are written at the end.
    pub stats: Option<PathBuf>,
}

/// What a reset by the guest does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnReset {
    /// The guest boots again in place.
    #[default]
    Reboot,
    /// nestling ends as if the guest had powered off.
    Exit,
}

impl FromStr for OnReset {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        use de::IntoDeserializer;
        let value: de::value::StrDeserializer<'_, de::value::Error> = text.into_deserializer();
        Self::deserialize(value).map_err(|_| "valid values: reboot, exit".into())
    }
}

/// A host PCI function that the guest is to have: a string (`"0009:01:00.0,slot=5"`) or a table with the same keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", remote = "Self")]
pub struct DeviceRequest {
    /// Its address on the host.
    pub host: HostAddress,
    /// Physical slot number of its root port, from 1; assigned in order if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slot: Option<u16>,
}

impl DeviceRequest {
    /// A device with nothing else said about it.
    pub const fn new(host: HostAddress) -> Self {
        Self { host, slot: None }
    }
}

impl Serialize for DeviceRequest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // The function that `remote` derives comes before the trait's.
        Self::serialize(self, serializer)
    }
}

impl<'de> Deserialize<'de> for DeviceRequest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = DeviceRequest;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a device: \"DDDD:BB:DD.F,key=value\" or a table")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<DeviceRequest, E> {
                text.parse().map_err(E::custom)
            }
            fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<DeviceRequest, A::Error> {
                DeviceRequest::deserialize(MapAccessDeserializer::new(map))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

impl FromStr for DeviceRequest {
    type Err = options::Error;

    fn from_str(text: &str) -> Result<Self, options::Error> {
        options::from_str(text, "host")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(text: &str) -> Result<DeviceRequest, String> {
        text.parse().map_err(|error: options::Error| error.to_string())
    }

    fn file(text: &str) -> Result<Request, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("vm.toml");
        std::fs::write(&path, text).unwrap();
        let message = |error: Error| error.to_string().replace(&format!("{}/", folder.path().display()), "");
        let mut request = Request::read(&path).map_err(message)?;
        for file in [&mut request.kernel, &mut request.initrd].into_iter().flatten() {
            if let Ok(relative) = file.strip_prefix(folder.path()) {
                *file = relative.into();
            }
        }
        Ok(request)
    }

    #[test]
    fn a_device_is_an_address_with_keys() {
        let nvme = DeviceRequest::new("0000:11:00.0".parse().unwrap());
        assert_eq!(device("0000:11:00.0"), Ok(nvme.clone()));
        assert_eq!(device("host=11:00.0"), Ok(nvme.clone()));
        assert_eq!(device("11:00.0,slot=7"), Ok(DeviceRequest { slot: Some(7), ..nvme }));
    }

    #[test]
    fn a_device_that_cannot_be_read_says_what_is_valid() {
        assert_eq!(device("11:00.0,ats=on"), Err("unknown key 'ats'; valid keys: host, slot".into()));
        assert_eq!(device("slot=7"), Err("key 'host' is missing".into()));
        assert!(device("nvme0").unwrap_err().starts_with("'nvme0' is not a PCI address; write DDDD:BB:DD.F"));
        assert_eq!(device("11:00.0,slot=first"), Err("slot: 'first' is not a whole number".into()));
    }

    #[test]
    fn a_file_has_the_same_keys_as_the_command_line() {
        let request = file(
            r#"
            kernel = "Image"
            initrd = "/boot/initrd.img"
            cmdline = "console=ttyAMA0"
            cpus = 2
            memory = "2G"
            on-reset = "exit"
            device = ["11:00.0,slot=7", { host = "0009:01:00.0" }]
            vsmmu = ["ril=off", { host = "smmu3.0xc000000", ats = false }]
            "#,
        );
        let devices = vec![device("11:00.0,slot=7").unwrap(), DeviceRequest::new("0009:01:00.0".parse().unwrap())];
        let expected = Request {
            kernel: Some("Image".into()),
            initrd: Some("/boot/initrd.img".into()),
            cmdline: Some("console=ttyAMA0".into()),
            cpus: Some(2),
            memory: Some(Size(2 << 30)),
            device: devices,
            vsmmu: vec!["ril=off".parse().unwrap(), "smmu3.0xc000000,ats=off".parse().unwrap()],
            on_reset: Some(OnReset::Exit),
            stats: None,
        };
        assert_eq!(request, Ok(expected.clone()));
        assert_eq!(toml::from_str::<Request>(&toml::to_string(&expected).unwrap()).unwrap(), expected);
    }

    #[test]
    fn the_example_is_a_request() {
        let request = file(include_str!("../../../resources/examples/two-nvme.toml")).unwrap();
        assert_eq!(request.device, [device("0000:11:00.0").unwrap(), device("0000:21:00.0,slot=7").unwrap()]);
        assert_eq!(request.memory, Some(Request::DEFAULT_MEMORY));
    }

    #[test]
    fn a_file_that_cannot_be_read_says_where_and_what_is_valid() {
        let refused = file("cpus = 2\nmemroy = \"1G\"\n").unwrap_err();
        assert!(
            refused.starts_with("vm.toml:2: unknown field `memroy`, expected one of `kernel`, `initrd`"),
            "{refused}"
        );
        let refused = file("device = [\"11:00.0,x\"]").unwrap_err();
        assert_eq!(refused, "vm.toml:1: unknown key 'x'; valid keys: host, slot");
        let refused = file("[[device]]\nhost = \"11:00.0\"\nslit = 3").unwrap_err();
        assert!(refused.starts_with("vm.toml:3: unknown field `slit`, expected `host` or `slot`"), "{refused}");
        assert!(file("memory = \"much\"").unwrap_err().contains("'much' is not a size"));
        assert!(file("cpus = -1").unwrap_err().starts_with("vm.toml:1: "));
        let missing = Request::read(Path::new("/nonexistent.toml")).unwrap_err().to_string();
        assert_eq!(missing, "configuration file '/nonexistent.toml' cannot be read");
    }

    #[test]
    fn what_is_said_later_overrides() {
        let file = Request {
            cpus: Some(2),
            memory: Some(Size(1 << 30)),
            device: vec![device("11:00.0").unwrap()],
            ..Request::default()
        };
        let options = Request { cpus: Some(4), ..Request::default() };
        let both = file.clone().overridden_by(options);
        assert_eq!((both.cpus, both.memory, both.device.len()), (Some(4), Some(Size(1 << 30)), 1));
        let other = Request { device: vec![device("12:00.0").unwrap()], ..Request::default() };
        assert_eq!(file.clone().overridden_by(other.clone()).device, other.device);
        let vsmmu = |text: &str| Request { vsmmu: vec![text.parse().unwrap()], ..Request::default() };
        assert_eq!(vsmmu("ats=on").overridden_by(vsmmu("ril=off")).vsmmu, vsmmu("ril=off").vsmmu);
        assert_eq!(vsmmu("ats=on").overridden_by(file).vsmmu, vsmmu("ats=on").vsmmu);
    }
}
