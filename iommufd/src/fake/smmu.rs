//! A host SMMU of the fake kernel: its registers decide what may be nested and which commands are legal.

use crate::hw_info::SmmuV3Info;

/// A host SMMUv3.
#[derive(Clone, Copy, Debug)]
pub struct FakeSmmu {
    /// Its registers, as GET_HW_INFO tells them.
    pub info: SmmuV3Info,
    /// `out_max_pasid_log2` of its devices.
    pub max_pasid_log2: u8,
}

impl Default for FakeSmmu {
    /// Like the SMMUs of a Grace: both stages, ATS, range invalidation, 16-bit ASIDs, 20-bit PASIDs, all granules.
    fn default() -> Self {
        let idr0 = 1 << 27 // ST_LEVEL: 2-level
            | 1 << 24 // STALL_MODEL: no stall
            | 2 << 21 // TTENDIAN: little
            | 1 << 19 // CD2L
            | 1 << 18 // VMID16
            | 1 << 12 // ASID16
            | 1 << 10 // ATS
            | 1 << 4 // COHACC
            | 2 << 2 // TTF: AArch64
            | 0b11; // S1P, S2P
        let idr1 = 20 << 21 | 20 << 16 | 20 << 6 | 32; // CMDQS, EVENTQS, SSIDSIZE, SIDSIZE
        let idr3 = 1 << 10 | 2 << 11; // RIL, BBML
        let idr5 = 0b111 << 4 | 5; // GRAN64K, GRAN16K, GRAN4K, OAS 48 bits
        Self {
            info: SmmuV3Info { idr: [idr0, idr1, 0, idr3, 0, idr5], iidr: 0x4b0_043b, ..Default::default() },
            max_pasid_log2: 20,
        }
    }
}

impl FakeSmmu {
    fn bit(&self, register: usize, bit: u32) -> bool {
        self.info.idr.get(register).is_some_and(|value| value & 1 << bit != 0)
    }

    pub(super) fn can_nest(&self) -> bool {
        self.bit(0, 0) && self.bit(0, 1)
    }

    pub(super) fn ats(&self) -> bool {
        self.bit(0, 10)
    }

    pub(super) fn asid_bits(&self) -> u32 {
        if self.bit(0, 12) { 16 } else { 8 }
    }

    pub(super) fn ssid_bits(&self) -> u32 {
        self.info.idr[1] >> 6 & 0x1f
    }

    pub(super) fn s2fwb(&self) -> bool {
        self.bit(3, 8)
    }

    pub(super) fn range_invalidation(&self) -> bool {
        self.bit(3, 10)
    }

    pub(super) fn ds(&self) -> bool {
        self.bit(5, 7)
    }
}
