//! Where things are in the guest physical address space, as QEMU's `virt` machine has them.
//!
//! ```text
//!  0x0000_0000  flash      128 MiB less 64 KiB  (two banks; empty with direct boot)
//!  0x07ff_0000  ITS, control frame     64 KiB
//!  0x0800_0000  ITS, GITS_TRANSLATER   64 KiB  ┐ this MiB is also the MSI window of IOVA space:
//!  0x0808_0000  GICD                   64 KiB  │ never RAM, one RMR for each vSMMU
//!  0x080a_0000  GICR, 128 KiB per vCPU, <= 123 ┘
//!  0x0900_0000  PL011                   4 KiB  INTID 33
//!  0x0901_0000  PL031                   4 KiB  INTID 34
//!  0x0902_0000  fw_cfg                  4 KiB
//!  0x0908_0000  GED                     4 KiB  INTID 41
//!  0x0c00_0000  vSMMU 0, 1, ...       128 KiB  each; INTID 144 + 4 n
//!  0x1000_0000  PCI memory, 32 bits      752 MiB less 64 KiB
//!  0x4000_0000  RAM
//!  ...
//!  max(256 GiB, end of RAM, to the next GiB), each aligned to its own size:
//!               GICR of more than 123 vCPUs   64 MiB
//!               PCI ECAM, 256 buses          256 MiB
//!               PCI memory, 64 bits          512 GiB, or as asked for
//! ```
//!
//! Source of the addresses: QEMU `hw/arm/virt.c`, `base_memmap` and `extended_memmap`. Distribution firmware (AAVMF)
//! and every image that boots there boots here. The GIC alone is elsewhere, which a guest reads from its tables: a guest
//! that passes a device on (VFIO in the guest) lets stage 1 lead the device's messages, which the host sends to the first
//! page of the MSI window, to the frame of *its* GITS_TRANSLATER. Stage 2 has the doorbell at the first page of the window,
//! so that is where the frame is.
#![forbid(unsafe_code)]

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// A range of guest physical addresses, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    /// First address.
    pub base: u64,
    /// Length.
    pub size: u64,
}

impl Region {
    /// `size` bytes from `base` on.
    pub const fn new(base: u64, size: u64) -> Self {
        Self { base, size }
    }

    /// The first address behind it.
    ///
    /// # Panics
    /// If it ends above 2^64 - 1 (in debug builds); regions are made by the VMM, never by a guest.
    pub const fn end(&self) -> u64 {
        self.base + self.size
    }

    /// Whether the two have an address in common.
    pub const fn overlaps(&self, other: &Self) -> bool {
        self.base < other.end() && other.base < self.end()
    }

    /// Whether all of `other` lies inside.
    pub const fn contains(&self, other: &Self) -> bool {
        self.base <= other.base && other.end() <= self.end()
    }
}

/// Flash: a bank of 64 MiB, and one of 64 KiB less.
pub const FLASH: Region = Region::new(0, 128 * MIB - 64 * KIB);
/// GIC interrupt translation service: control frame, and at the start of [`MSI_WINDOW`] the translation frame.
pub const GIC_ITS: Region = Region::new(0x07ff_0000, 128 * KIB);
/// GIC distributor.
pub const GIC_DISTRIBUTOR: Region = Region::new(0x0808_0000, 64 * KIB);
/// Redistributors of up to 123 vCPUs.
pub const GIC_REDISTRIBUTORS: Region = Region::new(0x080a_0000, 0x00f6_0000);
/// PL011 console.
pub const SERIAL: Region = Region::new(0x0900_0000, 4 * KIB);
/// PL031 clock.
pub const RTC: Region = Region::new(0x0901_0000, 4 * KIB);
/// fw_cfg.
pub const FW_CFG: Region = Region::new(0x0902_0000, 4 * KIB);
/// Generic event device.
pub const GED: Region = Region::new(0x0908_0000, 4 * KIB);
/// Where vSMMUs can be; see [`smmu`].
pub const SMMUS: Region = Region::new(0x0c00_0000, 32 * MIB);
/// PCI memory below 4 GiB.
pub const PCI_MMIO32: Region = Region::new(0x1000_0000, 0x2eff_0000);
/// First address of RAM.
pub const RAM_BASE: u64 = 0x4000_0000;
/// IOVAs that the host kernel keeps for the MSI doorbell of a nested stream (`MSI_IOVA_BASE`, `MSI_IOVA_LENGTH` of
/// drivers/iommu/arm/arm-smmu-v3/arm-smmu-v3.c): no RAM here, and an RMR in the IORT.
pub const MSI_WINDOW: Region = Region::new(0x0800_0000, MIB);

