//! Linux as the guest: it finds its ACPI tables by the EFI hand-over, uses its ITS, and does so again after each reset
//! in place.
#![cfg(target_arch = "aarch64")]

mod machine;

use std::fs::File;

use machine::{Event, Machine};
use nestling_arch::boot::{BootRequest, Seed, Source};

const CPUS: u16 = 2;
/// The first messages are enough, and each character costs three exits.
const MESSAGES: &str = "earlycon=pl011,mmio32,0x9000000 loglevel=8";
/// By then every CPU has its LPIs enabled.
const ALL_UP: &str = "smp: Brought up 1 node, 2 CPUs";
/// Without a root file system Linux panics, and reboots by itself.
const WARNINGS: &str = "earlycon=pl011,mmio32,0x9000000 loglevel=5 panic=-1";

#[test]
fn linux_boots_with_acpi_and_boots_again_in_place() {
    let Some(kvm) = machine::kvm() else { return };
    let Some(kernel) = std::env::var_os("NESTLING_LAB_KERNEL") else {
        println!("skipped: NESTLING_LAB_KERNEL names no guest kernel");
        return;
    };
    let kernel = File::open(kernel).unwrap();
    let mut machine = Machine::new(&kvm, CPUS);
    let request = |cmdline: &'static str, boot: u8| BootRequest {
        ram: machine::RAM,
        kernel: Source::File(&kernel),
        initrd: None,
        cmdline,
        seed: Seed { kaslr: boot.into(), rng: [boot; 32] },
    };

    for boot in 1..=2 {
        let (event, log) = machine.boot(&request(MESSAGES, boot), Some(ALL_UP));
        println!("{log}");
        assert_eq!(event, Event::Marker, "boot {boot}");
        for line in [
            "efi: EFI v2.10 by nestling",
            "random: crng init done",
            "ACPI: RSDP 0x",
            "ACPI: IORT 0x",
            "psci: PSCIv1.",
            "ITS@0x0000000007ff0000: allocated",
            "GICv3: CPU0: using allocated LPI pending table",
            "GICv3: CPU1: using allocated LPI pending table",
        ] {
            assert!(log.contains(line), "boot {boot}: {line}");
        }
        assert_no_complaint(&log);
        machine.reset();
    }

    for boot in 3..=4 {
        let (event, log) = machine.boot(&request(WARNINGS, boot), None);
        println!("{log}");
        assert_eq!(event, Event::Reset, "boot {boot}");
        let (before, _) = log.split_once("Kernel panic").unwrap();
        assert!(log.contains("Unable to mount root fs"));
        assert_no_complaint(before);
        machine.reset();
    }
}

fn assert_no_complaint(log: &str) {
    for line in ["Booted with LPIs enabled", "WARNING:", "Call trace", "failed to come online"] {
        assert!(!log.contains(line), "{line}");
    }
}
