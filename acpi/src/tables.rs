//! The whole set of tables, laid out in one piece of guest memory.

use acpi_tables::{rsdp::Rsdp, xsdt::XSDT};

use crate::{dbg2, description::Description, dsdt, fadt, gtdt, iort, madt, mcfg, pptt, sdt, spcr};

/// Every table starts at a multiple of it; the RSDP has to (ACPI 6.5, 5.2.5.1).
const ALIGNMENT: usize = 16;

/// All tables of a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tables {
    /// What is to be copied to guest memory at the address that [`build`] was given.
    pub bytes: Vec<u8>,
    /// Guest physical address of the RSDP.
    pub rsdp: u64,
    entries: Vec<Entry>,
}

/// One table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Table<'a> {
    /// Its signature (`APIC`, `DSDT`, `IORT`, ...); `RSDP` for the root pointer, whose own has 8 characters.
    pub signature: &'static str,
    /// Guest physical address.
    pub address: u64,
    /// Its bytes.
    pub bytes: &'a [u8],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    signature: &'static str,
    address: u64,
    start: usize,
    end: usize,
}

impl Tables {
    /// Every table, in the order of their addresses.
    pub fn iter(&self) -> impl Iterator<Item = Table<'_>> {
        self.entries.iter().filter_map(|e| {
            let bytes = self.bytes.get(e.start..e.end)?;
            Some(Table { signature: e.signature, address: e.address, bytes })
        })
    }
}

/// Builds all tables for a place in guest memory.
///
/// `base` is the guest physical address that the first byte will have; it is a multiple of 16 (whoever makes the EFI
/// memory map wants 64 KiB). The blob lies in memory of EFI type 9 (ACPI reclaim) in one descriptor: Linux maps
/// tables from nowhere else (arch/arm64/kernel/acpi.c, acpi_os_ioremap).
///
/// The generic event device's window starts with one 32-bit event selector, read to clear; bit 1 is the power button.
pub fn build(description: &Description, base: u64) -> Tables {
    let mut layout = Layout { base, bytes: Vec::new(), entries: Vec::new() };
    let dsdt = layout.push("DSDT", &dsdt::build(description));
    let listed = [
        ("FACP", fadt::build(dsdt)),
        ("APIC", madt::build(description)),
        ("PPTT", pptt::build(description.cpus.len())),
        ("GTDT", gtdt::build()),
        ("MCFG", mcfg::build(&description.pci)),
        ("SPCR", spcr::build(&description.serial)),
        ("DBG2", dbg2::build(&description.serial)),
        ("IORT", iort::build(&description.gic, &description.pci)),
    ];
    let mut xsdt = XSDT::new(sdt::OEM_ID, sdt::OEM_TABLE_ID, sdt::OEM_REVISION);
    for (signature, bytes) in &listed {
        xsdt.add_entry(layout.push(signature, bytes));
    }
    let xsdt = layout.push("XSDT", &sdt::bytes(&xsdt));
    let rsdp = layout.push("RSDP", &sdt::bytes(&Rsdp::new(sdt::OEM_ID, xsdt)));
    Tables { bytes: layout.bytes, rsdp, entries: layout.entries }
}

/// Tables one behind the other.
struct Layout {
    base: u64,
    bytes: Vec<u8>,
    entries: Vec<Entry>,
}

impl Layout {
    /// Places a table and returns its guest physical address.
    fn push(&mut self, signature: &'static str, table: &[u8]) -> u64 {
        let start = self.bytes.len().next_multiple_of(ALIGNMENT);
        self.bytes.resize(start, 0);
        self.bytes.extend_from_slice(table);
        let address = self.base.wrapping_add(start as u64);
        self.entries.push(Entry { signature, address, start, end: start + table.len() });
        address
    }
}
