//! What an EFI stub leaves behind: system table, configuration tables, memory map.
//!
//! All of it lies in ACPI reclaim memory, so that Linux keeps it and a kexec finds it again. There are no runtime
//! services. Sources: UEFI 2.10 sections 4.3, 4.6, 7.2; drivers/firmware/efi/{efi-init,efi,fdtparams}.c.
#![forbid(unsafe_code)]

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{Immutable, IntoBytes};

use super::GRANULE;
use crate::layout::Region;

/// Size of an EFI_MEMORY_DESCRIPTOR of version 1, in bytes.
pub const MEMORY_DESCRIPTOR_SIZE: u32 = size_of::<MemoryDescriptor>() as u32;
/// EFI_MEMORY_DESCRIPTOR_VERSION.
pub const MEMORY_DESCRIPTOR_VERSION: u32 = 1;
/// Where in the hand-over the ACPI tables begin; EFI's part is in front, in one page.
pub const ACPI_OFFSET: u64 = 4096;

const CONVENTIONAL_MEMORY: u32 = 7;
const ACPI_RECLAIM_MEMORY: u32 = 9;
/// EFI_MEMORY_WB.
const WRITE_BACK: u64 = 1 << 3;
const EFI_PAGE: u64 = 4096;

/// `IBI SYST`.
const SYSTEM_TABLE_SIGNATURE: u64 = 0x5453_5953_2049_4249;
/// UEFI 2.10.
const REVISION: u32 = 2 << 16 | 100;

/// 8868e871-e4f1-11d3-bc22-0080c73c8881
const ACPI_20_TABLE: [u8; 16] = guid(0x8868_e871, 0xe4f1, 0x11d3, 0xbc22_0080_c73c_8881);
/// eb66918a-7eef-402a-842e-931d21c38ae9
const RT_PROPERTIES_TABLE: [u8; 16] = guid(0xeb66_918a, 0x7eef, 0x402a, 0x842e_931d_21c3_8ae9);
/// 888eb0c6-8ede-4ff5-a8f0-9aee5cb977c2
const LINUX_MEMRESERVE_TABLE: [u8; 16] = guid(0x888e_b0c6, 0x8ede, 0x4ff5, 0xa8f0_9aee_5cb9_77c2);

/// Where the kernel finds the two things that the FDT names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pointers {
    /// EFI_SYSTEM_TABLE.
    pub system_table: u64,
    /// The memory map: address and size in bytes.
    pub memory_map: Region,
}

/// The EFI part of the hand-over.
#[derive(Clone, Debug)]
pub struct Handover {
    block: Block,
    pointers: Pointers,
}

/// Everything in one piece; each member is at a fixed offset.
#[derive(Clone, Debug, IntoBytes, Immutable)]
#[repr(C)]
struct Block {
    system_table: SystemTable,
    vendor: [U16; VENDOR.len()],
    tables: [ConfigurationTable; 3],
    runtime_properties: RuntimeProperties,
    /// Linux adds to it what the next kernel must not touch (GICR pending tables); aligned so as not to cross a page.
    memreserve: MemReserve,
    memory_map: MemoryMap,
}

const _: () = assert!(size_of::<Block>() as u64 <= ACPI_OFFSET);
const _: () = assert!(std::mem::offset_of!(Block, memreserve) % 16 == 0);

/// `nestling` with its NUL; 10 characters keep what follows aligned.
const VENDOR: [u8; 12] = *b"nestling\0\0\0\0";

/// EFI_SYSTEM_TABLE (UEFI 4.3).
#[derive(Clone, Debug, IntoBytes, Immutable)]
#[repr(C)]
struct SystemTable {
    signature: U64,
    revision: U32,
    header_size: U32,
    crc32: U32,
    reserved: U32,
    firmware_vendor: U64,
    firmware_revision: U32,
    padding: U32,
    /// Handles and protocols of input, output and error console: none.
    consoles: [U64; 6],
    runtime_services: U64,
    boot_services: U64,
    number_of_tables: U64,
    tables: U64,
}

/// EFI_CONFIGURATION_TABLE (UEFI 4.6).
#[derive(Clone, Debug, IntoBytes, Immutable)]
#[repr(C)]
struct ConfigurationTable {
    guid: [u8; 16],
    address: U64,
}

/// EFI_RT_PROPERTIES_TABLE (UEFI 4.6.2). Without it Linux would call runtime services that do not exist.
#[derive(Clone, Debug, IntoBytes, Immutable)]
#[repr(C)]
struct RuntimeProperties {
    version: U16,
    length: U16,
    supported: U32,
}

/// `struct linux_efi_memreserve` (include/linux/efi.h), empty. Without it the ITS driver warns for every CPU.
#[derive(Clone, Debug, IntoBytes, Immutable)]
#[repr(C)]
struct MemReserve {
    size: U32,
    count: U32,
    next: U64,
}

/// EFI_MEMORY_DESCRIPTOR (UEFI 7.2).
#[derive(Clone, Debug, IntoBytes, Immutable)]
#[repr(C)]
struct MemoryDescriptor {
    kind: U32,
    padding: U32,
    physical_start: U64,
    virtual_start: U64,
    pages: U64,
    attribute: U64,
}

