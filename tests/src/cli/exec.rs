//! `cargo lab exec`: one aarch64 program in the host. It is also the cargo runner for aarch64-unknown-linux-musl.

use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use super::error::file;
use super::{Error, LAB_FAILED, Lab, build};
use crate::host::{Host, Output, Profile, Script};

/// Variables of these names, or that begin so, reach the program.
const PASSED_ON: &[&str] = &["RUST_BACKTRACE", "RUST_LOG", "RUST_TEST_", "NESTLING_", "PROPTEST_", "CARGO_"];

/// Options of `exec`.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The host's profile [default: the one that the test binary is named after, else two-nvme]
    #[arg(long, env = "NESTLING_LAB_HOST", value_name = "PROFILE")]
    host: Option<String>,
    /// Seconds that the program may take.
    #[arg(long, env = "NESTLING_LAB_LIMIT", default_value_t = 1200, value_name = "SECONDS")]
    limit: u64,
    /// Build nestling and give the program what the integration tests get. They need no asking.
    #[arg(long)]
    nestling: bool,
    /// Say on standard error how long the boot took, and the host's kernel messages.
    #[arg(long, short)]
    verbose: bool,
    /// A path on this machine, or the name of a program of the host, and its arguments.
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "PROGRAM")]
    command: Vec<OsString>,
}

impl Arguments {
    pub(super) fn run(self) -> Result<ExitCode, Error> {
        let mut lab = Lab::open()?;
        let mut command = self.command;
        let local = command.first().map(Path::new).filter(|path| path.components().count() > 1 || path.is_file());
        let local = local.map(|path| path.canonicalize().map_err(file("finding", path))).transpose()?;
        let needs_nestling = self.nestling || local.as_deref().is_some_and(build::is_integration_test);
        if needs_nestling {
            lab = lab.with_guests()?;
        }
        let nestling = needs_nestling.then(|| build::nestling(&lab.interrupted)).transpose()?;

        let by_name =
            local.as_deref().and_then(build::test_name).map_or(crate::host::profile::DEFAULT, Profile::name_for);
        let profile = Profile::named(self.host.as_deref().unwrap_or(by_name))?;
        let directory = std::env::current_dir().map_err(file("finding", "."))?;
        let mut script = environment(&lab, &profile, nestling.as_deref());
        if needs_nestling && std::env::var_os("RUST_TEST_THREADS").is_none() {
            // they share the host's devices, and some take them away
            script = script.export("RUST_TEST_THREADS", "1");
        }
        let mut host =
            host(&lab, profile, nestling.as_deref())?.limit(Duration::from_secs(self.limit)).share(&directory);
        if let Some(local) = local {
            host = host.share(folder(&local));
            if let Some(program) = command.first_mut() {
                *program = local.into_os_string();
            }
        }
        script = script.words("cd", [&directory]).words("exec", &command);
        let ended = host.run(&script, &mut |output| pass_on(output, self.verbose))?;
        for fault in &ended.kernel_faults {
            eprintln!("lab: the host's kernel says: {fault}");
        }
        // a program that the host's kernel complains about has not done well, whatever it says
        let status = if ended.status == 0 && !ended.kernel_faults.is_empty() { LAB_FAILED } else { ended.status };
        Ok(ExitCode::from(status))
    }
}

/// A host that sees the workspace, nestling and the guest's files.
pub(super) fn host<'a>(lab: &'a Lab, profile: Profile, nestling: Option<&Path>) -> Result<Host<'a>, Error> {
    let mut host = Host::new(profile, &lab.artifacts, lab.interrupted.clone())?.share(build::workspace());
    for path in
        [&lab.artifacts.kernel, &lab.artifacts.guest_initramfs].map(PathBuf::as_path).into_iter().chain(nestling)
    {
        host = host.share(path.parent().unwrap_or(Path::new("/")));
    }
    if let Some(guests) = &lab.guests {
        host = host.share(guests.folder());
    }
    Ok(host)
}

/// The folder that a program needs: its own, or for one of cargo's test binaries the one above `deps`, where the
/// binaries are that it may start.
pub(super) fn folder(program: &Path) -> &Path {
    let own = program.parent().unwrap_or(Path::new("/"));
    own.parent().filter(|_| own.ends_with("deps")).unwrap_or(own)
}

/// Sets the variables that test binaries read; see `docs/lab.md`.
pub(super) fn environment(lab: &Lab, profile: &Profile, nestling: Option<&Path>) -> Script {
    let mut script = Script::default();
    for (name, value) in std::env::vars_os() {
        let name = name.to_string_lossy();
        let plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        if plain && PASSED_ON.iter().any(|passed| name.starts_with(passed)) {
            script = script.export(&name, value);
        }
    }
    script = script
        .export("NESTLING_LAB_PROFILE", &profile.name)
        .export("NESTLING_LAB_KERNEL", &lab.artifacts.kernel)
        .export("NESTLING_LAB_INITRD", &lab.artifacts.guest_initramfs);
    if let Some(guests) = &lab.guests {
        script = script.export("NESTLING_LAB_GUESTS", guests.folder());
    }
    if let Some(nestling) = nestling {
        script = script.export("NESTLING_BIN", nestling);
    }
    script
}

/// Hands the program's output to this process's own.
pub(super) fn pass_on(output: Output<'_>, verbose: bool) {
    // nobody may be listening any more (a closed pipe): the program's status still counts
    let _ = match output {
        Output::Out(bytes) => std::io::stdout().write_all(bytes).and_then(|()| std::io::stdout().flush()),
        Output::Err(bytes) => std::io::stderr().write_all(bytes),
        Output::Console(line) if verbose => writeln!(std::io::stderr(), "host: {line}"),
        Output::Ready(took) if verbose => writeln!(std::io::stderr(), "lab: host ready in {:.1} s", took.as_secs_f32()),
        Output::Console(_) | Output::Ready(_) => Ok(()),
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_binary_comes_with_the_programs_beside_it() {
        assert_eq!(folder(Path::new("/t/debug/deps/two_nvme-0123456789abcdef")), Path::new("/t/debug"));
        assert_eq!(folder(Path::new("/t/debug/nestling")), Path::new("/t/debug"));
    }
}
