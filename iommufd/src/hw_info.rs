//! What the kernel tells about a device's SMMU (`IOMMU_GET_HW_INFO`).
#![forbid(unsafe_code)]

use bitflags::bitflags;

bitflags! {
    /// `out_capabilities`: what this device can do behind its IOMMU (`enum iommufd_hw_capabilities`).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Capabilities: u64 {
        /// Dirty tracking of DMA writes.
        const DIRTY_TRACKING = 1 << 0;
        /// The device's PASID capability has Execute Permission.
        const PCI_PASID_EXEC = 1 << 1;
        /// The device's PASID capability has Privileged Mode.
        const PCI_PASID_PRIV = 1 << 2;
        /// The device, or the path to its SMMU, cannot use ATS. Older kernels never set it.
        const PCI_ATS_NOT_SUPPORTED = 1 << 3;
    }

    /// `flags` of `struct iommu_hw_info_arm_smmuv3`.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct SmmuV3Flags: u32 {
        /// Each batch of TLBI and CFGI commands must be sent twice (Tegra264 erratum).
        const ERRATA_REPEAT_TLBI_CFGI = 1 << 0;
    }
}

/// Registers of the host SMMUv3 as they are in hardware.
///
/// Only these fields mean something for a guest (`include/uapi/linux/iommufd.h`): IDR0 ST_LEVEL, TERM_MODEL,
/// STALL_MODEL, TTENDIAN, CD2L, ASID16, TTF; IDR1 SIDSIZE, SSIDSIZE; IDR3 BBML, RIL; IDR5 VAX, GRAN*, DS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SmmuV3Info {
    /// What to mind with this SMMU.
    pub flags: SmmuV3Flags,
    /// SMMU_IDR0 to SMMU_IDR5.
    pub idr: [u32; 6],
    /// SMMU_IIDR.
    pub iidr: u32,
    /// SMMU_AIDR.
    pub aidr: u32,
}

/// Answer to `IOMMU_GET_HW_INFO` for one bound device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HwInfo {
    /// `out_data_type`: which kind of IOMMU it is (`enum iommu_hw_info_type`; 2 is an SMMUv3).
    pub data_type: u32,
    /// The registers, if the IOMMU is an SMMUv3.
    pub smmu: Option<SmmuV3Info>,
    /// Width of PASIDs in bits that device and SMMU both have; 0 means none.
    pub max_pasid_log2: u8,
    /// Capabilities of the device behind this IOMMU.
    pub capabilities: Capabilities,
}

impl HwInfo {
    /// Whether ATS may be offered to the guest for this device.
    pub fn ats_supported(&self) -> bool {
        !self.capabilities.contains(Capabilities::PCI_ATS_NOT_SUPPORTED)
    }
}
