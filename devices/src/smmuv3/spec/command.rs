//! Commands (IHI 0070, chapter 4): 16 bytes, little-endian, opcode in bits 7:0.

use bitfield_struct::bitfield;

/// Bytes of a command.
pub const COMMAND_SIZE: u64 = 16;

/// Opcodes (section 4.1.1), up to SMMUv3.2 and without those of the secure world.
pub mod opcode {
    /// CMD_PREFETCH_CONFIG.
    pub const PREFETCH_CONFIG: u8 = 0x01;
    /// CMD_PREFETCH_ADDR.
    pub const PREFETCH_ADDR: u8 = 0x02;
    /// CMD_CFGI_STE.
    pub const CFGI_STE: u8 = 0x03;
    /// CMD_CFGI_STE_RANGE; CMD_CFGI_ALL is the same with Range 31.
    pub const CFGI_STE_RANGE: u8 = 0x04;
    /// CMD_CFGI_CD.
    pub const CFGI_CD: u8 = 0x05;
    /// CMD_CFGI_CD_ALL.
    pub const CFGI_CD_ALL: u8 = 0x06;
    /// CMD_CFGI_VMS_PIDM, with MPAM only.
    pub const CFGI_VMS_PIDM: u8 = 0x07;
    /// CMD_TLBI_NH_ALL.
    pub const TLBI_NH_ALL: u8 = 0x10;
    /// CMD_TLBI_NH_ASID.
    pub const TLBI_NH_ASID: u8 = 0x11;
    /// CMD_TLBI_NH_VA.
    pub const TLBI_NH_VA: u8 = 0x12;
    /// CMD_TLBI_NH_VAA.
    pub const TLBI_NH_VAA: u8 = 0x13;
    /// CMD_TLBI_EL3_ALL, in the secure queue only.
    pub const TLBI_EL3_ALL: u8 = 0x18;
    /// CMD_TLBI_EL3_VA, in the secure queue only.
    pub const TLBI_EL3_VA: u8 = 0x1a;
    /// CMD_TLBI_EL2_ALL, with EL2 contexts only.
    pub const TLBI_EL2_ALL: u8 = 0x20;
    /// CMD_TLBI_EL2_ASID, with EL2 contexts only.
    pub const TLBI_EL2_ASID: u8 = 0x21;
    /// CMD_TLBI_EL2_VA, with EL2 contexts only.
    pub const TLBI_EL2_VA: u8 = 0x22;
    /// CMD_TLBI_EL2_VAA, with EL2 contexts only.
    pub const TLBI_EL2_VAA: u8 = 0x23;
    /// CMD_TLBI_S12_VMALL, with stage 2 only.
    pub const TLBI_S12_VMALL: u8 = 0x28;
    /// CMD_TLBI_S2_IPA, with stage 2 only.
    pub const TLBI_S2_IPA: u8 = 0x2a;
    /// CMD_TLBI_NSNH_ALL.
    pub const TLBI_NSNH_ALL: u8 = 0x30;
    /// CMD_ATC_INV, with ATS only.
    pub const ATC_INV: u8 = 0x40;
    /// CMD_PRI_RESP, with page requests only.
    pub const PRI_RESP: u8 = 0x41;
    /// CMD_RESUME, with stalls only.
    pub const RESUME: u8 = 0x44;
    /// CMD_STALL_TERM, with stalls only.
    pub const STALL_TERM: u8 = 0x45;
    /// CMD_SYNC.
    pub const SYNC: u8 = 0x46;
}

