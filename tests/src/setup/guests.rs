//! What only tests boot: guests with Debian's kernels, and an initramfs with programs that make a device misbehave.

use std::fs;
use std::path::{Path, PathBuf};

use super::cache::{self, Cache, Lock};
use super::distribution::{self, FLAVOURS, Kernel};
use super::error::{Error, io};
use super::images::{self, Extra};
use super::packages::Held;
use super::progress::Progress;
use super::{kernel, machine, tools, userland};

/// Counts up when this module packs the same inputs differently.
const RECIPE: &[u8] = b"1";

/// The folder of kernels and initramfs images for guests of tests. Its files are named by these methods alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guests(PathBuf);

impl Guests {
    /// The guests in a folder that [`super::guests`] has returned in another process.
    #[must_use]
    pub fn at(folder: PathBuf) -> Self {
        Self(folder)
    }

    /// The folder itself.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.0
    }

    /// The initramfs for the lab's own kernel with everything that tests run in a guest.
    #[must_use]
    pub fn tools(&self) -> PathBuf {
        self.0.join("tools.cpio")
    }

    /// Debian's kernel of this flavour (`arm64` or `arm64-16k`), and its initramfs.
    #[must_use]
    pub fn distribution(&self, flavour: &str) -> (PathBuf, PathBuf) {
        (self.0.join(flavour).with_extension("Image"), self.0.join(flavour).with_extension("cpio"))
    }
}

/// What the folder is made from.
struct Parts {
    userland: Held,
    kernels: Held,
    tools: PathBuf,
}

impl Parts {
    fn held(cache: &Cache) -> Option<Self> {
        let tools = tools::held(cache, &kernel::SET.held(cache)?, &tools::SET.held(cache)?)?;
        Some(Self { userland: userland::SET.held(cache)?, kernels: distribution::SET.held(cache)?, tools })
    }

    fn get(cache: &Cache, progress: &Progress, refresh: bool) -> Result<Self, Error> {
        if !refresh && let Some(parts) = Self::held(cache) {
            return Ok(parts);
        }
        machine::package_tools()?;
        let lock = cache.lock("machine", progress)?;
        machine::build_packages(progress, &lock.log("apt"))?;
        drop(lock);
        let unchecked = |_: &Path| Ok(());
        // the lab's own set-up has just asked for newer ones of these two
        let userland = userland::SET.get(cache, progress, false, unchecked)?;
        let source = kernel::SET.get(cache, progress, false, unchecked)?;
        let kernels = distribution::SET.get(cache, progress, refresh, unchecked)?;
        let libraries = tools::SET.get(cache, progress, refresh, unchecked)?;
        Ok(Self { userland, kernels, tools: tools::get(cache, progress, &source, &libraries)? })
    }

    fn entry(&self, cache: &Cache) -> PathBuf {
        let keys = [self.userland.release.key(), self.kernels.release.key()];
        let tools = self.tools.to_string_lossy();
        let inputs = [RECIPE, images::RECIPE, keys[0].as_bytes(), keys[1].as_bytes(), tools.as_bytes()];
        cache.entry("guests", &cache::key(inputs.into_iter().chain(images::GUEST.inputs())))
    }
}

/// The guests, made if the cache lacks them.
pub(super) fn get(cache: &Cache, progress: &Progress, refresh: bool) -> Result<Guests, Error> {
    let parts = Parts::get(cache, progress, refresh)?;
    let entry = parts.entry(cache);
    if !entry.is_dir() {
        let lock = cache.lock("guests", progress)?;
        // Whoever held the lock may have made it.
        if !entry.is_dir() {
            make(&lock, progress, &parts, &entry)?;
        }
    }
    Ok(Guests(entry))
}

fn make(lock: &Lock, progress: &Progress, parts: &Parts, entry: &Path) -> Result<(), Error> {
    let stage = Guests(lock.stage("entry")?);
    let programs: Vec<Extra> = (tools::PROGRAMS.iter())
        .map(|name| {
            let path = parts.tools.join(name);
            fs::read(&path).map_err(io("read", &path)).map(|bytes| (format!("usr/bin/{name}"), 0o755, bytes))
        })
        .collect::<Result<_, _>>()?;
    images::pack(&images::GUEST, &parts.userland.path, programs, &stage.tools())?;
    for flavour in FLAVOURS {
        let kernel = Kernel::of(flavour, &parts.kernels)?;
        let modules = kernel.modules(&lock.stage("modules")?)?;
        // init loads them in the order of their names
        let numbered = modules.into_iter().enumerate();
        let extras = numbered.map(|(at, (name, bytes))| (format!("usr/lib/modules/{at:02}-{name}.ko"), 0o644, bytes));
        let (image, initramfs) = stage.distribution(flavour);
        images::pack(&images::GUEST, &parts.userland.path, extras.collect(), &initramfs)?;
        // both are in the cache, and neither changes
        fs::hard_link(kernel.image(), &image).map_err(io("create", &image))?;
    }
    lock.publish(stage.folder(), entry)?;
    progress.say("packed the guests of the tests");
    Ok(())
}
