use super::*;
use crate::attach::AttachHwpt;
use crate::error::Error;
use crate::hwpt::{NestParent, Ste};
use crate::ioas::Ioas;
use crate::viommu::Viommu;
use std::fs::File;

const STAGE1: Ste = Ste([0x4000_0000 | 0b1011, 0]);

fn host() -> (Arc<FakeKernel>, usize) {
    let kernel = FakeKernel::new();
    let smmu = kernel.add_smmu(FakeSmmu::default());
    (kernel, smmu)
}

fn chain(kernel: &Arc<FakeKernel>, device: &FakeDevice) -> (Arc<Ioas>, Arc<NestParent>, Arc<Viommu>) {
    let ioas = kernel.iommufd().alloc_ioas().unwrap();
    let parent = ioas.alloc_nest_parent(device.dev_id()).unwrap();
    let viommu = parent.alloc_viommu(device.dev_id()).unwrap();
    (ioas, parent, viommu)
}

fn file() -> File {
    File::open("/dev/null").unwrap()
}

#[test]
fn objects_dropped_in_any_order_are_destroyed_in_the_right_one() {
    let (kernel, smmu) = host();
    let device = kernel.add_device(smmu, true);
    let (ioas, parent, viommu) = chain(&kernel, &device);
    let vdevice = viommu.alloc_vdevice(device.dev_id(), 0x100).unwrap();
    let nested = viommu.alloc_nested(device.dev_id(), STAGE1).unwrap();
    let queue = viommu.alloc_event_queue(8).unwrap();
    drop((ioas, parent, viommu));
    assert_eq!(kernel.live_objects(), 6);
    drop((queue, vdevice, nested));
    assert_eq!(kernel.live_objects(), 0);
}

#[test]
fn explicit_teardown_says_who_is_still_in_use() {
    let (kernel, smmu) = host();
    let device = kernel.add_device(smmu, true);
    let (ioas, parent, viommu) = chain(&kernel, &device);
    let error = viommu.clone().destroy().unwrap_err();
    assert_eq!(error.to_string(), "viommu 4 cannot be destroyed: something still uses it");
    let nested = viommu.alloc_nested(device.dev_id(), Ste::BYPASS).unwrap();
    device.attach_hwpt(nested.id()).unwrap();
    assert!(matches!(nested.destroy(), Err(Error::StillUsed { .. })), "the device is attached");
    viommu.destroy().unwrap_err();
    drop(parent);
    drop(ioas);
}

#[test]
fn teardown_in_order_leaves_nothing() {
    let (kernel, smmu) = host();
    let device = kernel.add_device(smmu, true);
    let (ioas, parent, viommu) = chain(&kernel, &device);
    let vdevice = viommu.alloc_vdevice(device.dev_id(), 0x100).unwrap();
    let nested = viommu.alloc_nested(device.dev_id(), STAGE1).unwrap();
    let queue = viommu.alloc_event_queue(8).unwrap();
    device.attach_hwpt(nested.id()).unwrap();
    queue.destroy().unwrap();
    device.attach_hwpt(parent.id()).unwrap();
    nested.destroy().unwrap();
    vdevice.destroy().unwrap();
    viommu.destroy().unwrap();
    device.detach_hwpt().unwrap();
    parent.destroy().unwrap();
    ioas.destroy().unwrap();
    assert_eq!(kernel.live_objects(), 0);
}

#[test]
fn stage_1_needs_a_vdevice_and_bypass_does_not() {
    let (kernel, smmu) = host();
    let device = kernel.add_device(smmu, true);
    let (_ioas, _parent, viommu) = chain(&kernel, &device);
    for ste in [Ste::BYPASS, Ste::ABORT] {
        let nested = viommu.alloc_nested(device.dev_id(), ste).unwrap();
        device.attach_hwpt(nested.id()).unwrap();
        device.detach_hwpt().unwrap();
    }
    let nested = viommu.alloc_nested(device.dev_id(), STAGE1).unwrap();
    assert!(matches!(device.attach_hwpt(nested.id()), Err(Error::NoVdevice { .. })));
    let _vdevice = viommu.alloc_vdevice(device.dev_id(), 0x100).unwrap();
    device.attach_hwpt(nested.id()).unwrap();
    device.detach_hwpt().unwrap();
}

#[test]
fn attaching_what_is_attached_does_not_see_a_new_vdevice() {
    let (kernel, smmu) = host();
    let device = kernel.add_device(smmu, true);
    let (_ioas, _parent, viommu) = chain(&kernel, &device);
    let _queue = viommu.alloc_event_queue(8).unwrap();
    let first = viommu.alloc_nested(device.dev_id(), Ste::BYPASS).unwrap();
    device.attach_hwpt(first.id()).unwrap();
    let _vdevice = viommu.alloc_vdevice(device.dev_id(), 0x100).unwrap();
    device.attach_hwpt(first.id()).unwrap();
    assert!(!kernel.raise_event(device.dev_id(), [0x10, 0, 0, 0]));
    let second = viommu.alloc_nested(device.dev_id(), Ste::BYPASS).unwrap();
    device.attach_hwpt(second.id()).unwrap();
    assert!(kernel.raise_event(device.dev_id(), [0x10, 0, 0, 0]));
    device.detach_hwpt().unwrap();
}

