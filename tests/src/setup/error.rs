//! What can go wrong while the lab is set up.

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

/// An error of the set-up; its text names the object and the remedy.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is no place for a cache.
    #[error("no folder for the lab's cache is known; set NESTLING_LAB_CACHE to one")]
    NoCacheFolder,
    /// A file operation failed.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// Verb, for example "create".
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A program could not be started at all.
    #[error("cannot start '{program}' ({what}); is it installed?")]
    Start {
        /// The program's name or path.
        program: String,
        /// What it was to do.
        what: String,
        /// Why.
        source: io::Error,
    },
    /// A program said no.
    #[error("{what} failed ({status}); the last it said:\n{tail}")]
    Failed {
        /// What it was to do.
        what: String,
        /// Its exit status.
        status: ExitStatus,
        /// Last lines of its output.
        tail: String,
    },
    /// A program stood still.
    #[error("waited {} s for {what}, and nothing came; the last it said:\n{tail}", limit.as_secs())]
    Late {
        /// What it was to do.
        what: String,
        /// How long nothing came.
        limit: Duration,
        /// Last lines of its output.
        tail: String,
    },
    /// Somebody else is making the same thing and does not get ready.
    #[error(
        "waited {} s for {holder}, which is making {kind} in {}; end it, or give this lab a cache of its own with NESTLING_LAB_CACHE",
        limit.as_secs(), path.display()
    )]
    Locked {
        /// Who.
        holder: String,
        /// What it makes.
        kind: String,
        /// The cache.
        path: PathBuf,
        /// How long.
        limit: Duration,
    },
    /// The machine lacks the package tools that everything else is fetched with.
    #[error(
        "'{program}' is missing: the lab fetches Debian packages, so it needs apt and dpkg (any Debian or Ubuntu has them)"
    )]
    NoPackageTools {
        /// The program that was looked for.
        program: &'static str,
    },
    /// Packages must be installed on the machine, and we may not.
    #[error("the machine lacks packages the lab builds with; run: {command}")]
    MachinePackages {
        /// The one command to type.
        command: String,
    },
    /// No Debian mirror is configured.
    #[error(
        "no Debian mirror in this machine's apt configuration; set NESTLING_LAB_MIRROR to the address of one (what stands after 'deb' in a sources.list)"
    )]
    NoMirror,
    /// Debian's archive key is not there.
    #[error(
        "Debian's archive keyring is missing ({}); install the package debian-archive-keyring or set NESTLING_LAB_KEYRING to a keyring file",
        path.display()
    )]
    NoKeyring {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// apt's list of packages could not be understood.
    #[error("apt did not say what to download for {packages}: {output:?}")]
    Resolution {
        /// The packages asked for.
        packages: String,
        /// What it said instead.
        output: String,
    },
    /// The QEMU that the suite has does not do.
    #[error("the QEMU of this mirror ({version}) cannot emulate a nesting host: {missing}; 11.0 or later is needed")]
    UnfitQemu {
        /// What it calls itself.
        version: String,
        /// What it lacks.
        missing: String,
    },
    /// The kernel's configuration system dropped options of the fragment.
    #[error("this kernel source does not take these lines of the lab's kernel fragment: {lines}")]
    KernelOptions {
        /// The lines, separated by commas.
        lines: String,
    },
    /// A program or library that belongs into an image is not in the unpacked packages.
    #[error("'{name}', needed by {by}, is in none of the userland packages")]
    MissingFile {
        /// The file looked for.
        name: String,
        /// Who needs it.
        by: String,
    },
    /// A file of the cache is not what it should be.
    #[error("{} is damaged ({why}); remove it and run `cargo lab setup`", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The Rust target for the emulated host is missing.
    #[error("the Rust target {target} is not installed; run: rustup target add {target}")]
    RustTarget {
        /// The target's name.
        target: &'static str,
    },
}

/// Turns an [`io::Error`] into [`Error::Io`], with the verb and the path it is about.
pub(super) fn io<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> Error + use<'a> {
    move |source| Error::Io { action, path: path.to_owned(), source }
}
