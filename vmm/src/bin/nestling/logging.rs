//! The log: to standard error, as much as is asked for.

use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::time;

use crate::failure::Failure;

/// Starts the log. `verbose` counts `-v`; RUST_LOG (`nestling_devices=trace,info`) replaces it.
pub fn init(verbose: u8) -> Result<(), Failure> {
    let filter = match std::env::var(EnvFilter::DEFAULT_ENV) {
        Ok(directives) if !directives.is_empty() => EnvFilter::try_new(&directives)
            .map_err(|error| Failure::message(format!("RUST_LOG '{directives}': {error}; an example is 'info'")))?,
        _ => EnvFilter::new(match verbose {
            0 => "warn",
            1 => "info",
            2 => "debug",
            _ => "trace",
        }),
    };
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_timer(time::uptime())
        .with_ansi(io::stderr().is_terminal())
        .with_writer(io::stderr)
        .init();
    Ok(())
}
