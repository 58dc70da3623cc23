//! What can go wrong with an emulated host.

use std::path::PathBuf;
use std::time::Duration;

use thiserror::Error;

use super::iort::BadIort;

/// Why a host could not be started, or did not do what it was asked.
#[derive(Debug, Error)]
pub enum Error {
    /// No such profile.
    #[error("there is no host profile '{name}'; there are: {known}")]
    NoProfile {
        /// What was asked for.
        name: String,
        /// All names there are.
        known: String,
    },
    /// A profile that cannot be read.
    #[error("host profile '{name}'")]
    BadProfile {
        /// The profile.
        name: String,
        /// What TOML says.
        source: Box<toml::de::Error>,
    },
    /// A file of the run or the cache.
    #[error("{action} {}", path.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// With what.
        path: PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },
    /// QEMU could not be started.
    #[error("starting QEMU with '{program}'; is util-linux (setpriv) installed?")]
    Start {
        /// The program that was executed.
        program: String,
        /// Why it failed.
        source: std::io::Error,
    },
    /// The host's IORT cannot be mended.
    #[error("the host's IORT")]
    Iort(#[from] BadIort),
    /// A limit was reached.
    #[error("waited {} s for {what}\n{consoles}", limit.as_secs())]
    Late {
        /// What was waited for.
        what: String,
        /// How long.
        limit: Duration,
        /// The last lines of the consoles.
        consoles: String,
    },
    /// The host went away, by itself or by a panic of its kernel.
    #[error("the emulated host ended while waiting for {what}\n{consoles}")]
    Ended {
        /// What was waited for.
        what: String,
        /// The last lines of the consoles.
        consoles: String,
    },
    /// The host's init could not do its part.
    #[error("the emulated host could not get ready: {what}\n{consoles}")]
    NotReady {
        /// What its init said.
        what: String,
        /// The last lines of the consoles.
        consoles: String,
    },
    /// Ctrl-C or SIGTERM.
    #[error("interrupted")]
    Interrupted,
}

/// An I/O error with what was tried on which file.
pub(crate) fn file(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Error {
    let path = path.into();
    move |source| Error::File { action, path, source }
}
