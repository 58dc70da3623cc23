//! The running half of the lab: an emulated aarch64 host with nested SMMUv3s, started for one job.
//!
//! A [`Host`] is a profile and what the set-up made. [`Host::run`] starts QEMU, waits for the host's init (see
//! `resources/lab/host-init`), runs a script there with its output passed on as it comes, and returns its exit status.
//! Whatever happens, nothing of it is left: no process, no file.
//!
//! | module | job |
//! | --- | --- |
//! | [`profile`] | which SMMUs and devices the host has |
//! | [`command`] | the profile as QEMU's command line |
//! | [`iort`], [`tables`] | the mended firmware table, and how the kernel gets it |
//! | [`script`] | what the host runs |
//! | [`emulator`] | the process and its channels |
//! | [`tail`] | what is shown of them when something goes wrong |

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use tempfile::TempDir;

pub mod command;
mod emulator;
mod error;
pub mod iort;
pub mod profile;
pub mod script;
pub mod tables;
pub mod tail;

pub use error::Error;
pub use profile::Profile;
pub use script::Script;

use crate::setup::Artifacts;
use command::{Launch, Share};
use emulator::Emulator;
use error::file;

/// From QEMU's start to the host's init having bound every device. Seen: 4 s; the rest is for a busy machine.
const BOOT: Duration = Duration::from_secs(120);
/// Where the host sees the run's own folder.
const LAB: &str = "/lab";

/// What comes out of a host while it works.
#[derive(Clone, Copy, Debug)]
pub enum Output<'a> {
    /// A line of the kernel's console.
    Console(&'a str),
    /// The host is ready; its boot took this long.
    Ready(Duration),
    /// Bytes of the program's standard output.
    Out(&'a [u8]),
    /// Bytes of the program's standard error.
    Err(&'a [u8]),
}

/// How a script ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Its exit status, as a shell sees it.
    pub status: u8,
    /// Lines of the host's kernel log that tell of a fault of the kernel (WARNING, BUG, Oops, hung tasks).
    pub kernel_faults: Vec<String>,
}

/// An emulated host for one job.
#[derive(Debug)]
pub struct Host<'a> {
    profile: Profile,
    artifacts: &'a Artifacts,
    folder: TempDir,
    shares: Vec<Share>,
    limit: Duration,
    warm_mib: u32,
    interrupted: Arc<AtomicBool>,
}

impl<'a> Host<'a> {
    /// A host that is not started yet. Setting `interrupted` ends whatever it does.
    ///
    /// # Errors
    /// If there is no room for its files.
    pub fn new(profile: Profile, artifacts: &'a Artifacts, interrupted: Arc<AtomicBool>) -> Result<Self, Error> {
        // sockets lie in this folder, and their paths may have 107 bytes
        let parent = std::env::temp_dir();
        let folder = tempfile::Builder::new()
            .prefix("nestling-lab-")
            .tempdir_in(&parent)
            .map_err(file("making a folder in", &parent))?;
        let own = folder.path().join("lab");
        std::fs::create_dir(&own).map_err(file("making", &own))?;
        let shares = vec![Share { path: own, target: LAB.into(), writable: true }];
        Ok(Self { profile, artifacts, folder, shares, limit: Duration::from_secs(20 * 60), warm_mib: 0, interrupted })
    }

    /// Lets the host see a folder of this machine, at the same path and read-only.
    #[must_use]
    pub fn share(mut self, path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        if !self.shares.iter().any(|share| path.starts_with(&share.target)) {
            self.shares.push(Share { path: path.clone(), target: path, writable: false });
        }
        self
    }

    /// How long the script may take.
    #[must_use]
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Touches this much of the host's memory before it counts as ready. Memory that nobody has used yet comes from this
    /// machine page by page, which on a virtual machine can take seconds: no part of what nestling itself needs.
    #[must_use]
    pub fn warm(mut self, mib: u32) -> Self {
        self.warm_mib = mib;
        self
    }

