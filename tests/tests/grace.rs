//! A host like one Grace socket: five SMMUs, virtual functions, two devices behind one SMMU, a large BAR.
#![cfg(target_arch = "aarch64")]

use nestling_lab::guest::{Finished, Launch, Model, Place, smmu_of};

/// The StreamID of a host device.
fn stream_id(finished: &Finished, host: &str) -> u64 {
    let vsmmus = finished.stats["vsmmus"].as_array().expect("the counters have vSMMUs");
    let mut devices = vsmmus.iter().flat_map(|vsmmu| vsmmu["devices"].as_array().into_iter().flatten());
    let device =
        devices.find(|device| device["host"] == host).unwrap_or_else(|| panic!("{host} is not in the counters"));
    device["stream_id"].as_u64().expect("a StreamID is a number")
}

/// How often each MSI-X vector of a host device has interrupted the guest, with its driver's name for it.
fn interrupts<'a>(finished: &'a Finished, host: &str) -> Vec<(&'a str, u64)> {
    let id = stream_id(finished, host);
    let address = format!("0000:{:02x}:{:02x}.{}", id >> 8, (id >> 3) & 31, id & 7);
    let word = |key| finished.words("interrupt", key).into_iter();
    let rows = word("device").zip(word("name").zip(word("count")));
    let rows = rows.filter(|(device, _)| *device == address);
    rows.map(|(_, (name, count))| (name, count.parse().expect("a count is a number"))).collect()
}

/// The vSMMU of a host device, by its position.
fn vsmmu(finished: &Finished, host: &str) -> usize {
    let vsmmus = finished.stats["vsmmus"].as_array().expect("the counters have vSMMUs");
    let has =
        |vsmmu: &serde_json::Value| vsmmu["devices"].as_array().into_iter().flatten().any(|it| it["host"] == host);
    vsmmus.iter().position(has).unwrap_or_else(|| panic!("{host} is behind no vSMMU"))
}

#[test]
fn every_device_of_five_smmus_works_in_one_guest() {
    let Some(place) = Place::here() else { return };
    let Some(devices) = place.all_devices() else { return };
    let finished = Launch::new(place).devices(&devices).steps("inventory,io,net,interrupts").run();
    let mut smmus: Vec<String> = devices.iter().map(|device| smmu_of(device)).collect();
    smmus.sort();
    smmus.dedup();
    let count = smmus.len();
    assert!(place.profile.is_none() || (count, devices.len()) == (5, 8), "{count} SMMUs, {devices:?}");
    assert_eq!(finished.said("smmus"), [count.to_string()]);
    assert_eq!(finished.stats["vsmmus"].as_array().map(Vec::len), Some(count));
    if place.profile.is_some() {
        assert_eq!(finished.said("drives verified"), ["2"]);
        // igb, two virtual functions of another, and e1000e
        assert_eq!(finished.said("cards answered"), ["4"]);
    }
    for device in &devices {
        let at = vsmmu(&finished, device);
        assert_eq!(finished.stats["vsmmus"][at]["host"], smmu_of(device));
    }
}

#[test]
fn two_virtual_functions_are_two_devices_of_one_vsmmu() {
    let Some(place) = Place::here() else { return };
    let Some(functions) = place.devices_of(Model::IgbVf, 2) else { return };
    let finished = Launch::new(place).devices(&functions).steps("inventory,net,interrupts").run();
    assert_eq!(vsmmu(&finished, functions[0]), vsmmu(&finished, functions[1]));
    assert_ne!(stream_id(&finished, functions[0]), stream_id(&finished, functions[1]));
    assert_eq!(finished.said("cards answered"), ["2"]);
    assert_eq!(finished.words("eth", "driver"), ["igbvf", "igbvf"]);
}

/// Drives are in `two_nvme.rs`. What is left of this host has MSI and no other message, edu's, and nothing in a guest can
/// raise it: Linux has no driver for edu; a driver in user space would have it behind VFIO, whose address space maps the
/// guest's ITS where stage 2 expects the host's doorbell, so the message ends in a fault; and e1000e, whose driver can be
/// told to use MSI, fails that driver's own test of it on QEMU's card, in the host without nestling as well. So the MSI of
/// edu is raised on the real kernel without a guest, through the same code of nestling: `devices/tests/grace/interrupts.rs`.
#[test]
fn interrupts_arrive_on_every_vector_of_every_network_card() {
    let Some(place) = Place::here() else { return };
    let (Some(igb), Some(functions), Some(e1000e)) =
        (place.devices_of(Model::Igb, 1), place.devices_of(Model::IgbVf, 2), place.devices_of(Model::E1000e, 1))
    else {
        return;
    };
    // of two processors: two queues for each direction and link changes; one each and the mailbox; one each and link changes
    let cards = [(igb[0], 5), (functions[0], 3), (functions[1], 3), (e1000e[0], 3)];
    let finished = Launch::new(place).devices(cards.map(|(card, _)| card)).steps("queues,interrupts").run();
    for (card, vectors) in cards {
        let counts = interrupts(&finished, card);
        assert_eq!(counts.len(), vectors, "{card}: {counts:?}");
        assert!(counts.iter().all(|(_, count)| *count > 0), "{card}: {counts:?}");
    }
}

#[test]
fn two_devices_behind_one_smmu_share_its_vsmmu() {
    let Some(place) = Place::here() else { return };
    let (Some(edu), Some(card)) = (place.devices_of(Model::Edu, 1), place.devices_of(Model::E1000e, 1)) else { return };
    let finished = Launch::new(place).devices([edu[0], card[0]]).steps("inventory,net").run();
    assert_eq!(finished.said("smmus"), ["1"]);
    assert_eq!(vsmmu(&finished, edu[0]), vsmmu(&finished, card[0]));
    assert_eq!(finished.said("cards answered"), ["1"]);
}

#[test]
fn a_16_gib_bar_is_where_the_guest_looks_for_it() {
    let Some(place) = Place::here() else { return };
    let Some(device) = place.devices_of(Model::PciTestdev, 1) else { return };
    let finished = Launch::new(place).devices([device[0]]).steps("inventory").run();
    let bars = finished.said("bar");
    assert_eq!(bars.len(), 1, "{bars:?}");
    assert!(bars[0].starts_with("16 GiB at 0x"), "{bars:?}");
}

#[test]
fn a_stray_dma_arrives_as_an_event_with_its_stream_id_and_address() {
    let Some(place) = Place::here() else { return };
    let Some(edu) = place.devices_of(Model::Edu, 1) else { return };
    let finished = Launch::new(place).devices([edu[0]]).steps("fault").run();
    let sid = format!("{:#x}", stream_id(&finished, edu[0]));
    assert_eq!(finished.words("event", "event"), ["F_TRANSLATION"]);
    assert_eq!(finished.words("event", "sid"), [sid.as_str()]);
    assert_eq!(finished.words("event", "iova"), ["0x2345000"]);
    assert_eq!(finished.count("/vsmmus/0/events"), 1);
}

#[test]
fn a_fault_of_one_device_leaves_another_of_its_vsmmu_working() {
    let Some(place) = Place::here() else { return };
    let (Some(edu), Some(card)) = (place.devices_of(Model::Edu, 1), place.devices_of(Model::E1000e, 1)) else { return };
    let finished = Launch::new(place).devices([edu[0], card[0]]).steps("fault,net").run();
    assert_eq!(finished.said("cards answered"), ["1"]);
}
