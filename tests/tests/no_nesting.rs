//! A host with an SMMU that nests, one without stage 2 and one without stage 1.
//!
//! The kernel says what an SMMU lacks only to who has bound a device behind it, so these refusals come late.
#![cfg(target_arch = "aarch64")]

use nestling_lab::guest::{Launch, Model, Place, smmu_of};

/// The drive behind the SMMU that nests, and the devices behind the two that do not.
fn host() -> Option<(&'static Place, &'static str, [&'static str; 2])> {
    let place = Place::here().filter(|place| place.profile.as_deref() == Some("no-nesting"))?;
    let (drives, edus) = (place.devices_of(Model::Nvme, 1)?, place.devices_of(Model::Edu, 2)?);
    Some((place, drives[0], [edus[0], edus[1]]))
}

#[track_caller]
fn names_the_smmu(line: &str, device: &str, lacks: &str) {
    for part in [smmu_of(device).as_str(), lacks, "leave its devices out"] {
        assert!(line.contains(part), "'{part}' is not in: {line}");
    }
}

#[test]
fn an_smmu_without_stage_2_is_named() {
    let Some((place, _, [edu, _])) = host() else { return };
    names_the_smmu(&Launch::new(place).devices([edu]).refused(), edu, "no stage 2");
}

#[test]
fn an_smmu_without_stage_1_is_named() {
    let Some((place, _, [_, edu])) = host() else { return };
    names_the_smmu(&Launch::new(place).devices([edu]).refused(), edu, "no stage 1");
}

#[test]
fn a_refusal_half_way_gives_back_what_was_set_up_before() {
    let Some((place, drive, edus)) = host() else { return };
    for edu in edus {
        names_the_smmu(&Launch::new(place).devices([drive, edu]).refused(), edu, "no stage");
        let finished = Launch::new(place).devices([drive]).steps("io").run();
        assert_eq!(finished.said("drives verified"), ["1"]);
    }
}
