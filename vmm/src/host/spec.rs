//! What a host has, as data: read once, then only looked at. It can be written to a file and read back.

use std::path::PathBuf;

use nestling_devices::smmuv3::physical::HostCapabilities;
use serde::{Deserialize, Serialize};

use crate::config::HostAddress;

/// A host. Sizes in bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Inventory {
    /// Host memory.
    pub memory: Memory,
    /// How much this process may pin.
    pub memlock: Memlock,
    /// What KVM offers; none where it was not asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kvm: Option<KvmLimits>,
    /// `/dev/kvm`.
    pub dev_kvm: Access,
    /// `/dev/iommu`.
    pub dev_iommu: Access,
    /// Every PCI function, by address.
    #[serde(default)]
    pub devices: Vec<HostDevice>,
    /// Every IOMMU group that has a PCI function, by number.
    #[serde(default)]
    pub groups: Vec<IommuGroup>,
    /// Every SMMUv3, as sysfs names it.
    #[serde(default)]
    pub smmus: Vec<String>,
}

/// Host memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Memory {
    /// All of it (`MemTotal`).
    pub total: u64,
    /// What can be had without swapping (`MemAvailable`).
    pub available: u64,
    /// Size of a page.
    pub page_size: u64,
}

/// How much memory this process may pin for DMA.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Memlock {
    /// RLIMIT_MEMLOCK (soft); none is unlimited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
    /// Whether the process has CAP_IPC_LOCK: then iommufd does not count (`iopt_alloc_pages`,
    /// drivers/iommu/iommufd/pages.c).
    pub exempt: bool,
}

/// What KVM offers to one VM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct KvmLimits {
    /// Most vCPUs (KVM_CAP_MAX_VCPUS).
    pub max_cpus: u16,
    /// Widest guest physical address, in bits (KVM_CAP_ARM_VM_IPA_SIZE).
    pub ipa_bits: u8,
}

/// Whether a device file can be opened for reading and writing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Access {
    /// It can.
    Ok,
    /// Its permissions forbid it.
    Denied,
    /// There is no such file.
    #[default]
    Missing,
}

/// A PCI function of the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct HostDevice {
    /// Where it is.
    pub address: HostAddress,
    /// Vendor ID.
    pub vendor: u16,
    /// Device ID.
    pub device: u16,
    /// Class code: base class, subclass, programming interface.
    pub class: u32,
    /// Whether it has the configuration header of a bridge (type 1 or 2).
    #[serde(default)]
    pub bridge: bool,
    /// The driver it is bound to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub driver: Option<String>,
    /// The IOMMU it is behind, as sysfs names it (`smmu3.0x000000000c000000`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iommu: Option<String>,
    /// The number of its IOMMU group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iommu_group: Option<u32>,
    /// Its VFIO character device; only with a VFIO driver.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cdev: Option<Cdev>,
    /// Memory BARs, ascending; I/O port BARs are left out.
    #[serde(default)]
    pub bars: Vec<HostBar>,
    /// NUMA node of the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub numa_node: Option<u32>,
    /// For an SR-IOV virtual function: its physical function.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub physical_function: Option<HostAddress>,
    /// What the kernel tells of its SMMU.
    #[serde(default, skip_serializing_if = "SmmuAnswer::is_missing")]
    pub smmu: SmmuAnswer,
}

/// What the kernel tells of the SMMU of a device, which is not in sysfs; see [`super::ask`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SmmuAnswer {
    /// It was not asked.
    #[default]
    NotAsked,
    /// It could not be asked, because of this.
    Unknown(String),
    /// What it answered.
    Known(HostCapabilities),
}

impl SmmuAnswer {
    fn is_missing(&self) -> bool {
        *self == Self::NotAsked
    }
}

/// A VFIO character device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Cdev {
    /// `/dev/vfio/devices/vfioN`.
    pub path: PathBuf,
    /// Whether it can be opened.
    pub access: Access,
}

/// A memory BAR of the host's device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct HostBar {
    /// BAR number, 0 to 5.
    pub index: u8,
    /// Size, a power of two.
    pub size: u64,
    /// Whether it takes two BAR registers (64 bits).
    pub wide: bool,
    /// Whether it is prefetchable.
    pub prefetchable: bool,
}

/// An IOMMU group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct IommuGroup {
    /// Its number.
    pub number: u32,
    /// Its PCI functions, by address.
    pub members: Vec<HostAddress>,
    /// Addresses that cannot be IOVAs of its devices.
    #[serde(default)]
    pub reserved: Vec<ReservedRegion>,
}

/// A line of a group's `reserved_regions`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct ReservedRegion {
    /// First IOVA.
    pub start: u64,
    /// Last IOVA.
    pub last: u64,
    /// `direct`, `direct-relaxable`, `reserved` or `msi`.
    pub kind: String,
}
