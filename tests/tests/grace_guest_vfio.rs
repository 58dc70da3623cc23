//! A guest that uses its vSMMU for VFIO itself: the kernel's own selftests drive an igb from the guest's user space.
#![cfg(target_arch = "aarch64")]

use std::time::Duration;

use nestling_lab::guest::{Launch, Model, Place};

/// The results of a program, as kselftest counts them.
fn total(totals: &str, what: &str) -> u32 {
    let count = totals.split_whitespace().find_map(|word| word.strip_prefix(what)?.strip_prefix(':')?.parse().ok());
    count.unwrap_or_else(|| panic!("no '{what}' in '{totals}'"))
}

#[test]
fn the_kernels_vfio_selftests_pass_in_a_guest() {
    let Some(place) = Place::here() else { return };
    let Some(cards) = place.devices_of(Model::Igb, 1) else { return };
    // a GiB is mapped at a time, from memory of its own
    let launch = Launch::new(place).initrd(place.guests().tools()).devices(&cards[..1]).memory("2560M");
    let finished = launch.steps("selftests").limit(Duration::from_secs(400)).run();
    let tests = [
        "vfio_iommufd_setup_test",
        "vfio_pci_device_test",
        "vfio_dma_mapping_test",
        "vfio_dma_mapping_mmio_test",
        "vfio_pci_driver_test",
    ];
    for test in tests {
        let totals = finished.said(&format!("selftest {test} pass"));
        assert_eq!(totals.len(), 1, "{test} said {totals:?}");
        let totals = format!("pass{}", totals[0]);
        assert!(total(&totals, "pass") > 0, "{test}: {totals}");
        assert_eq!((total(&totals, "fail"), total(&totals, "error")), (0, 0), "{test}: {totals}");
    }
}
