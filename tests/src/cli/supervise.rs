//! Runs a tool of this machine so that nothing of it outlives the lab, however the lab ends.

use std::os::unix::process::CommandExt;
use std::process::{ChildStdout, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

use super::Error;

/// How often a running tool looks for Ctrl-C.
const TICK: Duration = Duration::from_millis(50);
/// How long a tool may take to end when it is told to.
const END: Duration = Duration::from_secs(10);
/// The limit of a tool whose work depends on the machine: building everything takes some minutes on two processors.
pub const LIMIT: Duration = Duration::from_secs(60 * 60);

/// Runs `command`, which is to do `what`, with its standard output going to `read`, and returns what that returns. At the
/// limit, or when `interrupted` becomes true, the tool and its children are told to end, and then ended.
pub fn run<T>(
    what: &str,
    command: &mut Command,
    limit: Duration,
    interrupted: &AtomicBool,
    read: impl FnOnce(ChildStdout) -> T,
) -> Result<(ExitStatus, T), Error> {
    let start = |source| Error::Start { program: "cargo".to_owned(), source };
    let lost = || start(std::io::Error::other("it has no output"));
    // a process group of its own can be ended as a whole; Ctrl-C at the terminal then reaches the lab alone
    let mut child = command.process_group(0).stdin(Stdio::null()).stdout(Stdio::piped()).spawn().map_err(start)?;
    let group = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let stdout = child.stdout.take().ok_or_else(lost)?;
    let end = Instant::now() + limit;
    let ended = AtomicBool::new(false);
    let (status, answer, late) = std::thread::scope(|scope| {
        let watch = scope.spawn(|| {
            let runs = || !ended.load(Ordering::Relaxed);
            let late = || Instant::now() >= end;
            while runs() && !late() && !interrupted.load(Ordering::Relaxed) {
                std::thread::sleep(TICK);
            }
            let late = runs() && late();
            for signal in [Signal::TERM, Signal::KILL] {
                let told = Instant::now();
                if runs() {
                    let _ = group.map(|group| kill_process_group(group, signal));
                }
                while runs() && told.elapsed() < END {
                    std::thread::sleep(TICK);
                }
            }
            late
        });
        let answer = read(stdout);
        let status = child.wait();
        ended.store(true, Ordering::Relaxed);
        (status, answer, watch.join().unwrap_or_default())
    });
    if interrupted.load(Ordering::Relaxed) {
        return Err(crate::host::Error::Interrupted.into());
    }
    if late {
        return Err(Error::Late { what: what.to_owned(), limit });
    }
    Ok((status.map_err(start)?, answer))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    fn all(mut from: ChildStdout) -> String {
        let mut text = String::new();
        let _ = from.read_to_string(&mut text);
        text
    }

    #[test]
    fn output_and_status_come_back() {
        let mut command = Command::new("sh");
        let command = command.args(["-c", "echo out; exit 3"]);
        let (status, text) = run("talking", command, LIMIT, &AtomicBool::new(false), all).expect("there is a shell");
        assert_eq!((status.code(), text.as_str()), (Some(3), "out\n"));
    }

    #[test]
    fn an_interruption_ends_the_children_as_well() {
        let interrupted = AtomicBool::new(false);
        let begun = Instant::now();
        let mut command = Command::new("sh");
        let command = command.args(["-c", "sleep 60 & echo here; wait"]);
        let result = run("sleeping", command, LIMIT, &interrupted, |mut from| {
            let _ = from.read(&mut [0; 16]);
            interrupted.store(true, Ordering::Relaxed);
            // the end of the pipe is the end of the last child
            all(from)
        });
        assert!(matches!(result, Err(Error::Host(crate::host::Error::Interrupted))));
        assert!(begun.elapsed() < Duration::from_secs(30));
    }

    #[test]
    fn a_tool_that_takes_too_long_is_ended_and_named() {
        let mut command = Command::new("sh");
        let command = command.args(["-c", "sleep 60 & wait"]);
        let limit = Duration::from_millis(100);
        let error = run("the nap to end", command, limit, &AtomicBool::new(false), all).expect_err("it takes too long");
        assert_eq!(error.to_string(), "waited 0 s for the nap to end");
    }

    #[test]
    fn who_does_not_listen_is_ended_all_the_same() {
        let begun = Instant::now();
        let mut command = Command::new("sh");
        let command = command.args(["-c", "trap '' TERM; sleep 60 & wait; wait"]);
        let result = run("the nap to end", command, Duration::from_millis(100), &AtomicBool::new(false), all);
        assert!(matches!(result, Err(Error::Late { .. })));
        assert!(begun.elapsed() < Duration::from_secs(40));
    }
}
