//! vCPU threads: KVM_RUN, MMIO to the bus, PSCI's system events to the control loop.
#![forbid(unsafe_code)]

use std::fmt::Display;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};

use kvm_bindings::{
    KVM_SYSTEM_EVENT_CRASH, KVM_SYSTEM_EVENT_RESET, KVM_SYSTEM_EVENT_SHUTDOWN, KVM_SYSTEM_EVENT_SUSPEND,
};
use kvm_ioctls::{VcpuExit, VcpuFd};
use nestling_arch::{exit::UndecodedAccess, vcpu};
use nestling_devices::bus::MmioBus;

use super::{Handle, Outcome, Request, kick};

/// Why the vCPU threads cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operating system gives no thread.
    #[error("thread of vcpu {index}")]
    Spawn {
        /// Which vCPU.
        index: usize,
        /// What the operating system answered.
        #[source]
        source: io::Error,
    },
    /// The kick signal cannot be blocked.
    #[error("signal mask of the vcpu threads")]
    Signals(#[source] io::Error),
    /// A vCPU thread panicked, which is an error of this program.
    #[error("thread of vcpu {0} ended without giving its vcpu back")]
    Lost(usize),
}

/// All vCPUs, each running in a thread of its own.
pub struct Vcpus {
    threads: Vec<JoinHandle<VcpuFd>>,
    stop: Arc<AtomicBool>,
}

impl Vcpus {
    /// Starts a thread for each vCPU; `exits` counts their returns from KVM_RUN.
    pub fn start(
        vcpus: Vec<VcpuFd>,
        bus: &Arc<MmioBus>,
        control: &Handle,
        exits: &Arc<AtomicU64>,
    ) -> Result<Self, Error> {
        let stop = Arc::new(AtomicBool::new(false));
        let _blocked = kick::Blocked::new().map_err(Error::Signals)?;
        let mut started = Self { threads: Vec::with_capacity(vcpus.len()), stop: stop.clone() };
        for (index, vcpu) in vcpus.into_iter().enumerate() {
            let worker = Worker {
                index,
                vcpu,
                bus: bus.clone(),
                control: control.clone(),
                stop: stop.clone(),
                exits: exits.clone(),
                aborted: 0,
            };
            let spawned = thread::Builder::new().name(format!("vcpu{index}")).spawn(|| worker.run());
            match spawned {
                Ok(thread) => started.threads.push(thread),
                Err(source) => {
                    let _ = started.stop();
                    return Err(Error::Spawn { index, source });
                }
            }
        }
        Ok(started)
    }

    /// Gets every vCPU out of the guest, ends the threads and gives the vCPUs back, in their order.
    pub fn stop(self) -> Result<Vec<VcpuFd>, Error> {
        self.stop.store(true, Ordering::SeqCst);
        self.threads.iter().for_each(kick::send);
        // All of them are joined, also behind one that panicked: nothing may run on while the machine is torn down.
        let joined: Vec<_> = self.threads.into_iter().map(JoinHandle::join).collect();
        joined.into_iter().enumerate().map(|(index, vcpu)| vcpu.map_err(|_| Error::Lost(index))).collect()
    }
}

/// Ends the machine if this thread panics: nobody else would notice that a vCPU is gone.
struct Alarm(Handle);

impl Drop for Alarm {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.send(Request::Stop(Outcome::Failed));
        }
    }
}

struct Worker {
    index: usize,
    vcpu: VcpuFd,
    bus: Arc<MmioBus>,
    control: Handle,
    stop: Arc<AtomicBool>,
    exits: Arc<AtomicU64>,
    /// Accesses that ended as aborts in the guest.
    aborted: u64,
}

impl Worker {
    fn run(mut self) -> VcpuFd {
        let _alarm = Alarm(self.control.clone());
        if let Err(error) = kick::accept(&self.vcpu) {
            log::error!("vcpu {}: signal mask: {error}", self.index);
            self.control.send(Request::Stop(Outcome::Failed));
            return self.vcpu;
        }
        while !self.stop.load(Ordering::SeqCst) {
            if let Some(outcome) = self.enter() {
                self.control.send(Request::Stop(outcome));
                break;
            }
        }
        kick::clear();
        self.vcpu
    }

    /// One KVM_RUN; `Some` ends the machine.
    fn enter(&mut self) -> Option<Outcome> {
        let exit = self.vcpu.run();
        self.exits.fetch_add(1, Ordering::Relaxed);
        match exit {
            Ok(VcpuExit::MmioRead(address, data)) => {
                self.bus.read(address, data);
                None
            }
            Ok(VcpuExit::MmioWrite(address, data)) => {
                self.bus.write(address, data);
                None
            }
            Ok(VcpuExit::SystemEvent(event, _)) => self.system_event(event),
            Ok(VcpuExit::Intr) => {
                kick::clear();
                None
            }
            Ok(VcpuExit::Unsupported(reason)) => self.unsupported(reason),
            Ok(other) => {
                let why = format!("unexpected exit {other:?}");
                self.failed(why)
            }
            Err(error) if error.errno() == libc::EINTR => {
                kick::clear();
                None
            }
            Err(error) if error.errno() == libc::EAGAIN => None,
            Err(error) => self.failed(format_args!("KVM_RUN: {error}")),
        }
    }

    /// An exit that kvm-ioctls does not know. The guest's doing are accesses that cannot be emulated: it gets an abort.
    fn unsupported(&mut self, reason: u32) -> Option<Outcome> {
        let Some(access) = UndecodedAccess::of(&mut self.vcpu) else {
            return self.failed(format_args!("unexpected exit {reason}"));
        };
        if let Err(error) = vcpu::abort_access(&self.vcpu) {
            return self.failed(format_args!("an access cannot be aborted: {error}"));
        }
        // The guest can cause any number of them: messages come at a falling rate.
        self.aborted += 1;
        if self.aborted.is_power_of_two() {
            log::warn!(
                "vcpu {}: access to {:#x} by an instruction that cannot be emulated (iss {:#x}), {} so far",
                self.index,
                access.address,
                access.syndrome,
                self.aborted
            );
        }
        None
    }

    fn failed(&self, why: impl Display) -> Option<Outcome> {
        match vcpu::program_counter(&self.vcpu, self.index as u16) {
            Ok(pc) => log::error!("vcpu {}, pc {pc:#x}: {why}", self.index),
            Err(_) => log::error!("vcpu {}: {why}", self.index),
        }
        Some(Outcome::Failed)
    }

    fn system_event(&self, event: u32) -> Option<Outcome> {
        match event {
            KVM_SYSTEM_EVENT_SHUTDOWN => Some(Outcome::PowerOff),
            KVM_SYSTEM_EVENT_RESET => Some(Outcome::Reset),
            KVM_SYSTEM_EVENT_CRASH => self.failed("the guest reports a crash"),
            // SYSTEM_SUSPEND is not offered (KVM_CAP_ARM_SYSTEM_SUSPEND stays off).
            KVM_SYSTEM_EVENT_SUSPEND => None,
            other => self.failed(format_args!("unknown system event {other}")),
        }
    }
}
