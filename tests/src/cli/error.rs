//! What can go wrong with a command of the lab.

use std::path::PathBuf;

use thiserror::Error;

use crate::{host, setup};

/// Why a command failed.
#[derive(Debug, Error)]
pub enum Error {
    /// The set-up.
    #[error(transparent)]
    Setup(#[from] setup::Error),
    /// The emulated host.
    #[error(transparent)]
    Host(#[from] host::Error),
    /// Signal handlers.
    #[error("listening to Ctrl-C")]
    Signals(#[source] std::io::Error),
    /// A tool could not be started.
    #[error("starting {program}")]
    Start {
        /// The tool.
        program: String,
        /// Why.
        source: std::io::Error,
    },
    /// cargo did not build something.
    #[error("cargo could not build {0}; its messages are above")]
    Build(String),
    /// A program on this machine took too long.
    #[error("waited {} s for {what}", limit.as_secs())]
    Late {
        /// What it was to do.
        what: String,
        /// How long it had.
        limit: std::time::Duration,
    },
    /// Standard output or a file.
    #[error("{action} {}", path.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// With what.
        path: PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },
}

impl Error {
    /// The error with all its reasons.
    #[must_use]
    pub fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut source = std::error::Error::source(self);
        while let Some(error) = source {
            text = format!("{text}: {error}");
            source = error.source();
        }
        text
    }
}

/// An I/O error with what was tried on which file.
pub(super) fn file(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Error {
    let path = path.into();
    move |source| Error::File { action, path, source }
}
