//! What a guest lives through with DMA under way: new bus numbers, resets of its devices, reboots, kexec and a crash.
#![cfg(target_arch = "aarch64")]

use std::fs;
use std::path::Path;

use nestling_lab::guest::{Finished, Launch, Model, Place};
use nestling_lab::setup::cpio;
use tempfile::NamedTempFile;

/// A guest with both drives.
fn both_drives() -> Option<Launch<'static>> {
    let place = Place::here()?;
    let drives = place.devices_of(Model::Nvme, 2)?;
    Some(Launch::new(place).devices(&drives[..2]))
}

/// The requester ID in an address of the guest.
fn stream_id(address: &str) -> u64 {
    let [_, bus, rest] = address.split(':').collect::<Vec<_>>()[..] else { panic!("{address} is no address") };
    let (device, function) = rest.split_once('.').expect("an address has a function");
    let number = |text| u64::from_str_radix(text, 16).expect("an address is hexadecimal");
    number(bus) << 8 | number(device) << 3 | number(function)
}

/// A guest that was up to its end has of each vSMMU what it has from the start, and a stage 1 of each device.
fn nothing_leaked(finished: &Finished) {
    for (kind, count) in [("ioas", 1), ("nest_parents", 2), ("viommus", 2), ("vdevices", 2), ("event_queues", 2)] {
        assert_eq!(finished.count(&format!("/objects/{kind}")), count, "{kind}");
    }
    // bypass and abort of both, and what the devices have
    let nested = finished.count("/objects/nested_hwpts");
    assert!((4..=6).contains(&nested), "{nested} nested hwpts");
}

/// An initramfs that has a kernel and itself in `/boot`.
fn with_kernel(kernel: &Path, initrd: &Path) -> NamedTempFile {
    let read = |path: &Path| fs::read(path).expect("the guest's kernel and initramfs can be read");
    let initrd = read(initrd);
    let file = NamedTempFile::new().expect("there is room for an initramfs");
    let mut archive = cpio::Writer::new(initrd.clone());
    archive.directory("boot").expect("a folder");
    archive.file("boot/Image", 0o644, &read(kernel)).expect("a kernel");
    archive.file("boot/initrd", 0o644, &initrd).expect("an initramfs");
    fs::write(file.path(), archive.finish().expect("an archive")).expect("there is room for an initramfs");
    file
}

#[test]
fn a_drive_has_dma_after_its_bus_got_another_number() {
    let Some(launch) = both_drives() else { return };
    let finished = launch.steps("renumber,io,interrupts").run();
    let (from, to) = (finished.words("renumbered", "renumbered")[0], finished.words("renumbered", "to")[0]);
    assert_ne!(stream_id(from), stream_id(to));
    assert_eq!(finished.said("drives verified"), ["2"]);
    let moved: Vec<u64> = (0..2).map(|at| finished.count(&format!("/vsmmus/{at}/devices/0/moves"))).collect();
    assert!(moved.iter().filter(|&&moves| moves >= 2).count() == 1, "one lost its number and got another: {moved:?}");
    let streams: Vec<u64> = (0..2).map(|at| finished.count(&format!("/vsmmus/{at}/devices/0/stream_id"))).collect();
    assert!(streams.contains(&stream_id(to)) && !streams.contains(&stream_id(from)), "{streams:x?}");
    nothing_leaked(&finished);
}

#[test]
fn a_restart_brings_the_first_numbers_back() {
    let Some(launch) = both_drives() else { return };
    let finished = launch.steps("renumber,restart,io").kernel_option(&mark()).run();
    assert_eq!(finished.said("second boot").len(), 1);
    let from = finished.words("renumbered", "renumbered");
    assert_eq!(from[0], from[1], "both boots start from the same numbers");
    assert_eq!(finished.said("drives verified"), ["2"]);
    nothing_leaked(&finished);
}

#[test]
fn drives_are_reset_while_they_are_written_to() {
    let Some(launch) = both_drives() else { return };
    let finished = launch.steps("reset,io").run();
    let ways = finished.words("reset", "by");
    assert!(ways.contains(&"flr") && ways.contains(&"bus"), "{ways:?}");
    let resets: u64 = (0..2).map(|at| finished.count(&format!("/vsmmus/{at}/devices/0/resets"))).sum();
    assert!(resets >= 3 * ways.len() as u64, "{resets} resets for {ways:?}");
    assert_eq!(finished.said("drives verified"), ["2"]);
    nothing_leaked(&finished);
}

#[test]
fn a_guest_restarts_under_io() {
    let Some(launch) = both_drives() else { return };
    let finished = launch.steps("busy,restart,io").kernel_option(&mark()).run();
    assert_eq!((finished.said("busy").len(), finished.said("second boot").len()), (2, 1));
    assert_eq!(finished.said("drives verified"), ["2"]);
    nothing_leaked(&finished);
}

/// Two kernels ran on one machine, and the second has DMA.
fn two_kernels(finished: &Finished) {
    assert_eq!(finished.said("init").len(), 2);
    assert_eq!(finished.said("drives verified"), ["2"]);
    assert_eq!(finished.count("/resets"), 0, "the machine is the same");
    nothing_leaked(finished);
}

#[test]
fn a_guest_starts_another_kernel_under_io() {
    let Some(launch) = both_drives() else { return };
    let Some(place) = Place::here() else { return };
    let initrd = with_kernel(&place.kernel, &place.initrd);
    let finished = launch.initrd(initrd.path()).steps("busy,kexec").run();
    assert_eq!(finished.said("starting the next kernel").len(), 1);
    two_kernels(&finished);
}

#[test]
fn a_guest_that_crashes_under_io_starts_its_crash_kernel() {
    let Some(launch) = both_drives() else { return };
    let Some(place) = Place::here() else { return };
    let initrd = with_kernel(&place.kernel, &place.initrd);
    let launch = launch.initrd(initrd.path()).memory("2G").kernel_option("crashkernel=512M");
    let finished = launch.steps("busy,crash").run();
    assert_eq!(finished.said("crashing").len(), 1);
    two_kernels(&finished);
}

/// Tells the boots of this test from those of another: the drives keep their content.
fn mark() -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    format!("nestling.mark={}", now.as_nanos())
}
