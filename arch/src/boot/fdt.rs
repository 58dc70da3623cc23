//! The FDT of a guest with ACPI: a root with nothing but `/chosen`.
//!
//! More nodes would make Linux prefer the tree to ACPI (arch/arm64/kernel/acpi.c, `dt_is_stub`).
#![forbid(unsafe_code)]

use vm_fdt::FdtWriter;

use super::Seed;
use super::efi::{MEMORY_DESCRIPTOR_SIZE, MEMORY_DESCRIPTOR_VERSION, Pointers};
use crate::layout::Region;

/// `efi_secureboot_mode_disabled` (include/linux/efi.h). Debian's kernels refuse the whole hand-over without the
/// property; others ignore it.
const SECURE_BOOT_DISABLED: u32 = 2;
/// At most this many bytes are added by [`Chosen::initrd`]: two properties and their names.
pub(super) const INITRD_PROPERTIES: u64 = 128;

/// Content of `/chosen`.
#[derive(Clone, Copy, Debug)]
pub struct Chosen<'a> {
    /// The kernel's command line.
    pub cmdline: &'a str,
    /// Random bytes; the kernel erases them once it has read them.
    pub seed: Seed,
    /// Where the initrd is.
    pub initrd: Option<Region>,
    /// Where EFI system table and memory map are.
    pub efi: Pointers,
}

/// Writes the tree.
pub fn build(chosen: &Chosen<'_>) -> Result<Vec<u8>, vm_fdt::Error> {
    let mut fdt = FdtWriter::new()?;
    let root = fdt.begin_node("")?;
    fdt.property_u32("#address-cells", 2)?;
    fdt.property_u32("#size-cells", 2)?;
    let node = fdt.begin_node("chosen")?;
    fdt.property_string("bootargs", chosen.cmdline)?;
    fdt.property_u64("kaslr-seed", chosen.seed.kaslr)?;
    fdt.property("rng-seed", &chosen.seed.rng)?;
    if let Some(initrd) = chosen.initrd {
        fdt.property_u64("linux,initrd-start", initrd.base)?;
        fdt.property_u64("linux,initrd-end", initrd.end())?;
    }
    // drivers/firmware/efi/fdtparams.c
    fdt.property_u64("linux,uefi-system-table", chosen.efi.system_table)?;
    fdt.property_u64("linux,uefi-mmap-start", chosen.efi.memory_map.base)?;
    fdt.property_u32("linux,uefi-mmap-size", chosen.efi.memory_map.size as u32)?;
    fdt.property_u32("linux,uefi-mmap-desc-size", MEMORY_DESCRIPTOR_SIZE)?;
    fdt.property_u32("linux,uefi-mmap-desc-ver", MEMORY_DESCRIPTOR_VERSION)?;
    fdt.property_u32("linux,uefi-secure-boot", SECURE_BOOT_DISABLED)?;
    fdt.end_node(node)?;
    fdt.end_node(root)?;
    fdt.finish()
}
