//! Builds the one kernel of the lab, for host and guest, from Debian's source and the project's fragment.
//!
//! No distribution's arm64 kernel has `CONFIG_IOMMUFD`, so it cannot be fetched ready-made.

use std::fs;
use std::path::{Path, PathBuf};

use super::cache::{self, Cache, Lock};
use super::command::Tool;
use super::error::{Error, io};
use super::packages::{Held, Set, Shape};
use super::progress::{Progress, Unit};

/// Counts up when this module builds the same inputs differently.
const RECIPE: &[u8] = b"1";

/// The options on top of `allnoconfig`.
const FRAGMENT: &str = include_str!("../../../resources/lab/host-kernel.fragment");

/// Lines that a build of this fragment prints, for the progress bar. A wrong figure shows as a bar that jumps at the end.
const EXPECTED_LINES: u64 = 1800;

/// Files and folders of the source without its documentation, for the progress bar.
const EXPECTED_FILES: u64 = 84_000;

/// Name of the package and of the folder in it.
pub(super) const SOURCE: &str = "linux-source-7.3";

/// The kernel's source, as Debian packs it.
pub(super) const SET: Set = Set { kind: "kernel-source", arch: "arm64", names: &[SOURCE], shape: Shape::Archives };

/// Where the kernel for this source is, or will be.
fn entry(cache: &Cache, source: &Held) -> PathBuf {
    let key = source.release.key();
    cache.entry("kernel", &cache::key([RECIPE, key.as_bytes(), FRAGMENT.as_bytes()]))
}

/// The Image, if the cache has it.
pub(super) fn held(cache: &Cache, source: &Held) -> Option<PathBuf> {
    let entry = entry(cache, source);
    entry.is_dir().then(|| entry.join("Image"))
}

/// The Image, built if the cache has none; its final configuration is kept next to it.
pub(super) fn get(cache: &Cache, progress: &Progress, source: &Held) -> Result<PathBuf, Error> {
    if let Some(image) = held(cache, source) {
        return Ok(image);
    }
    let lock = cache.lock("kernel", progress)?;
    // Whoever held the lock may have built it.
    held(cache, source).map_or_else(|| make(cache, &lock, progress, source), Ok)
}

/// The package with the source.
pub(super) fn archive(source: &Held) -> Result<PathBuf, Error> {
    let package = source.release.get(SOURCE);
    let missing = || Error::Damaged { path: source.path.clone(), why: format!("it does not list {SOURCE}") };
    package.map(|package| source.path.join(&package.file)).ok_or_else(missing)
}

fn make(cache: &Cache, lock: &Lock, progress: &Progress, source: &Held) -> Result<PathBuf, Error> {
    let build = Build::unpack(lock, progress, source)?;
    build.configure()?;
    build.compile(progress)?;

    let stage = lock.stage("entry")?;
    for (from, to) in [("arch/arm64/boot/Image", "Image"), (".config", "config")] {
        let from = build.tree.join(from);
        fs::rename(&from, stage.join(to)).map_err(io("move", &from))?;
    }
    let entry = entry(cache, source);
    lock.publish(&stage, &entry)?;
    Ok(entry.join("Image"))
}

/// A kernel tree that is being built.
struct Build {
    tree: PathBuf,
    log: PathBuf,
}

impl Build {
    fn unpack(lock: &Lock, progress: &Progress, source: &Held) -> Result<Self, Error> {
        let folder = lock.stage("linux")?;
        let archive = archive(source)?;
        let mut step = progress.step(&format!("unpacking {SOURCE}"), Unit::Things("files"), EXPECTED_FILES);
        let log = lock.log("kernel");
        // The source is a compressed archive in a package. The kernel's documentation is half of its files and no
        // build needs it, except for one Kconfig file.
        let script = r#"dpkg-deb --fsys-tarfile "$1" | tar -xO --wildcards "./usr/src/$2.tar.*" | xz -T0 -dc |
            tar -xv -C "$3" --strip-components=1 --no-wildcards-match-slash --wildcards \
                --exclude="$2/Documentation/[a-z]*" --exclude="$2/Documentation/[A-JL-Z]*""#;
        Tool::new("unpacking the kernel source", "sh")
            .args(["-c", script, "sh"])
            .arg(archive)
            .arg(SOURCE)
            .arg(&folder)
            .run(&log, || step.set(count_lines(&log)))?;
        step.done();
        Ok(Self { tree: folder, log })
    }

