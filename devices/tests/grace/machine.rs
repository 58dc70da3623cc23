//! The kernel objects of a VM with every device that the host has for guests.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use nestling_devices::vfio::{VfioCdev, VfioHost};
use nestling_iommufd::{AttachHwpt, EventQueue, Ioas, Iommufd, NestParent, Ste, Vdevice, Viommu};

pub const RAM: u64 = 0x4000_0000;
pub const RAM_SIZE: u64 = 16 << 20;
/// The vendor and device ID of QEMU's educational device.
pub const EDU: &str = "0x1234 0x11e8";

/// The devices are there once: tests take turns.
static TURN: Mutex<()> = Mutex::new(());

pub struct Assigned {
    pub bdf: String,
    pub smmu: PathBuf,
    pub cdev: PathBuf,
    pub id: String,
}

pub fn devices() -> Option<(MutexGuard<'static, ()>, Vec<Assigned>)> {
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

pub struct Machine {
    pub ioas: Arc<Ioas>,
    pub smmus: BTreeMap<PathBuf, Smmu>,
    pub devices: Vec<Device>,
}

pub struct Smmu {
    pub parent: Arc<NestParent>,
    pub viommu: Arc<Viommu>,
    pub queue: EventQueue,
}

pub struct Device {
    pub id: String,
    pub smmu: PathBuf,
    pub cdev: Arc<VfioCdev>,
    pub vdevice: Vdevice,
    pub stream: u32,
}

/// All kernel objects of a VM with these devices, each device on bypass.
pub fn build(assigned: &[Assigned]) -> Machine {
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
pub fn tear_down(machine: Machine) {
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
pub fn stage1(context_table: u64) -> Ste {
    Ste::nested(1 | 0b101 << 1 | context_table, 0b01 << 2 | 0b01 << 4 | 0b11 << 6)
}
