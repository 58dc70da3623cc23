//! One QEMU process with its channels: started, listened to, and surely ended.

use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::command::Channel;
use super::error::file;
use super::tail::Tail;
use super::{Error, Output};
use crate::pump::pump;
use crate::setup::Qemu;

/// How long QEMU may take to end when it is told to.
const END: Duration = Duration::from_secs(3);
/// How often a wait looks for Ctrl-C.
const TICK: Duration = Duration::from_millis(50);

enum Event {
    Bytes(Channel, Vec<u8>),
    /// QEMU's own messages.
    Complaint(Vec<u8>),
    /// QEMU has closed its standard error: it has ended.
    Gone,
}

/// A running emulated host. Dropping it ends the process; if the lab itself is killed, the kernel ends it.
#[derive(Debug)]
pub struct Emulator {
    child: Child,
    events: Receiver<Event>,
    interrupted: Arc<AtomicBool>,
    console: Tail,
    program: Tail,
    complaints: Tail,
    control: Tail,
}

impl Emulator {
    /// Starts QEMU with these arguments; its channels are sockets in `folder`.
    pub fn start(
        qemu: &Qemu,
        arguments: Vec<std::ffi::OsString>,
        folder: &Path,
        terminal: bool,
        interrupted: Arc<AtomicBool>,
    ) -> Result<Self, Error> {
        let (sender, events) = channel();
        for channel in Channel::ALL {
            let path = channel.socket(folder);
            let listener = UnixListener::bind(&path).map_err(file("listening on", &path))?;
            listen(channel, listener, sender.clone());
        }
        let inner = qemu.command();
        // the kernel sends the signal when the thread that starts QEMU ends, however that happens
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).arg(inner.get_program()).args(inner.get_args()).args(arguments);
        let (stdin, stdout) =
            if terminal { (Stdio::inherit(), Stdio::inherit()) } else { (Stdio::null(), Stdio::null()) };
        command.stdin(stdin).stdout(stdout).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|source| Error::Start { program: "setpriv".to_owned(), source })?;
        if let Some(stderr) = child.stderr.take() {
            std::thread::spawn(move || {
                pump(stderr, &sender, Event::Complaint);
                let _ = sender.send(Event::Gone);
            });
        }
        Ok(Self {
            child,
            events,
            interrupted,
            console: Tail::default(),
            program: Tail::default(),
            complaints: Tail::default(),
            control: Tail::default(),
        })
    }

    /// Hands on the program's output until the host's init says something that `wanted` answers, at most for `limit`.
    pub fn wait<T>(
        &mut self,
        what: &str,
        limit: Duration,
        output: &mut dyn FnMut(Output<'_>),
        mut wanted: impl FnMut(&str) -> Option<T>,
    ) -> Result<T, Error> {
        let end = Instant::now() + limit;
        loop {
            if self.interrupted.load(Ordering::Relaxed) {
                return Err(Error::Interrupted);
            }
            let left = end.saturating_duration_since(Instant::now());
            let event = match self.events.recv_timeout(left.min(TICK)) {
                Ok(event) => event,
                Err(RecvTimeoutError::Timeout) if left.is_zero() => {
                    return Err(Error::Late { what: what.to_owned(), limit, consoles: self.consoles() });
                }
                Err(RecvTimeoutError::Timeout) => continue,
                Err(RecvTimeoutError::Disconnected) => Event::Gone,
            };
            for line in self.take(event, output, what)? {
                if let Some(problem) = line.strip_prefix("problem ") {
                    return Err(Error::NotReady { what: problem.to_owned(), consoles: self.consoles() });
                }
                if let Some(answer) = wanted(&line) {
                    return Ok(answer);
                }
            }
        }
    }

    /// Ends QEMU and hands on what is still in the channels.
    pub fn end(mut self, output: &mut dyn FnMut(Output<'_>)) {
        self.stop();
        // each reader ends with its socket, and the stream of events with the last reader
        while let Ok(event) = self.events.recv_timeout(END) {
            let _ = self.take(event, output, "its end");
        }
    }

    /// Waits for QEMU to end by itself, and says whether it has.
    fn finished(&mut self, limit: Duration) -> bool {
        let end = Instant::now() + limit;
        while Instant::now() < end {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return true;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        false
    }

    /// The last lines of both consoles and of QEMU.
    #[must_use]
    pub fn consoles(&self) -> String {
        let mut report = format!(
            "{}\n{}",
            self.console.report("the host's console"),
            self.program.report("the program's output, with the guest's console")
        );
        let complaints = self.complaints.report("QEMU");
        if !complaints.ends_with("nothing ---") {
            report = format!("{report}\n{complaints}");
        }
        report
    }

    /// Keeps an event for later reports; control lines are returned.
    fn take(&mut self, event: Event, output: &mut dyn FnMut(Output<'_>), what: &str) -> Result<Vec<String>, Error> {
        match event {
            Event::Bytes(Channel::Control, bytes) => return Ok(self.control.push(&bytes)),
            Event::Bytes(Channel::Console, bytes) => {
                for line in self.console.push(&bytes) {
                    output(Output::Console(&line));
                }
            }
            Event::Bytes(Channel::Out, bytes) => {
                self.program.push(&bytes);
                output(Output::Out(&bytes));
            }
            Event::Bytes(Channel::Err, bytes) => {
                self.program.push(&bytes);
                output(Output::Err(&bytes));
            }
            Event::Complaint(bytes) => {
                self.complaints.push(&bytes);
            }
            Event::Gone => return Err(Error::Ended { what: what.to_owned(), consoles: self.consoles() }),
        }
        Ok(Vec::new())
    }

    fn stop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            // a polite signal first: QEMU then restores the terminal
            let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
            if let Some(pid) = pid {
                let _ = kill_process(pid, Signal::TERM);
            }
            if !self.finished(END) {
                let _ = self.child.kill();
            }
        }
        let _ = self.child.wait();
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        self.stop();
    }
}

fn listen(channel: Channel, listener: UnixListener, to: Sender<Event>) {
    std::thread::spawn(move || {
        if let Ok((socket, _)) = listener.accept() {
            pump(socket, &to, |bytes| Event::Bytes(channel, bytes));
        }
    });
}