    /// A file of the folder that the script sees as `/lab`.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join("lab").join(name)
    }

    /// Boots the host, runs the script in it and ends the host.
    ///
    /// # Errors
    /// If the host does not get ready, does not answer in time, or ends before the script does.
    pub fn run(&self, script: &Script, output: &mut dyn FnMut(Output<'_>)) -> Result<Ended, Error> {
        let initrd = self.initrd()?;
        self.run_with(&initrd, script, false, output)
    }

    /// Boots the host and gives it the terminal; the script is to start a shell on it.
    ///
    /// # Errors
    /// As [`Host::run`].
    pub fn shell(&self, script: &Script) -> Result<Ended, Error> {
        let initrd = self.initrd()?;
        self.run_with(&initrd, script, true, &mut |_| ())
    }

    /// The initramfs with the mended IORT; the first time, a host is booted to dump the table.
    fn initrd(&self) -> Result<PathBuf, Error> {
        if !self.profile.canwbs {
            return Ok(self.artifacts.host_initramfs.clone());
        }
        let cached = tables::cached(&self.profile, self.artifacts);
        if !cached.exists() {
            let script = Script::default().text("cat /sys/firmware/acpi/tables/IORT >/lab/iort");
            self.run_with(&self.artifacts.host_initramfs, &script, false, &mut |_| ())?;
            tables::keep(&self.file("iort"), &cached)?;
        }
        let whole = self.folder.path().join("initrd");
        tables::with_iort(&cached, &self.artifacts.host_initramfs, &whole)?;
        Ok(whole)
    }

    fn run_with(
        &self,
        initrd: &Path,
        script: &Script,
        terminal: bool,
        output: &mut dyn FnMut(Output<'_>),
    ) -> Result<Ended, Error> {
        let folder = self.folder.path();
        self.prepare(script, terminal)?;
        let launch = Launch {
            profile: &self.profile,
            firmware: &self.artifacts.firmware,
            kernel: &self.artifacts.kernel,
            initrd,
            folder,
            shares: &self.shares,
            terminal,
        };
        let start = Instant::now();
        let arguments = command::arguments(&launch);
        let mut emulator =
            Emulator::start(&self.artifacts.qemu, arguments, folder, terminal, Arc::clone(&self.interrupted))?;
        emulator.wait("the emulated host to be ready", BOOT, output, |line| (line == "ready").then_some(()))?;
        output(Output::Ready(start.elapsed()));
        let mut kernel_faults = Vec::new();
        let limit = if terminal { Duration::from_secs(24 * 60 * 60) } else { self.limit };
        let status = emulator.wait("the program to end", limit, output, |line| {
            kernel_faults.extend(line.strip_prefix("fault ").map(str::to_owned));
            line.strip_prefix("status ").and_then(|status| status.parse().ok())
        })?;
        emulator.end(output);
        Ok(Ended { status, kernel_faults })
    }

    /// Writes what the host's init reads from `/lab`, and fresh disk images.
    fn prepare(&self, script: &Script, terminal: bool) -> Result<(), Error> {
        let write = |name: &str, content: &[u8]| {
            let path = self.file(name);
            std::fs::write(&path, content).map_err(file("writing", path))
        };
        write("run", script.bytes())?;
        write("warm", format!("{}\n", self.warm_mib).as_bytes())?;
        write("terminal", if terminal { b"yes\n" } else { b"no\n" })?;
        let shares: String = (self.shares.iter().enumerate().skip(1))
            .map(|(number, share)| format!("share{number}\t{}\n", share.target.display()))
            .collect();
        write("shares", shares.as_bytes())?;
        let sriov: String = self.profile.sriov().map(|(address, count)| format!("{address}\t{count}\n")).collect();
        write("sriov", sriov.as_bytes())?;
        let folder = self.folder.path();
        for channel in command::Channel::ALL {
            let _ = std::fs::remove_file(channel.socket(folder));
        }
        for (path, size) in command::disks(&self.profile, folder) {
            let disk = std::fs::File::create(&path).map_err(file("making the disk image", &path))?;
            disk.set_len(size).map_err(file("making the disk image", &path))?;
        }
        Ok(())
    }
}
