//! Two host SMMUs with an NVMe drive behind each, and whole guests on them.
#![cfg(target_arch = "aarch64")]

use nestling_lab::guest::{Finished, Kill, Launch, Model, Place, smmu_of};

/// The guest of most tests: both drives.
fn both_drives() -> Option<(&'static Place, Launch<'static>, Vec<&'static str>)> {
    let place = Place::here()?;
    let mut drives = place.devices_of(Model::Nvme, 2)?;
    drives.truncate(2);
    Some((place, Launch::new(place).devices(&drives), drives))
}

/// The types of the IOMMU groups of the assigned devices; ports and bridges are left out.
fn group_types(finished: &Finished) -> Vec<&str> {
    let drives = finished.words("nvme", "device");
    let devices = finished.words("group", "device");
    let types = finished.words("group", "type");
    devices.into_iter().zip(types).filter(|(device, _)| drives.contains(device)).map(|(_, kind)| kind).collect()
}

#[test]
fn two_drives_behind_two_smmus_keep_what_is_written() {
    let Some((_, launch, drives)) = both_drives() else { return };
    let finished = launch.steps("inventory,io").run();
    assert_eq!(finished.said("drives verified"), ["2"]);
    assert_eq!(finished.said("smmus"), ["2"]);
    assert_eq!(group_types(&finished), ["DMA", "DMA"]);

    let mut host_smmus = Vec::new();
    for (at, drive) in drives.iter().enumerate() {
        assert_eq!(finished.stats["vsmmus"][at]["devices"][0]["host"], **drive);
        let host = finished.stats["vsmmus"][at]["host"].as_str().expect("a vSMMU names its host SMMU");
        assert_eq!(host, smmu_of(drive));
        host_smmus.push(host);
        assert!(finished.count(&format!("/vsmmus/{at}/stage1_installs")) >= 1);
        assert!(finished.count(&format!("/vsmmus/{at}/invalidation_commands")) > 0);
        assert_eq!(finished.count(&format!("/vsmmus/{at}/events")), 0);
    }
    assert_ne!(host_smmus[0], host_smmus[1]);
}

#[test]
fn the_stream_id_is_the_address_that_the_guest_sees() {
    let Some((_, launch, _)) = both_drives() else { return };
    let finished = launch.steps("io").run();
    let from_ids: Vec<String> = (0..2)
        .map(|at| finished.count(&format!("/vsmmus/{at}/devices/0/stream_id")))
        .map(|id| format!("0000:{:02x}:{:02x}.{}", id >> 8, (id >> 3) & 31, id & 7))
        .collect();
    let mut in_the_guest = finished.words("nvme", "device");
    in_the_guest.sort_unstable();
    assert_eq!(from_ids, in_the_guest);
}

#[test]
fn a_vsmmu_without_range_invalidation_ats_and_pasids_serves_a_guest() {
    let Some((_, launch, _)) = both_drives() else { return };
    let finished = launch.arguments(["--vsmmu", "ril=off,ssidsize=0,ats=off"]).steps("inventory,io").run();
    assert_eq!(finished.said("drives verified"), ["2"]);
    assert_eq!(group_types(&finished), ["DMA", "DMA"]);
}

#[test]
fn a_vsmmu_may_wait_for_its_devices() {
    let Some((place, _, drives)) = both_drives() else { return };
    let other = format!("host={},ril=off", smmu_of(drives[1]));
    let finished = Launch::new(place).devices([drives[0]]).arguments(["--vsmmu", &other]).steps("inventory,io").run();
    assert_eq!(finished.said("smmus"), ["2"]);
    assert_eq!(finished.said("drives verified"), ["1"]);
}

#[test]
fn a_guest_without_devices_boots() {
    let Some(place) = Place::here() else { return };
    let finished = Launch::new(place).steps("inventory").run();
    assert_eq!(finished.said("smmus"), ["0"]);
    assert!(finished.said("group").is_empty());
}

#[test]
fn a_guest_that_passes_its_iommu_through_has_dma() {
    let Some((_, launch, _)) = both_drives() else { return };
    let finished = launch.kernel_option("iommu.passthrough=1").steps("inventory,io").run();
    assert_eq!(group_types(&finished), ["identity", "identity"]);
    assert_eq!(finished.said("drives verified"), ["2"]);
}

#[test]
fn a_guest_that_invalidates_at_once_has_dma() {
    let Some((_, launch, _)) = both_drives() else { return };
    let finished = launch.kernel_option("iommu.strict=1").steps("inventory,io").run();
    assert_eq!(group_types(&finished), ["DMA", "DMA"]);
    assert_eq!(finished.said("drives verified"), ["2"]);
}

#[test]
fn a_guest_that_invalidates_lazily_has_dma() {
    let Some((_, launch, _)) = both_drives() else { return };
    let finished = launch.kernel_option("iommu.strict=0").steps("inventory,io").run();
    assert_eq!(group_types(&finished), ["DMA-FQ", "DMA-FQ"]);
    assert_eq!(finished.said("drives verified"), ["2"]);
}

