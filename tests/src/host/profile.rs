//! Host profiles: which SMMUs, ports and devices an emulated host has, as data from `resources/lab/*.toml`.

use serde::Deserialize;

use super::Error;

/// The profile of a host when nobody asks for another one.
pub const DEFAULT: &str = "two-nvme";

/// Every profile that comes with the lab: name and text.
const PROFILES: &[(&str, &str)] = &[
    ("two-nvme", include_str!("../../../resources/lab/two-nvme.toml")),
    ("grace", include_str!("../../../resources/lab/grace.toml")),
    ("no-canwbs", include_str!("../../../resources/lab/no-canwbs.toml")),
    ("no-nesting", include_str!("../../../resources/lab/no-nesting.toml")),
    ("shared-group", include_str!("../../../resources/lab/shared-group.toml")),
];

/// One emulated host.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// The name of its file, without the ending.
    #[serde(skip)]
    pub name: String,
    /// What the host is, in one line.
    pub summary: String,
    /// How many processors.
    pub cpus: u32,
    /// How much memory, in MiB.
    pub memory_mib: u32,
    /// Whether the IORT says that devices may override the caching of their accesses (CANWBS). Without it the kernel
    /// refuses to nest, which is worth a test of its own.
    #[serde(default = "yes")]
    pub canwbs: bool,
    /// The SMMUs, each with an expander bus of its own.
    #[serde(default)]
    pub smmu: Vec<Smmu>,
}

/// One SMMUv3 with a PCIe expander below it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Smmu {
    /// Bus number of the expander; the device behind its port n is on bus `bus + 1 + n`.
    pub bus: u8,
    /// Its stages of translation. With one of them alone the kernel refuses to nest.
    #[serde(default)]
    pub stage: Stage,
    /// The devices, each behind a root port of its own.
    pub devices: Vec<Device>,
}

/// Which stages of translation an SMMU has (SMMU_IDR0.S1P and S2P).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub enum Stage {
    /// Both.
    #[default]
    #[serde(rename = "nested")]
    Nested,
    /// Stage 1 only.
    #[serde(rename = "1")]
    One,
    /// Stage 2 only.
    #[serde(rename = "2")]
    Two,
}

impl Stage {
    /// As profiles and QEMU write it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Nested => "nested",
            Self::One => "1",
            Self::Two => "2",
        }
    }
}

/// A device that QEMU emulates.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(tag = "model", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Device {
    /// An NVMe drive on a sparse image that lives as long as the host.
    Nvme {
        /// Size of the drive.
        disk_mib: u64,
    },
    /// A card with two NVMe functions and no ACS, hence in one IOMMU group.
    NvmePair {
        /// Size of each drive.
        disk_mib: u64,
    },
    /// Intel 82576 network card with SR-IOV, on a user-mode network of its own.
    Igb {
        /// Virtual functions that the host turns on; 0 gives the physical function to guests instead.
        #[serde(default)]
        vfs: u16,
    },
    /// Intel 82574 network card, on a user-mode network of its own.
    E1000e,
    /// A teaching device: DMA between any two addresses, and an MSI when told so.
    Edu,
    /// A device whose only use is its large 64-bit BAR.
    PciTestdev {
        /// Size of that BAR.
        bar_gib: u64,
    },
}

impl Device {
    /// How many NVMe drives it has, one for each of its functions, and the size of each in MiB.
    #[must_use]
    pub fn drives(&self) -> (u8, u64) {
        match self {
            Self::Nvme { disk_mib } => (1, *disk_mib),
            Self::NvmePair { disk_mib } => (2, *disk_mib),
            _ => (0, 0),
        }
    }
}

impl Profile {
    /// The profile of this name.
    ///
    /// # Errors
    /// [`Error::NoProfile`] with the names there are.
    pub fn named(name: &str) -> Result<Self, Error> {
        let Some((_, text)) = PROFILES.iter().find(|(known, _)| *known == name) else {
            let known = PROFILES.iter().map(|(known, _)| *known).collect::<Vec<_>>().join(", ");
            return Err(Error::NoProfile { name: name.to_owned(), known });
        };
        Self::parse(name, text)
    }