    fn make(&self, what: &str) -> Tool {
        let mut tool = Tool::new(what, "make").current_dir(&self.tree).arg("ARCH=arm64");
        if !cfg!(target_arch = "aarch64") {
            tool = tool.arg("CROSS_COMPILE=aarch64-linux-gnu-");
        }
        // The same image from every machine, whoever builds it.
        tool.env("KBUILD_BUILD_TIMESTAMP", "1970-01-01").env("KBUILD_BUILD_USER", "lab").env("KBUILD_BUILD_HOST", "lab")
    }

    fn configure(&self) -> Result<(), Error> {
        let fragment = self.tree.join("lab.fragment");
        fs::write(&fragment, FRAGMENT).map_err(io("write", &fragment))?;
        let what = "configuring the kernel";
        self.make(what).env("KCONFIG_ALLCONFIG", &fragment).arg("allnoconfig").run(&self.log, || 0)?;
        let config = self.tree.join(".config");
        let lost = lost(FRAGMENT, &fs::read_to_string(&config).map_err(io("read", &config))?);
        if lost.is_empty() { Ok(()) } else { Err(Error::KernelOptions { lines: lost.join(", ") }) }
    }

    fn compile(&self, progress: &Progress) -> Result<(), Error> {
        // One more than processors: make's own steps between two compilers would leave one idle.
        let jobs = std::thread::available_parallelism().map_or(1, usize::from) + 1;
        let mut step = progress.step("building the host kernel", Unit::Things("files"), EXPECTED_LINES);
        self.make("building the host kernel")
            .arg(format!("-j{jobs}"))
            .arg("Image")
            .run(&self.log, || step.set(count_lines(&self.log)))?;
        step.done();
        Ok(())
    }
}

/// Lines of the fragment that the configuration does not follow: a renamed option, or one whose needs are not met.
fn lost<'a>(fragment: &'a str, config: &str) -> Vec<&'a str> {
    let lines = fragment.lines().filter(|line| line.starts_with("CONFIG_"));
    let followed = |line: &&str| match line.strip_suffix("=n") {
        Some(name) => !config.lines().any(|set| set.strip_prefix(name).is_some_and(|rest| rest.starts_with('='))),
        None => config.lines().any(|set| set == *line),
    };
    lines.filter(|line| !followed(line)).collect()
}

/// make and tar print one line per file.
pub(super) fn count_lines(log: &Path) -> u64 {
    fs::read(log).map_or(0, |bytes| bytes.iter().filter(|byte| **byte == b'\n').count() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_that_the_kernel_drops_are_found() {
        let fragment = "# comment\nCONFIG_A=y\nCONFIG_B=n\nCONFIG_C=64\nCONFIG_D=n\n";
        let config = "CONFIG_A=y\n# CONFIG_B is not set\nCONFIG_C=4\nCONFIG_D=y\nCONFIG_BB=y\n";
        assert_eq!(lost(fragment, config), ["CONFIG_C=64", "CONFIG_D=n"]);
    }

    #[test]
    fn the_fragment_has_what_nesting_needs_and_no_option_twice() {
        for option in
            ["KVM", "IOMMUFD", "ARM_SMMU_V3_IOMMUFD", "VFIO_DEVICE_CDEV", "ACPI_TABLE_UPGRADE", "TEGRA241_CMDQV"]
        {
            assert!(FRAGMENT.contains(&format!("\nCONFIG_{option}=y\n")), "{option}");
        }
        let mut names: Vec<&str> =
            FRAGMENT.lines().filter_map(|line| line.strip_prefix("CONFIG_")?.split('=').next()).collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
    }
}
