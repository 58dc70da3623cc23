//! Two functions in one IOMMU group.
#![cfg(target_arch = "aarch64")]

use std::path::Path;

use nestling_lab::guest::{Launch, Model, Place};

fn pair() -> Option<(&'static Place, Vec<&'static str>)> {
    let place = Place::here().filter(|place| place.profile.as_deref() == Some("shared-group"))?;
    Some((place, place.devices_of(Model::Nvme, 2)?))
}

fn bind(address: &str, driver: &str) {
    let device = Path::new("/sys/bus/pci/devices").join(address);
    std::fs::write(device.join("driver_override"), driver).expect("the device exists");
    std::fs::write(device.join("driver/unbind"), address).expect("the device has a driver");
    std::fs::write("/sys/bus/pci/drivers_probe", address).expect("the driver takes it");
}

/// Both halves in one test: the second is about what the first has changed.
#[test]
fn a_device_that_is_not_alone_in_its_group_is_refused() {
    let Some((place, drives)) = pair() else { return };
    bind(drives[1], "nvme");
    let refused = std::panic::catch_unwind(|| Launch::new(place).devices([drives[0]]).refused());
    bind(drives[1], "vfio-pci");
    let line = refused.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    for part in [drives[0], drives[1], "'nvme'", "group"] {
        assert!(line.contains(part), "'{part}' is not in: {line}");
    }

    let line = Launch::new(place).devices(&drives).refused();
    for part in [drives[0], drives[1], "group", "one stage 1"] {
        assert!(line.contains(part), "'{part}' is not in: {line}");
    }
}
