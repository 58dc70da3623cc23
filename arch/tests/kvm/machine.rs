//! A VM with RAM, vCPUs, GIC and a window whose stores are the guest's reports.

use std::sync::Arc;

use kvm_bindings::{KVM_SYSTEM_EVENT_SHUTDOWN, kvm_userspace_memory_region};
use kvm_ioctls::{Kvm, VcpuExit, VcpuFd, VmFd};
use nestling_arch::boot::Entry;
use nestling_arch::exit::UndecodedAccess;
use nestling_arch::gic::{Gic, GicConfig};
use nestling_arch::layout::{self, GIC_DISTRIBUTOR, GIC_INTERRUPTS, GIC_ITS, GIC_REDISTRIBUTORS};
use nestling_arch::vcpu::{Features, VcpuSetup, abort_access, enter};
use nestling_arch::vm;
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap};

pub const RAM: u64 = layout::RAM_BASE;
/// Passed in x0.
pub const FDT: u64 = RAM + 0x20_0000;
/// No memory and no device.
pub const REPORT: u64 = 0x0900_0000;
/// Neither; nobody asks for its accesses.
pub const NOWHERE: u64 = 0x0a00_0000;
const RAM_SIZE: usize = 4 << 20;
/// Guests poll: so many empty polls mean that no interrupt comes.
const PATIENCE: usize = 1000;

/// Why a guest does not run any more.
#[derive(Debug, PartialEq, Eq)]
pub enum Stop {
    PowerOff,
    Other(String),
}

// Fields in the order in which they go: the VM's memory last.
pub struct Machine {
    vcpus: Vec<VcpuFd>,
    setup: VcpuSetup,
    gic: Gic,
    pub vm: Arc<VmFd>,
    pub memory: GuestMemoryMmap,
    /// Guest physical addresses of the accesses that were aborted.
    pub undecoded: Vec<u64>,
}

/// KVM, or a printed reason why the test is skipped.
pub fn kvm() -> Option<Kvm> {
    Kvm::new().inspect_err(|error| println!("skipped: no KVM on this machine (/dev/kvm: {error})")).ok()
}

/// A machine with all that the host gives.
pub fn machine(cpus: u16) -> Option<Machine> {
    let vm = vm::create(&kvm()?, 40).unwrap();
    let features = Features::available(&vm);
    println!("{features:?}");
    Some(Machine::new(vm, cpus, features))
}

impl Machine {
    pub fn with_features(cpus: u16, features: Features) -> Option<Self> {
        Some(Self::new(vm::create(&kvm()?, 40).unwrap(), cpus, features))
    }

    fn new(vm: VmFd, cpus: u16, features: Features) -> Self {
        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(RAM), RAM_SIZE)]).unwrap();
        let slot = kvm_userspace_memory_region {
            slot: 0,
            flags: 0,
            guest_phys_addr: RAM,
            memory_size: RAM_SIZE as u64,
            userspace_addr: memory.get_host_address(GuestAddress(RAM)).unwrap() as u64,
        };
        // SAFETY: the mapping has this size and lives as long as the VM: both are fields of the machine.
        unsafe { vm.set_user_memory_region(slot) }.unwrap();
        let setup = VcpuSetup::new(&vm, features).unwrap();
        assert_eq!(setup.features(), features);
        let vcpus: Vec<_> = (0..cpus).map(|index| setup.create(&vm, index).unwrap()).collect();
        let config = GicConfig {
            distributor: GIC_DISTRIBUTOR.base,
            redistributors: GIC_REDISTRIBUTORS.base,
            its: GIC_ITS.base,
            interrupts: GIC_INTERRUPTS,
            cpus,
        };
        let gic = Gic::new(&vm, config).unwrap();
        for (index, vcpu) in (0..).zip(&vcpus) {
            setup.finish(vcpu, index).unwrap();
        }
        Self { vcpus, setup, gic, vm: Arc::new(vm), memory, undecoded: Vec::new() }
    }

    /// Loads a guest; nothing runs yet.
    pub fn start(&mut self, program: &super::Program) {
        self.place(program, RAM);
        enter(&self.vcpus[0], &Entry { pc: RAM, x0: FDT }).unwrap();
    }

    /// Puts instructions into memory.
    pub fn place(&self, program: &super::Program, address: u64) {
        self.memory.write_slice(&program.bytes(), GuestAddress(address)).unwrap();
    }

    /// Runs a guest to its end; returns its reports.
    pub fn boot(&mut self, program: &super::Program) -> (Vec<u64>, Stop) {
        self.start(program);
        let mut reports = Vec::new();
        loop {
            match self.run() {
                Ok(report) => reports.push(report),
                Err(stop) => return (reports, stop),
            }
        }
    }

    /// Runs up to the next report.
    pub fn step(&mut self) -> Option<u64> {
        self.run().inspect_err(|stop| println!("{stop:?}")).ok()
    }

    /// Runs up to the next interrupt that the guest takes.
    pub fn next_interrupt(&mut self) -> Option<u64> {
        (0..PATIENCE).filter_map(|_| self.step()).find(|&intid| intid != super::SPURIOUS)
    }

    /// Runs up to a load from the report window and leaves it unanswered.
    pub fn stop_in_load(&mut self) -> bool {
        match self.vcpus[0].run() {
            Ok(VcpuExit::MmioRead(REPORT, data)) => {
                data.fill(0xee);
                true
            }
            _ => false,
        }
    }

    pub fn reset(&mut self) {
        for (index, vcpu) in (0..).zip(&mut self.vcpus) {
            self.setup.reset(vcpu, index).unwrap();
        }
        self.gic.reset().unwrap();
    }

    fn run(&mut self) -> Result<u64, Stop> {
        loop {
            let vcpu = &mut self.vcpus[0];
            match vcpu.run() {
                Ok(VcpuExit::MmioWrite(REPORT, data)) => {
                    let mut value = [0; 8];
                    value[..data.len()].copy_from_slice(data);
                    return Ok(u64::from_le_bytes(value));
                }
                Ok(VcpuExit::SystemEvent(KVM_SYSTEM_EVENT_SHUTDOWN, _)) => return Err(Stop::PowerOff),
                Ok(VcpuExit::Unsupported(_)) => {
                    let access = UndecodedAccess::of(vcpu);
                    self.undecoded.push(access.expect("an access that kvm cannot describe").address);
                    abort_access(vcpu).unwrap();
                }
                other => return Err(Stop::Other(format!("{other:?}"))),
            }
        }
    }
}