/// CMD_CFGI_* and the head of CMD_PREFETCH_* (sections 4.2 and 4.3).
#[bitfield(u128)]
#[derive(PartialEq, Eq)]
pub struct Cfgi {
    /// Opcode.
    pub opcode: u8,
    #[bits(2)]
    __: u8,
    /// For the secure world.
    pub ssec: bool,
    /// SubstreamID is valid (CMD_PREFETCH_* only).
    pub ssv: bool,
    /// SubstreamID.
    #[bits(20)]
    pub substream_id: u32,
    /// StreamID.
    pub stream_id: u32,
    /// Bit 0 is Leaf in CMD_CFGI_STE and CMD_CFGI_CD; all of it is Range in CMD_CFGI_STE_RANGE.
    #[bits(5)]
    pub leaf_or_range: u8,
    #[bits(59)]
    __: u64,
}

/// CMD_TLBI_NH_* and CMD_TLBI_NSNH_ALL (section 4.4).
#[bitfield(u128)]
#[derive(PartialEq, Eq)]
pub struct Tlbi {
    /// Opcode.
    pub opcode: u8,
    #[bits(4)]
    __: u8,
    /// Range: NUM.
    #[bits(5)]
    pub num: u8,
    #[bits(3)]
    __: u8,
    /// Range: SCALE.
    #[bits(6)]
    pub scale: u8,
    #[bits(6)]
    __: u8,
    /// VMID.
    pub vmid: u16,
    /// ASID.
    pub asid: u16,
    /// Only last-level entries need to go.
    pub leaf: bool,
    #[bits(7)]
    __: u8,
    /// Level hint.
    #[bits(2)]
    pub ttl: u8,
    /// Granule: 0 no range, 1 4 KiB, 2 16 KiB, 3 64 KiB.
    #[bits(2)]
    pub tg: u8,
    /// Address bits 63:12.
    #[bits(52)]
    pub address: u64,
}

/// CMD_ATC_INV (section 4.5.1).
#[bitfield(u128)]
#[derive(PartialEq, Eq)]
pub struct AtcInv {
    /// Opcode.
    pub opcode: u8,
    __: bool,
    /// All substreams.
    pub global: bool,
    __: bool,
    /// SubstreamID is valid.
    pub ssv: bool,
    /// SubstreamID.
    #[bits(20)]
    pub substream_id: u32,
    /// StreamID.
    pub stream_id: u32,
    /// 2^Size pages of 4 KiB; 52 means everything.
    #[bits(6)]
    pub size: u8,
    #[bits(6)]
    __: u8,
    /// Address bits 63:12.
    #[bits(52)]
    pub address: u64,
}

/// CMD_SYNC (section 4.7.3).
#[bitfield(u128)]
#[derive(PartialEq, Eq)]
pub struct Sync {
    /// Opcode.
    pub opcode: u8,
    #[bits(4)]
    __: u8,
    /// Completion signal: 0 none, 1 interrupt, 2 event (SEV), 3 reserved.
    #[bits(2)]
    pub cs: u8,
    #[bits(8)]
    __: u8,
    /// Shareability of the message.
    #[bits(2)]
    pub msh: u8,
    /// Memory attributes of the message.
    #[bits(4)]
    pub msi_attr: u8,
    #[bits(4)]
    __: u8,
    /// Data of the message.
    pub msi_data: u32,
    #[bits(2)]
    __: u8,
    /// Address bits 51:2 of the message; 0 means the wired interrupt.
    #[bits(50)]
    pub msi_address: u64,
    #[bits(12)]
    __: u16,
}

/// CMD_TLBI_*.TG: 16 KiB.
pub const TG_16K: u8 = 2;

/// CMD_SYNC.CS: no signal.
pub const CS_NONE: u8 = 0;
/// CMD_SYNC.CS: interrupt.
pub const CS_IRQ: u8 = 1;
/// CMD_SYNC.CS: event for waiting PEs.
pub const CS_SEV: u8 = 2;

/// CMD_CFGI_STE_RANGE.Range that makes it CMD_CFGI_ALL.
pub const RANGE_ALL: u8 = 31;

/// The largest CMD_ATC_INV.Size: the whole address space.
pub const ATC_INV_SIZE_ALL: u8 = 52;
