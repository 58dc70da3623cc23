//! The command line of `cargo lab`.

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use clap::{Parser, Subcommand};

mod build;
mod demo;
mod error;
mod exec;
mod fuzz;
mod native;
mod report;
mod shell;
mod supervise;
mod tally;
mod test;

pub use error::Error;
pub use tally::SKIPPED;

use crate::setup::{self, Artifacts, Config, Guests, Progress};

/// Exit status when the lab itself fails, apart from what programs in it return.
const LAB_FAILED: u8 = 125;

/// An emulated Grace-like host on any machine: several SMMUv3s, KVM, VFIO and iommufd nesting.
#[derive(Debug, Parser)]
#[command(name = "cargo lab", version, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Fetch QEMU, firmware and userland, build the host kernel, and pack the images.
    Setup {
        /// Ask for newer package versions even if the cache is complete.
        #[arg(long)]
        refresh: bool,
    },
    /// Boot a guest with every device of the host, have it use them, and show what was seen.
    Demo(demo::Arguments),
    /// Run one aarch64 program in the host; its output and exit status are passed on.
    Exec(exec::Arguments),
    /// Check formatting and lints, then run all tests here and in emulated hosts.
    Test(test::Arguments),
    /// Look for inputs that break a fuzz target; needs a nightly toolchain, cargo-fuzz and a C++ compiler.
    Fuzz(fuzz::Arguments),
    /// Open a shell in the host, with `nestling` in PATH and a guest at hand ($KERNEL, $INITRD).
    Shell(shell::Arguments),
}

/// Runs what the command line says.
#[must_use]
pub fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("lab: {}", error.chain());
            ExitCode::from(LAB_FAILED)
        }
    }
}

fn run(command: Command) -> Result<ExitCode, Error> {
    match command {
        Command::Setup { refresh } => {
            let (progress, config) = (Progress::new(), Config { refresh, ..Config::default() });
            let artifacts = setup::ensure(&progress, &config)?;
            setup::guests(&progress, &config)?;
            println!(
                "QEMU {}, kernel, firmware and images are in {}",
                artifacts.qemu.version,
                artifacts.cache.display()
            );
            Ok(ExitCode::SUCCESS)
        }
        Command::Demo(arguments) => arguments.run(),
        Command::Exec(arguments) => arguments.run(),
        Command::Test(arguments) => arguments.run(),
        Command::Fuzz(arguments) => arguments.run(),
        Command::Shell(arguments) => arguments.run(),
    }
}

/// What every command that starts a host needs.
struct Lab {
    artifacts: Artifacts,
    /// What only tests boot; `None` until somebody asks.
    guests: Option<Guests>,
    interrupted: Arc<AtomicBool>,
}

impl Lab {
    /// Does the set-up and listens to Ctrl-C and SIGTERM from here on.
    fn open() -> Result<Self, Error> {
        let artifacts = setup::ensure(&Progress::new(), &Config::default())?;
        let interrupted = Arc::new(AtomicBool::new(false));
        for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM, signal_hook::consts::SIGHUP] {
            // the second one ends the lab at once, for whoever does not want to wait
            signal_hook::flag::register_conditional_shutdown(signal, i32::from(LAB_FAILED), Arc::clone(&interrupted))
                .map_err(Error::Signals)?;
            signal_hook::flag::register(signal, Arc::clone(&interrupted)).map_err(Error::Signals)?;
        }
        Ok(Self { artifacts, guests: None, interrupted })
    }

    /// Makes what only tests boot, too.
    fn with_guests(mut self) -> Result<Self, Error> {
        self.guests = Some(setup::guests(&Progress::new(), &Config::default())?);
        Ok(self)
    }
}
