//! The whole object order of hardware nesting, and passed-through functions, on the real kernel.
//!
//! Runs where devices are bound to vfio-pci: in the lab (`cargo lab test`, which names them in NESTLING_LAB_DEVICES),
//! or natively with that variable set by hand. Elsewhere each test says why it does nothing.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use nestling_devices::bus::MmioBus;
use nestling_devices::interrupt::{MsiRoute, MsiRouter};
use nestling_devices::mapping::{self, GuestMapper, HostMemory};
use nestling_devices::pci::{Bdf, PciFunction};
use nestling_devices::vfio::{
    BarAddress, Error, HostFunction, VfioCdev, VfioFunction, VfioFunctionConfig, VfioHost, irq,
};
use nestling_iommufd::{
    AttachHwpt, Error as IommufdError, EventQueue, InvalidateFailure, Ioas, Iommufd, NestParent, Ste, Vdevice,
    Vevent, Viommu,
};
use vmm_sys_util::eventfd::EventFd;

const RAM: u64 = 0x4000_0000;
const RAM_SIZE: u64 = 16 << 20;
/// The vendor and device ID of QEMU's educational device.
const EDU: &str = "0x1234 0x11e8";

/// The devices are there once: tests take turns.
static TURN: Mutex<()> = Mutex::new(());

struct Assigned {
    bdf: String,
    smmu: PathBuf,
    cdev: PathBuf,
    id: String,
}

fn devices() -> Option<(MutexGuard<'static, ()>, Vec<Assigned>)> {
    if !Path::new("/dev/iommu").exists() {
        println!("skipped: there is no /dev/iommu");
        return None;
    }
    let list = std::env::var("NESTLING_LAB_DEVICES").unwrap_or_default();
    let found: Vec<_> = list.split_whitespace().map(assigned).collect();
    if found.is_empty() {
        println!("skipped: NESTLING_LAB_DEVICES names no device");
        return None;
    }
    Some((TURN.lock().unwrap_or_else(|e| e.into_inner()), found))
}

fn assigned(bdf: &str) -> Assigned {
    let sysfs = Path::new("/sys/bus/pci/devices").join(bdf);
    let entry = fs::read_dir(sysfs.join("vfio-dev")).unwrap().next().expect("it is bound to vfio-pci").unwrap();
    let text = |name: &str| fs::read_to_string(sysfs.join(name)).unwrap().trim().to_owned();
    Assigned {
        bdf: bdf.to_owned(),
        smmu: fs::canonicalize(sysfs.join("iommu")).unwrap(),
        cdev: Path::new("/dev/vfio/devices").join(entry.file_name()),
        id: format!("{} {}", text("vendor"), text("device")),
    }
}

struct Machine {
    ioas: Arc<Ioas>,
    smmus: BTreeMap<PathBuf, Smmu>,
    devices: Vec<Device>,
}

struct Smmu {
    parent: Arc<NestParent>,
    viommu: Arc<Viommu>,
    queue: EventQueue,
}

struct Device {
    id: String,
    smmu: PathBuf,
    cdev: Arc<VfioCdev>,
    vdevice: Vdevice,
    stream: u32,
}

