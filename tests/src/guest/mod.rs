//! Guests for integration tests: start `nestling run`, watch its console, and look at what is left of it.
//!
//! ```no_run
//! use std::time::Duration;
//! use nestling_lab::guest::{Launch, Place};
//!
//! let Some(place) = Place::here() else { return };
//! let finished = Launch::new(place).steps("io").devices(["0000:11:00.0"]).run();
//! assert_eq!(finished.said("drives verified"), ["1"]);
//! ```
//!
//! Everything that does not happen in time, or not at all, panics with what was waited for and the last lines of the
//! guest's and the host's consoles. One guest runs at a time: they share devices and processors.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

mod calls;
mod driver;
mod place;
mod terminal;
mod traces;

pub use calls::Call;
pub use driver::Driver;
pub use place::{Model, Place, smmu_of};
pub use rustix::process::Signal as Kill;

use crate::host::tail::Tail;
use crate::pump::pump;
use traces::Traces;

/// A guest that takes longer than this hangs, unless its [`Launch::limit`] is another. Most take about 15 s.
pub const LIMIT: Duration = Duration::from_secs(120);
/// Lines of the guest's init begin so.
const MARK: &str = "nestling-guest: ";
const ENDING: &str = "nestling to end";

static TURN: Mutex<()> = Mutex::new(());

/// A guest to be: the options of `nestling run`.
#[derive(Clone, Debug)]
pub struct Launch<'a> {
    place: &'a Place,
    kernel: PathBuf,
    initrd: PathBuf,
    arguments: Vec<OsString>,
    cmdline: Vec<String>,
    cpus: String,
    memory: String,
    terminal: bool,
    user: Option<u32>,
    without: Option<Call>,
    limit: Duration,
}

impl<'a> Launch<'a> {
    /// Two processors and 1 GiB; the guest reaches its init and powers off.
    #[must_use]
    pub fn new(place: &'a Place) -> Self {
        Self {
            place,
            kernel: place.kernel.clone(),
            initrd: place.initrd.clone(),
            arguments: Vec::new(),
            // every character of a console costs an exit
            cmdline: vec!["console=ttyAMA0".to_owned(), "quiet".to_owned()],
            cpus: "2".to_owned(),
            memory: "1G".to_owned(),
            terminal: false,
            user: None,
            without: None,
            limit: LIMIT,
        }
        .steps("poweroff")
    }

    /// What the guest does, as `resources/lab/guest-init` names it, separated by commas.
    #[must_use]
    pub fn steps(mut self, steps: &str) -> Self {
        self.cmdline.retain(|word| !word.starts_with("nestling.test="));
        self.kernel_option(&format!("nestling.test={steps}"))
    }

    /// A further word on the kernel's command line.
    #[must_use]
    pub fn kernel_option(mut self, word: &str) -> Self {
        self.cmdline.push(word.to_owned());
        self
    }

    /// Further devices.
    #[must_use]
    pub fn devices<D: AsRef<str>>(mut self, devices: impl IntoIterator<Item = D>) -> Self {
        for device in devices {
            self = self.arguments(["--device", device.as_ref()]);
        }
        self
    }

    /// Another kernel.
    #[must_use]
    pub fn kernel(mut self, kernel: impl Into<PathBuf>) -> Self {
        self.kernel = kernel.into();
        self
    }

    /// Another initramfs.
    #[must_use]
    pub fn initrd(mut self, initrd: impl Into<PathBuf>) -> Self {
        self.initrd = initrd.into();
        self
    }

    /// The number of processors, as `--cpus` takes it.
    #[must_use]
    pub fn cpus(mut self, cpus: &str) -> Self {
        cpus.clone_into(&mut self.cpus);
        self
    }

    /// The memory, as `--memory` takes it.
    #[must_use]
    pub fn memory(mut self, memory: &str) -> Self {
        memory.clone_into(&mut self.memory);
        self
    }

    /// Further options of `nestling run`.
    #[must_use]
    pub fn arguments<A: AsRef<OsStr>>(mut self, arguments: impl IntoIterator<Item = A>) -> Self {
        self.arguments.extend(arguments.into_iter().map(|argument| argument.as_ref().to_owned()));
        self
    }

    /// nestling gets a terminal of its own, so that its escape keys work and [`Guest::types`] reaches the guest.
    #[must_use]
    pub fn on_a_terminal(mut self) -> Self {
        self.terminal = true;
        self
    }

    /// How long each wait for this guest may take, instead of [`LIMIT`].
    #[must_use]
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// nestling belongs to this user and group, without any privilege.
    #[must_use]
    pub fn user(mut self, user: u32) -> Self {
        self.user = Some(user);
        self
    }

    /// To nestling the host's kernel does not know this call.
    #[must_use]
    pub fn without(mut self, call: Call) -> Self {
        self.without = Some(call);
        self
    }

