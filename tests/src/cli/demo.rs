//! `cargo lab demo`: one guest with every device of the host, each behind the vSMMU that stands for its host SMMU.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use super::error::file;
use super::report::{Report, Stats};
use super::{Error, Lab, build, exec, native};
use crate::host::tail::Tail;
use crate::host::{Output, Profile};
use crate::setup::Artifacts;

/// What a guest does by itself in the demo; `quiet` because every character of a console costs an exit.
const CMDLINE: &str = "console=ttyAMA0 quiet nestling.test=demo";
/// The demo's longest silence before something is wrong.
const LIMIT: Duration = Duration::from_secs(300);
/// The guest's memory and some.
const WARM_MIB: u32 = 1280;
/// The script's last line before it becomes nestling.
const STARTS: &str = "lab: starting nestling";

/// Options of `demo`.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The emulated host's profile.
    #[arg(long, env = "NESTLING_LAB_HOST", default_value = crate::host::profile::DEFAULT, value_name = "PROFILE")]
    host: String,
    /// Use this aarch64 machine itself instead of an emulated host.
    #[arg(long, requires = "device")]
    native: bool,
    /// With --native: a device bound to vfio-pci. The guest overwrites the NVMe drives among them.
    #[arg(long, requires = "native", value_name = "BDF")]
    device: Vec<String>,
    /// The guest's processors.
    #[arg(long, default_value_t = 2, value_name = "N")]
    cpus: u16,
    /// The guest's memory.
    #[arg(long, default_value = "1G", value_name = "SIZE")]
    memory: String,
}

/// What the demo expects to see.
struct Expected {
    smmus: usize,
    /// `None` if nobody knows which devices are drives.
    drives: Option<usize>,
}

impl Arguments {
    pub(super) fn run(self) -> Result<ExitCode, Error> {
        let lab = Lab::open()?;
        let nestling = build::nestling(&lab.interrupted)?;
        let mut view = View::default();
        let (status, stats, expected) = if self.native {
            let folder = tempfile::tempdir().map_err(file("making a folder in", std::env::temp_dir()))?;
            let stats = folder.path().join("stats.json");
            let mut words = self.nestling(&nestling, &lab.artifacts, &stats);
            words.extend(self.device.iter().flat_map(|device| ["--device".into(), device.into()]));
            view.starts();
            let status = native::run(&words, LIMIT, &lab.interrupted, &mut |output| view.take(output))?;
            (status, read(&stats), Expected { smmus: host_smmus(&self.device), drives: None })
        } else {
            let profile = Profile::named(&self.host)?;
            println!("lab: emulating the host '{}': {}", profile.name, profile.summary);
            let expected = Expected { smmus: profile.smmu.len(), drives: Some(drives(&profile)) };
            let script = exec::environment(&lab, &profile, Some(&nestling))
                .text(&format!("echo '{STARTS}'"))
                .words("set --", self.nestling(&nestling, &lab.artifacts, Path::new("/lab/stats.json")))
                .text(r#"for device in $NESTLING_LAB_DEVICES; do set -- "$@" --device "$device"; done"#)
                .text(r#"exec "$@""#);
            let host = exec::host(&lab, profile, Some(&nestling))?.limit(LIMIT).warm(WARM_MIB);
            let ended = host.run(&script, &mut |output| view.take(output))?;
            view.kernel_faults.extend(ended.kernel_faults);
            (ended.status, read(&host.file("stats.json")), expected)
        };
        Ok(view.conclude(status, stats, &expected))
    }

    /// The command line of nestling, without its devices.
    fn nestling(&self, nestling: &Path, artifacts: &Artifacts, stats: &Path) -> Vec<OsString> {
        let cpus = self.cpus.to_string();
        [nestling.as_os_str(), "run".as_ref(), "--kernel".as_ref(), artifacts.kernel.as_ref()]
            .into_iter()
            .chain(["--initrd".as_ref(), artifacts.guest_initramfs.as_os_str()])
            .chain(["--cmdline", CMDLINE, "--cpus", &cpus, "--memory", &self.memory].map(AsRef::as_ref))
            .chain(["--stats".as_ref(), stats.as_os_str()])
            .map(OsString::from)
            .collect()
    }
}

/// How many SMMUs these devices of this machine are behind.
fn host_smmus(devices: &[String]) -> usize {
    let smmu = |device: &String| std::fs::read_link(Path::new("/sys/bus/pci/devices").join(device).join("iommu")).ok();
    devices.iter().filter_map(smmu).collect::<BTreeSet<_>>().len()
}

fn drives(profile: &Profile) -> usize {
    let devices = profile.smmu.iter().flat_map(|smmu| &smmu.devices);
    devices.map(|device| usize::from(device.drives().0)).sum()
}

fn read(path: &Path) -> Result<Stats, String> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("nestling wrote no counters: {error}"))?;
    serde_json::from_str(&text).map_err(|error| format!("nestling's counters: {error}"))
}

/// What the user sees while the demo runs, and what is remembered of it.
struct View {
    report: Report,
    lines: Tail,
    complaints: Tail,
    kernel_faults: Vec<String>,
    begun: Instant,
    started: Option<Instant>,
    reached_init: Option<Duration>,
}

impl Default for View {
    fn default() -> Self {
        Self {
            report: Report::default(),
            lines: Tail::default(),
            complaints: Tail::default(),
            kernel_faults: Vec::new(),
            begun: Instant::now(),
            started: None,
            reached_init: None,
        }
    }
}

impl View {
    /// nestling starts now.
    fn starts(&mut self) {
        self.started = Some(Instant::now());
    }

    fn take(&mut self, output: Output<'_>) {
        match output {
            Output::Ready(took) => println!("lab: the host is ready after {:.1} s", took.as_secs_f32()),
            Output::Out(bytes) => {
                for line in self.lines.push(bytes) {
                    if line == STARTS {
                        self.starts();
                    } else if self.report.line(&line) {
                        self.reached_init = self.started.map(|started| started.elapsed());
                    }
                    println!("{line}");
                }
            }
            Output::Err(bytes) => {
                self.complaints.push(bytes);
                let _ = std::io::stderr().write_all(bytes);
            }
            Output::Console(_) => {}
        }
    }

    fn conclude(self, status: u8, stats: Result<Stats, String>, expected: &Expected) -> ExitCode {
        let mut problems = Vec::new();
        if status != 0 {
            problems.push(format!("nestling ended with status {status}"));
        }
        let stats = stats.unwrap_or_else(|error| {
            problems.push(error);
            Stats::default()
        });
        problems.extend(self.kernel_faults.iter().map(|fault| format!("the host's kernel says: {fault}")));
        problems.extend(self.report.problems(&stats, expected.smmus, expected.drives));
        println!("\n{}", self.report.summary(&stats));
        if let Some(took) = self.reached_init {
            println!("The guest reached its init {:.1} s after nestling started.", took.as_secs_f32());
        }
        println!("The demo took {:.1} s.", self.begun.elapsed().as_secs_f32());
        if problems.is_empty() {
            return ExitCode::SUCCESS;
        }
        if status != 0 {
            eprintln!("{}", self.complaints.report("nestling's messages"));
        }
        for problem in problems {
            eprintln!("lab: failed: {problem}");
        }
        ExitCode::FAILURE
    }
}
