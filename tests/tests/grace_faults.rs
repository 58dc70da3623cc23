//! Devices that do what nobody allowed them: each fault reaches the guest whose device it is, and harms nothing else.
#![cfg(target_arch = "aarch64")]

use nestling_lab::guest::{Finished, Launch, Model, Place};

/// The one device of this model that tests use.
fn one(place: &Place, model: Model) -> Option<&str> {
    place.devices_of(model, 1)?.first().copied()
}

/// The position of the vSMMU that has this host device.
fn vsmmu_of(finished: &Finished, host: &str) -> usize {
    let vsmmus = finished.stats["vsmmus"].as_array().expect("the counters have vSMMUs");
    let has =
        |vsmmu: &serde_json::Value| vsmmu["devices"].as_array().into_iter().flatten().any(|it| it["host"] == host);
    vsmmus.iter().position(has).unwrap_or_else(|| panic!("{host} is behind no vSMMU"))
}

/// What the guest's kernel said about one DMA: the events and the accesses, each ended by a semicolon.
fn said<'a>(finished: &'a Finished, dma: &str) -> (Vec<&'a str>, Vec<&'a str>) {
    let lines = finished.said(&format!("fault {dma} event"));
    assert_eq!(lines.len(), 1, "'{dma}': {lines:?}");
    let (events, accesses) = lines[0].split_once(" access ").expect("a line has both");
    let split = |text: &'a str| text.split(';').map(str::trim).filter(|it| !it.is_empty() && *it != "none").collect();
    (split(events), split(accesses))
}

#[test]
fn every_fault_of_a_device_arrives_with_its_kind_address_and_stream_id() {
    let Some(place) = Place::here() else { return };
    let (Some(edu), Some(card), Some(drive)) =
        (one(place, Model::Edu), one(place, Model::E1000e), one(place, Model::Nvme))
    else {
        return;
    };
    let finished =
        Launch::new(place).initrd(place.guests().tools()).devices([edu, card, drive]).steps("faults,net,io").run();
    let at = vsmmu_of(&finished, edu);
    let stream_id = finished.count(&format!("/vsmmus/{at}/devices/0/stream_id"));

    let faults = [
        ("read 0x2345000 nothing", "F_TRANSLATION", "unpriv data read s1"),
        ("write 0x2346010 nothing", "F_TRANSLATION", "unpriv data write s1"),
        ("write 0x2347020 readable", "F_PERMISSION", "unpriv data write s1"),
        ("read 0x2349000 gone", "F_TRANSLATION", "unpriv data read s1"),
        ("write 0x234a000 gone", "F_TRANSLATION", "unpriv data write s1"),
        ("read 0x10000002345000 nothing", "F_TRANSLATION", "unpriv data read s1"),
    ];
    for (dma, kind, access) in faults {
        let (events, accesses) = said(&finished, dma);
        assert_eq!((events.len(), accesses.len()), (1, 1), "'{dma}': {events:?} {accesses:?}");
        let iova = dma.split(' ').nth(1).unwrap_or_default();
        assert!(events[0].starts_with(kind), "'{dma}': {events:?}");
        assert!(events[0].contains(&format!("sid: {stream_id:#x} ssid: 0x0 iova: {iova} ")), "'{dma}': {events:?}");
        assert!(accesses[0].starts_with(access), "'{dma}': {accesses:?}");
    }
    // an aborted stream is silent, and a device that is no bus master asks for nothing
    let silent = [
        ("read 0x2347000 readable", "moved"),
        ("write 0x2348000 writable", "moved"),
        ("write 0x234b000 detached", "stayed"),
        ("write 0x234c000 unable", "stayed"),
        ("read 0x234d000 writable", "moved"),
    ];
    for (dma, _) in silent {
        assert_eq!(said(&finished, dma), (Vec::new(), Vec::new()), "'{dma}'");
    }

    let moved: Vec<(String, &str)> = finished
        .said("dma")
        .iter()
        .filter_map(|line| line.split_once(" data "))
        .map(|(dma, end)| (dma.replacen(" at ", " ", 1), end))
        .collect();
    assert_eq!(moved.len(), faults.len() + silent.len(), "{moved:?}");
    for (dma, end) in moved {
        let expected = silent.iter().find(|(silent, _)| *silent == dma).map_or("stayed", |(_, end)| end);
        assert_eq!(end, expected, "'{dma}'");
    }

    assert_eq!(finished.count(&format!("/vsmmus/{at}/events")), faults.len() as u64);
    assert_eq!(finished.count(&format!("/vsmmus/{at}/lost_events")), 0);
    assert_eq!(finished.said("cards answered"), ["1"]);
    assert_eq!(finished.said("drives verified"), ["1"]);
}

#[test]
fn a_storm_of_faults_overflows_the_event_queue_and_passes() {
    let Some(place) = Place::here() else { return };
    let (Some(igb), Some(drive)) = (one(place, Model::Igb), one(place, Model::Nvme)) else { return };
    let finished = Launch::new(place).initrd(place.guests().tools()).devices([igb, drive]).steps("storm,io").run();
    let at = vsmmu_of(&finished, igb);
    let stream_id = finished.count(&format!("/vsmmus/{at}/devices/0/stream_id"));

    assert_eq!(finished.said("overflow seen"), ["1"]);
    assert_eq!(finished.said("storm device copies again").len(), 2);
    // more than the guest's queue holds, and what did not fit is counted
    assert!(finished.count(&format!("/vsmmus/{at}/events")) > 8192);
    assert!(finished.count(&format!("/vsmmus/{at}/lost_events")) > 0);
    let after = finished.said("event after the storm");
    assert!(after[0].starts_with("F_TRANSLATION"), "{after:?}");
    assert!(after[0].contains(&format!("sid: {stream_id:#x} ")), "{after:?}");
    assert_eq!(finished.said("overflow after the storm"), ["0"]);
    assert_eq!(finished.said("drives verified"), ["1"]);
}
