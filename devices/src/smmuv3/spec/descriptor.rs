//! VMSAv8-64 stage 1 translation table descriptors (Arm ARM DDI 0487, section D8.3).

use bitfield_struct::bitfield;

/// Bytes of a descriptor.
pub const DESCRIPTOR_SIZE: u64 = 8;

/// The last level of a translation: its descriptors are pages.
pub const LAST_LEVEL: u8 = 3;

/// A table, block or page descriptor with 48-bit addresses.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct Descriptor {
    /// The descriptor is valid.
    pub valid: bool,
    /// Before the last level a table, not a block; at the last level always 1.
    pub table_or_page: bool,
    /// Index into MAIR.
    #[bits(3)]
    pub attr_index: u8,
    /// Non-secure.
    pub ns: bool,
    /// AP[2:1]: bit 0 is access without privilege, bit 1 read-only.
    #[bits(2)]
    pub ap: u8,
    /// Shareability.
    #[bits(2)]
    pub sh: u8,
    /// Access flag.
    pub af: bool,
    /// Not global: the translation is for one ASID.
    pub ng: bool,
    /// Address bits 47:12 of the next table or of the output; those below its size are reserved.
    #[bits(36)]
    pub address: u64,
    #[bits(3)]
    __: u8,
    /// Dirty bit modifier.
    pub dbm: bool,
    /// One of an aligned group of entries that together map one range.
    pub contiguous: bool,
    /// Not executable with privilege.
    pub pxn: bool,
    /// Not executable without privilege.
    pub uxn: bool,
    #[bits(4)]
    __: u8,
    /// In a table: PXN for all below it.
    pub pxn_table: bool,
    /// In a table: UXN for all below it.
    pub uxn_table: bool,
    /// In a table, for all below it: bit 0 is no access without privilege, bit 1 no writes.
    #[bits(2)]
    pub ap_table: u8,
    /// In a table: non-secure.
    pub ns_table: bool,
}
