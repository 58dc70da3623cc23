//! Direct boot: puts an arm64 Linux kernel, its initrd and a synthesised EFI hand-over into guest RAM.
//!
//! arm64 Linux uses ACPI only with an EFI memory map (arch/arm64/kernel/acpi.c, `acpi_os_ioremap`), so a kernel that is
//! started without firmware gets what the EFI stub would have left: a system table, a memory map, and an FDT that has
//! nothing but `/chosen` and points to both. From the start of RAM:
//!
//! ```text
//!  kernel       2 MiB aligned, image_size bytes (more than the file: .bss)     conventional memory
//!  hand-over    64 KiB aligned: EFI tables and memory map, then ACPI           ACPI reclaim memory
//!  FDT          64 KiB aligned                                                 conventional memory, reserved by Linux
//!  initrd       64 KiB aligned                                                 conventional memory, reserved by Linux
//!  free
//! ```
//!
//! Loading again is all that a reboot in place needs here.
#![forbid(unsafe_code)]

mod efi;
mod fdt;
pub mod image;
mod kernel;
mod place;
mod source;

use linux_loader::cmdline::{self, Cmdline};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use crate::layout::Region;
use efi::Handover;
use image::ImageError;
pub use kernel::Kernel;
use place::Placer;
pub use source::Source;

/// COMMAND_LINE_SIZE of arm64, which counts the NUL (arch/arm64/include/uapi/asm/setup.h).
pub const COMMAND_LINE_SIZE: usize = 2048;
/// The largest granule of arm64: memory of different kinds never shares one.
const GRANULE: u64 = 64 << 10;
/// Kernel and initrd lie in one window of this size (Documentation/arch/arm64/booting.rst).
const INITRD_WINDOW: u64 = 32 << 30;

/// Where the first vCPU starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Address of the first instruction.
    pub pc: u64,
    /// Address of the FDT.
    pub x0: u64,
}

/// What to boot.
#[derive(Clone, Copy, Debug)]
pub struct BootRequest<'a> {
    /// Guest RAM, 4 KiB aligned. All of it is in the memory map.
    pub ram: Region,
    /// An arm64 Image, plain or compressed with gzip.
    pub kernel: Source<'a>,
    /// The initial RAM disk.
    pub initrd: Option<Source<'a>>,
    /// The kernel's command line.
    pub cmdline: &'a str,
    /// Random bytes for the guest.
    pub seed: Seed,
}

impl BootRequest<'_> {
    /// Says what is wrong with it before there is a guest: everything but what only guest memory and the ACPI tables
    /// can tell.
    pub fn check(&self) -> Result<(), BootError> {
        check_cmdline(self.cmdline)?;
        let mut placer = Placer::new(self.ram)?;
        let kernel = place_kernel(&mut placer, &Kernel::open(self.kernel)?)?;
        placer.place("set of ACPI tables", GRANULE)?;
        placer.place("device tree", GRANULE)?;
        self.initrd.map_or(Ok(()), |initrd| place_initrd(&mut placer, &initrd, &kernel).map(|_| ()))
    }
}

/// Random bytes from the host, new for every boot.
#[derive(Clone, Copy)]
pub struct Seed {
    /// Where the kernel puts itself in its virtual address space.
    pub kaslr: u64,
    /// Start of its entropy pool.
    pub rng: [u8; 32],
}

impl std::fmt::Debug for Seed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Seed")
    }
}

/// All ACPI tables in one piece.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AcpiTables {
    /// What to put at the address that was asked about.
    pub bytes: Vec<u8>,
    /// Guest physical address of the RSDP, in `bytes`.
    pub rsdp: u64,
}

/// Where everything went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// Where the first vCPU starts.
    pub entry: Entry,
    /// The kernel with its .bss.
    pub kernel: Region,
    /// EFI and ACPI tables.
    pub handover: Region,
    /// The FDT.
    pub fdt: Region,
    /// The initrd.
    pub initrd: Option<Region>,
}

