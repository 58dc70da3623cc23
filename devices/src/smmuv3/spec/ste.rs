//! Stream table descriptors and entries (IHI 0070, sections 5.1 and 5.2).

use bitfield_struct::bitfield;

/// Bytes of a stream table entry.
pub const STE_SIZE: u64 = 64;

/// Bytes of a level 1 stream table descriptor.
pub const L1STD_SIZE: u64 = 8;

/// STE.Config: abort, without an event.
pub const CONFIG_ABORT: u8 = 0b000;
/// STE.Config: bypass of both stages.
pub const CONFIG_BYPASS: u8 = 0b100;
/// STE.Config: stage 1 translates, stage 2 bypasses.
pub const CONFIG_STAGE1: u8 = 0b101;

/// STE.EATS: ATS requests are answered with Unsupported Request.
pub const EATS_ABORT: u8 = 0b00;
/// STE.EATS: full ATS.
pub const EATS_FULL: u8 = 0b01;
/// STE.EATS: the device gets intermediate addresses, which needs stage 2.
pub const EATS_SPLIT: u8 = 0b10;

/// STE.S1DSS: transactions without a substream are terminated.
pub const S1DSS_TERMINATE: u8 = 0b00;
/// STE.S1DSS: transactions without a substream bypass stage 1.
pub const S1DSS_BYPASS: u8 = 0b01;
/// STE.S1DSS: transactions without a substream use context descriptor 0, which no substream may then use.
pub const S1DSS_SUBSTREAM_0: u8 = 0b10;

/// A level 1 stream table descriptor (section 5.1).
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct L1Std {
    /// The level 2 table has 2^(Span - 1) entries; 0 means that there is none.
    #[bits(5)]
    pub span: u8,
    __: bool,
    /// Address bits 51:6 of the level 2 table.
    #[bits(46)]
    pub l2ptr: u64,
    #[bits(12)]
    __: u16,
}

/// The first 64 bits of a stream table entry (section 5.2).
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct Ste0 {
    /// The entry is valid.
    pub v: bool,
    /// What is done with transactions of the stream.
    #[bits(3)]
    pub config: u8,
    /// Format of the context descriptor table: 0 linear, 1 and 2 two levels with 4 KiB or 64 KiB leaves.
    #[bits(2)]
    pub s1fmt: u8,
    /// Address bits 51:6 of the context descriptor (table).
    #[bits(46)]
    pub s1contextptr: u64,
    #[bits(7)]
    __: u8,
    /// log2 of the number of context descriptors.
    #[bits(5)]
    pub s1cdmax: u8,
}

/// The second 64 bits of a stream table entry (section 5.2).
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct Ste1 {
    /// Transactions without a substream: 0 terminate, 1 bypass, 2 use context descriptor 0.
    #[bits(2)]
    pub s1dss: u8,
    /// Inner cacheability of context descriptor fetches.
    #[bits(2)]
    pub s1cir: u8,
    /// Outer cacheability of context descriptor fetches.
    #[bits(2)]
    pub s1cor: u8,
    /// Shareability of context descriptor fetches.
    #[bits(2)]
    pub s1csh: u8,
    #[bits(11)]
    __: u16,
    /// Events may be merged.
    pub mev: bool,
    #[bits(7)]
    __: u8,
    /// Stage 1 faults never stall.
    pub s1stalld: bool,
    /// ATS behaviour.
    #[bits(2)]
    pub eats: u8,
    /// Stream world.
    #[bits(2)]
    pub strw: u8,
    #[bits(12)]
    __: u16,
    /// Shareability of bypassing transactions.
    #[bits(2)]
    pub shcfg: u8,
    #[bits(18)]
    __: u32,
}
