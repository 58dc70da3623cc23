//! Making, using and destroying the objects of iommufd.

use std::fs::File;
use std::path::Path;

use nestling_devices::vfio::{Error, VfioHost};
use nestling_iommufd::{AttachHwpt, Error as IommufdError, InvalidateFailure, Iommufd, NestedHwpt, Ste};

use crate::machine::{RAM, build, devices, stage1, tear_down};

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
                NestedHwpt::destroy(old).unwrap();
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
    let missing =
        VfioHost::new(&Iommufd::open().unwrap()).unwrap().open("none", Path::new("/dev/vfio/devices/vfio999"));
    assert!(matches!(missing, Err(Error::NoCdev { .. })), "{:?}", missing.err());
    tear_down(machine);
}

#[test]
fn stage_1_needs_a_vdevice() {
    let Some((_turn, assigned)) = devices() else { return };
    // Both descriptors come from outside here, as a VM manager passes them.
    let open = |path: &Path| File::options().read(true).write(true).open(path).unwrap().into();
    let iommufd = Iommufd::from_fd(open(Path::new("/dev/iommu")));
    let host = VfioHost::new(&iommufd).unwrap();
    let cdev = host.from_fd(&assigned[0].bdf, open(&assigned[0].cdev)).unwrap();
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
            [0x30, 0],             // TLBI_NSNH_ALL
            [0x10, 0],             // TLBI_NH_ALL
            [0x11 | 5 << 48, 0],   // TLBI_NH_ASID
            [0x12 | 5 << 48, RAM], // TLBI_NH_VA
            [0x13, RAM | 1],       // TLBI_NH_VAA, leaf
            [0x05 | sid, 1],       // CFGI_CD
            [0x06 | sid, 0],       // CFGI_CD_ALL
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