/// Why a guest cannot be booted.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// The kernel file is not usable.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// A file cannot be read.
    #[error("cannot read the {what}")]
    Read {
        /// Kernel or initrd.
        what: &'static str,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// An empty initrd.
    #[error("the initrd is empty: leave it out or give a file with content")]
    EmptyInitrd,
    /// Something does not fit in RAM.
    #[error(
        "the {what} does not fit in {} MiB of guest memory: give the guest at least {} MiB",
        .ram >> 20, .needed.div_ceil(1 << 20)
    )]
    NoRoom {
        /// What had no room.
        what: &'static str,
        /// Bytes of RAM.
        ram: u64,
        /// Bytes of RAM with which it would fit.
        needed: u64,
    },
    /// The initrd would end out of the kernel's reach.
    #[error("kernel and initrd need {} MiB together, and Linux on arm64 takes 32 GiB: make the initrd smaller", .0 >> 20)]
    InitrdTooFar(u64),
    /// The command line is too long for Linux.
    #[error("the kernel command line has {0} bytes, and Linux on arm64 takes {max}: shorten it", max = COMMAND_LINE_SIZE - 1)]
    CmdlineTooLong(usize),
    /// The command line has a character that is not printable ASCII.
    #[error("the kernel command line is to be printable ascii")]
    Cmdline(#[source] linux_loader::cmdline::Error),
    /// RAM is not whole pages.
    #[error("guest memory of {size:#x} bytes at {base:#x} is not whole 4 KiB pages: round it", base = .0.base, size = .0.size)]
    Unaligned(Region),
    /// The FDT cannot be made.
    #[error("the device tree cannot be made")]
    Fdt(#[from] vm_fdt::Error),
    /// Guest memory does not take it.
    #[error("the {what} cannot be written to guest memory at {address:#x}")]
    Write {
        /// What was written.
        what: &'static str,
        /// Where.
        address: u64,
        /// Why.
        #[source]
        source: vm_memory::GuestMemoryError,
    },
}

/// Loads a kernel and everything that it needs. `acpi` is asked for the ACPI tables at the address it gets.
pub fn load(
    memory: &GuestMemoryMmap,
    request: &BootRequest<'_>,
    acpi: impl FnOnce(u64) -> AcpiTables,
) -> Result<Loaded, BootError> {
    check_cmdline(request.cmdline)?;
    let mut placer = Placer::new(request.ram)?;

    let image = Kernel::open(request.kernel)?;
    let kernel = place_kernel(&mut placer, &image)?;
    image.image().load(memory, "kernel", kernel.base)?;

    let base = placer.next();
    let acpi_base = base + efi::ACPI_OFFSET;
    let tables = acpi(acpi_base);
    let handover = placer.place("set of ACPI tables", efi::ACPI_OFFSET.saturating_add(tables.bytes.len() as u64))?;
    let efi = Handover::new(request.ram, handover, tables.rsdp);
    write(memory, "EFI tables", handover.base, efi.bytes())?;
    write(memory, "ACPI tables", acpi_base, &tables.bytes)?;

    let mut chosen = fdt::Chosen { cmdline: request.cmdline, seed: request.seed, initrd: None, efi: efi.pointers() };
    // The initrd comes behind the FDT, whose size does not depend on where that is.
    let length = fdt::build(&chosen)?.len() as u64 + fdt::INITRD_PROPERTIES;
    let fdt = placer.place("device tree", length)?;
    if let Some(source) = &request.initrd {
        let place = place_initrd(&mut placer, source, &kernel)?;
        source.load(memory, "initrd", place.base)?;
        chosen.initrd = Some(place);
    }
    write(memory, "device tree", fdt.base, &fdt::build(&chosen)?)?;

    let entry = Entry { pc: kernel.base, x0: fdt.base };
    Ok(Loaded { entry, kernel, handover, fdt, initrd: chosen.initrd })
}

fn place_kernel(placer: &mut Placer, kernel: &Kernel<'_>) -> Result<Region, BootError> {
    let file = kernel.image().len().map_err(|source| BootError::Read { what: "kernel", source })?;
    placer.kernel(kernel.header(), file)
}

fn place_initrd(placer: &mut Placer, initrd: &Source<'_>, kernel: &Region) -> Result<Region, BootError> {
    let size = initrd.len().map_err(|source| BootError::Read { what: "initrd", source })?;
    if size == 0 {
        return Err(BootError::EmptyInitrd);
    }
    let place = Region::new(placer.place("initrd", size)?.base, size);
    match place.end() - kernel.base {
        span if span > INITRD_WINDOW => Err(BootError::InitrdTooFar(span)),
        _ => Ok(place),
    }
}

fn check_cmdline(cmdline: &str) -> Result<(), BootError> {
    let line = Cmdline::new(COMMAND_LINE_SIZE).and_then(|mut line| line.insert_str(cmdline));
    match line {
        Ok(()) => Ok(()),
        Err(cmdline::Error::TooLarge) => Err(BootError::CmdlineTooLong(cmdline.len())),
        Err(error) => Err(BootError::Cmdline(error)),
    }
}

fn write(memory: &GuestMemoryMmap, what: &'static str, address: u64, bytes: &[u8]) -> Result<(), BootError> {
    memory.write_slice(bytes, GuestAddress(address)).map_err(|source| BootError::Write { what, address, source })
}

#[cfg(test)]
mod tests;
