//! Runs a program on this machine the way [`Host`](crate::host::Host) runs one in an emulated host.

use std::ffi::OsString;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::Error;
use crate::host::Output;
use crate::pump::pump;

/// How long a program may take to end after SIGTERM.
const END: Duration = Duration::from_secs(10);

/// Runs the program and hands its output on; returns its exit status as a shell sees it.
pub fn run(
    words: &[OsString],
    limit: Duration,
    interrupted: &AtomicBool,
    output: &mut dyn FnMut(Output<'_>),
) -> Result<u8, Error> {
    // the kernel ends the program if the lab is killed
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "TERM", "--"]).args(words);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child =
        command.spawn().map_err(|source| Error::Start { program: "setpriv (util-linux)".to_owned(), source })?;
    let (sender, receiver) = channel();
    if let (Some(out), Some(err)) = (child.stdout.take(), child.stderr.take()) {
        let twin = sender.clone();
        std::thread::spawn(move || pump(out, &twin, |bytes| (false, bytes)));
        std::thread::spawn(move || pump(err, &sender, |bytes| (true, bytes)));
    }
    let end = Instant::now() + limit;
    let mut told_to_end = None;
    loop {
        match receiver.recv_timeout(Duration::from_millis(50)) {
            Ok((true, bytes)) => output(Output::Err(&bytes)),
            Ok((false, bytes)) => output(Output::Out(&bytes)),
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {}
        }
        let late = Instant::now() >= end || interrupted.load(Ordering::Relaxed);
        match told_to_end {
            None if late => {
                let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
                if let Some(pid) = pid {
                    let _ = kill_process(pid, Signal::TERM);
                }
                told_to_end = Some(Instant::now());
            }
            Some(since) if since.elapsed() > END => {
                let _ = child.kill();
                break;
            }
            _ => {}
        }
    }
    let status = child.wait().map_err(|source| Error::Start { program: "the program".to_owned(), source })?;
    if told_to_end.is_some() && interrupted.load(Ordering::Relaxed) {
        return Err(crate::host::Error::Interrupted.into());
    }
    if told_to_end.is_some() {
        return Err(Error::Late { what: "the program to end".to_owned(), limit });
    }
    Ok(shell_status(status))
}

fn shell_status(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX)
}

// not in the lab's own host: its setpriv is busybox's, which knows no --pdeathsig
#[cfg(all(test, not(target_env = "musl")))]
mod tests {
    use super::*;

    fn sh(script: &str, limit: Duration) -> (Result<u8, Error>, String) {
        let mut seen = String::new();
        let status = run(&["sh", "-c", script].map(OsString::from), limit, &AtomicBool::new(false), &mut |output| {
            if let Output::Out(bytes) | Output::Err(bytes) = output {
                seen.push_str(&String::from_utf8_lossy(bytes));
            }
        });
        (status, seen)
    }

    #[test]
    fn output_and_status_come_through() {
        let (status, seen) = sh("echo out; exit 3", Duration::from_secs(20));
        assert_eq!((status.expect("it ran"), seen.as_str()), (3, "out\n"));
        assert_eq!(sh("kill -9 $$", Duration::from_secs(20)).0.expect("it ran"), 137);
    }

    #[test]
    fn a_program_that_takes_too_long_is_ended() {
        let (status, _) = sh("exec sleep 60", Duration::from_millis(100));
        assert!(matches!(status, Err(Error::Late { .. })));
    }
}
