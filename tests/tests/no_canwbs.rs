//! A host whose SMMU cannot nest, because neither CANWBS nor S2FWB makes its devices' accesses cacheable.
#![cfg(target_arch = "aarch64")]

use nestling_lab::guest::{Launch, Model, Place, smmu_of};

#[test]
fn an_smmu_that_cannot_nest_is_named() {
    let Some(place) = Place::here().filter(|place| place.profile.as_deref() == Some("no-canwbs")) else { return };
    let Some(drives) = place.devices_of(Model::Nvme, 1) else { return };
    let line = Launch::new(place).devices([drives[0]]).refused();
    for part in [smmu_of(drives[0]).as_str(), "CANWBS"] {
        assert!(line.contains(part), "'{part}' is not in: {line}");
    }
}

#[test]
fn a_guest_without_devices_needs_no_nesting() {
    let Some(place) = Place::here().filter(|place| place.profile.as_deref() == Some("no-canwbs")) else { return };
    Launch::new(place).run().expect_passed();
}