    /// The profile for a program: tests in the binaries `grace` and `grace_faults` run on the host `grace`, every other
    /// program on [`DEFAULT`].
    #[must_use]
    pub fn name_for(program: &str) -> &'static str {
        let is_for = |name: &&str| {
            program.strip_prefix(&name.replace('-', "_")).is_some_and(|rest| rest.is_empty() || rest.starts_with('_'))
        };
        PROFILES.iter().map(|(name, _)| *name).find(is_for).unwrap_or(DEFAULT)
    }

    fn parse(name: &str, text: &str) -> Result<Self, Error> {
        let profile: Self = toml::from_str(text)
            .map_err(|source| Error::BadProfile { name: name.to_owned(), source: Box::new(source) })?;
        Ok(Self { name: name.to_owned(), ..profile })
    }

    /// Physical functions whose virtual functions the host turns on: address on the host's PCI, and how many.
    pub fn sriov(&self) -> impl Iterator<Item = (String, u16)> + '_ {
        self.smmu.iter().flat_map(|smmu| {
            smmu.devices.iter().zip(1u8..).filter_map(|(device, port)| match device {
                Device::Igb { vfs } if *vfs > 0 => {
                    Some((format!("0000:{:02x}:00.0", smmu.bus.wrapping_add(port)), *vfs))
                }
                _ => None,
            })
        })
    }
}

fn yes() -> bool {
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_profile_that_comes_with_the_lab_is_valid() {
        for (name, _) in PROFILES {
            let profile = Profile::named(name).expect(name);
            assert_eq!(profile.name, *name);
            assert!(!profile.smmu.is_empty(), "{name} has no SMMU");
        }
    }

    #[test]
    fn the_buses_of_no_two_expanders_overlap() {
        for (name, _) in PROFILES {
            let profile = Profile::named(name).expect(name);
            let mut next = 1;
            for smmu in &profile.smmu {
                assert!(usize::from(smmu.bus) >= next, "{name}: expander {:#x} is inside another's buses", smmu.bus);
                next = usize::from(smmu.bus) + 1 + smmu.devices.len();
            }
        }
    }

    #[test]
    fn an_unknown_name_lists_the_known_ones() {
        let text = Profile::named("hopper").expect_err("there is no such profile").to_string();
        assert!(text.contains("'hopper'") && text.contains("two-nvme, grace"), "{text}");
    }

    #[test]
    fn an_unknown_key_is_refused() {
        assert!(Profile::parse("x", "summary = ''\ncpus = 1\nmemory_mib = 1\nsmmus = 3").is_err());
    }

    #[test]
    fn an_smmu_nests_unless_its_profile_says_otherwise() {
        let stages = |name: &str| -> Vec<Stage> {
            Profile::named(name).expect("it exists").smmu.iter().map(|smmu| smmu.stage).collect()
        };
        assert_eq!(stages("two-nvme"), [Stage::Nested, Stage::Nested]);
        assert_eq!(stages("no-nesting"), [Stage::Nested, Stage::One, Stage::Two]);
    }

    #[test]
    fn only_cards_with_virtual_functions_are_split() {
        let grace = Profile::named("grace").expect("it exists");
        assert_eq!(grace.sriov().collect::<Vec<_>>(), [("0000:31:00.0".to_owned(), 2)]);
        assert_eq!(Profile::named("two-nvme").expect("it exists").sriov().count(), 0);
    }

    #[test]
    fn a_test_binary_named_like_a_profile_runs_on_it() {
        assert_eq!(Profile::name_for("grace"), "grace");
        assert_eq!(Profile::name_for("grace_faults"), "grace");
        assert_eq!(Profile::name_for("gracefully"), DEFAULT);
        assert_eq!(Profile::name_for("two_nvme"), "two-nvme");
        assert_eq!(Profile::name_for("nestling_devices"), DEFAULT);
    }
}
