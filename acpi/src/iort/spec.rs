//! IORT structures (Arm DEN0049E.e). Types only.

use zerocopy::{
    Immutable, IntoBytes,
    little_endian::{U16, U32, U64},
};

/// Node types.
pub(super) mod node_type {
    pub const ITS_GROUP: u8 = 0;
    pub const ROOT_COMPLEX: u8 = 2;
    pub const SMMU_V3: u8 = 4;
    pub const RMR: u8 = 6;
}

/// What follows the table header.
#[repr(C, packed)]
#[derive(IntoBytes, Immutable)]
pub(super) struct Header {
    pub node_count: U32,
    pub node_offset: U32,
    pub reserved: U32,
}

/// Start of every node.
#[repr(C, packed)]
#[derive(IntoBytes, Immutable)]
pub(super) struct NodeHeader {
    pub node_type: u8,
    pub length: U16,
    pub revision: u8,
    pub identifier: U32,
    pub mapping_count: U32,
    pub mapping_offset: U32,
}

/// ID mapping.
#[repr(C, packed)]
#[derive(IntoBytes, Immutable)]
pub(super) struct IdMapping {
    pub input_base: U32,
    /// Number of IDs in the range minus one.
    pub id_count: U32,
    pub output_base: U32,
    /// Offset of the output node from the start of the table.
    pub output_reference: U32,
    pub flags: U32,
}

/// ITS group of one ITS.
#[repr(C, packed)]
#[derive(IntoBytes, Immutable)]
pub(super) struct ItsGroup {
    pub its_count: U32,
    /// GIC ITS ID as the MADT has it.
    pub identifier: U32,
}

/// Root complex (revision 3: 20 bytes behind the node header).
#[repr(C, packed)]
#[derive(IntoBytes, Immutable)]
pub(super) struct RootComplex {
    pub cache_coherency: U32,
    pub allocation_hints: u8,
    pub reserved0: U16,
    pub memory_flags: u8,
    pub ats_attribute: U32,
    pub segment: U32,
    pub memory_address_limit: u8,
    pub pasid_capabilities: U16,
    pub reserved1: u8,
}

/// Max PASID Width in the PASID capabilities of a root complex.
pub(super) const PASID_MAX_WIDTH: u16 = 0x1f;

/// Memory access flags.
pub(super) mod memory_flags {
    /// Coherent path to memory.
    pub const CPM: u8 = 1 << 0;
    /// Device attributes are cacheable and inner-shareable.
    pub const DACS: u8 = 1 << 1;
    /// Coherent attributes can be enforced by stage 2.
    pub const CANWBS: u8 = 1 << 2;
}

/// SMMUv3 (revision 5).
#[repr(C, packed)]
#[derive(IntoBytes, Immutable)]
pub(super) struct SmmuV3 {
    pub base: U64,
    pub flags: U32,
    pub reserved: U32,
    pub vatos: U64,
    pub model: U32,
    pub event_gsiv: U32,
    pub pri_gsiv: U32,
    pub gerr_gsiv: U32,
    pub sync_gsiv: U32,
    pub proximity_domain: U32,
    pub id_mapping_index: U32,
}

/// SMMUv3 flags.
pub(super) mod smmu_flags {
    /// The SMMU is coherent, whatever IDR0 says.
    pub const COHACC_OVERRIDE: u32 = 1 << 0;
}

/// Reserved memory range node.
#[repr(C, packed)]
#[derive(IntoBytes, Immutable)]
pub(super) struct Rmr {
    pub flags: U32,
    pub descriptor_count: U32,
    /// From the start of the node.
    pub descriptor_offset: U32,
}

/// RMR flags.
pub(super) mod rmr_flags {
    /// The guest may give the range another mapping (when it passes the device on to a guest of its own).
    pub const REMAP_PERMITTED: u32 = 1 << 0;
    /// Access attributes: Device-nGnRE.
    pub const DEVICE_NGNRE: u32 = 1 << 2;
}

/// Memory range descriptor.
#[repr(C, packed)]
#[derive(IntoBytes, Immutable)]
pub(super) struct MemoryRange {
    pub base: U64,
    pub length: U64,
    pub reserved: U32,
}
