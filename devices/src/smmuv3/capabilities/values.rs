//! What a vSMMU shows, as plain values, and as the identification registers that say so.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::smmuv3::spec::registers::{Idr0, Idr1, Idr3, Idr5};

/// log2 of the most command queue entries: 256 KiB, more than 100 vCPUs ever have in flight.
pub const CMDQS: u8 = 14;
/// log2 of the most event queue entries: 256 KiB.
pub const EVENTQS: u8 = 13;
/// Bits of a StreamID: a PCI requester ID.
pub const SIDSIZE: u8 = 16;
/// Bits of a PASID, and so of a SubstreamID, at most (PCIe 6.0, 6.20).
pub const PASID_BITS: u8 = 20;

/// Bits that the values of SMMU_IDR5.OAS stand for (section 6.3.6).
pub(super) const OAS_BITS: [u8; 7] = [32, 36, 40, 42, 44, 48, 52];
/// The same for messages.
pub(super) const OAS_LEGAL: &str = "32, 36, 40, 42, 44, 48, 52";

/// The fields in which vSMMUs differ. Frozen when the guest starts; a Plan may hold them before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Values {
    /// PCIe ATS.
    pub ats: bool,
    /// Bits of a SubstreamID (PASID); 0 is none.
    pub ssidsize: u8,
    /// Output address size in bits.
    pub oas: u8,
    /// Range invalidation.
    pub ril: bool,
    /// Break-before-make level, 0 to 2.
    pub bbml: u8,
    /// 4 KiB granule.
    pub gran4k: bool,
    /// 16 KiB granule.
    pub gran16k: bool,
    /// 64 KiB granule.
    pub gran64k: bool,
    /// 16-bit ASIDs.
    pub asid16: bool,
    /// 2-level stream tables.
    pub two_level_streams: bool,
    /// 2-level context descriptor tables.
    pub two_level_contexts: bool,
    /// 1: faulting transactions are terminated, never stalled.
    pub stall_model: u8,
    /// 0: CD.A chooses between abort and RAZ/WI; 1: always abort, CD.A must be 1.
    pub term_model: u8,
    /// Endianness of translation tables: 0 either, 2 little.
    pub ttendian: u8,
    /// Virtual addresses: 0 is 48 bits, 1 is 52 bits with the 64 KiB granule.
    pub vax: u8,
    /// 52-bit addresses with the 4 KiB and 16 KiB granules.
    pub ds: bool,
}

/// A value of one field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Value {
    /// `on` or `off`.
    Flag(bool),
    /// A number, as the register has it, or bits.
    Number(u8),
}

impl From<bool> for Value {
    fn from(flag: bool) -> Self {
        Self::Flag(flag)
    }
}

impl From<u8> for Value {
    fn from(number: u8) -> Self {
        Self::Number(number)
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(true) => f.pad("on"),
            Self::Flag(false) => f.pad("off"),
            Self::Number(number) => f.pad(&number.to_string()),
        }
    }
}

/// The identification registers of one vSMMU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Features {
    /// SMMU_IDR0.
    pub idr0: Idr0,
    /// SMMU_IDR1.
    pub idr1: Idr1,
    /// SMMU_IDR3.
    pub idr3: Idr3,
    /// SMMU_IDR5.
    pub idr5: Idr5,
    /// Whether stage 1 entries get S1STALLD: the host SMMU could stall, which nobody would ever resume
    /// (STALL_MODEL is 0 on the host and 1 in the guest).
    pub disable_stall: bool,
}

impl Features {
    /// The registers that show `values`; see [`Self::disable_stall`].
    pub fn new(values: &Values, disable_stall: bool) -> Self {
        let oas = OAS_BITS.iter().position(|bits| *bits == values.oas).unwrap_or_default();
        Self {
            // S2P, HYP, VMID16, BTM, HTTU, PRI, SEV stay 0: stage 2 is the kernel's, and it forwards none of them.
            idr0: Idr0::new()
                .with_s1p(true)
                .with_ttf(2)
                .with_cohacc(true)
                .with_ats(values.ats)
                .with_asid16(values.asid16)
                .with_msi(true)
                .with_cd2l(values.two_level_contexts)
                .with_ttendian(values.ttendian & 3)
                .with_stall_model(values.stall_model & 3)
                .with_term_model(values.term_model != 0)
                .with_st_level(values.two_level_streams.into()),
            idr1: Idr1::new()
                .with_sidsize(SIDSIZE)
                .with_ssidsize(values.ssidsize.min(PASID_BITS))
                .with_eventqs(EVENTQS)
                .with_cmdqs(CMDQS),
            idr3: Idr3::new().with_ril(values.ril).with_bbml(values.bbml & 3),
            idr5: Idr5::new()
                .with_oas(oas as u8)
                .with_gran4k(values.gran4k)
                .with_gran16k(values.gran16k)
                .with_gran64k(values.gran64k)
                .with_ds(values.ds)
                .with_vax(values.vax & 3),
            disable_stall,
        }
    }

    /// What the registers show.
    pub fn values(&self) -> Values {
        let Self { idr0, idr1, idr3, idr5, .. } = *self;
        Values {
            ats: idr0.ats(),
            ssidsize: idr1.ssidsize(),
            oas: self.oas_bits(),
            ril: idr3.ril(),
            bbml: idr3.bbml(),
            gran4k: idr5.gran4k(),
            gran16k: idr5.gran16k(),
            gran64k: idr5.gran64k(),
            asid16: idr0.asid16(),
            two_level_streams: idr0.st_level() != 0,
            two_level_contexts: idr0.cd2l(),
            stall_model: idr0.stall_model(),
            term_model: idr0.term_model().into(),
            ttendian: idr0.ttendian(),
            vax: idr5.vax(),
            ds: idr5.ds(),
        }
    }

    /// Width of output addresses in bits. For shared virtual addressing it must not be less than that of the vCPUs.
    pub fn oas_bits(&self) -> u8 {
        oas_bits(self.idr5.oas())
    }

    /// Bits that an output address can have.
    pub(in crate::smmuv3) fn address_mask(&self) -> u64 {
        (1 << self.oas_bits()) - 1
    }
}

/// Bits of a value of SMMU_IDR5.OAS. What is reserved counts as 48, as in the kernel (`arm_smmu_device_hw_probe`), by
/// whose stage 2 addresses go.
pub(super) fn oas_bits(oas: u8) -> u8 {
    OAS_BITS.get(usize::from(oas)).copied().unwrap_or(48)
}
