//! What the tables describe: plain data that whoever owns the machine fills in.
//!
//! Nothing here is invented by this crate. Addresses and sizes are guest physical bytes, interrupts are counted as ACPI
//! counts them (INTID: an SPI is 32 or more, a PPI 16 to 31).

/// A whole machine as its tables see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    /// MPIDR_EL1 affinity fields of each vCPU (Aff3 in bits 39:32, Aff2..Aff0 in bits 23:0). The index is the
    /// processor's `_UID`; there are at most 65536.
    pub cpus: Vec<u64>,
    /// PPI of the PMU's overflow interrupt, if the vCPUs have a PMU (KVM: 23).
    pub pmu_gsiv: Option<u32>,
    /// Interrupt controller.
    pub gic: Gic,
    /// PL011 console.
    pub serial: WiredDevice,
    /// PL031 clock. Its window must be the PL031's 4 KiB: Linux reads the peripheral ID at its end.
    pub rtc: WiredDevice,
    /// Generic event device; see [`crate::build`] for its register. Its interrupt is edge-triggered.
    pub ged: WiredDevice,
    /// PCI segment 0.
    pub pci: Pci,
}

/// A range of guest physical addresses; size 0 means that there is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Window {
    /// First address.
    pub base: u64,
    /// Length in bytes.
    pub size: u64,
}

/// A platform device with a register window and one wired interrupt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WiredDevice {
    /// Registers.
    pub window: Window,
    /// Its interrupt.
    pub gsiv: u32,
}

/// GICv3 with one ITS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gic {
    /// Base of GICD.
    pub distributor: u64,
    /// All GICR frames, 128 KiB for each vCPU.
    pub redistributors: Window,
    /// Base of the ITS.
    pub its: u64,
    /// Identifier that binds the ITS's MADT entry to the IORT's ITS group.
    pub its_identifier: u32,
}

/// PCI segment 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pci {
    /// ECAM: 1 MiB for each bus from bus 0.
    pub ecam: Window,
    /// Where the host kernel maps its ITS pages into every stage 2; multiples of 64 KiB. Functions behind a vSMMU are
    /// programmed with addresses in it, so a guest's stage 1 has to map it to itself: one RMR for each vSMMU says so.
    pub msi_window: Window,
    /// All host bridges: pcie.0 and the expanders.
    pub bridges: Vec<HostBridge>,
    /// All vSMMUs.
    pub smmus: Vec<Smmu>,
    /// Whether the root complex supports ATS. IORT has one such flag for the segment: it is set if any vSMMU has ATS, and
    /// functions behind others must not show their ATS capability.
    pub ats: bool,
    /// Bits of the widest PASID that the root complex lets through to any vSMMU, 0 to 20; 0 is none.
    pub pasid_bits: u8,
    /// Whether every function's accesses can be forced to be coherent (IORT: CANWBS), as a host does with CANWBS or
    /// S2FWB. IORT has one such flag for the segment.
    pub canwbs: bool,
}

/// A host bridge: the root of one hierarchy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostBridge {
    /// `_UID`, unique in the machine.
    pub uid: u32,
    /// Its root bus and the last bus below it. No two bridges share a bus.
    pub buses: BusRange,
    /// Window below 4 GiB.
    pub mmio32: Window,
    /// Window above 4 GiB.
    pub mmio64: Window,
}

/// PCI bus numbers, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct BusRange {
    /// First bus.
    pub first: u8,
    /// Last bus.
    pub last: u8,
}

/// A vSMMUv3.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Smmu {
    /// `identifier` of its IORT node, unique in the machine.
    pub identifier: u32,
    /// Base of its 128 KiB of registers.
    pub base: u64,
    /// Interrupt of the event queue (edge).
    pub event_gsiv: u32,
    /// Interrupt of global errors (edge).
    pub gerror_gsiv: u32,
    /// Interrupt of CMD_SYNC completion (edge).
    pub sync_gsiv: u32,
    /// The buses whose functions are behind it: StreamID = requester ID.
    pub buses: BusRange,
    /// Those of them that are in use: the root bus and secondary..=subordinate of each root port. The host's MSI window
    /// is reserved for these; every bus costs the guest 256 stream table entries, so not more than needed.
    pub buses_in_use: Vec<BusRange>,
}
