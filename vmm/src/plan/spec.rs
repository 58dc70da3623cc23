//! The Plan: every address, bus number, StreamID, interrupt and window of one machine, decided once.
//!
//! Types only. Who builds a machine or its ACPI tables reads them from here and invents nothing. Addresses and sizes
//! are guest physical bytes and are written as hexadecimal strings.

use std::fmt;
use std::path::PathBuf;

use nestling_devices::smmuv3::capabilities::{Value, Values};
use serde::{Deserialize, Serialize};

use super::hex;
use crate::config::VsmmuRequest;

/// A whole machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Plan {
    /// What is loaded and started.
    pub boot: Boot,
    /// Number of vCPUs, from 1.
    pub cpus: u16,
    /// Guest RAM, one piece.
    pub memory: Window,
    /// Width of guest physical addresses in bits, as KVM_CREATE_VM takes it.
    pub ipa_bits: u8,
    /// Interrupt controller.
    pub gic: Gic,
    /// PL011 console.
    pub serial: WiredDevice,
    /// PL031 clock.
    pub rtc: WiredDevice,
    /// Generic event device (power button).
    pub ged: WiredDevice,
    /// PCI segment 0.
    pub pci: Pci,
}

/// What is loaded and started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Boot {
    /// An arm64 Image.
    pub kernel: PathBuf,
    /// An initial RAM disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub initrd: Option<PathBuf>,
    /// The kernel's command line, without a NUL.
    #[serde(default)]
    pub cmdline: String,
}

/// A range of guest physical addresses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Window {
    /// First address.
    #[serde(with = "hex")]
    pub base: u64,
    /// Length in bytes; 0 means that there is no such window.
    #[serde(with = "hex")]
    pub size: u64,
}

impl Window {
    /// The first address behind the window. A valid Plan has none that ends above 2^52.
    pub const fn end(&self) -> u64 {
        self.base.saturating_add(self.size)
    }

    /// The first address behind the window; `None` if 64 bits are too few.
    pub const fn checked_end(&self) -> Option<u64> {
        self.base.checked_add(self.size)
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.size {
            0 => f.write_str("nowhere"),
            _ => write!(f, "{:#x}..={:#x}", self.base, self.end() - 1),
        }
    }
}

/// A platform device with a register window and one wired interrupt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct WiredDevice {
    /// Registers.
    pub window: Window,
    /// Its interrupt as ACPI counts (INTID; an SPI is 32 or more).
    pub gsiv: u32,
}

/// GICv3 with one ITS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Gic {
    /// GICD.
    pub distributor: Window,
    /// GICR frames, 128 KiB for each vCPU.
    pub redistributors: Window,
    /// ITS, 128 KiB.
    pub its: Window,
    /// Number of interrupts (SGI, PPI and SPI together), a multiple of 32.
    pub interrupts: u32,
}

/// The PCI segment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Pci {
    /// ECAM of all 256 buses.
    pub ecam: Window,
    /// IOVAs behind which the host kernel maps the doorbell of its ITS into every stage 2. Functions are programmed with
    /// addresses in it, so a guest's stage 1 has to map it to itself.
    pub msi_window: Window,
    /// pcie.0: its emulated functions are behind no vSMMU.
    pub root: RootBus,
    /// One for each host SMMU, by ascending bus number.
    pub expanders: Vec<Expander>,
}

/// A host bridge with its buses and windows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct RootBus {
    /// The root bus.
    pub bus: u8,
    /// The last bus below it.
    pub last_bus: u8,
    /// Window below 4 GiB, for BARs that are not prefetchable.
    pub mmio32: Window,
    /// Window above 4 GiB, for prefetchable BARs.
    pub mmio64: Window,
}

/// A pxb-pcie expander and the vSMMU that all its functions are behind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Expander {
    /// Name in messages and output: `vsmmu0`, `vsmmu1`, ...
    pub name: String,
    /// Where the expander itself shows on pcie.0 (device number; function 0).
    pub device: u8,
    /// Its root bus and windows.
    pub root: RootBus,
    /// Its vSMMU.
    pub smmu: Smmu,
    /// Its root ports.
    pub ports: Vec<RootPort>,
}

/// A vSMMUv3.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Smmu {
    /// Name of the host SMMU as sysfs has it (`smmu3.0x000000000c000000`).
    pub host: String,
    /// Both 64 KiB register pages.
    pub window: Window,
    /// Interrupt of the event queue (INTID, edge).
    pub event_gsiv: u32,
    /// Interrupt of global errors (INTID, edge).
    pub gerror_gsiv: u32,
    /// Interrupt of CMD_SYNC completion (INTID, edge).
    pub sync_gsiv: u32,
    /// `identifier` of its IORT node.
    pub iort_identifier: u32,
    /// What the user asked for.
    #[serde(default, skip_serializing_if = "VsmmuRequest::is_empty")]
    pub wishes: VsmmuRequest,
    /// What the guest sees, frozen; none if nobody could ask the host: then it is decided before the guest starts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub features: Option<Values>,
    /// Whether the host SMMU can stall what faults, as one of its devices told before any was here: then the entries of
    /// devices that come later get S1STALLD. With devices here they tell themselves.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub disable_stall: bool,
    /// Why nobody could ask the host, if somebody tried.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unknown: Option<String>,
    /// Why the features are what they are. For people: nobody goes by it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub report: Vec<FeatureRow>,
}

/// One field of a vSMMU.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct FeatureRow {
    /// Its name, as options have it.
    pub field: String,
    /// What the guest sees.
    pub guest: Value,
    /// What the host has, together with the devices; none where it plays no role or is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<Value>,
    /// Why.
    pub reason: String,
}

/// A PCIe root port of an expander.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct RootPort {
    /// Device number on the expander's root bus; function 0.
    pub device: u8,
    /// Physical slot number, unique in the machine.
    pub slot: u16,
    /// Bus behind the port.
    pub secondary_bus: u8,
    /// Last bus behind the port.
    pub subordinate_bus: u8,
    /// Memory window of the bridge (1 MiB granules).
    pub mmio32: Window,
    /// Prefetchable window of the bridge (1 MiB granules).
    pub mmio64: Window,
    /// The port's own BAR 0 (MSI-X table).
    pub bar0: Window,
    /// The assigned function behind the port; none keeps the port free.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub function: Option<AssignedFunction>,
}

/// A host PCI function given to the guest, at device 0 function 0 of its port's secondary bus.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct AssignedFunction {
    /// Host address, `DDDD:BB:DD.F`.
    pub host: String,
    /// VFIO character device.
    pub cdev: PathBuf,
    /// `VVVV:DDDD`, for messages and output.
    pub id: String,
    /// StreamID in its vSMMU: the guest requester ID.
    #[serde(with = "hex")]
    pub stream_id: u64,
    /// NUMA node of the host that it is at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub numa_node: Option<u32>,
    /// Whether it works with ATS only.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub requires_ats: bool,
    /// Memory BARs in ascending order.
    pub bars: Vec<Bar>,
}

/// A memory BAR and where the guest finds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Bar {
    /// BAR number, 0 to 5.
    pub index: u8,
    /// Address and size.
    pub window: Window,
    /// Whether it takes two BAR registers.
    pub wide: bool,
    /// Whether it is prefetchable.
    pub prefetchable: bool,
}