    /// Starts nestling.
    ///
    /// # Panics
    /// If it cannot be started; the same holds for the methods of [`Guest`].
    #[must_use]
    pub fn start(self) -> Guest {
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let folder = tempfile::tempdir().expect("there is room for a folder");
        let mut command = Command::new(&self.place.nestling);
        command
            .args(["run", "--cmdline", &self.cmdline.join(" "), "--cpus", &self.cpus])
            .args(["--memory", &self.memory])
            .args([OsStr::new("--kernel"), self.kernel.as_ref()])
            .args([OsStr::new("--initrd"), self.initrd.as_ref()])
            .args([OsStr::new("--stats"), folder.path().join("stats.json").as_ref()])
            .args(&self.arguments)
            .stderr(Stdio::piped());
        if let Some(user) = self.user {
            command.uid(user).gid(user);
        }
        let (sender, events) = channel();
        let mut keyboard = None;
        let mut console: Option<Box<dyn Read + Send>> = None;
        if self.terminal {
            let terminal = terminal::Terminal::open().expect("the host has pseudo-terminals");
            command.stdin(terminal.user_side().expect("it has a user's side"));
            command.stdout(terminal.user_side().expect("it has a user's side"));
            console = Some(Box::new(terminal.reader().expect("it can be read")));
            keyboard = Some(terminal);
        } else {
            command.stdin(Stdio::null()).stdout(Stdio::piped());
        }
        let child = match self.without {
            Some(call) => calls::spawn_without(call, &mut command),
            None => command.spawn(),
        };
        let mut child = child.unwrap_or_else(|error| panic!("starting {}: {error}", self.place.nestling.display()));
        // the command holds the terminal's user side, and the console would never end
        drop(command);
        let started = Instant::now();
        if let Some(console) = console.or_else(|| child.stdout.take().map(|stdout| Box::new(stdout) as _)) {
            let sender = sender.clone();
            std::thread::spawn(move || pump(console, &sender, |bytes| (Source::Console, bytes)));
        }
        if let Some(stderr) = child.stderr.take() {
            std::thread::spawn(move || pump(stderr, &sender, |bytes| (Source::Messages, bytes)));
        }
        Guest {
            child,
            events,
            keyboard,
            folder,
            started,
            console: Tail::default(),
            lines: Vec::new(),
            seen: 0,
            messages: String::new(),
            limit: self.limit,
            _turn: turn,
        }
    }

    /// Starts nestling, waits for its end, and expects the guest to have passed.
    ///
    /// # Panics
    /// If anything else happens.
    #[must_use]
    pub fn run(self) -> Finished {
        let finished = self.start().finish();
        finished.expect_passed();
        finished
    }
}

impl Launch<'_> {
    /// Starts nestling and expects it to refuse: status 2, nothing on the console, nothing left bound, mapped or running,
    /// and one line, which is returned.
    ///
    /// # Panics
    /// If anything else happens.
    #[must_use]
    pub fn refused(self) -> String {
        let place = self.place;
        let before = Traces::of(place);
        let finished = self.start().finish();
        let lines: Vec<&str> = finished.messages.lines().filter(|line| !line.trim().is_empty()).collect();
        assert_eq!(finished.status.code(), Some(2), "nestling said {lines:?}\n{}", finished.report);
        let [line] = lines.as_slice() else { panic!("these should be one line: {lines:#?}") };
        assert!(finished.lines.is_empty(), "a guest was started\n{}", finished.report);
        Traces::of(place).expect_none_since(&before);
        (*line).to_owned()
    }
}

/// A running guest. Dropping it ends nestling.
#[derive(Debug)]
pub struct Guest {
    child: Child,
    events: Receiver<(Source, Vec<u8>)>,
    keyboard: Option<terminal::Terminal>,
    folder: TempDir,
    started: Instant,
    console: Tail,
    lines: Vec<String>,
    /// How many of `lines` a wait has already passed.
    seen: usize,
    messages: String,
    limit: Duration,
    _turn: MutexGuard<'static, ()>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    Console,
    Messages,
}

impl Guest {
    /// Waits for a line of the guest's console that contains `part` and lies behind all lines waited for before; returns
    /// it with the time since nestling's start.
    pub fn wait_for(&mut self, part: &str) -> (String, Duration) {
        let end = Instant::now() + self.limit;
        loop {
            while let Some(line) = self.lines.get(self.seen) {
                self.seen += 1;
                if line.contains(part) {
                    return (line.clone(), self.started.elapsed());
                }
            }
            self.next(end, &format!("the line '{part}' on the guest's console"));
        }
    }

    /// Types on nestling's terminal.
    pub fn types(&mut self, text: &str) {
        let keyboard = self.keyboard.as_mut().expect("the guest was started on a terminal");
        keyboard.write_all(text.as_bytes()).expect("somebody reads the terminal");
    }

    /// Whether nestling has its terminal in raw mode.
    #[must_use]
    pub fn terminal_is_raw(&self) -> bool {
        self.keyboard.as_ref().expect("the guest was started on a terminal").is_raw()
    }

