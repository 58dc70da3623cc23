//! Whether the kernel and the initrd are there and can be booted, before anything is started.

use std::fs::File;
use std::path::Path;

use nestling_arch::boot::{BootError, BootRequest, Seed, Source};
use nestling_arch::layout::Region;

use super::error::Error;
use super::spec::{Boot, Window};

/// Checks what a guest with this memory boots.
pub fn check(boot: &Boot, memory: Window) -> Result<(), Error> {
    let kernel = open("kernel", &boot.kernel)?;
    let initrd = boot.initrd.as_deref().map(|path| open("initrd", path)).transpose()?;
    let request = BootRequest {
        ram: Region::new(memory.base, memory.size),
        kernel: Source::File(&kernel),
        initrd: initrd.as_ref().map(Source::File),
        cmdline: &boot.cmdline,
        seed: Seed { kaslr: 0, rng: [0; 32] },
    };
    let named = |what: &str, path: &Path| format!("{what} '{}'", path.display());
    request.check().map_err(|source| {
        if matches!(source, BootError::CmdlineTooLong(_) | BootError::Cmdline(_)) {
            return Error::Cmdline(source);
        }
        let mut what = named("kernel", &boot.kernel);
        if let Some(path) = &boot.initrd {
            what = format!("{what} with {}", named("initrd", path));
        }
        Error::Boot { what, source }
    })
}

fn open(what: &'static str, path: &Path) -> Result<File, Error> {
    File::open(path).map_err(|source| Error::OpenBootFile { what, path: path.into(), source })
}
