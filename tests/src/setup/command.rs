//! Runs the programs that the set-up needs, so that none of them outlives it and none fails without its last words.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{Read, Seek};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::error::{Error, io};

/// How often a running program's progress is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// How long a program may stand still. The longest silence is that of a linker, of a minute on a slow machine; apt gives
/// a mirror half a minute for each answer.
const LIMIT: Duration = Duration::from_secs(10 * 60);

/// How long a program may take to end when it is told to.
const END: Duration = Duration::from_secs(5);

/// How many lines of a failed program's output go into the error.
const TAIL_LINES: usize = 15;

/// A program to run once.
#[derive(Debug)]
pub(super) struct Tool {
    what: String,
    program: OsString,
    command: Command,
    limit: Duration,
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
        Self { what: what.into(), program, command, limit: LIMIT }
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
        let file = || tempfile::tempfile().map_err(io("create a file in", &std::env::temp_dir()));
        let (mut out, mut err) = (file()?, file()?);
        let twin = |file: &File| file.try_clone().map_err(io("create a file in", &std::env::temp_dir()));
        self.command.stdout(twin(&out)?).stderr(twin(&err)?);
        let ended = self.wait(|| 0)?;
        let said = read(&mut out);
        match ended {
            Some(status) if status.success() => Ok(said),
            ended => Err(self.failure(ended, &(said + &read(&mut err)))),
        }
    }

    /// Runs it to its end with all output in `log`, and calls `look` several times a second meanwhile. Who says nothing
    /// and whose progress, as `look` returns it, stays the same for a long time is ended.
    pub(super) fn run(mut self, log: &Path, mut look: impl FnMut() -> u64) -> Result<(), Error> {
        let file = File::create(log).map_err(io("create", log))?;
        let twin = file.try_clone().map_err(io("write", log))?;
        self.command.stdout(file).stderr(twin);
        let length = || fs::metadata(log).map_or(0, |log| log.len());
        match self.wait(|| length().wrapping_add(look()))? {
            Some(status) if status.success() => Ok(()),
            ended => {
                let said = fs::read(log).map_err(io("read", log))?;
                Err(self.failure(ended, &String::from_utf8_lossy(&said)))
            }
        }
    }

    /// Its exit status; none if it stood still and was ended.
    fn wait(&mut self, mut progress: impl FnMut() -> u64) -> Result<Option<ExitStatus>, Error> {
        let child = self.command.spawn().map_err(|source| self.start_error(source))?;
        let mut child = Killed(child);
        let (mut reached, mut since) = (progress(), Instant::now());
        let status = loop {
            if let Some(status) = child.0.try_wait().map_err(|source| self.start_error(source))? {
                break Some(status);
            }
            if since.elapsed() > self.limit {
                break None;
            }
            std::thread::sleep(LOOK_EVERY);
            let now = progress();
            if now != reached {
                (reached, since) = (now, Instant::now());
            }
        };
        progress();
        Ok(status)
    }

    fn failure(self, status: Option<ExitStatus>, said: &str) -> Error {
        let tail = tail(said);
        match status {
            Some(status) => Error::Failed { what: self.what, status, tail },
            None => Error::Late { what: self.what, limit: self.limit, tail },
        }
    }

    fn start_error(&self, source: std::io::Error) -> Error {
        Error::Start { program: self.program.to_string_lossy().into_owned(), what: self.what.clone(), source }
    }
}

/// A child that does not survive an early return.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        // a polite signal first: make and apt then end what they have started
        if let (Ok(None), Some(pid)) = (self.0.try_wait(), i32::try_from(self.0.id()).ok().and_then(Pid::from_raw)) {
            let _ = kill_process(pid, Signal::TERM);
            let told = Instant::now();
            while matches!(self.0.try_wait(), Ok(None)) && told.elapsed() < END {
                std::thread::sleep(LOOK_EVERY);
            }
        }
        // Both fail only if the child has ended already, which is what is wanted.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn read(file: &mut File) -> String {
    let mut said = Vec::new();
    // what cannot be read is missing in a message
    let _ = file.rewind().and_then(|()| file.read_to_end(&mut said));
    String::from_utf8_lossy(&said).into_owned()
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
        Tool::new("talking", "sh")
            .args(["-c", "echo one; echo two"])
            .run(&log, || {
                looks += 1;
                looks
            })
            .unwrap();
        assert!(looks >= 2);
        assert_eq!(fs::read_to_string(log).unwrap(), "one\ntwo\n");
    }

    #[test]
    fn who_stands_still_is_ended_with_its_last_words() {
        let folder = tempfile::tempdir().unwrap();
        let nap = |what| {
            let tool = Tool::new(what, "sh").args(["-c", "echo good night; exec sleep 60"]);
            Tool { limit: Duration::from_millis(300), ..tool }
        };
        let begun = Instant::now();
        for error in
            [nap("the nap").output().unwrap_err(), nap("the nap").run(&folder.path().join("log"), || 0).unwrap_err()]
        {
            assert_eq!(error.to_string(), "waited 0 s for the nap, and nothing came; the last it said:\n  good night");
        }
        assert!(begun.elapsed() < Duration::from_secs(30));
    }

    #[test]
    fn who_goes_on_may_take_its_time() {
        let folder = tempfile::tempdir().unwrap();
        let tool = Tool::new("counting", "sh").args(["-c", "for n in 1 2 3 4 5 6; do echo $n; sleep 0.4; done"]);
        let tool = Tool { limit: Duration::from_millis(1500), ..tool };
        tool.run(&folder.path().join("log"), || 0).unwrap();
    }

    #[test]
    fn only_the_end_of_a_long_story_is_told() {
        let story: String = (0..100).map(|n| format!("line {n}\n")).collect();
        assert_eq!(tail(&story).lines().count(), TAIL_LINES);
        assert!(tail(&story).ends_with("line 99"));
    }
}