/// INTID of the PL011 (level).
pub const SERIAL_INTID: u32 = 33;
/// INTID of the PL031 (level).
pub const RTC_INTID: u32 = 34;
/// INTID of the generic event device (edge).
pub const GED_INTID: u32 = 41;
/// INTID of the PMU's PPI on every vCPU (BSA 1.0, table of required PPIs).
pub const PMU_INTID: u32 = 23;

/// Size of one redistributor: RD_base and SGI_base frame.
pub const REDISTRIBUTOR_SIZE: u64 = 128 * KIB;
/// Offset of GITS_TRANSLATER from the ITS base (Arm IHI 0069, 12.20).
pub const GITS_TRANSLATER: u64 = 0x1_0040;
/// Register window of one vSMMU: page 0 and page 1.
pub const SMMU_SIZE: u64 = 128 * KIB;
/// Number of interrupts that the GIC is made with: all that KVM's distributor can have (a multiple of 32 below 1020).
pub const GIC_INTERRUPTS: u32 = 992;

/// INTID of vSMMU 0's first interrupt (as QEMU's platform bus).
const SMMU_INTID_BASE: u32 = 144;
/// Interrupts kept for each vSMMU.
const SMMU_INTIDS: u32 = 4;

/// How many vSMMUs have room (their INTIDs end first).
pub const MAX_SMMUS: u32 = (GIC_INTERRUPTS - SMMU_INTID_BASE) / SMMU_INTIDS;

/// Interrupts of one vSMMU (INTID, edge), in QEMU's order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SmmuInterrupts {
    /// Event queue not empty.
    pub event: u32,
    /// PRI queue not empty.
    pub pri: u32,
    /// CMD_SYNC complete.
    pub sync: u32,
    /// Global error.
    pub gerror: u32,
}

/// Registers of vSMMU `index`; `None` from [`MAX_SMMUS`] on.
pub const fn smmu(index: u32) -> Option<Region> {
    if index < MAX_SMMUS { Some(Region::new(SMMUS.base + index as u64 * SMMU_SIZE, SMMU_SIZE)) } else { None }
}

/// Interrupts of vSMMU `index`; `None` from [`MAX_SMMUS`] on.
pub const fn smmu_interrupts(index: u32) -> Option<SmmuInterrupts> {
    if index >= MAX_SMMUS {
        return None;
    }
    let first = SMMU_INTID_BASE + index * SMMU_INTIDS;
    Some(SmmuInterrupts { event: first, pri: first + 1, sync: first + 2, gerror: first + 3 })
}

/// The regions behind RAM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HighRegions {
    /// Redistributors when there are more than 123 vCPUs: room for 512.
    pub redistributors: Region,
    /// PCI ECAM of 256 buses.
    pub ecam: Region,
    /// PCI memory above 4 GiB.
    pub mmio: Region,
}

impl HighRegions {
    /// Places them behind `ram_size` bytes of RAM; the PCI window gets at least `mmio_size` bytes, rounded up to a
    /// power of two (512 GiB is QEMU's). `None` if 52 address bits are too few.
    pub fn new(ram_size: u64, mmio_size: u64) -> Option<Self> {
        let ram_end = RAM_BASE.checked_add(ram_size)?.checked_next_multiple_of(GIB)?;
        let redistributors = place(ram_end.max(256 * GIB), 64 * MIB)?;
        let ecam = place(redistributors.end(), 256 * MIB)?;
        let mmio = place(ecam.end(), mmio_size.max(GIB).checked_next_power_of_two()?)?;
        (mmio.end() <= 1 << 52).then_some(Self { redistributors, ecam, mmio })
    }
}

/// Default size of the 64-bit PCI window.
pub const HIGH_MMIO_SIZE: u64 = 512 * GIB;