    /// Sends a signal to nestling.
    pub fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).expect("the child has a process ID");
        kill_process(pid, signal).expect("nestling is running");
    }

    /// Waits for nestling's end.
    #[must_use]
    pub fn finish(mut self) -> Finished {
        let end = Instant::now() + self.limit;
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("the child can be waited for") {
                break status;
            }
            self.next(end, ENDING);
        };
        let took = self.started.elapsed();
        // what it wrote last; a terminal has no end while this side is open, so this wait is short
        while let Ok((source, bytes)) = self.events.recv_timeout(Duration::from_millis(200)) {
            self.take(source, &bytes);
        }
        // nestling makes the file before the guest, so that it cannot fail afterwards; a refusal leaves it empty
        let stats = std::fs::read(self.folder.path().join("stats.json")).ok().filter(|text| !text.is_empty());
        let stats = stats.map(|text| serde_json::from_slice(&text).expect("counters are JSON"));
        Finished {
            status,
            took,
            terminal_is_raw: self.keyboard.as_ref().map(terminal::Terminal::is_raw),
            report: self.report(),
            lines: std::mem::take(&mut self.lines),
            messages: std::mem::take(&mut self.messages),
            stats: stats.unwrap_or_default(),
        }
    }

    /// Takes what comes next, for at most a moment.
    fn next(&mut self, end: Instant, what: &str) {
        assert!(Instant::now() < end, "waited {} s for {what}\n{}", self.limit.as_secs(), self.report());
        match self.events.recv_timeout(Duration::from_millis(100)) {
            Ok((source, bytes)) => self.take(source, &bytes),
            Err(silence) => {
                let ended = matches!(self.child.try_wait(), Ok(Some(_)));
                let hopeless = ended && what != ENDING;
                assert!(!hopeless, "nestling ended while waiting for {what}\n{}", self.report());
                if silence == RecvTimeoutError::Disconnected {
                    std::thread::sleep(Duration::from_millis(10));
                }
            }
        }
    }

    fn take(&mut self, source: Source, bytes: &[u8]) {
        match source {
            Source::Console => self.lines.extend(self.console.push(bytes)),
            Source::Messages => self.messages.push_str(&String::from_utf8_lossy(bytes)),
        }
    }

    fn report(&self) -> String {
        let kernel =
            Command::new("dmesg").stdin(Stdio::null()).output().map(|output| output.stdout).unwrap_or_default();
        let mut host = Tail::default();
        host.push(&kernel);
        let mut messages = Tail::default();
        messages.push(self.messages.as_bytes());
        [
            self.console.report("the guest's console"),
            messages.report("nestling's messages"),
            host.report("the host's kernel log"),
        ]
        .join("\n")
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What is left of a guest.
#[derive(Debug)]
pub struct Finished {
    /// How nestling ended.
    pub status: ExitStatus,
    /// From nestling's start to its end.
    pub took: Duration,
    /// The guest's console.
    pub lines: Vec<String>,
    /// nestling's standard error.
    pub messages: String,
    /// The content of `--stats`; null if there is none.
    pub stats: serde_json::Value,
    /// Whether the terminal was left in raw mode; `None` without one.
    pub terminal_is_raw: Option<bool>,
    report: String,
}

impl Finished {
    /// # Panics
    /// Unless nestling ended with status 0 and every step of the guest did its work.
    pub fn expect_passed(&self) {
        assert!(self.status.success(), "nestling ended with {}\n{}", self.status, self.report);
        let failed = self.lines.iter().find(|line| line.contains("nestling-guest: failed"));
        assert!(failed.is_none(), "{}\n{}", failed.map_or("", String::as_str), self.report);
        assert!(self.has("passed"), "the guest never said 'passed'\n{}", self.report);
    }

    /// Whether the guest's init said exactly this.
    #[must_use]
    pub fn has(&self, text: &str) -> bool {
        self.facts().any(|said| said == text)
    }

    /// What the guest's init said after `beginning`, one for each such line, in order.
    #[must_use]
    pub fn said(&self, beginning: &str) -> Vec<&str> {
        self.facts().filter_map(|said| said.strip_prefix(beginning)).map(str::trim).collect()
    }

    /// The word after `key` in every line of the guest's init that begins with `beginning`.
    #[must_use]
    pub fn words(&self, beginning: &str, key: &str) -> Vec<&str> {
        let lines = self.facts().filter(|said| said.starts_with(beginning));
        lines.filter_map(|said| said.split_whitespace().skip_while(|word| *word != key).nth(1)).collect()
    }

    /// A number of the counters, by JSON pointer.
    ///
    /// # Panics
    /// If there is no such number.
    #[must_use]
    pub fn count(&self, pointer: &str) -> u64 {
        let value = self.stats.pointer(pointer).and_then(serde_json::Value::as_u64);
        value.unwrap_or_else(|| panic!("there is no number {pointer} in the counters: {:#}", self.stats))
    }

    fn facts(&self) -> impl Iterator<Item = &str> {
        self.lines.iter().filter_map(|line| line.split_once(MARK)).map(|(_, said)| said.trim_end())
    }
}

/// A file with this content, for options that want one.
///
/// # Panics
/// If there is no room for it.
#[must_use]
pub fn file_with(content: &[u8]) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().expect("there is room for a file");
    File::create(file.path()).and_then(|mut it| it.write_all(content)).expect("there is room for its content");
    file
}
