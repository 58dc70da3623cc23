//! `nestling plan`, and the Plan that `nestling run` begins with.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use nestling::config::{Request, RunOptions};
use nestling::host::{self, Inventory, KvmLimits};
use nestling::machine::tables::describe;
use nestling::plan::{self, Plan};

use crate::args::{Format, PlanArgs, RunArgs};
use crate::failure::Failure;

/// Prints the Plan.
pub fn print(args: PlanArgs) -> Result<(), Failure> {
    let (plan, inventory) = make(&args.machine.request()?, Ask::All)?;
    let text = match args.format {
        Format::Text => plan::tree(&plan),
        Format::Json => plan::write(&plan, plan::Format::Json)?,
        Format::Toml => plan::write(&plan, plan::Format::Toml)?,
    };
    if let Some(folder) = &args.acpi {
        write_tables(&plan, folder)?;
    }
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

/// Writes the guest's ACPI tables, as they are on a host with performance counters and, as only the kernel's size
/// decides where they go, with addresses that count from the start of memory.
fn write_tables(plan: &Plan, folder: &Path) -> Result<(), Failure> {
    let failed = |path: &Path, error| Failure::message(format!("{}: {error}", path.display()));
    fs::create_dir_all(folder).map_err(|error| failed(folder, error))?;
    for table in nestling_acpi::build(&describe(plan, true), plan.memory.base).iter() {
        let path = folder.join(format!("{}.aml", table.signature));
        fs::write(&path, table.bytes).map_err(|error| failed(&path, error))?;
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
        None => make(&request, Ask::Vacant)?,
    };
    let plan = plan::ready(plan, &inventory)?;
    for line in plan::tree(&plan).lines() {
        log::info!("{line}");
    }
    Ok((plan, options))
}

/// Which host SMMUs are asked what they have. A machine asks those of its devices itself, when it has bound them.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ask {
    All,
    Vacant,
}

fn make(request: &Request, which: Ask) -> Result<(Plan, Inventory), Failure> {
    let mut inventory = inventory()?;
    let devices = host::to_ask(request, &inventory, which == Ask::All);
    host::ask(&mut inventory, &devices);
    let plan = plan::plan(request, &inventory)?;
    Ok((plan, inventory))
}

fn inventory() -> Result<Inventory, Failure> {
    Ok(Inventory::read(Path::new("/"), KvmLimits::query())?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Args, Command};
    use clap::Parser;
    use std::ffi::OsString;
    use std::process::ExitCode;

    /// What `nestling run` with these options says; files are in `folder`.
    fn refusal(folder: &Path, options: &[&str]) -> String {
        let files = options.iter().map(|option| option.replace("DIR", &folder.display().to_string()));
        let words: Vec<_> = ["nestling", "run"].into_iter().map(String::from).chain(files).collect();
        let Command::Run(args) = Args::try_parse_from(words).unwrap().command else { unreachable!("it is 'run'") };
        let failure = to_run(args).unwrap_err();
        assert_eq!(failure.status(), ExitCode::from(2), "{failure}");
        failure.to_string().replace(&format!("{}/", folder.display()), "")
    }

    #[test]
    fn every_acpi_table_has_a_file_with_its_signature() {
        let folder = tempfile::tempdir().unwrap();
        let (plan, _) = make(&Request { kernel: Some("Image".into()), ..Request::default() }, Ask::All).unwrap();
        let tables = folder.path().join("new/tables");
        write_tables(&plan, &tables).unwrap();
        let mut names: Vec<_> = fs::read_dir(&tables).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        let all = ["APIC", "DBG2", "DSDT", "FACP", "GTDT", "IORT", "MCFG", "PPTT", "RSDP", "SPCR", "XSDT"];
        assert_eq!(names, all.map(|signature| OsString::from(format!("{signature}.aml"))));
        for signature in all {
            let bytes = fs::read(tables.join(format!("{signature}.aml"))).unwrap();
            assert!(bytes.starts_with(if signature == "RSDP" { "RSD PTR " } else { signature }.as_bytes()));
        }
        let refused = write_tables(&plan, Path::new("/proc/none")).unwrap_err();
        assert!(refused.to_string().starts_with("/proc/none: No such file"), "{refused}");
    }

    #[test]
    fn bad_requests_are_refused_on_any_host() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, bytes: &[u8]| std::fs::write(folder.path().join(name), bytes).unwrap();
        let mut image = vec![0; 4096];
        image[16..24].copy_from_slice(&4096_u64.to_le_bytes());
        image[56..60].copy_from_slice(b"ARM\x64");
        write("Image", &image);
        write("vmlinuz", b"\x28\xb5\x2f\xfd");
        write("bad.toml", b"kernel = \"Image\"\nmemory = \"1G\"\nmemroy = \"2G\"\n");
        write("bad.plan", b"{}");
        let long = format!("--cmdline={}", "x".repeat(2048));
        let kernel = "--kernel=DIR/Image";
        for (options, said) in [
            (&[][..], "no kernel is given; add --kernel IMAGE, or 'kernel' in the configuration file"),
            (&["--kernel=DIR/none"], "kernel 'none' cannot be opened: No such file or directory (os error 2)"),
            (
                &["--kernel=DIR/vmlinuz"],
                "kernel 'vmlinuz' cannot be booted: the kernel is compressed (zstd): unpack it first (",
            ),
            (&[kernel, "--initrd=DIR/none"], "initrd 'none' cannot be opened: No such file or directory (os error 2)"),
            (&[kernel, "--memory=0"], "a guest cannot run in 0 bytes of memory; "),
            (&[kernel, "--memory=1000001"], "memory of 1000001 bytes is no multiple of the host's page size"),
            (&[kernel, "--memory=128T"], "guest memory of 128T is more than the "),
            (&[kernel, "--cpus=0"], "0 vCPUs cannot run anything; "),
            (&[kernel, "--cpus=513"], "513 vCPUs are more than "),
            (&[kernel, &long], "the command line cannot be passed to a kernel whose COMMAND_LINE_SIZE is 2048: "),
            (&[kernel, "--device=ffff:ff:1f.7"], "there is no PCI device ffff:ff:1f.7 on this host; "),
            (&["--config=DIR/none.toml"], "configuration file 'none.toml' cannot be read: No such file or directory"),
            (&["--config=DIR/bad.toml"], "bad.toml:3: unknown field `memroy`, expected one of `kernel`, `initrd`, "),
            (&["--plan=DIR/none.plan"], "plan 'none.plan' cannot be read: No such file or directory"),
            (&["--plan=DIR/bad.plan"], "plan 'bad.plan': missing field `boot` at line 1 column 2; make it with "),
        ] {
            let refused = refusal(folder.path(), options);
            assert!(refused.starts_with(said), "{options:?}: {refused}");
            assert!(!refused.contains('\n'), "{refused}");
        }
    }
}
