//! `nestling run`: a machine on this terminal.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use nestling::config::RunOptions;
use nestling::machine::{self, Machine};
use nestling::plan::Plan;
use nestling::run::Outcome;
use nestling::run::console::Console;

use crate::signals::EndSignals;
use crate::terminal::{self, RawTerminal};

/// Why the guest cannot be run to its end.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The machine cannot be built: nothing was started.
    #[error(transparent)]
    Build(machine::Error),
    /// The machine, once it is built.
    #[error(transparent)]
    Machine(#[from] machine::Error),
    /// The terminal or the signals.
    #[error("{0}")]
    Process(&'static str, #[source] io::Error),
    /// The file for the counters.
    #[error("counters cannot be written to {}; give --stats another file", .path.display())]
    StatsFile {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The counters, at the end.
    #[error("counters cannot be written to {}", .path.display())]
    Stats {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl Error {
    /// Whether it came before the guest was started.
    pub fn before_start(&self) -> bool {
        matches!(self, Self::Build(_) | Self::Process(..) | Self::StatsFile { .. })
    }
}

/// Builds the machine, runs it until the guest or a signal ends it, and gives everything back to the host.
pub fn run(plan: Plan, options: &RunOptions) -> Result<Outcome, Error> {
    let stats_file = options.stats.as_deref().map(create).transpose()?;
    let signals = EndSignals::catch().map_err(|e| Error::Process("signal handlers", e))?;
    let input = terminal::input().map_err(|e| Error::Process("standard input", e))?;
    let terminal = RawTerminal::enter().map_err(|e| Error::Process("terminal", e))?;
    let console = Console { input: Some(input), escape: terminal.is_terminal(), output: Box::new(io::stdout()) };
    let mut machine = Machine::new(plan, console).map_err(Error::Build)?;
    signals.forward(machine.handle()).map_err(|e| Error::Process("signal handlers", e))?;
    let outcome = machine.run(options.on_reset);
    let stats = machine.stats();
    let ended = machine.shutdown();
    drop(terminal);
    let outcome = outcome?;
    ended?;
    if let Some((path, file)) = stats_file {
        serde_json::to_writer_pretty(file, &stats).map_err(|e| Error::Stats { path, source: e.into() })?;
    }
    Ok(outcome)
}

fn create(path: &Path) -> Result<(PathBuf, File), Error> {
    let failed = |source| Error::StatsFile { path: path.to_path_buf(), source };
    Ok((path.to_path_buf(), File::create(path).map_err(failed)?))
}
