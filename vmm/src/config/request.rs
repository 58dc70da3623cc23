//! What a machine is asked to be. The help text of every option is the documentation of its field.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::de::value::MapAccessDeserializer;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::{Error, HostAddress, Size, options};

/// A machine as the user asks for it. What is not given has a default, or is an error of the Plan.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::Args)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Request {
    /// The guest's kernel: an arm64 Image, not compressed.
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

    /// Give a host PCI function to the guest, behind the vSMMU of its host SMMU. May be repeated. Keys: host=DDDD:BB:DD.F
    /// (the key itself may be left out), slot=N (physical slot number in the guest, of which udev makes the names of
    /// network interfaces).
    #[arg(long, value_name = "BDF[,KEY=VALUE...]")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub device: Vec<DeviceRequest>,

    /// What a reset by the guest does: boot again in place, or end nestling [default: reboot].
    #[arg(long, value_name = "reboot|exit")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_reset: Option<OnReset>,

    /// Write counters of the vSMMUs and vCPUs to this file at the end, as JSON.
    #[arg(long, value_name = "FILE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stats_file: Option<PathBuf>,
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
            for file in [&mut request.kernel, &mut request.initrd, &mut request.stats_file].into_iter().flatten() {
                // Joining an absolute path gives that path.
                *file = folder.join(&*file);
            }
        }
        Ok(request)
    }

    /// This request where `over` says nothing; devices of `over` replace all devices of this.
    pub fn overridden_by(self, over: Self) -> Self {
        Self {
            kernel: over.kernel.or(self.kernel),
            initrd: over.initrd.or(self.initrd),
            cmdline: over.cmdline.or(self.cmdline),
            cpus: over.cpus.or(self.cpus),
            memory: over.memory.or(self.memory),
            device: if over.device.is_empty() { self.device } else { over.device },
            on_reset: over.on_reset.or(self.on_reset),
            stats_file: over.stats_file.or(self.stats_file),
        }
    }

    /// What is no part of the machine but of running it.
    pub fn run_options(&self) -> RunOptions {
        RunOptions { on_reset: self.on_reset.unwrap_or_default(), stats_file: self.stats_file.clone() }
    }
}

/// How a machine is run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RunOptions {
    /// What a reset by the guest does.
    pub on_reset: OnReset,
    /// Where counters are written at the end.
    pub stats_file: Option<PathBuf>,
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
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        options::from_str(text, "host").map_err(|error| Error::Option { text: text.into(), message: error.to_string() })
    }
}
