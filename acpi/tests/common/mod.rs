//! The machine that the tests describe: pcie.0 and five expanders with a vSMMU each, as on the lab's `grace` host.

pub mod iasl;
pub mod iort;

use nestling_acpi::{
    Tables, build,
    description::{BusRange, Description, Gic, HostBridge, Pci, Smmu, Window, WiredDevice},
};

/// Guest physical address of the tables in the tests.
pub const BASE: u64 = 0x7fff_0000;

/// Root buses of the expanders; behind each are two root ports with two buses, then four unused buses.
pub const EXPANDERS: [u8; 5] = [0xd8, 0xe0, 0xe8, 0xf0, 0xf8];

pub fn window(base: u64, size: u64) -> Window {
    Window { base, size }
}

pub fn buses(first: u8, last: u8) -> BusRange {
    BusRange { first, last }
}

/// Four vCPUs, five vSMMUs.
pub fn grace() -> Description {
    let mut description = plain();
    let bridges = (1u32..).zip(EXPANDERS).map(|(uid, bus)| HostBridge {
        uid,
        buses: buses(bus, bus + 7),
        mmio32: window(0x1000_0000 + u64::from(uid) * 0x100_0000, 0x100_0000),
        mmio64: window(0x80_0000_0000 + u64::from(uid) * 0x10_0000_0000, 0x10_0000_0000),
    });
    description.pci.bridges.extend(bridges);
    description.pci.smmus = (0u32..).zip(EXPANDERS).map(|(index, bus)| smmu(index, bus)).collect();
    description
}

fn smmu(index: u32, bus: u8) -> Smmu {
    Smmu {
        identifier: index,
        base: 0x0c00_0000 + u64::from(index) * 0x2_0000,
        event_gsiv: 100 + index * 4,
        gerror_gsiv: 101 + index * 4,
        sync_gsiv: 102 + index * 4,
        buses: buses(bus, bus + 7),
        buses_in_use: vec![buses(bus, bus), buses(bus + 1, bus + 2), buses(bus + 3, bus + 3)],
    }
}

/// Four vCPUs and no device but pcie.0.
pub fn plain() -> Description {
    Description {
        cpus: vec![0, 1, 2, 3],
        pmu_gsiv: Some(23),
        gic: Gic {
            distributor: 0x0800_0000,
            redistributors: window(0x080a_0000, 4 * 0x2_0000),
            its: 0x0808_0000,
            its_identifier: 7,
        },
        serial: WiredDevice { window: window(0x0900_0000, 0x1000), gsiv: 33 },
        rtc: WiredDevice { window: window(0x0901_0000, 0x1000), gsiv: 34 },
        ged: WiredDevice { window: window(0x0908_0000, 0x1000), gsiv: 41 },
        pci: Pci {
            ecam: window(0x40_1000_0000, 0x1000_0000),
            msi_window: window(0x0800_0000, 0x10_0000),
            bridges: vec![HostBridge {
                uid: 0,
                buses: buses(0, 0xd7),
                mmio32: window(0x1000_0000, 0x100_0000),
                mmio64: window(0x80_0000_0000, 0x10_0000_0000),
            }],
            smmus: Vec::new(),
            ats: false,
            pasid_bits: 0,
            canwbs: true,
        },
    }
}

/// One table of a machine.
pub fn table(description: &Description, signature: &str) -> Vec<u8> {
    let tables: Tables = build(description, BASE);
    let table = tables.iter().find(|table| table.signature == signature).expect("the table exists");
    table.bytes.to_vec()
}

/// Little-endian numbers at an offset.
pub fn u8_at(bytes: &[u8], offset: usize) -> u8 {
    bytes[offset]
}

pub fn u16_at(bytes: &[u8], offset: usize) -> u16 {
    u16::from_le_bytes(bytes[offset..offset + 2].try_into().unwrap())
}

pub fn u32_at(bytes: &[u8], offset: usize) -> u32 {
    u32::from_le_bytes(bytes[offset..offset + 4].try_into().unwrap())
}

pub fn u64_at(bytes: &[u8], offset: usize) -> u64 {
    u64::from_le_bytes(bytes[offset..offset + 8].try_into().unwrap())
}
