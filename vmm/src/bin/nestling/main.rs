//! The `nestling` command: reads options, prints, and owns what belongs to a process (terminal, signals, log, exit
//! status). Everything else is in the library.
#![forbid(unsafe_code)]

mod args;
mod failure;
mod logging;
mod plan;
#[cfg(target_arch = "aarch64")]
mod run;
#[cfg(target_arch = "aarch64")]
mod signals;
#[cfg(target_arch = "aarch64")]
mod terminal;
mod usage;

use std::process::ExitCode;

use args::{Args, Command, RunArgs};
use clap::Parser;
use failure::Failure;

fn main() -> ExitCode {
    let done = match Args::try_parse() {
        Ok(args) => dispatch(args),
        Err(error) => usage::explain(error, std::env::args_os()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("nestling: {failure}");
            failure.status()
        }
    }
}

fn dispatch(args: Args) -> Result<(), Failure> {
    logging::init(args.verbose)?;
    match args.command {
        Command::Run(args) => run(args),
        Command::Plan(args) => plan::print(args),
    }
}

#[cfg(target_arch = "aarch64")]
fn run(args: RunArgs) -> Result<(), Failure> {
    use nestling::run::Outcome;
    let (plan, options) = plan::to_run(args)?;
    match run::run(plan, &options) {
        Ok(Outcome::PowerOff | Outcome::Reset | Outcome::Quit) => Ok(()),
        Ok(Outcome::Failed) => {
            Err(Failure::stopped("the guest was stopped, because a vCPU could not go on; the log says why"))
        }
        Err(error) if error.before_start() => Err(Failure::refused(error)),
        Err(error) => Err(Failure::failed(error)),
    }
}

#[cfg(not(target_arch = "aarch64"))]
fn run(args: RunArgs) -> Result<(), Failure> {
    plan::to_run(args)?;
    Err(Failure::message("guests run on arm64 hosts only; on this one, 'nestling plan' shows what they would be"))
}
