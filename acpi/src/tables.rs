//! The whole set of tables, laid out in one piece of guest memory.

use crate::description::Description;

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
pub fn build(_description: &Description, base: u64) -> Tables {
    Tables { bytes: Vec::new(), rsdp: base, entries: Vec::new() }
}
