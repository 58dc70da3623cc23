//! The command line. Options of a machine are the fields of [`Request`], with their documentation as help.

use std::path::PathBuf;

use clap::{Args as ArgGroup, Parser, Subcommand, ValueEnum};
use nestling::config::{Error, Request};

/// Run a guest that has this host's own SMMUv3s, nested: every assigned device sits behind a vSMMU backed by the SMMU it
/// is behind on the host.
#[derive(Debug, Parser)]
#[command(name = "nestling", version, after_help = STATUS, max_term_width = 110)]
pub struct Args {
    /// Log more: -v what is decided, -vv what is done, -vvv everything. RUST_LOG, if set, has the last word.
    #[arg(short, long, action = clap::ArgAction::Count, global = true)]
    pub verbose: u8,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a guest on this terminal until it powers off. Ctrl-A X ends it, Ctrl-A P presses its power button,
    /// Ctrl-A A sends Ctrl-A.
    #[command(after_help = RUN_EXAMPLES)]
    Run(RunArgs),
    /// Show the machine that 'run' would make of the same options: PCI tree, vSMMUs, StreamIDs, addresses.
    #[command(after_help = PLAN_EXAMPLES)]
    Plan(PlanArgs),
}

/// Options of `nestling run`.
#[derive(Debug, ArgGroup)]
pub struct RunArgs {
    /// Where the request comes from.
    #[command(flatten)]
    pub machine: MachineArgs,
    /// Run the machine of this file, which 'nestling plan --format json' or 'toml' has written.
    #[arg(
        long,
        value_name = "FILE",
        conflicts_with_all = ["config", "kernel", "initrd", "cmdline", "cpus", "memory", "device", "vsmmu"]
    )]
    pub plan: Option<PathBuf>,
}

/// Options of `nestling plan`.
#[derive(Debug, ArgGroup)]
pub struct PlanArgs {
    /// Where the request comes from.
    #[command(flatten)]
    pub machine: MachineArgs,
    /// How to show it; json and toml have all of it, and 'run --plan' takes them.
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub format: Format,
    /// Also write the ACPI tables that the guest would get, each to DIR/SIGNATURE.aml (iasl -d decodes them).
    #[arg(long, value_name = "DIR")]
    pub acpi: Option<PathBuf>,
}

/// A machine as asked for.
#[derive(Debug, ArgGroup)]
pub struct MachineArgs {
    /// Read options from this TOML file: the same names without dashes, 'device' as a list. Options given here as
    /// well have precedence.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The options themselves.
    #[command(flatten)]
    pub request: Request,
}

impl MachineArgs {
    /// What the file and the options say together.
    pub fn request(self) -> Result<Request, Error> {
        match &self.config {
            Some(path) => Ok(Request::read(path)?.overridden_by(self.request)),
            None => Ok(self.request),
        }
    }
}

/// How a Plan is shown.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Format {
    /// A drawing of the PCI tree.
    #[value(alias = "tree")]
    Text,
    /// All of it, as JSON.
    Json,
    /// All of it, as TOML.
    Toml,
}

const STATUS: &str = "\
Exit status:
  0  the guest powered off, was reset with --on-reset exit, or was ended by Ctrl-A X, SIGINT or SIGTERM
  1  the guest was started and then something failed
  2  the options, a file or the host are not as they must be: nothing was started

Messages go to standard error; the last line says what is wrong and what to do.";

const RUN_EXAMPLES: &str = "\
Examples:
  A guest with two NVMe drives, each behind a vSMMU of its own if they are behind different SMMUs here:
    nestling run --kernel Image --initrd initrd.img --cmdline console=ttyAMA0 --cpus 2 --memory 1G \\
      --device 0000:11:00.0 --device 0000:21:00.0

  The same without ATS and PASIDs in the vSMMUs, and without range invalidation in one of them:
    nestling run --config vm.toml --vsmmu ats=off,ssidsize=0 --vsmmu host=smmu3.0xc000000,ril=off

  The same from a file, with more memory:
    nestling run --config vm.toml --memory 4G

  A machine that was planned, looked at and kept:
    nestling plan --config vm.toml --format toml > vm.plan; nestling run --plan vm.plan

Exit status: 0 the guest ended, 1 it failed while running, 2 it was not started ('nestling --help' says more).";

const PLAN_EXAMPLES: &str = "\
Examples:
  nestling plan --kernel Image --device 0000:11:00.0 --device 0000:21:00.0
  nestling plan --config vm.toml --format json
  nestling plan --config vm.toml --acpi tables; iasl -d tables/IORT.aml

KVM is not needed. To tell what the vSMMUs show, each device is opened for a moment, which resets it; who may not do
that is told so. What keeps this host from running the machine now is said on standard error.";