#[test]
fn four_processors_share_the_drives() {
    let Some((_, launch, _)) = both_drives() else { return };
    let finished = launch.cpus("4").steps("io,spread,interrupts").run();
    assert!(finished.said("init")[0].ends_with("on 4 processors"));
    assert_eq!(finished.said("drives verified"), ["2"]);
}

#[test]
fn interrupts_arrive_on_every_vector_of_a_drive() {
    let Some((_, launch, _)) = both_drives() else { return };
    let finished = launch.steps("io,spread,interrupts").run();
    let counts = finished.words("interrupt", "count");
    let names = finished.words("interrupt", "name");
    let of_drives: Vec<_> = names.iter().zip(&counts).filter(|(name, _)| name.starts_with("nvme")).collect();
    // the administration queue and one queue for each processor, of both drives
    assert_eq!(of_drives.len(), 2 * (1 + 2), "{of_drives:?}");
    for (name, count) in of_drives {
        assert_ne!(*count, "0", "no interrupt for {name}");
    }
}

#[test]
fn a_restarted_guest_has_dma_again() {
    let Some((_, launch, _)) = both_drives() else { return };
    let finished = launch.steps("restart,io").kernel_option(&mark()).run();
    assert_eq!((finished.said("first boot").len(), finished.said("second boot").len()), (1, 1));
    assert_eq!(finished.said("drives verified"), ["2"]);
    assert_eq!(finished.count("/resets"), 1);
}

#[test]
fn a_reset_ends_nestling_when_it_was_asked_to() {
    let Some((_, launch, _)) = both_drives() else { return };
    let finished = launch.steps("restart").kernel_option(&mark()).arguments(["--on-reset", "exit"]).start().finish();
    assert!(finished.status.success());
    assert_eq!((finished.said("init").len(), finished.said("first boot").len()), (1, 1));
}

#[test]
fn every_acpi_table_decodes_without_a_warning() {
    let Some((_, launch, _)) = both_drives() else { return };
    let finished = launch.steps("tables").run();
    let tables = finished.words("table", "table");
    for table in ["APIC", "DSDT", "FACP", "GTDT", "IORT", "MCFG", "PPTT", "SPCR", "DBG2"] {
        assert!(tables.contains(&table), "the guest has no {table}: {tables:?}");
    }
}

#[test]
fn twenty_guests_in_a_row_find_their_devices() {
    let Some((_, launch, _)) = both_drives() else { return };
    for run in 1..=20 {
        let finished = launch.clone().steps("inventory").run();
        assert_eq!(finished.said("smmus"), ["2"], "in run {run}");
    }
}

#[test]
fn sigterm_ends_a_guest_cleanly_and_its_devices_are_free_again() {
    let Some((_, launch, _)) = both_drives() else { return };
    let mut guest = launch.clone().steps("wait").start();
    guest.wait_for("nestling-guest: waiting");
    guest.signal(Kill::TERM);
    assert!(guest.finish().status.success());
    assert_eq!(launch.steps("io").run().said("drives verified"), ["2"]);
}

#[test]
fn devices_of_a_killed_nestling_are_free_again() {
    let Some((_, launch, _)) = both_drives() else { return };
    let mut guest = launch.clone().steps("wait").start();
    guest.wait_for("nestling-guest: waiting");
    guest.signal(Kill::KILL);
    assert!(!guest.finish().status.success());
    assert_eq!(launch.steps("io").run().said("drives verified"), ["2"]);
}

#[test]
fn ctrl_a_x_ends_a_guest_and_restores_the_terminal() {
    let Some((_, launch, _)) = both_drives() else { return };
    let mut guest = launch.steps("wait").on_a_terminal().start();
    guest.wait_for("nestling-guest: waiting");
    assert!(guest.terminal_is_raw());
    guest.types("\u{1}x");
    let finished = guest.finish();
    assert!(finished.status.success());
    assert_eq!(finished.terminal_is_raw, Some(false));
}

#[test]
fn ctrl_a_p_presses_the_guests_power_button() {
    let Some(place) = Place::here() else { return };
    let mut guest = Launch::new(place).steps("button").on_a_terminal().start();
    guest.wait_for("nestling-guest: waiting");
    // whoever opens the device is told a moment after it says so
    std::thread::sleep(std::time::Duration::from_millis(500));
    guest.types("\u{1}p");
    guest.wait_for("nestling-guest: power button");
    guest.finish().expect_passed();
}

#[test]
fn what_is_typed_reaches_the_guests_shell() {
    let Some(place) = Place::here() else { return };
    let mut guest = Launch::new(place).steps("shell").on_a_terminal().start();
    guest.wait_for("nestling-guest: init");
    // twice the half, so that the echo of the command is not the answer
    guest.types("echo nest''ling types\n");
    guest.wait_for("nestling types");
    guest.types("exit\n");
    guest.finish().expect_passed();
}

/// Tells the boots of this test from those of another: the drives keep their content.
fn mark() -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    format!("nestling.mark={}", now.as_nanos())
}
