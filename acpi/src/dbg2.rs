//! DBG2 (Debug Port Table 2): the PL011 is the debug port as well.

use acpi_tables::gas::GAS;
use zerocopy::{
    Immutable, IntoBytes,
    little_endian::{U16, U32},
};

use crate::{description::WiredDevice, sdt, uart};

const SERIAL_PORT: u16 = 0x8000;

/// Offset of the first device information structure: behind the table header and [`Header`].
const DEVICE_OFFSET: u32 = 44;

#[repr(C, packed)]
#[derive(IntoBytes, Immutable)]
struct Header {
    device_offset: U32,
    device_count: U32,
}

#[repr(C, packed)]
#[derive(IntoBytes, Immutable)]
struct Device {
    revision: u8,
    length: U16,
    register_count: u8,
    name_length: U16,
    name_offset: U16,
    oem_data_length: U16,
    oem_data_offset: U16,
    port_type: U16,
    port_subtype: U16,
    _reserved: U16,
    base_address_offset: U16,
    address_size_offset: U16,
    base_address: GAS,
    address_size: U32,
}

/// The table.
pub(crate) fn build(serial: &WiredDevice) -> Vec<u8> {
    let name = [uart::PATH.as_bytes(), &[0]].concat();
    let size = size_of::<Device>() as u16;
    let device = Device {
        revision: 0,
        length: (size + name.len() as u16).into(),
        register_count: 1,
        name_length: (name.len() as u16).into(),
        name_offset: size.into(),
        oem_data_length: 0.into(),
        oem_data_offset: 0.into(),
        port_type: SERIAL_PORT.into(),
        port_subtype: uart::PL011.into(),
        _reserved: 0.into(),
        base_address_offset: (std::mem::offset_of!(Device, base_address) as u16).into(),
        address_size_offset: (std::mem::offset_of!(Device, address_size) as u16).into(),
        base_address: uart::registers(serial),
        address_size: serial.window.size.try_into().unwrap_or(u32::MAX).into(),
    };
    let header = Header { device_offset: DEVICE_OFFSET.into(), device_count: 1.into() };
    sdt::table(*b"DBG2", 0, &[header.as_bytes(), device.as_bytes(), &name].concat())
}