/// All kernel objects of a VM with these devices, each device on bypass.
fn build(assigned: &[Assigned]) -> Machine {
    let iommufd = Iommufd::open().unwrap();
    let ram = rustix::fs::memfd_create("ram", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
    rustix::fs::ftruncate(&ram, RAM_SIZE).unwrap();
    let ioas = iommufd.alloc_ioas().unwrap();
    ioas.map_file(&ram, 0, RAM_SIZE, RAM).unwrap();
    let host = VfioHost::new(&iommufd).unwrap();
    let mut machine = Machine { ioas, smmus: BTreeMap::new(), devices: Vec::new() };
    for (number, device) in assigned.iter().enumerate() {
        let cdev = host.open(&device.bdf, &device.cdev).unwrap();
        let id = cdev.dev_id();
        let smmu = machine.smmus.entry(device.smmu.clone()).or_insert_with(|| {
            let parent = machine.ioas.alloc_nest_parent(id).unwrap();
            let viommu = parent.alloc_viommu(id).unwrap();
            let queue = viommu.alloc_event_queue(64).unwrap();
            Smmu { parent, viommu, queue }
        });
        let stream = 0x1000 + 0x100 * number as u32;
        let vdevice = smmu.viommu.alloc_vdevice(id, stream).unwrap();
        let bypass = smmu.viommu.alloc_nested(id, Ste::BYPASS).unwrap();
        cdev.attach_hwpt(bypass.id()).unwrap();
        // The device keeps it: a busy object is destroyed when the device is moved, so keep it until then.
        cdev.attach_hwpt(smmu.parent.id()).unwrap();
        bypass.destroy().unwrap();
        let (id, smmu) = (device.id.clone(), device.smmu.clone());
        machine.devices.push(Device { id, smmu, cdev, vdevice, stream });
    }
    machine
}

/// Ordered teardown; every step has to succeed.
fn tear_down(machine: Machine) {
    let Machine { ioas, smmus, devices } = machine;
    for device in devices {
        device.cdev.detach_hwpt().unwrap();
        device.vdevice.destroy().unwrap();
        assert_eq!(Arc::strong_count(&device.cdev), 1, "{} is still used", device.cdev.name());
    }
    for Smmu { parent, viommu, queue } in smmus.into_values() {
        queue.destroy().unwrap();
        viommu.destroy().unwrap();
        parent.destroy().unwrap();
    }
    ioas.destroy().unwrap();
}

/// A stage-1 entry whose context descriptor table is at a guest physical address (4 KiB of zeroes: CD.V = 0).
fn stage1(context_table: u64) -> Ste {
    Ste::nested(1 | 0b101 << 1 | context_table, 0b01 << 2 | 0b01 << 4 | 0b11 << 6)
}

#[test]
fn all_objects_come_up_and_go_down_in_order_many_times() {
    let Some((_turn, assigned)) = devices() else { return };
    for _ in 0..5 {
        tear_down(build(&assigned));
    }
}

#[test]
fn a_device_moves_between_all_kinds_of_entries_without_a_gap() {
    let Some((_turn, assigned)) = devices() else { return };
    let machine = build(&assigned);
    for device in &machine.devices {
        let viommu = &machine.smmus[&device.smmu].viommu;
        let id = device.cdev.dev_id();
        let mut attached = None;
        for ste in [Ste::ABORT, Ste::BYPASS, stage1(RAM), stage1(RAM + 0x1000), Ste([0, 0]), stage1(RAM)] {
            let next = viommu.alloc_nested(id, ste).unwrap();
            device.cdev.attach_hwpt(next.id()).unwrap();
            if let Some(old) = attached.replace(next) {
                nestling_iommufd::NestedHwpt::destroy(old).unwrap();
            }
        }
        device.cdev.attach_hwpt(machine.smmus[&device.smmu].parent.id()).unwrap();
        attached.unwrap().destroy().unwrap();
    }
    tear_down(machine);
}

#[test]
fn the_kernel_says_what_is_wrong_and_we_understand() {
    let Some((_turn, assigned)) = devices() else { return };
    let machine = build(&assigned);
    let device = &machine.devices[0];
    let id = device.cdev.dev_id();
    let smmu = &machine.smmus[&device.smmu];

    let info = smmu.viommu.hw_info().smmu.expect("an SMMUv3");
    assert_eq!(info.idr[0] & 0b11, 0b11, "stage 1 and stage 2");

    let bad = smmu.viommu.alloc_nested(id, Ste([0x3, 0]));
    assert!(matches!(bad, Err(IommufdError::BadSte { .. })), "{bad:?}");
    let taken = smmu.viommu.alloc_vdevice(id, 0x9999);
    assert!(matches!(taken, Err(IommufdError::StreamTaken { .. })), "{taken:?}");
    let queue = smmu.viommu.alloc_event_queue(8);
    assert!(matches!(queue, Err(IommufdError::EventQueueExists)), "{queue:?}");

    let ram = rustix::fs::memfd_create("more", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
    rustix::fs::ftruncate(&ram, 0x10000).unwrap();
    for iova in [0x800_0000, RAM, 0x1001] {
        let mapped = machine.ioas.map_file(&ram, 0, 0x10000, iova);
        assert!(matches!(mapped, Err(IommufdError::BadMapping { .. })), "{iova:#x}: {mapped:?}");
    }
    let ranges = machine.ioas.iova_ranges().unwrap();
    assert!(ranges.iter().all(|range| !range.contains(&0x800_0000)), "{ranges:x?}");

    if let Some(other) = machine.devices.iter().find(|other| other.smmu != device.smmu) {
        let other = other.cdev.dev_id();
        let nested = smmu.viommu.alloc_nested(other, Ste::BYPASS);
        assert!(matches!(nested, Err(IommufdError::OtherSmmu { .. })), "{nested:?}");
        let viommu = smmu.parent.alloc_viommu(other);
        assert!(matches!(viommu, Err(IommufdError::OtherSmmu { .. })), "{viommu:?}");
    }

    let again = VfioHost::new(&Iommufd::open().unwrap()).unwrap().open("twice", &assigned[0].cdev);
    assert!(matches!(again, Err(Error::InUse { .. })), "{:?}", again.err());
    let missing = VfioHost::new(&Iommufd::open().unwrap()).unwrap().open("none", Path::new("/dev/vfio/devices/vfio999"));
    assert!(matches!(missing, Err(Error::NoCdev { .. })), "{:?}", missing.err());
    tear_down(machine);
}

#[test]
fn stage_1_needs_a_vdevice() {
    let Some((_turn, assigned)) = devices() else { return };
    let iommufd = Iommufd::open().unwrap();
    let cdev = VfioHost::new(&iommufd).unwrap().open(&assigned[0].bdf, &assigned[0].cdev).unwrap();
    let ioas = iommufd.alloc_ioas().unwrap();
    let parent = ioas.alloc_nest_parent(cdev.dev_id()).unwrap();
    let viommu = parent.alloc_viommu(cdev.dev_id()).unwrap();
    let nested = viommu.alloc_nested(cdev.dev_id(), stage1(RAM)).unwrap();
    let refused = cdev.attach_hwpt(nested.id());
    assert!(matches!(refused, Err(IommufdError::NoVdevice { .. })), "{refused:?}");
    let vdevice = viommu.alloc_vdevice(cdev.dev_id(), 0x100).unwrap();
    cdev.attach_hwpt(nested.id()).unwrap();
    cdev.detach_hwpt().unwrap();
    nested.destroy().unwrap();
    vdevice.destroy().unwrap();
}

#[test]
fn invalidations_are_executed_and_an_illegal_one_is_found() {
    let Some((_turn, assigned)) = devices() else { return };
    let machine = build(&assigned);
    for device in &machine.devices {
        let viommu = &machine.smmus[&device.smmu].viommu;
        let stage1 = viommu.alloc_nested(device.cdev.dev_id(), stage1(RAM)).unwrap();
        device.cdev.attach_hwpt(stage1.id()).unwrap();
        let sid = u64::from(device.stream) << 32;
        let good = [
            [0x30, 0],            // TLBI_NSNH_ALL
            [0x10, 0],            // TLBI_NH_ALL
            [0x11 | 5 << 48, 0],  // TLBI_NH_ASID
            [0x12 | 5 << 48, RAM], // TLBI_NH_VA
            [0x13, RAM | 1],      // TLBI_NH_VAA, leaf
            [0x05 | sid, 1],      // CFGI_CD
            [0x06 | sid, 0],      // CFGI_CD_ALL
        ];
        viommu.invalidate(&good).unwrap();
        let many: Vec<_> = good.iter().copied().cycle().take(1000).collect();
        viommu.invalidate(&many).unwrap();
        for bad_at in [0, 1, 62, 63, 64, 500] {
            let mut commands = many.clone();
            commands[bad_at] = [0x46, 0]; // CMD_SYNC is ours, not the kernel's
            let error = viommu.invalidate(&commands).unwrap_err();
            assert_eq!(error.handled, bad_at);
            assert!(matches!(error.failure, InvalidateFailure::Illegal), "{error:?}");
        }
        let unknown = viommu.invalidate(&[[0x06 | 0xdead << 32, 0]]).unwrap_err();
        assert_eq!(unknown.handled, 0, "no device has this StreamID");
        device.cdev.attach_hwpt(machine.smmus[&device.smmu].parent.id()).unwrap();
        stage1.destroy().unwrap();
    }
    tear_down(machine);
}

/// Guest memory slots that are only counted.
#[derive(Default)]
struct Slots(Mutex<BTreeMap<u64, Arc<dyn HostMemory>>>);

impl GuestMapper for Slots {
    fn map(&self, guest_address: u64, memory: Arc<dyn HostMemory>) -> Result<(), mapping::Error> {
        assert!(self.0.lock().unwrap().insert(guest_address, memory).is_none(), "{guest_address:#x} is mapped twice");
        Ok(())
    }

    fn unmap(&self, guest_address: u64) {
        assert!(self.0.lock().unwrap().remove(&guest_address).is_some(), "{guest_address:#x} is not mapped");
    }
}

/// Routes that end in this process.
#[derive(Default)]
struct Router(Mutex<BTreeMap<u32, (EventFd, u32)>>);

impl MsiRouter for Router {
    fn connect(&self, trigger: &EventFd, device_id: u32, data: u32) -> std::io::Result<MsiRoute> {
        self.0.lock().unwrap().insert(data, (trigger.try_clone()?, device_id));
        Ok(MsiRoute(data))
    }

    fn disconnect(&self, _trigger: &EventFd, route: MsiRoute) {
        self.0.lock().unwrap().remove(&route.0);
    }
}

struct Guest {
    bus: Arc<MmioBus>,
    slots: Arc<Slots>,
    router: Arc<Router>,
    function: Arc<VfioFunction>,
}

fn guest_of(device: &Device) -> Guest {
    let (bus, slots, router) = (Arc::new(MmioBus::new()), Arc::new(Slots::default()), Arc::new(Router::default()));
    let shapes = memory_bars(&device.cdev);
    let mut next = 1u64 << 40;
    let bars = shapes
        .iter()
        .map(|&(index, size, wide)| {
            let address = if wide { next.next_multiple_of(size) } else { (0x1000_0000 * (1 + u64::from(index))).next_multiple_of(size) };
            next = if wide { address + size } else { next };
            BarAddress { index, address }
        })
        .collect();
    let config = VfioFunctionConfig {
        name: device.cdev.name().to_owned(),
        host: device.cdev.clone(),
        guest: Bdf::new(0x10, 0, 0),
        bars,
    };
    let function = VfioFunction::new(config, bus.clone(), slots.clone(), router.clone()).unwrap();
    Guest { bus, slots, router, function }
}

/// Number, size and width of the memory BARs.
fn memory_bars(cdev: &VfioCdev) -> Vec<(u8, u64, bool)> {
    let mut bars = Vec::new();
    let mut index = 0u8;
    while index < 6 {
        let mut register = [0; 4];
        cdev.read(7, 0x10 + 4 * u64::from(index), &mut register).unwrap();
        let wide = register[0] & 0b111 == 0b100;
        let size = cdev.region(index.into()).size;
        if size > 0 && register[0] & 1 == 0 {
            bars.push((index, size, wide));
        }
        index += if wide { 2 } else { 1 };
    }
    bars
}

impl Guest {
    fn read(&self, offset: u16) -> u32 {
        let mut data = [0; 4];
        self.function.config_read(offset, &mut data);
        u32::from_le_bytes(data)
    }

    fn write(&self, offset: u16, value: u32) {
        self.function.config_write(offset, &value.to_le_bytes());
    }

    fn capability(&self, id: u32) -> Option<u16> {
        let mut at = self.read(0x34) as u16 & 0xfc;
        while at != 0 {
            let head = self.read(at);
            if head & 0xff == id {
                return Some(at);
            }
            at = (head >> 8) as u16 & 0xfc;
        }
        None
    }
}

#[test]
fn every_function_shows_its_bars_while_memory_space_is_enabled() {
    let Some((_turn, assigned)) = devices() else { return };
    let machine = build(&assigned);
    for device in &machine.devices {
        let guest = guest_of(device);
        let shapes = memory_bars(&device.cdev);
        assert_eq!(guest.read(0x08), {
            let mut class = [0; 4];
            device.cdev.read(7, 8, &mut class).unwrap();
            u32::from_le_bytes(class)
        });
        for &(index, size, wide) in &shapes {
            let at = 0x10 + 4 * u16::from(index);
            let before = guest.read(at);
            guest.write(at, u32::MAX);
            let mut mask = u64::from(guest.read(at) & !0xf) | if wide { 0 } else { 0xffff_ffff << 32 };
            if wide {
                let high = guest.read(at + 4);
                guest.write(at + 4, u32::MAX);
                mask |= u64::from(guest.read(at + 4)) << 32;
                guest.write(at + 4, high);
            }
            guest.write(at, before);
            assert_eq!(!mask + 1, size, "bar {index} of {}", device.id);
        }
        assert!(guest.slots.0.lock().unwrap().is_empty());
        for _ in 0..3 {
            guest.write(0x04, 0x6);
            let mapped = guest.function.counters().mapped_bytes;
            let total: u64 = shapes.iter().map(|&(_, size, _)| size).sum();
            println!("{} {}: {mapped:#x} of {total:#x} bytes mapped", device.cdev.name(), device.id);
            assert!(shapes.iter().all(|&(_, size, _)| size < 0x2000) || mapped > 0);
            let mut data = [0; 4];
            assert!(shapes.is_empty() || guest.bus.read(0x1_0000_0000_00, &mut data) || !shapes.iter().any(|s| s.2));
            guest.write(0x04, 0);
            assert!(guest.slots.0.lock().unwrap().is_empty());
        }
        guest.write(0x04, 0x6);
        guest.function.reset();
        assert_eq!(guest.read(0x04) & 0xffff, 0, "the command register as at power-on");
        assert!(guest.slots.0.lock().unwrap().is_empty());
        assert_eq!(guest.function.counters().errors, 0, "{}", device.id);
        guest.function.shutdown();
    }
    tear_down(machine);
}

#[test]
fn msi_x_vectors_are_routed_when_the_guest_unmasks_them() {
    let Some((_turn, assigned)) = devices() else { return };
    let machine = build(&assigned);
    for device in machine.devices.iter().filter(|device| device.cdev.irqs(irq::MSIX).count > 1) {
        let guest = guest_of(device);
        let Some(at) = guest.capability(0x11) else { continue };
        let table = guest.read(at + 4);
        let bar = 0x10 + 4 * (table as u16 & 7);
        guest.write(0x04, 0x6);
        let wide = guest.read(bar) & 0b100 != 0;
        let base = u64::from(guest.read(bar) & !0xf) | if wide { u64::from(guest.read(bar + 4)) << 32 } else { 0 };
        let base = base + u64::from(table & !7);
        guest.write(at, guest.read(at) | 1 << 31);
        for vector in [1u64, 0] {
            let entry = base + 16 * vector;
            for (field, value) in [(0, 0x1234_5000u32), (4, 0), (8, 0x40 + vector as u32), (12, 0)] {
                assert!(guest.bus.write(entry + field, &value.to_le_bytes()));
            }
            assert_eq!(guest.router.0.lock().unwrap()[&(0x40 + vector as u32)].1, 0x1000, "{}", device.id);
        }
        assert_eq!(guest.function.counters().routed_vectors, 2);
        assert!(guest.bus.write(base + 12, &1u32.to_le_bytes()));
        assert_eq!(guest.function.counters().routed_vectors, 1);
        guest.write(at, guest.read(at) & !(1 << 31));
        assert_eq!(guest.function.counters().routed_vectors, 0);
        assert_eq!(guest.function.counters().errors, 0, "{}", device.id);
        guest.function.shutdown();
    }
    tear_down(machine);
}

fn wait<T>(what: &str, mut poll: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = poll() {
            return value;
        }
        assert!(start.elapsed() < Duration::from_secs(10), "waited 10 s for {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn an_edu_device_sends_its_msi_to_the_routed_vector() {
    let Some((_turn, assigned)) = devices() else { return };
    let machine = build(&assigned);
    for device in machine.devices.iter().filter(|device| device.id == EDU) {
        let guest = guest_of(device);
        let at = guest.capability(0x05).expect("edu has MSI");
        guest.write(0x04, 0x6);
        let wide = guest.read(at) & 1 << 23 != 0;
        guest.write(at + 4, 0x1234_5000);
        guest.write(at + if wide { 12 } else { 8 }, 0x55);
        guest.write(at, guest.read(at) | 1 << 16);
        let trigger = guest.router.0.lock().unwrap()[&0x55].0.try_clone().unwrap();
        // Raise an interrupt with status 1 (0x60), then acknowledge it (0x64).
        device.cdev.write(0, 0x60, &1u32.to_le_bytes()).unwrap();
        assert_eq!(wait("the edu device's interrupt", || trigger.read().ok()), 1);
        device.cdev.write(0, 0x64, &1u32.to_le_bytes()).unwrap();
        guest.function.shutdown();
        println!("an MSI of {} arrived", device.cdev.name());
    }
    tear_down(machine);
}

#[test]
fn a_dma_that_stage_1_refuses_arrives_as_an_event_with_the_virtual_stream_id() {
    let Some((_turn, assigned)) = devices() else { return };
    let machine = build(&assigned);
    for device in machine.devices.iter().filter(|device| device.id == EDU) {
        let smmu = &machine.smmus[&device.smmu];
        let stage1 = smmu.viommu.alloc_nested(device.cdev.dev_id(), stage1(RAM)).unwrap();
        device.cdev.attach_hwpt(stage1.id()).unwrap();
        device.cdev.write(7, 0x04, &6u16.to_le_bytes()).unwrap();
        // DMA of 4 bytes from an IOVA to the device's buffer at 0x40000.
        for (register, value) in [(0x80, 0xabc_d000u64), (0x88, 0x40000), (0x90, 4), (0x98, 1)] {
            device.cdev.write(0, register, &value.to_le_bytes()).unwrap();
        }
        let mut events = [Vevent::default(); 4];
        wait("an event", || (smmu.queue.read(&mut events).unwrap() > 0).then_some(()));
        let record = events[0].record.expect("a record");
        println!("event {record:#018x?}");
        assert_eq!(record[0] as u8, 0x0a, "C_BAD_CD: the context descriptor is all zeroes");
        assert_eq!((record[0] >> 32) as u32, device.stream);
        device.cdev.write(7, 0x04, &0u16.to_le_bytes()).unwrap();
        device.cdev.attach_hwpt(smmu.parent.id()).unwrap();
        stage1.destroy().unwrap();
    }
    tear_down(machine);
}
