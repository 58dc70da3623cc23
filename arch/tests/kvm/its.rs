//! A guest that sets up its ITS and then waits for LPIs: events 0 and 1 of one device are LPIs 8192 and 8193.

use vm_memory::{Bytes, GuestAddress};

use super::asm::{ICC_IGRPEN1_EL1, ICC_PMR_EL1, Program};
use super::machine::{Machine, RAM};
use super::{GICD, GICR, GITS};

/// Reported once everything is set up.
pub const READY: u64 = 0x0123_4567;

const PROPERTIES: u64 = RAM + 0x10_0000;
const PENDING: u64 = RAM + 0x11_0000;
const DEVICES: u64 = RAM + 0x12_0000;
const COLLECTIONS: u64 = RAM + 0x13_0000;
const COMMANDS: u64 = RAM + 0x14_0000;
const TRANSLATIONS: u64 = RAM + 0x15_0000;
const VALID: u64 = 1 << 63;

/// Puts into memory what the guest's driver would.
pub fn prepare(machine: &Machine, device: u32) {
    let device = u64::from(device) << 32;
    let commands: [[u64; 4]; 4] = [
        [0x09, 0, VALID, 0],                         // MAPC: collection 0 to vCPU 0
        [0x08 | device, 4, VALID | TRANSLATIONS, 0], // MAPD: 32 events
        [0x0a | device, 8192 << 32, 0, 0],           // MAPTI: event 0
        [0x0a | device, 8193 << 32 | 1, 0, 0],       // MAPTI: event 1
    ];
    let commands: Vec<u8> = commands.iter().flatten().flat_map(|word| word.to_le_bytes()).collect();
    machine.memory.write_slice(&[0; 0x6_0000], GuestAddress(PROPERTIES)).unwrap();
    machine.memory.write_slice(&commands, GuestAddress(COMMANDS)).unwrap();
    // Priority 0xa0, enabled.
    machine.memory.write_slice(&[0xa3; 2], GuestAddress(PROPERTIES)).unwrap();
}

/// Enables all that is needed, reports [`READY`], then reports interrupts.
pub fn program() -> Program {
    Program::new()
        .write(GICD, 0b10)
        .write64(GICR + 0x70, PROPERTIES | 13)
        .write64(GICR + 0x78, PENDING | 1 << 62)
        .write(GICR, 1)
        .write64(GITS + 0x100, VALID | DEVICES)
        .write64(GITS + 0x108, VALID | COLLECTIONS)
        .write64(GITS + 0x80, VALID | COMMANDS)
        .write(GITS, 1)
        .write64(GITS + 0x88, 4 * 32)
        .set_register(ICC_PMR_EL1, 0xf0)
        .set_register(ICC_IGRPEN1_EL1, 1)
        .report_value(READY)
        .report_interrupts()
}
