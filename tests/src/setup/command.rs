//! Runs the programs that the set-up needs, so that none of them outlives it and none fails without its last words.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::error::{Error, io};

/// How often a running program's progress is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// How many lines of a failed program's output go into the error.
const TAIL_LINES: usize = 15;

/// A program to run once.
#[derive(Debug)]
pub(super) struct Tool {
    what: String,
    program: OsString,
    command: Command,
}

impl Tool {
    /// `what` is what the program does, as it reads in an error: "unpacking the kernel source".
    ///
    /// `setpriv` (util-linux, always there) sets the parent-death signal: when the lab dies, however it dies, the
    /// program gets SIGTERM. Doing that ourselves between fork and exec would take `unsafe`.
    pub(super) fn new(what: impl Into<String>, program: impl AsRef<OsStr>) -> Self {
        let program = program.as_ref().to_owned();
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "TERM", "--"]).arg(&program);
        command.stdin(Stdio::null()).env("LC_ALL", "C");
        Self { what: what.into(), program, command }
    }

    pub(super) fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.command.arg(arg);
        self
    }

    pub(super) fn args<S: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.command.args(args);
        self
    }

    pub(super) fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    pub(super) fn current_dir(mut self, path: &Path) -> Self {
        self.command.current_dir(path);
        self
    }

    /// Runs it to its end and gives its standard output.
    pub(super) fn output(mut self) -> Result<String, Error> {
        let output = self.command.output().map_err(|source| self.start_error(source))?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let said = [output.stdout, output.stderr].concat();
        Err(Error::Failed { what: self.what, status: output.status, tail: tail(&String::from_utf8_lossy(&said)) })
    }

    /// Runs it to its end with all output in `log`, and calls `look` several times a second meanwhile.
    pub(super) fn run(mut self, log: &Path, mut look: impl FnMut()) -> Result<(), Error> {
        let file = File::create(log).map_err(io("create", log))?;
        let twin = file.try_clone().map_err(io("write", log))?;
        let child = self.command.stdout(file).stderr(twin).spawn().map_err(|source| self.start_error(source))?;
        let mut child = Killed(child);
        let status = loop {
            look();
            match child.0.try_wait().map_err(|source| self.start_error(source))? {
                Some(status) => break status,
                None => std::thread::sleep(LOOK_EVERY),
            }
        };
        look();
        if status.success() {
            return Ok(());
        }
        let said = fs::read(log).map_err(io("read", log))?;
        Err(Error::Failed { what: self.what, status, tail: tail(&String::from_utf8_lossy(&said)) })
    }

    fn start_error(&self, source: std::io::Error) -> Error {
        Error::Start { program: self.program.to_string_lossy().into_owned(), what: self.what.clone(), source }
    }
}

/// A child that does not survive an early return.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        // Both fail only if the child has ended already, which is what is wanted.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The absolute path of `program`, if it is in `PATH` or in one of the system folders that a user's `PATH` lacks.
pub(super) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .map(|folder| folder.join(program))
        .find(|file| file.is_file())
}

fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    let from = lines.len().saturating_sub(TAIL_LINES);
    lines[from..].iter().map(|line| format!("  {line}")).collect::<Vec<_>>().join("\n")
}

// not in the lab's own host: its setpriv is busybox's, which knows no --pdeathsig
#[cfg(all(test, not(target_env = "musl")))]
mod tests {
    use super::*;

    #[test]
    fn a_failure_carries_the_last_words() {
        let error =
            Tool::new("greeting", "sh").args(["-c", "echo hello; echo oh no >&2; exit 3"]).output().unwrap_err();
        assert_eq!(error.to_string(), "greeting failed (exit status: 3); the last it said:\n  hello\n  oh no");
    }

    #[test]
    fn a_watched_program_is_looked_at_and_logged() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let mut looks = 0;
        Tool::new("talking", "sh").args(["-c", "echo one; echo two"]).run(&log, || looks += 1).unwrap();
        assert!(looks >= 2);
        assert_eq!(fs::read_to_string(log).unwrap(), "one\ntwo\n");
    }

    #[test]
    fn only_the_end_of_a_long_story_is_told() {
        let story: String = (0..100).map(|n| format!("line {n}\n")).collect();
        assert_eq!(tail(&story).lines().count(), TAIL_LINES);
        assert!(tail(&story).ends_with("line 99"));
    }
}
