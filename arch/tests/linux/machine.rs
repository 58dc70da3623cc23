//! A VM with RAM, vCPUs in threads, GIC, tables, and a UART that only collects what is written to it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier, Mutex, mpsc};
use std::time::Duration;

use kvm_bindings::{KVM_SYSTEM_EVENT_RESET, KVM_SYSTEM_EVENT_SHUTDOWN, kvm_userspace_memory_region};
use kvm_ioctls::{Kvm, VcpuExit, VcpuFd, VmFd};
use nestling_acpi::Description;
use nestling_acpi::description as acpi;
use nestling_arch::boot::{self, AcpiTables, BootRequest};
use nestling_arch::cpu::mpidr;
use nestling_arch::gic::{Gic, GicConfig};
use nestling_arch::layout::{self, Region};
use nestling_arch::vcpu::{Features, VcpuSetup, enter};
use nestling_arch::vm;
use vm_memory::{GuestAddress, GuestMemoryBackend, GuestMemoryMmap};
use vmm_sys_util::signal::{Killable, SIGRTMIN, register_signal_handler};

pub const RAM: Region = Region::new(layout::RAM_BASE, 256 << 20);
const UARTDR: u64 = layout::SERIAL.base;
const UARTFR: u64 = layout::SERIAL.base + 0x18;
/// Transmit FIFO empty, receive FIFO empty.
const UARTFR_IDLE: u8 = 0x90;
const PATIENCE: Duration = Duration::from_secs(120);

/// How a guest ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    PowerOff,
    Reset,
    /// It wrote the marker, and runs no more.
    Marker,
    Silence,
}

pub struct Machine {
    vcpus: Vec<VcpuFd>,
    setup: VcpuSetup,
    gic: Gic,
    description: Description,
    memory: GuestMemoryMmap,
    _vm: VmFd,
}

/// KVM, or a printed reason why the test is skipped.
pub fn kvm() -> Option<Kvm> {
    Kvm::new().inspect_err(|error| println!("skipped: no KVM on this machine (/dev/kvm: {error})")).ok()
}

extern "C" fn kick(_: i32, _: *mut libc::siginfo_t, _: *mut libc::c_void) {}

impl Machine {
    pub fn new(kvm: &Kvm, cpus: u16) -> Self {
        register_signal_handler(SIGRTMIN(), kick).unwrap();
        let vm = vm::create(kvm, 40).unwrap();
        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(RAM.base), RAM.size as usize)]).unwrap();
        let slot = kvm_userspace_memory_region {
            slot: 0,
            flags: 0,
            guest_phys_addr: RAM.base,
            memory_size: RAM.size,
            userspace_addr: memory.get_host_address(GuestAddress(RAM.base)).unwrap() as u64,
        };
        // SAFETY: the mapping has this size and lives as long as the VM: both are fields of the machine.
        unsafe { vm.set_user_memory_region(slot) }.unwrap();
        let features = Features::available(&vm);
        let setup = VcpuSetup::new(&vm, features).unwrap();
        let vcpus: Vec<_> = (0..cpus).map(|index| setup.create(&vm, index).unwrap()).collect();
        let config = GicConfig {
            distributor: layout::GIC_DISTRIBUTOR.base,
            redistributors: layout::GIC_REDISTRIBUTORS.base,
            its: layout::GIC_ITS.base,
            interrupts: layout::GIC_INTERRUPTS,
            cpus,
        };
        let gic = Gic::new(&vm, config).unwrap();
        for (index, vcpu) in (0..).zip(&vcpus) {
            setup.finish(vcpu, index).unwrap();
        }
        Self { vcpus, setup, gic, description: describe(cpus, features), memory, _vm: vm }
    }

    /// Loads a guest and runs it to its end, or until it writes `marker`; returns its console.
    pub fn boot(&mut self, request: &BootRequest<'_>, marker: Option<&'static str>) -> (Event, String) {
        let loaded = boot::load(&self.memory, request, |base| {
            let tables = nestling_acpi::build(&self.description, base);
            AcpiTables { bytes: tables.bytes, rsdp: tables.rsdp }
        })
        .unwrap();
        enter(&self.vcpus[0], &loaded.entry).unwrap();

        let (sender, receiver) = mpsc::channel();
        let console = Arc::new(Console { text: Mutex::default(), marker });
        let stop = Arc::new(AtomicBool::new(false));
        let start = Arc::new(Barrier::new(self.vcpus.len()));
        let threads: Vec<_> = std::mem::take(&mut self.vcpus)
            .into_iter()
            .map(|mut vcpu| {
                let (sender, console, stop, start) = (sender.clone(), console.clone(), stop.clone(), start.clone());
                std::thread::spawn(move || {
                    start.wait();
                    if let Some(event) = run(&mut vcpu, &console, &stop) {
                        // The receiver may have given up.
                        let _ = sender.send(event);
                    }
                    vcpu
                })
            })
            .collect();
        let event = receiver.recv_timeout(PATIENCE).unwrap_or(Event::Silence);
        stop.store(true, Ordering::SeqCst);
        for thread in threads {
            while !thread.is_finished() {
                thread.kill(SIGRTMIN()).unwrap();
                std::thread::sleep(Duration::from_millis(1));
            }
            self.vcpus.push(thread.join().unwrap());
        }
        let log = String::from_utf8_lossy(&console.text.lock().unwrap()).into_owned();
        (event, log)
    }

    pub fn reset(&mut self) {
        for (index, vcpu) in (0..).zip(&mut self.vcpus) {
            self.setup.reset(vcpu, index).unwrap();
        }
        self.gic.reset().unwrap();
    }
}

