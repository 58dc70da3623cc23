//! The set-up half of the lab: from an empty cache to everything an emulated host boots from.
//!
//! [`ensure`] is the one door. It answers from the cache when the cache is complete, without the network and without
//! a lock; otherwise it fetches packages, builds the kernel and packs the images, one published step after another:
//!
//! | entry of the cache | made from | by |
//! | --- | --- | --- |
//! | `release-*.toml` | package names: which versions they stand for | `packages` |
//! | `qemu-*` | QEMU, its libraries and firmware for this machine | `qemu` |
//! | `userland-*` | aarch64 programs for host and guest | `userland` |
//! | `kernel-*` | Debian's kernel source and our fragment | `kernel` |
//! | `images-*` | userland and the two init scripts | `images` |
//!
//! [`guests`] makes what only tests need:
//!
//! | entry of the cache | made from | by |
//! | --- | --- | --- |
//! | `guest-kernels-*` | Debian's own kernels | `distribution` |
//! | `guest-libraries-*`, `guest-tools-*` | C programs for guests, and what they are linked with | `tools` |
//! | `guests-*` | initramfs images with those programs, and with the modules of those kernels | `guests` |

use std::ffi::OsString;
use std::path::{Path, PathBuf};

mod apt;
mod cache;
mod command;
pub mod cpio;
mod distribution;
mod elf;
mod error;
mod guests;
mod images;
mod kernel;
mod machine;
mod mirror;
mod packages;
mod progress;
mod qemu;
mod tools;
mod userland;

pub use error::Error;
pub use guests::Guests;
pub use progress::Progress;

use cache::Cache;
use packages::Held;

/// What [`ensure`] should do beyond the obvious.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// The cache folder; without it `$NESTLING_LAB_CACHE`, else the user's cache folder.
    pub cache: Option<PathBuf>,
    /// Ask the package mirror for newer versions, even where the cache is complete.
    pub refresh: bool,
}

/// Everything the lab boots from. All paths are absolute, lie in the cache and are read-only by agreement:
/// another run may be using them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Artifacts {
    /// The emulator, ready to run.
    pub qemu: Qemu,
    /// UEFI for the emulated host, for `-bios`.
    pub firmware: PathBuf,
    /// An uncompressed arm64 `Image`, for the host and for the guest.
    pub kernel: PathBuf,
    /// The unpacked aarch64 packages, a root folder with merged `/usr`.
    pub userland: PathBuf,
    /// newc archive, uncompressed: userland programs and the host's `/init`. More archives may be put before or after.
    pub host_initramfs: PathBuf,
    /// newc archive, uncompressed: the same programs and the guest's `/init`.
    pub guest_initramfs: PathBuf,
    /// The cache folder itself; what a run makes for itself does not belong here.
    pub cache: PathBuf,
}

/// How to start `qemu-system-aarch64` out of the cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Qemu {
    /// The program to execute: the dynamic loader that belongs to QEMU's own C library.
    pub program: PathBuf,
    /// What goes before every other argument: library path, QEMU itself, its data folders.
    pub args: Vec<OsString>,
    /// As QEMU says it, for example `11.1.3`.
    pub version: String,
}

impl Qemu {
    /// A command that runs QEMU; the machine's own options are added to it.
    #[must_use]
    pub fn command(&self) -> std::process::Command {
        let mut command = std::process::Command::new(&self.program);
        command.args(&self.args);
        command
    }
}

/// Makes sure that all of [`Artifacts`] exists, and says where.
///
/// # Errors
/// Names the step, the object and the remedy; steps that were finished before stay in the cache.
pub fn ensure(progress: &Progress, config: &Config) -> Result<Artifacts, Error> {
    machine::rust_target(progress)?;
    let cache = Cache::open(config.cache.clone())?;
    if !config.refresh
        && let Some(artifacts) = held(&cache)
    {
        return Ok(artifacts);
    }
    make(&cache, progress, config.refresh)
}

/// Makes sure that the kernels and images exist that only tests boot, after [`ensure`].
///
/// # Errors
/// As [`ensure`].
pub fn guests(progress: &Progress, config: &Config) -> Result<Guests, Error> {
    guests::get(&Cache::open(config.cache.clone())?, progress, config.refresh)
}

/// Everything, if the cache has it.
fn held(cache: &Cache) -> Option<Artifacts> {
    let emulator = qemu::SET.held(cache)?;
    let userland = userland::SET.held(cache)?;
    let kernel = kernel::held(cache, &kernel::SET.held(cache)?)?;
    let images = images::held(cache, &userland)?;
    Some(artifacts(cache, &emulator, kernel, &userland, images))
}

fn make(cache: &Cache, progress: &Progress, refresh: bool) -> Result<Artifacts, Error> {
    machine::package_tools()?;
    // What may have to be installed on the machine comes first: a missing right should not cost minutes to find out.
    if kernel::SET.held(cache).is_none_or(|source| kernel::held(cache, &source).is_none()) {
        let lock = cache.lock("machine", progress)?;
        machine::build_packages(progress, &lock.log("apt"))?;
    }
    let unchecked = |_: &Path| Ok(());
    let emulator = qemu::SET.get(cache, progress, refresh, qemu::check)?;
    let userland = userland::SET.get(cache, progress, refresh, unchecked)?;
    let source = kernel::SET.get(cache, progress, refresh, unchecked)?;
    let images = images::get(cache, progress, &userland)?;
    let kernel = kernel::get(cache, progress, &source)?;
    Ok(artifacts(cache, &emulator, kernel, &userland, images))
}

fn artifacts(
    cache: &Cache,
    emulator: &Held,
    kernel: PathBuf,
    userland: &Held,
    (host_initramfs, guest_initramfs): (PathBuf, PathBuf),
) -> Artifacts {
    let version = emulator.release.get(qemu::SET.names[0]).map(|package| qemu::upstream(package.version()).to_owned());
    Artifacts {
        qemu: qemu::qemu(&emulator.path, version.unwrap_or_default()),
        firmware: qemu::firmware(&emulator.path),
        kernel,
        userland: userland.path.clone(),
        host_initramfs,
        guest_initramfs,
        cache: cache.root().to_owned(),
    }
}
