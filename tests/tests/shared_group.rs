//! Two functions in one IOMMU group.
#![cfg(target_arch = "aarch64")]

use nestling_lab::guest::{Driver, Launch, Model, Place};

fn pair() -> Option<(&'static Place, Vec<&'static str>)> {
    let place = Place::here().filter(|place| place.profile.as_deref() == Some("shared-group"))?;
    Some((place, place.devices_of(Model::Nvme, 2)?))
}

/// Both halves in one test: the second is about what the first has changed.
#[test]
fn a_device_that_is_not_alone_in_its_group_is_refused() {
    let Some((place, drives)) = pair() else { return };
    let driver = Driver::set(drives[1], "nvme");
    let line = Launch::new(place).devices([drives[0]]).refused();
    drop(driver);
    for part in [drives[0], drives[1], "'nvme'", "group"] {
        assert!(line.contains(part), "'{part}' is not in: {line}");
    }

    let line = Launch::new(place).devices(&drives).refused();
    for part in [drives[0], drives[1], "group", "one stage 1"] {
        assert!(line.contains(part), "'{part}' is not in: {line}");
    }
}