struct Console {
    text: Mutex<Vec<u8>>,
    marker: Option<&'static str>,
}

impl Console {
    /// Whether the marker is complete now.
    fn put(&self, data: &[u8]) -> bool {
        let mut text = self.text.lock().unwrap();
        text.extend(data.first());
        self.marker.is_some_and(|marker| text.ends_with(marker.as_bytes()))
    }
}

/// Runs a vCPU until the guest ends or `stop` is set and a signal comes.
fn run(vcpu: &mut VcpuFd, console: &Console, stop: &AtomicBool) -> Option<Event> {
    while !stop.load(Ordering::SeqCst) {
        match vcpu.run() {
            Ok(VcpuExit::MmioWrite(UARTDR, data)) => {
                if console.put(data) {
                    return Some(Event::Marker);
                }
            }
            Ok(VcpuExit::MmioRead(UARTFR, data)) => {
                data.fill(0);
                data[0] = UARTFR_IDLE;
            }
            // No PCI function answers.
            Ok(VcpuExit::MmioRead(_, data)) => data.fill(0xff),
            Ok(VcpuExit::MmioWrite(..)) => {}
            Ok(VcpuExit::SystemEvent(KVM_SYSTEM_EVENT_RESET, _)) => return Some(Event::Reset),
            Ok(VcpuExit::SystemEvent(KVM_SYSTEM_EVENT_SHUTDOWN, _)) => return Some(Event::PowerOff),
            Ok(other) => panic!("exit {other:?}"),
            Err(error) if error.errno() == libc::EINTR => {}
            Err(error) => panic!("KVM_RUN: {error}"),
        }
    }
    None
}

fn describe(cpus: u16, features: Features) -> Description {
    let high = layout::HighRegions::new(RAM.size, layout::HIGH_MMIO_SIZE).unwrap();
    let window = |region: Region| acpi::Window { base: region.base, size: region.size };
    let wired = |region, gsiv| acpi::WiredDevice { window: window(region), gsiv };
    Description {
        cpus: (0..cpus).map(mpidr).collect(),
        pmu_gsiv: features.pmu.then_some(layout::PMU_INTID),
        gic: acpi::Gic {
            distributor: layout::GIC_DISTRIBUTOR.base,
            redistributors: window(layout::redistributors(cpus, &high).unwrap()),
            its: layout::GIC_ITS.base,
            its_identifier: 0,
        },
        serial: wired(layout::SERIAL, layout::SERIAL_INTID),
        rtc: wired(layout::RTC, layout::RTC_INTID),
        ged: wired(layout::GED, layout::GED_INTID),
        pci: acpi::Pci {
            ecam: window(high.ecam),
            // Unused: there is no vSMMU.
            msi_window: acpi::Window { base: 0x0800_0000, size: 0x10_0000 },
            bridges: vec![acpi::HostBridge {
                uid: 0,
                buses: acpi::BusRange { first: 0, last: 0xff },
                mmio32: window(layout::PCI_MMIO32),
                mmio64: window(high.mmio),
            }],
            smmus: vec![],
            ats: false,
            pasid_bits: 0,
            canwbs: false,
        },
    }
}
