//! Runs a tool of this machine so that nothing of it outlives the lab, however the lab ends.

use std::os::unix::process::CommandExt;
use std::process::{ChildStdout, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};

use super::Error;

/// How often a running tool looks for Ctrl-C.
const TICK: Duration = Duration::from_millis(50);

/// Runs `command` with its standard output going to `read`, and returns what that returns. When `interrupted` becomes
/// true, the tool and its children are told to end.
pub fn run<T>(
    command: &mut Command,
    interrupted: &AtomicBool,
    read: impl FnOnce(ChildStdout) -> T,
) -> Result<(ExitStatus, T), Error> {
    let start = |source| Error::Start { program: "cargo".to_owned(), source };
    let lost = || start(std::io::Error::other("it has no output"));
    // a process group of its own can be ended as a whole; Ctrl-C at the terminal then reaches the lab alone
    let mut child = command.process_group(0).stdin(Stdio::null()).stdout(Stdio::piped()).spawn().map_err(start)?;
    let group = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let stdout = child.stdout.take().ok_or_else(lost)?;
    let ended = AtomicBool::new(false);
    let (status, answer) = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !ended.load(Ordering::Relaxed) && !interrupted.load(Ordering::Relaxed) {
                std::thread::sleep(TICK);
            }
            if !ended.load(Ordering::Relaxed) {
                let _ = group.map(|group| kill_process_group(group, Signal::TERM));
            }
        });
        let answer = read(stdout);
        let status = child.wait();
        ended.store(true, Ordering::Relaxed);
        (status, answer)
    });
    if interrupted.load(Ordering::Relaxed) {
        return Err(crate::host::Error::Interrupted.into());
    }
    Ok((status.map_err(start)?, answer))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::time::Instant;

    fn all(mut from: ChildStdout) -> String {
        let mut text = String::new();
        let _ = from.read_to_string(&mut text);
        text
    }

    #[test]
    fn output_and_status_come_back() {
        let (status, text) = run(Command::new("sh").args(["-c", "echo out; exit 3"]), &AtomicBool::new(false), all)
            .expect("there is a shell");
        assert_eq!((status.code(), text.as_str()), (Some(3), "out\n"));
    }

    #[test]
    fn an_interruption_ends_the_children_as_well() {
        let interrupted = AtomicBool::new(false);
        let begun = Instant::now();
        let result = run(Command::new("sh").args(["-c", "sleep 60 & echo here; wait"]), &interrupted, |mut from| {
            let _ = from.read(&mut [0; 16]);
            interrupted.store(true, Ordering::Relaxed);
            // the end of the pipe is the end of the last child
            all(from)
        });
        assert!(matches!(result, Err(Error::Host(crate::host::Error::Interrupted))));
        assert!(begun.elapsed() < Duration::from_secs(30));
    }
}
