//! Loading what the guest starts with, at the first boot and at every reboot in place.
#![forbid(unsafe_code)]

use std::fs::File;
use std::io::Read;
use std::path::Path;

use nestling_arch::boot::{AcpiTables, BootRequest, Entry, Seed, Source, load};
use nestling_arch::layout::Region;

use super::error::Error;
use super::tables::describe;
use crate::memory::GuestRam;
use crate::plan::Plan;

/// Kernel and initrd, opened once: a reboot boots the same files even if their names mean others by then.
pub struct BootFiles {
    kernel: File,
    initrd: Option<File>,
}

impl BootFiles {
    /// Opens what the Plan names.
    pub fn open(plan: &Plan) -> Result<Self, Error> {
        let open = |what, path: &Path| {
            File::open(path).map_err(|source| Error::Open { what, path: path.to_path_buf(), source })
        };
        let kernel = open("kernel", &plan.boot.kernel)?;
        let initrd = plan.boot.initrd.as_deref().map(|path| open("initrd", path)).transpose()?;
        Ok(Self { kernel, initrd })
    }

    /// Loads everything into guest RAM; returns where the first vCPU starts.
    pub fn load(&self, plan: &Plan, ram: &GuestRam, pmu: bool) -> Result<Entry, Error> {
        let request = BootRequest {
            ram: Region::new(ram.window().base, ram.window().size),
            kernel: Source::File(&self.kernel),
            initrd: self.initrd.as_ref().map(Source::File),
            cmdline: &plan.boot.cmdline,
            seed: seed()?,
        };
        let tables = |base| {
            let tables = nestling_acpi::build(&describe(plan, pmu), base);
            AcpiTables { bytes: tables.bytes, rsdp: tables.rsdp }
        };
        Ok(load(ram.memory(), &request, tables)?.entry)
    }
}

fn seed() -> Result<Seed, Error> {
    let (mut kaslr, mut rng) = ([0; 8], [0; 32]);
    let random = |source| Error::Host("/dev/urandom", source);
    let mut source = File::open("/dev/urandom").map_err(random)?;
    source.read_exact(&mut kaslr).map_err(random)?;
    source.read_exact(&mut rng).map_err(random)?;
    Ok(Seed { kaslr: u64::from_ne_bytes(kaslr), rng })
}
