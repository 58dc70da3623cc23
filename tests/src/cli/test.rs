//! `cargo lab test`: everything that has to pass before a change is taken.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::build::{self, Executable, TARGET};
use super::tally::Tally;
use super::{Error, Lab, exec, supervise};
use crate::host::profile::DEFAULT;
use crate::host::tail::Tail;
use crate::host::{Output, Profile, Script};

/// The limit of all tests in one host.
const LIMIT: Duration = Duration::from_secs(40 * 60);

/// Options of `test`.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Only tests whose names contain this; leaves formatting and lints out.
    filter: Option<String>,
}

impl Arguments {
    pub(super) fn run(self) -> Result<ExitCode, Error> {
        let begun = Instant::now();
        // first of all: lints and tests for the host need the target that the set-up installs
        let lab = Lab::open()?.with_guests()?;
        let mut session = Session { tally: Tally::default(), failed: Vec::new(), lab: &lab };
        let filter = self.filter.as_deref();
        if filter.is_none() {
            session.check("formatting", &["fmt", "--all", "--check"])?;
            let lints = ["clippy", "--workspace", "--all-targets", "--quiet"];
            let errors = ["--", "-D", "warnings"];
            session.check("lints", &[&lints[..], &errors].concat())?;
            session.check(&format!("lints for {TARGET}"), &[&lints[..], &["--target", TARGET], &errors].concat())?;
        }
        session.natively(filter)?;
        if filter.is_none() {
            let fuzz = ["--manifest-path", "tests/fuzz/Cargo.toml"];
            session.check("formatting of the fuzz targets", &[&["fmt", "--check"], &fuzz[..]].concat())?;
            let smoke = ["--no-default-features", "--example", "smoke", "--quiet"];
            session.check("fuzz targets for 30 s", &[&["run"], &fuzz[..], &smoke].concat())?;
        }
        session.in_the_lab(filter)?;
        println!("\n== finished in {:.0} s", begun.elapsed().as_secs_f32());
        for failed in &session.failed {
            println!("failed: {failed}");
        }
        println!("{}", session.tally);
        Ok(if session.failed.is_empty() && session.tally.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

/// Results so far.
struct Session<'a> {
    tally: Tally,
    /// Sections and programs that did not pass.
    failed: Vec<String>,
    lab: &'a Lab,
}

impl Session<'_> {
    /// A section that is one call of cargo and counts as one test.
    fn check(&mut self, title: &str, arguments: &[&str]) -> Result<(), Error> {
        let begun = heading(title);
        if self.counting(arguments)? {
            self.tally.passed += 1;
        } else {
            self.tally.failed += 1;
            self.failed.push(title.to_owned());
        }
        footing(title, begun);
        Ok(())
    }

    /// All tests of the workspace on this machine.
    fn natively(&mut self, filter: Option<&str>) -> Result<(), Error> {
        let title = "unit tests on this machine";
        let begun = heading(title);
        let arguments: Vec<&str> = ["test", "--workspace", "--no-fail-fast"].into_iter().chain(filter).collect();
        let before = self.tally;
        let passed = self.counting(&arguments)?;
        self.expect(title, passed, before);
        footing(title, begun);
        Ok(())
    }

    /// All tests of the workspace as aarch64 programs: those of a test file with a profile's name in that host, all others
    /// in the usual one. Each host is booted once.
    fn in_the_lab(&mut self, filter: Option<&str>) -> Result<(), Error> {
        let title = "building for the lab";
        let begun = heading(title);
        let interrupted = &self.lab.interrupted;
        let arguments = ["test", "--workspace", "--no-run", "--target", TARGET];
        let built = build::executables("the tests", &arguments, interrupted);
        let (built, nestling) = match built.and_then(|built| Ok((built, build::nestling(interrupted)?))) {
            Ok(all) => all,
            Err(error @ Error::Build(_)) => {
                eprintln!("lab: {}", error.chain());
                self.tally.failed += 1;
                self.failed.push(title.to_owned());
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        footing(title, begun);
        let mut hosts = BTreeMap::<&str, Vec<Executable>>::new();
        for test in built.into_iter().filter(|built| built.is_test) {
            let profile = if test.is_test_file() { Profile::name_for(&test.target.name) } else { DEFAULT };
            hosts.entry(profile).or_default().push(test);
        }
        for (profile, tests) in hosts {
            self.boot(&nestling, profile, &tests, filter)?;
        }
        Ok(())
    }

    /// Runs test binaries one after the other in one host.
    fn boot(
        &mut self,
        nestling: &Path,
        profile: &str,
        tests: &[Executable],
        filter: Option<&str>,
    ) -> Result<(), Error> {
        let title = format!("tests in the emulated host '{profile}'");
        let begun = heading(&title);
        let before = self.tally;
        let passed = match self.programs(nestling, profile, tests, filter) {
            Ok(passed) => passed,
            Err(error) if self.lab.interrupted.load(Ordering::Relaxed) => return Err(error),
            Err(error) => {
                eprintln!("lab: {}", error.chain());
                false
            }
        };
        self.expect(&title, passed, before);
        footing(&title, begun);
        Ok(())
    }

    fn programs(
        &mut self,
        nestling: &Path,
        profile: &str,
        tests: &[Executable],
        filter: Option<&str>,
    ) -> Result<bool, Error> {
        let lab = self.lab;
        let profile = Profile::named(profile)?;
        let script = script(exec::environment(lab, &profile, Some(nestling)), tests, filter);
        let mut host = exec::host(lab, profile, Some(nestling))?.limit(LIMIT);
        for test in tests {
            host = host.share(exec::folder(&test.path));
        }
        let mut lines = Tail::default();
        let ended = host.run(&script, &mut |output| {
            if let Output::Out(bytes) = output {
                lines.push(bytes).iter().for_each(|line| self.tally.line(line));
            }
            exec::pass_on(output, false);
        })?;
        for fault in &ended.kernel_faults {
            println!("lab: the host's kernel says: {fault}");
        }
        Ok(ended.status == 0 && ended.kernel_faults.is_empty())
    }

    /// Runs cargo on this machine, shows its output and counts the results in it.
    fn counting(&mut self, arguments: &[&str]) -> Result<bool, Error> {
        let what = format!("cargo {}", arguments.join(" "));
        let mut command = build::cargo();
        let command = command.args(arguments);
        let (status, ()) = supervise::run(&what, command, supervise::LIMIT, &self.lab.interrupted, |stdout| {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                self.tally.line(&line);
                println!("{line}");
            }
        })?;
        Ok(status.success())
    }

    /// A section that failed without a failed test (a build, a crash, a host that went away) counts as one.
    fn expect(&mut self, title: &str, passed: bool, before: Tally) {
        if !passed {
            self.failed.push(title.to_owned());
            if self.tally.failed == before.failed {
                self.tally.failed += 1;
            }
        }
    }
}

/// The tests of a file share the host's devices, and some take them away.
const ONE_AT_A_TIME: &str = "env RUST_TEST_THREADS=1";

/// Runs every binary in the folder of its package, as cargo does, and fails if one of them did.
fn script(mut script: Script, tests: &[Executable], filter: Option<&str>) -> Script {
    script = script.text("failed=0");
    for test in tests {
        let words: Vec<PathBuf> = std::iter::once(test.path.clone()).chain(filter.map(Into::into)).collect();
        script = script
            .words("echo; echo Running", [format!("{} ({})", test.target.name, test.target.kind.join(" "))])
            .words("cd", [&test.package])
            .words(if test.is_test_file() { ONE_AT_A_TIME } else { "" }, words)
            .text("status=$?; [ $status = 0 ] || { failed=1; echo \"ended with status $status\"; }");
    }
    script.text("exit $failed")
}

fn heading(title: &str) -> Instant {
    println!("\n== {title}");
    Instant::now()
}

fn footing(title: &str, begun: Instant) {
    println!("== {title}: {:.1} s", begun.elapsed().as_secs_f32());
}