/// RAM in front of the hand-over, the hand-over, RAM behind it.
type MemoryMap = [MemoryDescriptor; 3];

impl Handover {
    /// For a guest with `ram` whose EFI and ACPI tables are in `handover`, whole granules inside of it with RAM on
    /// both sides.
    pub(super) fn new(ram: Region, handover: Region, rsdp: u64) -> Self {
        debug_assert!(handover.base.is_multiple_of(GRANULE) && handover.size.is_multiple_of(GRANULE));
        let at = |offset: usize| handover.base + offset as u64;
        let table = |guid, address: u64| ConfigurationTable { guid, address: address.into() };
        let tables = [
            table(ACPI_20_TABLE, rsdp),
            table(RT_PROPERTIES_TABLE, at(std::mem::offset_of!(Block, runtime_properties))),
            table(LINUX_MEMRESERVE_TABLE, at(std::mem::offset_of!(Block, memreserve))),
        ];
        let block = Block {
            system_table: SystemTable::new(
                at(std::mem::offset_of!(Block, vendor)),
                tables.len() as u64,
                at(std::mem::offset_of!(Block, tables)),
            ),
            vendor: VENDOR.map(|character| u16::from(character).into()),
            tables,
            runtime_properties: RuntimeProperties {
                version: 1.into(),
                length: (size_of::<RuntimeProperties>() as u16).into(),
                supported: 0.into(),
            },
            memreserve: MemReserve { size: 0.into(), count: 0.into(), next: 0.into() },
            memory_map: memory_map(ram, handover),
        };
        let map = Region::new(at(std::mem::offset_of!(Block, memory_map)), size_of::<MemoryMap>() as u64);
        let pointers = Pointers { system_table: handover.base, memory_map: map };
        Self { block, pointers }
    }

    /// What to write to the start of the hand-over.
    pub(super) fn bytes(&self) -> &[u8] {
        self.block.as_bytes()
    }

    /// What the FDT says about it.
    pub(super) fn pointers(&self) -> Pointers {
        self.pointers
    }
}

impl SystemTable {
    fn new(vendor: u64, number_of_tables: u64, tables: u64) -> Self {
        let mut table = Self {
            signature: SYSTEM_TABLE_SIGNATURE.into(),
            revision: REVISION.into(),
            header_size: (size_of::<Self>() as u32).into(),
            crc32: 0.into(),
            reserved: 0.into(),
            firmware_vendor: vendor.into(),
            firmware_revision: 1.into(),
            padding: 0.into(),
            consoles: [0.into(); 6],
            runtime_services: 0.into(),
            boot_services: 0.into(),
            number_of_tables: number_of_tables.into(),
            tables: tables.into(),
        };
        table.crc32 = crc32(table.as_bytes()).into();
        table
    }
}

/// All of RAM, in ascending order, without a gap.
fn memory_map(ram: Region, handover: Region) -> MemoryMap {
    let piece = |kind: u32, start: u64, end: u64| MemoryDescriptor {
        kind: kind.into(),
        padding: 0.into(),
        physical_start: start.into(),
        virtual_start: 0.into(),
        pages: ((end - start) / EFI_PAGE).into(),
        attribute: WRITE_BACK.into(),
    };
    [
        piece(CONVENTIONAL_MEMORY, ram.base, handover.base),
        piece(ACPI_RECLAIM_MEMORY, handover.base, handover.end()),
        piece(CONVENTIONAL_MEMORY, handover.end(), ram.end()),
    ]
}

/// A GUID as EFI stores it: the first three fields little-endian.
const fn guid(a: u32, b: u16, c: u16, d: u64) -> [u8; 16] {
    let (a, b, c, d) = (a.to_le_bytes(), b.to_le_bytes(), c.to_le_bytes(), d.to_be_bytes());
    [a[0], a[1], a[2], a[3], b[0], b[1], c[0], c[1], d[0], d[1], d[2], d[3], d[4], d[5], d[6], d[7]]
}

/// CRC-32 as UEFI uses it (UEFI 4.2: the polynomial of IEEE 802.3).
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc: u32, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| if crc & 1 != 0 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layouts_are_those_of_the_specification() {
        assert_eq!(size_of::<SystemTable>(), 120);
        assert_eq!(std::mem::offset_of!(SystemTable, firmware_vendor), 24);
        assert_eq!(std::mem::offset_of!(SystemTable, runtime_services), 88);
        assert_eq!(std::mem::offset_of!(SystemTable, number_of_tables), 104);
        assert_eq!(size_of::<ConfigurationTable>(), 24);
        assert_eq!(size_of::<RuntimeProperties>(), 8);
        assert_eq!(size_of::<MemReserve>(), 16);
        assert_eq!(size_of::<MemoryDescriptor>(), 40);
    }

    #[test]
    fn the_checksum_is_the_one_everybody_knows() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
    }

    #[test]
    fn a_guid_is_stored_mixed_endian() {
        assert_eq!(
            ACPI_20_TABLE,
            [0x71, 0xe8, 0x68, 0x88, 0xf1, 0xe4, 0xd3, 0x11, 0xbc, 0x22, 0x00, 0x80, 0xc7, 0x3c, 0x88, 0x81]
        );
    }
}
