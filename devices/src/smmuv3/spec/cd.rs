//! Context descriptors (IHI 0070, sections 5.3 and 5.4).

use bitfield_struct::bitfield;

/// Bytes of a context descriptor.
pub const CD_SIZE: u64 = 64;

/// Bytes of a level 1 context descriptor table descriptor.
pub const L1CD_SIZE: u64 = 8;

/// STE.S1Fmt: one linear table.
pub const S1FMT_LINEAR: u8 = 0;
/// STE.S1Fmt: two levels, 4 KiB leaves of 64 descriptors.
pub const S1FMT_4K_L2: u8 = 1;
/// STE.S1Fmt: two levels, 64 KiB leaves of 1024 descriptors.
pub const S1FMT_64K_L2: u8 = 2;

/// A level 1 context descriptor table descriptor (section 5.3).
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct L1Cd {
    /// L2Ptr is valid.
    pub v: bool,
    #[bits(11)]
    __: u16,
    /// Address bits 51:12 of the leaf.
    #[bits(40)]
    pub l2ptr: u64,
    #[bits(12)]
    __: u16,
}

/// The first 64 bits of a context descriptor (section 5.4).
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct Cd0 {
    /// VA region of TTB0 is 2^(64 - T0SZ) bytes.
    #[bits(6)]
    pub t0sz: u8,
    /// Granule of TTB0: 0 is 4 KiB, 1 is 64 KiB, 2 is 16 KiB.
    #[bits(2)]
    pub tg0: u8,
    /// Inner cacheability of TTB0 walks.
    #[bits(2)]
    pub ir0: u8,
    /// Outer cacheability of TTB0 walks.
    #[bits(2)]
    pub or0: u8,
    /// Shareability of TTB0 walks.
    #[bits(2)]
    pub sh0: u8,
    /// TTB0 is not walked.
    pub epd0: bool,
    /// Translation tables are big-endian.
    pub endi: bool,
    /// VA region of TTB1 is 2^(64 - T1SZ) bytes.
    #[bits(6)]
    pub t1sz: u8,
    /// Granule of TTB1: 1 is 16 KiB, 2 is 4 KiB, 3 is 64 KiB.
    #[bits(2)]
    pub tg1: u8,
    /// Inner cacheability of TTB1 walks.
    #[bits(2)]
    pub ir1: u8,
    /// Outer cacheability of TTB1 walks.
    #[bits(2)]
    pub or1: u8,
    /// Shareability of TTB1 walks.
    #[bits(2)]
    pub sh1: u8,
    /// TTB1 is not walked.
    pub epd1: bool,
    /// The descriptor is valid.
    pub v: bool,
    /// Size of intermediate physical addresses, encoded as IDR5.OAS.
    #[bits(3)]
    pub ips: u8,
    /// Access flag faults are off.
    pub affd: bool,
    /// What can be written cannot be executed.
    pub wxn: bool,
    /// What can be written without privilege cannot be executed with privilege (VMSAv8-32 only).
    pub uwxn: bool,
    /// Bits 63:56 of addresses in the TTB0 region are ignored.
    pub tbi0: bool,
    /// Bits 63:56 of addresses in the TTB1 region are ignored.
    pub tbi1: bool,
    /// Privileged data accesses never reach what is accessible without privilege.
    pub pan: bool,
    /// The format is VMSAv8-64.
    pub aa64: bool,
    /// Hardware update of dirty state.
    pub hd: bool,
    /// Hardware update of the access flag.
    pub ha: bool,
    /// Faults stall.
    pub s: bool,
    /// Faults are recorded.
    pub r: bool,
    /// Faulting transactions are aborted; else they read zeroes and write nothing.
    pub a: bool,
    /// The ASID is not shared with PEs.
    pub aset: bool,
    /// Address space identifier.
    pub asid: u16,
}

/// The second and the third 64 bits of a context descriptor (section 5.4): TTB0 and TTB1.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct CdTable {
    /// Non-secure first table; Secure streams only.
    pub nscfg: bool,
    /// Hierarchical attributes in tables are ignored (IDR3.HAD).
    pub had: bool,
    #[bits(2)]
    __: u8,
    /// Address bits 51:4 of the first table.
    #[bits(48)]
    pub ttb: u64,
    #[bits(12)]
    __: u16,
}