/// Redistributors of `cpus` vCPUs: the low region where they fit, else the high one. `None` if there are too many.
pub fn redistributors(cpus: u16, high: &HighRegions) -> Option<Region> {
    let size = u64::from(cpus) * REDISTRIBUTOR_SIZE;
    [GIC_REDISTRIBUTORS, high.redistributors]
        .into_iter()
        .find(|region| size <= region.size)
        .map(|region| Region::new(region.base, size))
}

/// How many address bits a guest needs whose highest region ends at `end`: at least 32, the least that KVM takes.
pub const fn ipa_bits(end: u64) -> u8 {
    let bits = u64::BITS - end.saturating_sub(1).leading_zeros();
    if bits < 32 { 32 } else { bits as u8 }
}

/// The first free place for `size` bytes (a power of two) from `free` on, aligned to its size.
fn place(free: u64, size: u64) -> Option<Region> {
    let base = free.checked_next_multiple_of(size)?;
    base.checked_add(size)?;
    Some(Region::new(base, size))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regions_do_not_overlap() {
        let high = HighRegions::new(4 * GIB, HIGH_MMIO_SIZE).unwrap();
        let all = [
            FLASH,
            GIC_ITS,
            GIC_DISTRIBUTOR,
            GIC_REDISTRIBUTORS,
            SERIAL,
            RTC,
            FW_CFG,
            GED,
            SMMUS,
            PCI_MMIO32,
            Region::new(RAM_BASE, 4 * GIB),
            high.redistributors,
            high.ecam,
            high.mmio,
        ];
        for pair in all.windows(2) {
            assert!(pair[0].end() <= pair[1].base, "{pair:x?}");
        }
    }

    #[test]
    fn messages_to_the_host_s_doorbell_reach_the_guest_s() {
        assert_eq!((GIC_ITS.base + GITS_TRANSLATER) & !0xffff, MSI_WINDOW.base);
    }

    #[test]
    fn high_regions_of_a_small_guest_are_where_qemu_has_them() {
        let high = HighRegions::new(GIB, HIGH_MMIO_SIZE).unwrap();
        assert_eq!(high.redistributors, Region::new(0x40_0000_0000, 64 * MIB));
        assert_eq!(high.ecam, Region::new(0x40_1000_0000, 256 * MIB));
        assert_eq!(high.mmio, Region::new(0x80_0000_0000, 512 * GIB));
        assert_eq!(ipa_bits(high.mmio.end()), 40);
    }

    #[test]
    fn high_regions_move_behind_large_ram() {
        let high = HighRegions::new(480 * GIB, 1024 * GIB).unwrap();
        assert!(high.redistributors.base >= 481 * GIB);
        assert_eq!(high.mmio, Region::new(1024 * GIB, 1024 * GIB));
        assert_eq!(ipa_bits(high.mmio.end()), 41);
    }

    #[test]
    fn too_much_for_the_architecture_is_refused() {
        assert_eq!(HighRegions::new(u64::MAX, GIB), None);
        assert_eq!(HighRegions::new(GIB, 1 << 52), None);
        assert_eq!(HighRegions::new(GIB, u64::MAX), None);
    }

    #[test]
    fn redistributors_move_up_beyond_123_cpus() {
        let high = HighRegions::new(GIB, HIGH_MMIO_SIZE).unwrap();
        assert_eq!(redistributors(123, &high).unwrap().base, GIC_REDISTRIBUTORS.base);
        assert_eq!(redistributors(124, &high).unwrap().base, high.redistributors.base);
        assert_eq!(redistributors(512, &high).unwrap().end(), high.redistributors.end());
        assert_eq!(redistributors(513, &high), None);
    }

    #[test]
    fn the_last_smmu_fits_its_window_and_the_distributor() {
        let last = MAX_SMMUS - 1;
        assert!(SMMUS.contains(&smmu(last).unwrap()));
        assert!(smmu_interrupts(last).unwrap().gerror < GIC_INTERRUPTS);
        assert_eq!(smmu(MAX_SMMUS), None);
        assert_eq!(smmu_interrupts(MAX_SMMUS), None);
        assert_eq!(smmu(1).unwrap().base, 0x0c02_0000);
    }

    #[test]
    fn address_width_covers_the_last_byte() {
        assert_eq!(ipa_bits(0), 32);
        assert_eq!(ipa_bits(1 << 32), 32);
        assert_eq!(ipa_bits((1 << 32) + 1), 33);
        assert_eq!(ipa_bits(1 << 40), 40);
    }
}