#[test]
fn one_vdevice_for_each_device_and_stream() {
    let (kernel, smmu) = host();
    let (first, second) = (kernel.add_device(smmu, true), kernel.add_device(smmu, true));
    let (_ioas, _parent, viommu) = chain(&kernel, &first);
    let _vdevice = viommu.alloc_vdevice(first.dev_id(), 0x100).unwrap();
    for (device, stream) in [(&first, 0x200), (&second, 0x100)] {
        let refused = viommu.alloc_vdevice(device.dev_id(), stream);
        assert!(matches!(refused, Err(Error::StreamTaken { .. })), "{refused:?}");
    }
    let _other = viommu.alloc_vdevice(second.dev_id(), 0x200).unwrap();
}

#[test]
fn objects_of_one_smmu_refuse_devices_of_another() {
    let (kernel, smmu) = host();
    let device = kernel.add_device(smmu, true);
    let other = kernel.add_smmu(FakeSmmu::default());
    let stranger = kernel.add_device(other, true);
    let (ioas, parent, viommu) = chain(&kernel, &device);
    let id = stranger.dev_id();
    assert!(matches!(parent.alloc_viommu(id), Err(Error::OtherSmmu { .. })));
    assert!(matches!(viommu.alloc_vdevice(id, 0x100), Err(Error::OtherSmmu { .. })));
    assert!(matches!(viommu.alloc_nested(id, Ste::BYPASS), Err(Error::OtherSmmu { .. })));
    assert!(matches!(stranger.attach_hwpt(parent.id()), Err(Error::CannotAttach { .. })));
    ioas.alloc_nest_parent(id).unwrap();
}

#[test]
fn a_host_without_nesting_or_coherency_says_which() {
    let kernel = FakeKernel::new();
    let mut only_stage1 = FakeSmmu::default();
    only_stage1.info.idr[0] &= !1;
    let smmu = kernel.add_smmu(only_stage1);
    let device = kernel.add_device(smmu, true);
    let ioas = kernel.iommufd().alloc_ioas().unwrap();
    assert!(matches!(ioas.alloc_nest_parent(device.dev_id()), Err(Error::NoNesting { .. })));

    let smmu = kernel.add_smmu(FakeSmmu::default());
    let incoherent = kernel.add_device(smmu, false);
    let parent = ioas.alloc_nest_parent(incoherent.dev_id()).unwrap();
    assert!(matches!(parent.alloc_viommu(incoherent.dev_id()), Err(Error::NoCoherency { .. })));
}

#[test]
fn a_parent_made_for_a_coherent_device_refuses_one_that_is_not() {
    let (kernel, smmu) = host();
    let (coherent, other) = (kernel.add_device(smmu, true), kernel.add_device(smmu, false));
    let ioas = kernel.iommufd().alloc_ioas().unwrap();
    let parent = ioas.alloc_nest_parent(coherent.dev_id()).unwrap();
    assert!(matches!(other.attach_hwpt(parent.id()), Err(Error::CannotAttach { .. })));
    let parent = ioas.alloc_nest_parent(other.dev_id()).unwrap();
    for device in [coherent, other] {
        device.attach_hwpt(parent.id()).unwrap();
        device.detach_hwpt().unwrap();
    }
}

#[test]
fn stream_table_entries_are_checked_as_the_kernel_checks_them() {
    let (kernel, smmu) = host();
    let device = kernel.add_device(smmu, true);
    let (_ioas, _parent, viommu) = chain(&kernel, &device);
    let accepts = |ste| viommu.alloc_nested(device.dev_id(), Ste(ste)).is_ok();
    assert!(accepts([0, u64::MAX]), "an invalid entry counts as abort whatever else it holds");
    assert!(accepts([0x1, 0]) && accepts([0x9, 0]) && accepts([0xb, 0]));
    assert!(accepts([0xb, 1 << 28]), "EATS = full ATS");
    for refused in [[0xd, 0], [0x3, 0], [0xb, 2 << 28], [0xb, 1 << 44], [0xb, 1 << 19], [0xb | 1 << 52, 0]] {
        assert!(!accepts(refused), "{refused:#x?}");
    }
    let ste = Ste::nested(!0b1111 | 0b1011, !(0b10 << 28));
    assert!(accepts(ste.0), "masked, any guest's entry passes: {ste:x?}");
}

