//! A host whose kernel is too old: it does not know one of the calls that nesting needs.
//!
//! Each of them is missed at another point of the set-up, with more to give back the later it is.
#![cfg(target_arch = "aarch64")]

use nestling_lab::guest::{Call, Launch, Model, Place};

/// nestling refuses both drives, names the call and the kernel that has it, and gives them back.
#[track_caller]
fn is_needed(call: Call, name: &str, since: &str) {
    let Some(place) = Place::here() else { return };
    let Some(drives) = place.devices_of(Model::Nvme, 2) else { return };
    let launch = Launch::new(place).devices(&drives[..2]);
    let line = launch.clone().without(call).refused();
    for part in [name, &format!("use Linux {since} or later")] {
        assert!(line.contains(part), "'{part}' is not in: {line}");
    }
    assert_eq!(launch.steps("io").run().said("drives verified"), ["2"]);
}

#[test]
fn a_kernel_without_file_mappings_is_too_old() {
    is_needed(Call::IoasMapFile, "IOMMU_IOAS_MAP_FILE", "6.13");
}

#[test]
fn a_kernel_without_viommus_is_too_old() {
    is_needed(Call::ViommuAlloc, "IOMMU_VIOMMU_ALLOC", "6.13");
}

#[test]
fn a_kernel_without_vdevices_is_too_old() {
    is_needed(Call::VdeviceAlloc, "IOMMU_VDEVICE_ALLOC", "6.13");
}

#[test]
fn a_kernel_without_event_queues_is_too_old() {
    is_needed(Call::VeventqAlloc, "IOMMU_VEVENTQ_ALLOC", "6.15");
}

#[test]
fn a_kernel_that_cannot_attach_devices_is_too_old() {
    is_needed(Call::Attach, "VFIO_DEVICE_ATTACH_IOMMUFD_PT", "6.6");
}
