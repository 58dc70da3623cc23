//! Guests with other kernels than the lab's own: Debian's, with pages of 4 KiB and of 16 KiB.
#![cfg(target_arch = "aarch64")]

use nestling_lab::guest::{Launch, Model, Place};

/// Both drives keep what a guest with this kernel writes to them, each behind a vSMMU of its own.
fn verifies_both_drives(flavour: &str, page_kib: &str) {
    let Some(place) = Place::here() else { return };
    let Some(drives) = place.devices_of(Model::Nvme, 2) else { return };
    let (kernel, initramfs) = place.guests().distribution(flavour);
    let launch = Launch::new(place).kernel(kernel).initrd(initramfs).devices(&drives[..2]);
    let finished = launch.steps("inventory,io,interrupts").run();
    let release = finished.words("kernel", "kernel");
    assert!(release[0].ends_with(&format!("-{flavour}")), "the guest runs {release:?}");
    assert_eq!(finished.words("kernel", "pages"), [page_kib]);
    assert_eq!(finished.said("smmus"), ["2"]);
    assert_eq!(finished.said("drives verified"), ["2"]);
    for at in 0..2 {
        assert!(finished.count(&format!("/vsmmus/{at}/stage1_installs")) >= 1);
        assert!(finished.count(&format!("/vsmmus/{at}/invalidation_commands")) > 0);
        assert_eq!(finished.count(&format!("/vsmmus/{at}/events")), 0);
    }
}

#[test]
fn debians_kernel_verifies_its_drives() {
    verifies_both_drives("arm64", "4");
}

#[test]
fn debians_kernel_with_pages_of_16_kib_verifies_its_drives() {
    verifies_both_drives("arm64-16k", "16");
}
