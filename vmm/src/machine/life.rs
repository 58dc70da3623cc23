//! One machine from its making to its end.
#![forbid(unsafe_code)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use kvm_ioctls::VcpuFd;
use nestling_devices::bus::MmioBus;
use nestling_devices::pci::Segment;
use nestling_devices::power::Power;
use nestling_devices::rtc::Rtc;
use nestling_devices::serial::Serial;
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use super::assigned::Assigned;
use super::boot::BootFiles;
use super::error::Error;
use super::pci;
use super::platform::Platform;
use crate::config::OnReset;
use crate::memory::GuestRam;
use crate::plan::Plan;
use crate::plan::spec::Window;
use crate::run::console::{Console, Input};
use crate::run::{ControlLoop, Handle, Outcome, Output, Vcpus};
use crate::stats::Stats;

/// How long the end of a machine waits for a console that is slow to read its last words.
const LAST_OUTPUT: Duration = Duration::from_secs(2);

/// A virtual machine.
pub struct Machine {
    plan: Plan,
    files: BootFiles,
    ram: GuestRam,
    platform: Platform,
    vcpus: Vec<VcpuFd>,
    bus: Arc<MmioBus>,
    segment: Arc<Segment>,
    serial: Arc<Serial>,
    output: Output,
    rtc: Arc<Rtc>,
    power: Arc<Power>,
    assigned: Assigned,
    control: ControlLoop,
    exits: Arc<AtomicU64>,
    resets: u64,
    running: Duration,
}

impl Machine {
    /// Builds the machine of `plan`, ready to run. Host devices are opened, bound and attached here.
    pub fn new(mut plan: Plan, console: Console) -> Result<Self, Error> {
        let files = BootFiles::open(&plan)?;
        let ram = GuestRam::new(plan.memory)?;
        let (platform, vcpus) = Platform::new(&plan, &ram)?;
        let bus = Arc::new(MmioBus::new());

        let (output, sender) = Output::new(console.output).map_err(|e| Error::Host("console thread", e))?;
        let serial = Arc::new(Serial::new(Box::new(sender), platform.line(plan.serial.gsiv)?));
        let rtc = Arc::new(Rtc::new(platform.line(plan.rtc.gsiv)?));
        let power = Arc::new(Power::new(platform.line(plan.ged.gsiv)?));
        bus.insert(range(plan.serial.window), serial.clone())?;
        bus.insert(range(plan.rtc.window), rtc.clone())?;
        bus.insert(range(plan.ged.window), power.clone())?;

        let mut control = {
            let (power, rtc) = (power.clone(), rtc.clone());
            ControlLoop::new(move || power.press_power_button(), Box::new(move || rtc.poll()))?
        };
        let handle = control.handle();
        rtc.on_alarm_change(move || handle.wake());
        attach_console(&mut control, &serial, console.input, console.escape)?;

        // What the Plan has left open of the vSMMUs is decided here; the tables tell the guest of it.
        let assigned = Assigned::new(&mut plan.pci, &ram, &platform, &bus)?;
        let built = || {
            let entry = files.load(&plan, &ram, platform.has_pmu())?;
            platform.enter(&vcpus, &entry)?;
            pci::build(&plan.pci, &bus, &platform.messages(), |host| assigned.function(host))
        };
        let segment = match built() {
            Ok(segment) => segment,
            Err(error) => {
                bus.clear();
                assigned.give_up();
                return Err(error);
            }
        };
        assigned.watch(&mut control);

        let exits = Arc::default();
        let (resets, running) = (0, Duration::ZERO);
        Ok(Self {
            plan,
            files,
            ram,
            platform,
            vcpus,
            bus,
            segment,
            serial,
            output,
            rtc,
            power,
            assigned,
            control,
            exits,
            resets,
            running,
        })
    }

    /// The handle for other threads.
    pub fn handle(&self) -> Handle {
        self.control.handle()
    }

    /// Runs the guest until it ends; with [`OnReset::Reboot`] a reset boots it again in place.
    pub fn run(&mut self, on_reset: OnReset) -> Result<Outcome, Error> {
        loop {
            let started = Instant::now();
            let vcpus = Vcpus::start(std::mem::take(&mut self.vcpus), &self.bus, &self.control.handle(), &self.exits)?;
            let outcome = self.control.run();
            self.vcpus = vcpus.stop()?;
            // What else the guest asked for on its way out concerns a machine that is no more.
            self.control.forget_guest()?;
            self.running += started.elapsed();
            match outcome? {
                Outcome::Reset if on_reset == OnReset::Reboot => self.reset()?,
                outcome => return Ok(outcome),
            }
        }
    }

    /// Counters since the machine was made.
    pub fn stats(&self) -> Stats {
        Stats {
            vsmmus: self.assigned.stats(),
            vcpu_exits: self.exits.load(Ordering::Relaxed),
            resets: self.resets,
            seconds: self.running.as_secs_f64(),
            objects: self.assigned.objects(),
        }
    }

    /// Gives everything back to the host, in order; tells the first failure.
    pub fn shutdown(self) -> Result<(), Error> {
        // No vCPU runs, nobody polls the event queues, and nobody but `assigned` holds a device.
        self.output.finish(LAST_OUTPUT);
        drop(self.control);
        drop(self.segment);
        self.bus.clear();
        self.assigned.shutdown()
    }

    fn load(&self) -> Result<(), Error> {
        let entry = self.files.load(&self.plan, &self.ram, self.platform.has_pmu())?;
        self.platform.enter(&self.vcpus, &entry)
    }

    fn reset(&mut self) -> Result<(), Error> {
        self.resets += 1;
        log::info!("the guest resets the machine");
        // Functions first: no DMA of the old world may meet the new one.
        self.segment.reset();
        self.assigned.reset_smmus();
        self.serial.reset();
        self.rtc.reset();
        self.power.reset();
        self.platform.reset(&mut self.vcpus)?;
        self.load()
    }
}

fn range(window: Window) -> std::ops::Range<u64> {
    window.base..window.end()
}

fn attach_console(
    control: &mut ControlLoop,
    serial: &Arc<Serial>,
    input: Option<std::os::fd::OwnedFd>,
    escape: bool,
) -> Result<(), Error> {
    let Some(fd) = input else { return Ok(()) };
    let eventfd = |source| Error::Host("eventfd of the console", source);
    let space = EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC).map_err(eventfd)?;
    let wake = space.try_clone().map_err(eventfd)?;
    serial.on_input_space(move || {
        let _ = wake.write(1);
    });
    let serial = serial.clone();
    control.console(Input::new(fd, escape, Box::new(move |bytes| serial.push_input(bytes))), space);
    Ok(())
}
