//! The set as a whole, and the facts of the small tables that Linux depends on.

#[allow(dead_code)]
mod common;

use common::{BASE, grace, plain, table, u8_at, u16_at, u32_at, u64_at};
use nestling_acpi::build;

fn sum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |sum: u8, byte| sum.wrapping_add(*byte))
}

#[test]
fn every_checksum_is_right_and_every_length_is_the_tables() {
    for table in build(&grace(), BASE).iter() {
        assert_eq!(sum(table.bytes), 0, "{}", table.signature);
        if table.signature == "RSDP" {
            assert_eq!(sum(&table.bytes[..20]), 0, "the first checksum of the RSDP");
            assert_eq!((table.bytes.len(), u32_at(table.bytes, 20)), (36, 36));
        } else {
            assert_eq!(&table.bytes[..4], table.signature.as_bytes());
            assert_eq!(u32_at(table.bytes, 4) as usize, table.bytes.len());
        }
    }
}

#[test]
fn tables_lie_in_the_blob_at_their_address_and_do_not_overlap() {
    let tables = build(&grace(), BASE);
    let mut end = BASE;
    for table in tables.iter() {
        assert!(table.address >= end && table.address.is_multiple_of(16));
        let start = (table.address - BASE) as usize;
        assert_eq!(&tables.bytes[start..start + table.bytes.len()], table.bytes);
        end = table.address + table.bytes.len() as u64;
    }
    assert_eq!(end, BASE + tables.bytes.len() as u64);
}

#[test]
fn every_table_is_found_from_the_rsdp() {
    let tables = build(&grace(), BASE);
    let at = |address: u64| tables.iter().find(|table| table.address == address).expect("a table is there");
    let rsdp = at(tables.rsdp);
    assert_eq!(&rsdp.bytes[..8], b"RSD PTR ");
    let xsdt = at(u64_at(rsdp.bytes, 24));
    let listed: Vec<_> = (36..xsdt.bytes.len()).step_by(8).map(|offset| at(u64_at(xsdt.bytes, offset))).collect();
    let signatures: Vec<_> = listed.iter().map(|table| table.signature).collect();
    assert_eq!(signatures, ["FACP", "APIC", "PPTT", "GTDT", "MCFG", "SPCR", "DBG2", "IORT"]);
    assert_eq!(at(u64_at(listed[0].bytes, 140)).signature, "DSDT");
}

#[test]
fn the_same_description_gives_the_same_bytes() {
    assert_eq!(build(&grace(), BASE), build(&grace(), BASE));
}

#[test]
fn each_table_fits_linux_early_mapping_even_with_512_cpus() {
    let mut description = grace();
    description.cpus = (0..512).collect();
    for table in build(&description, BASE).iter() {
        assert!(table.bytes.len() <= 256 << 10, "{}: {}", table.signature, table.bytes.len());
    }
}

#[test]
fn as_many_cpus_as_have_a_name_are_described() {
    let mut description = plain();
    description.cpus = vec![0; 1 << 16];
    let dsdt = table(&description, "DSDT");
    assert!(dsdt.windows(4).any(|name| name == b"CFFF"));
    assert!(dsdt.windows(4).any(|name| name == b"RFFF"));
}

#[test]
fn fadt_is_hardware_reduced_with_psci_by_hvc() {
    // arch/arm64/kernel/acpi.c, acpi_fadt_sanity_check: revision 5.1 or later, reduced hardware, PSCI conduit.
    let fadt = table(&plain(), "FACP");
    assert_eq!((u8_at(&fadt, 8), u8_at(&fadt, 131)), (6, 5));
    assert_eq!(u32_at(&fadt, 112), 1 << 20 | 1 << 5 | 1 << 4);
    assert_eq!(u16_at(&fadt, 129), 3);
    assert_eq!(u32_at(&fadt, 40), 0, "only the 64-bit DSDT address");
}

