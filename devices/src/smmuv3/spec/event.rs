//! Event records (IHI 0070, section 7.3): 32 bytes, little-endian, event number in bits 7:0.

use bitfield_struct::bitfield;

/// Bytes of an event record.
pub const EVENT_SIZE: u64 = 32;

/// Event numbers (section 7.3.22) of the records that the model makes itself.
pub mod number {
    /// C_BAD_STREAMID: the StreamID is outside the stream table.
    pub const C_BAD_STREAMID: u8 = 0x02;
    /// F_STE_FETCH: the stream table could not be read.
    pub const F_STE_FETCH: u8 = 0x03;
    /// C_BAD_STE: the stream table entry is illegal.
    pub const C_BAD_STE: u8 = 0x04;
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
