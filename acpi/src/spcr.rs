//! SPCR (Serial Port Console Redirection Table, revision 4): the PL011 is the console.
//!
//! Linux makes it the preferred console and, with a bare `earlycon`, prints on it from the start
//! (drivers/acpi/spcr.c). `acpi_tables` has the RISC-V form only.

use acpi_tables::gas::GAS;
use zerocopy::{
    Immutable, IntoBytes,
    little_endian::{U16, U32},
};

use crate::{description::WiredDevice, sdt, uart};

/// The layout that `iasl` decodes, whatever the revision says.
const REVISION: u8 = 4;

/// Interrupt type: bit 3 = Arm GIC.
const ARMH_GIC: u8 = 1 << 3;
/// "As is": the device has no line rate.
const BAUD_RATE_AS_IS: u8 = 0;
const ONE_STOP_BIT: u8 = 1;
const VT_UTF8: u8 = 2;
/// Both PCI IDs of a device that is not a PCI function.
const NOT_PCI: u16 = 0xffff;

#[repr(C, packed)]
#[derive(IntoBytes, Immutable)]
struct Body {
    interface_type: u8,
    _reserved0: [u8; 3],
    base_address: GAS,
    interrupt_type: u8,
    pc_interrupt: u8,
    gsiv: U32,
    baud_rate: u8,
    parity: u8,
    stop_bits: u8,
    flow_control: u8,
    terminal_type: u8,
    language: u8,
    pci_device_id: U16,
    pci_vendor_id: U16,
    pci_bus: u8,
    pci_device: u8,
    pci_function: u8,
    pci_flags: U32,
    pci_segment: u8,
    uart_clock_frequency: U32,
    precise_baud_rate: U32,
    name_length: U16,
    name_offset: U16,
}

/// Offset of the namespace string: behind the table header and [`Body`].
const NAME_OFFSET: usize = 36 + size_of::<Body>();

/// The table.
pub(crate) fn build(serial: &WiredDevice) -> Vec<u8> {
    let name = [uart::PATH.as_bytes(), &[0]].concat();
    let body = Body {
        interface_type: uart::PL011 as u8,
        _reserved0: [0; 3],
        base_address: uart::registers(serial),
        interrupt_type: ARMH_GIC,
        pc_interrupt: 0,
        gsiv: serial.gsiv.into(),
        baud_rate: BAUD_RATE_AS_IS,
        parity: 0,
        stop_bits: ONE_STOP_BIT,
        flow_control: 0,
        terminal_type: VT_UTF8,
        language: 0,
        pci_device_id: NOT_PCI.into(),
        pci_vendor_id: NOT_PCI.into(),
        pci_bus: 0,
        pci_device: 0,
        pci_function: 0,
        pci_flags: 0.into(),
        pci_segment: 0,
        // 0: not known, and the baud rate above counts.
        uart_clock_frequency: 0.into(),
        precise_baud_rate: 0.into(),
        name_length: (name.len() as u16).into(),
        name_offset: (NAME_OFFSET as u16).into(),
    };
    sdt::table(*b"SPCR", REVISION, &[body.as_bytes(), &name].concat())
}
