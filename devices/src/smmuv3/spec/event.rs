//! Event records (IHI 0070, section 7.3): 32 bytes, little-endian, event number in bits 7:0.

use bitfield_struct::bitfield;

/// Bytes of an event record.
pub const EVENT_SIZE: u64 = 32;

/// Event numbers (section 7.3.22) of the records that the model and the software walker make themselves.
pub mod number {
    /// C_BAD_STREAMID: the StreamID is outside the stream table.
    pub const C_BAD_STREAMID: u8 = 0x02;
    /// F_STE_FETCH: the stream table could not be read.
    pub const F_STE_FETCH: u8 = 0x03;
    /// C_BAD_STE: the stream table entry is illegal.
    pub const C_BAD_STE: u8 = 0x04;
    /// F_STREAM_DISABLED: transactions without a substream are not allowed (STE.S1DSS), or none of substream 0.
    pub const F_STREAM_DISABLED: u8 = 0x06;
    /// C_BAD_SUBSTREAMID: the SubstreamID is outside the context descriptor table.
    pub const C_BAD_SUBSTREAMID: u8 = 0x08;
    /// F_CD_FETCH: the context descriptor could not be read.
    pub const F_CD_FETCH: u8 = 0x09;
    /// C_BAD_CD: the context descriptor is illegal.
    pub const C_BAD_CD: u8 = 0x0a;
    /// F_WALK_EABT: a translation table could not be read.
    pub const F_WALK_EABT: u8 = 0x0b;
    /// F_TRANSLATION: the address is not mapped.
    pub const F_TRANSLATION: u8 = 0x10;
    /// F_ADDR_SIZE: an address is wider than the configuration allows.
    pub const F_ADDR_SIZE: u8 = 0x11;
    /// F_ACCESS: the access flag is clear.
    pub const F_ACCESS: u8 = 0x12;
    /// F_PERMISSION: the mapping forbids the access.
    pub const F_PERMISSION: u8 = 0x13;
}

/// The first 64 bits of every record.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct EventHead {
    /// Event number.
    pub event: u8,
    #[bits(3)]
    __: u8,
    /// SubstreamID is valid.
    pub ssv: bool,
    /// SubstreamID.
    #[bits(20)]
    pub substream_id: u32,
    /// StreamID.
    pub stream_id: u32,
}

/// CLASS of a fault record: a stage 1 translation table was fetched.
pub const CLASS_TTD: u8 = 0b01;
/// CLASS of a fault record: the input address is at fault.
pub const CLASS_IN: u8 = 0b10;

/// The second 64 bits of F_WALK_EABT, F_TRANSLATION, F_ADDR_SIZE, F_ACCESS and F_PERMISSION (sections 7.3.10 and
/// 7.3.12 to 7.3.15). The third are the input address, the fourth in F_WALK_EABT the address that was fetched.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct FaultSyndrome {
    /// Tag of a stalled transaction.
    pub stag: u16,
    #[bits(15)]
    __: u16,
    /// The transaction is stalled.
    pub stall: bool,
    __: bool,
    /// Privileged, not unprivileged.
    pub pnu: bool,
    /// Instruction, not data.
    pub ind: bool,
    /// Read, not write.
    pub rnw: bool,
    #[bits(3)]
    __: u8,
    /// Stage 2, not stage 1.
    pub s2: bool,
    /// What was being done.
    #[bits(2)]
    pub class: u8,
    #[bits(22)]
    __: u32,
}