#[test]
fn madt_has_the_gic_and_each_cpu() {
    let mut description = plain();
    description.cpus = vec![0, 0x100];
    let madt = table(&description, "APIC");
    let mut structures = Vec::new();
    let mut offset = 44;
    while offset < madt.len() {
        let length = usize::from(u8_at(&madt, offset + 1));
        structures.push(&madt[offset..offset + length]);
        offset += length;
    }
    let kinds: Vec<_> = structures.iter().map(|structure| structure[0]).collect();
    assert_eq!(kinds, [12, 11, 11, 14, 15]);
    assert_eq!((u64_at(structures[0], 8), u8_at(structures[0], 20)), (0x0800_0000, 3));
    for (uid, mpidr) in [(0, 0), (1, 0x100)] {
        let gicc = structures[1 + uid as usize];
        assert_eq!((u32_at(gicc, 8), u32_at(gicc, 12), u64_at(gicc, 68)), (uid, 1, mpidr));
        assert_eq!(u32_at(gicc, 20), 23, "PMU");
        assert_eq!(u64_at(gicc, 60), 0, "no GICR of its own");
    }
    assert_eq!((u64_at(structures[3], 4), u32_at(structures[3], 12)), (0x080a_0000, 0x8_0000));
    assert_eq!((u32_at(structures[4], 4), u64_at(structures[4], 8)), (7, 0x0808_0000));
}

#[test]
fn vcpus_without_a_pmu_have_no_pmu_interrupt() {
    let mut description = plain();
    description.pmu_gsiv = None;
    assert_eq!(u32_at(&table(&description, "APIC"), 44 + 24 + 20), 0);
}

#[test]
fn timers_are_level_triggered_and_always_on() {
    let gtdt = table(&plain(), "GTDT");
    let timers: Vec<_> = (48..80).step_by(8).map(|at| (u32_at(&gtdt, at), u32_at(&gtdt, at + 4))).collect();
    assert_eq!(timers, [(29, 4), (30, 4), (27, 4), (26, 4)]);
    assert_eq!((u64_at(&gtdt, 36), u64_at(&gtdt, 80)), (u64::MAX, u64::MAX));
    assert_eq!(u32_at(&gtdt, 88), 0, "no platform timers");
}

#[test]
fn mcfg_covers_all_buses_of_the_ecam() {
    let mut description = plain();
    let mcfg = table(&description, "MCFG");
    assert_eq!((u64_at(&mcfg, 44), u16_at(&mcfg, 52)), (0x40_1000_0000, 0));
    assert_eq!((u8_at(&mcfg, 54), u8_at(&mcfg, 55)), (0, 255));
    description.pci.ecam.size = 16 << 20;
    assert_eq!(u8_at(&table(&description, "MCFG"), 55), 15);
}

#[test]
fn the_console_is_a_pl011_with_32_bit_registers() {
    // drivers/acpi/spcr.c: access size 3 makes it mmio32, baud rate 0 keeps the rate.
    let spcr = table(&plain(), "SPCR");
    assert_eq!((u8_at(&spcr, 8), u8_at(&spcr, 36)), (4, 3));
    assert_eq!((u8_at(&spcr, 40), u8_at(&spcr, 43), u64_at(&spcr, 44)), (0, 3, 0x0900_0000));
    assert_eq!((u8_at(&spcr, 52), u32_at(&spcr, 54), u8_at(&spcr, 58)), (8, 33, 0));
    assert_eq!((u16_at(&spcr, 84), u16_at(&spcr, 86)), (11, 88));
    assert_eq!(&spcr[88..], b"\\_SB_.COM0\0");
}

#[test]
fn the_debug_port_is_the_console() {
    let dbg2 = table(&plain(), "DBG2");
    let device = u32_at(&dbg2, 36) as usize;
    assert_eq!((u32_at(&dbg2, 40), u16_at(&dbg2, device + 1) as usize), (1, dbg2.len() - device));
    assert_eq!((u16_at(&dbg2, device + 12), u16_at(&dbg2, device + 14)), (0x8000, 3));
    let registers = device + usize::from(u16_at(&dbg2, device + 18));
    assert_eq!(u64_at(&dbg2, registers + 4), 0x0900_0000);
    assert_eq!(u32_at(&dbg2, device + usize::from(u16_at(&dbg2, device + 20))), 0x1000);
    let name = device + usize::from(u16_at(&dbg2, device + 6));
    assert_eq!(&dbg2[name..], b"\\_SB_.COM0\0");
}

#[test]
fn all_cpus_are_cores_of_one_package() {
    let pptt = table(&plain(), "PPTT");
    assert_eq!(u32_at(&pptt, 36 + 4), 0x3, "physical package with a valid _UID");
    let cores: Vec<_> = (56..pptt.len())
        .step_by(20)
        .map(|at| (u32_at(&pptt, at + 4), u32_at(&pptt, at + 8), u32_at(&pptt, at + 12)))
        .collect();
    assert_eq!(cores, [(0xa, 36, 0), (0xa, 36, 1), (0xa, 36, 2), (0xa, 36, 3)]);
}