#[test]
fn commands_are_checked_as_the_kernel_checks_them() {
    let legal = |smmu: &FakeSmmu, command| check::command(smmu, command).is_ok();
    let smmu = FakeSmmu::default();
    let mut plain = FakeSmmu::default();
    plain.info.idr = [0b11, 0, 0, 0, 0, 0]; // no ATS, 8-bit ASIDs, no substreams, no range invalidation
    for command in [
        [0x30, 0],
        [0x10 | 0xffff << 32, 0],
        [0x11 | 0xff << 48, 0],
        [0x12 | 1 << 48, 0xffff_f001],
        [0x13, 1],
        [0x05 | 7 << 32, 1],
        [0x06 | 7 << 32, 0],
    ] {
        assert!(legal(&smmu, command) && legal(&plain, command), "{command:#x?}");
    }
    for command in [[0x11 | 1 << 60, 0], [0x12 | 3 << 12, 1 << 10], [0x05 | 1 << 12, 0], [0x40, 52]] {
        assert!(legal(&smmu, command) && !legal(&plain, command), "{command:#x?}");
    }
    for command in [
        [0x46, 0],                          // CMD_SYNC
        [0x03, 0],                          // CFGI_STE
        [0x30, 1],                          // a reserved bit
        [0x12 | 3 << 12, 0],                // NUM without TG
        [0x12, 1 << 10],                    // TG without NUM, SCALE and TTL
        [0x12 | 1 << 12, 2 << 10 | 1 << 8], // 16 KiB granule with TTL 1 needs DS
        [0x12 | 1 << 25, 1 << 10],          // SCALE above 31 needs DS
        [0x40, 53],                         // size beyond all
        [0x13 | 1 << 48, 0],                // an ASID where there is none
    ] {
        assert!(!legal(&smmu, command), "{command:#x?}");
    }
}

#[test]
fn mappings_keep_out_of_the_msi_window_once_a_device_is_attached() {
    let (kernel, smmu) = host();
    let device = kernel.add_device(smmu, true);
    let (ioas, parent, _viommu) = chain(&kernel, &device);
    ioas.map_file(file(), 0, 0x20_0000, 0x800_0000).unwrap();
    let refused = device.attach_hwpt(parent.id());
    assert!(matches!(refused, Err(Error::ReservedAddress { .. })), "{refused:?}");
    assert_eq!(ioas.unmap(0x800_0000, 0x20_0000).unwrap(), 0x20_0000);
    device.attach_hwpt(parent.id()).unwrap();
    assert!(matches!(ioas.map_file(file(), 0, 0x1000, 0x80f_f000), Err(Error::BadMapping { .. })));
    ioas.map_file(file(), 0, 0x1000, 0x810_0000).unwrap();
    assert!(ioas.iova_ranges().unwrap().iter().all(|range| !range.contains(&0x800_0000)));
    device.detach_hwpt().unwrap();
}

#[test]
fn too_little_locked_memory_names_the_number_needed() {
    let (kernel, _) = host();
    let ioas = kernel.iommufd().alloc_ioas().unwrap();
    ioas.map_file(file(), 0, 1 << 20, 0).unwrap();
    kernel.fail_next(Call::IoasMapFile, libc::ENOMEM);
    let error = ioas.map_file(file(), 0, 1 << 30, 1 << 30).unwrap_err();
    assert!(matches!(error, Error::LockedMemory { needed } if needed == (1 << 30) + (1 << 20)));
    assert_eq!(ioas.mapped_bytes(), 1 << 20);
}

#[test]
fn an_attach_waits_for_a_reset_to_end() {
    let (kernel, smmu) = host();
    let device = kernel.add_device(smmu, true);
    let (_ioas, parent, _viommu) = chain(&kernel, &device);
    for _ in 0..3 {
        kernel.fail_next(Call::Attach, libc::EBUSY);
    }
    kernel.take_records();
    device.attach_hwpt(parent.id()).unwrap();
    assert_eq!(kernel.take_records().len(), 4);
    device.detach_hwpt().unwrap();
}

#[test]
fn a_device_in_reset_can_be_detached_and_attached_only_afterwards() {
    let (kernel, smmu) = host();
    let device = kernel.add_device(smmu, true);
    let (_ioas, parent, _viommu) = chain(&kernel, &device);
    kernel.set_in_reset(device.dev_id(), true);
    assert!(matches!(device.attach_hwpt(parent.id()), Err(Error::DeviceBusy { .. })));
    kernel.take_records();
    assert!(matches!(device.try_attach_hwpt(parent.id()), Err(Error::DeviceBusy { .. })));
    assert_eq!(kernel.take_records().len(), 1, "not tried again");
    device.detach_hwpt().unwrap();
    kernel.set_in_reset(device.dev_id(), false);
    device.try_attach_hwpt(parent.id()).unwrap();
    device.detach_hwpt().unwrap();
}

#[test]
fn a_kernel_that_is_too_old_says_which_version_is_needed() {
    let (kernel, smmu) = host();
    let device = kernel.add_device(smmu, true);
    let ioas = kernel.iommufd().alloc_ioas().unwrap();
    let parent = ioas.alloc_nest_parent(device.dev_id()).unwrap();
    kernel.fail_next(Call::ViommuAlloc, libc::ENOTTY);
    let error = parent.alloc_viommu(device.dev_id()).unwrap_err();
    assert_eq!(error.to_string(), "the host kernel has no IOMMU_VIOMMU_ALLOC: use Linux 6.13 or later");
}
