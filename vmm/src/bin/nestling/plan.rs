//! `nestling plan`, and the Plan that `nestling run` begins with.

use std::io::{self, Write};
use std::path::Path;

use nestling::config::{Request, RunOptions};
use nestling::host::{Inventory, KvmLimits};
use nestling::plan::{self, Plan};

use crate::args::{Format, PlanArgs, RunArgs};
use crate::failure::Failure;

/// Prints the Plan.
pub fn print(args: PlanArgs) -> Result<(), Failure> {
    let (plan, inventory) = make(&args.machine.request()?)?;
    let text = match args.format {
        Format::Text => plan::tree(&plan),
        Format::Json => plan::write(&plan, plan::Format::Json),
        Format::Toml => plan::write(&plan, plan::Format::Toml),
    };
    match io::stdout().write_all(text.as_bytes()) {
        // Whoever reads has read enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
        written => written.map_err(|error| Failure::message(format!("standard output: {error}")))?,
    }
    if let Err(error) = plan::ready(plan, &inventory) {
        eprintln!("nestling: this host cannot run it now: {}", Failure::from(error));
    }
    Ok(())
}

/// The Plan that is to be run and how, checked against this host.
pub fn to_run(args: RunArgs) -> Result<(Plan, RunOptions), Failure> {
    let planned = args.plan;
    let request = args.machine.request()?;
    let options = request.run_options();
    let (plan, inventory) = match planned {
        Some(file) => (plan::read(&file)?, inventory()?),
        None => make(&request)?,
    };
    Ok((plan::ready(plan, &inventory)?, options))
}

fn make(request: &Request) -> Result<(Plan, Inventory), Failure> {
    let inventory = inventory()?;
    let plan = plan::plan(request, &inventory)?;
    Ok((plan, inventory))
}

fn inventory() -> Result<Inventory, Failure> {
    Ok(Inventory::read(Path::new("/"), KvmLimits::query())?)
}
