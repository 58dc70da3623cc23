//! DSDT: the devices that do not enumerate themselves, all below `\_SB`.

mod cpus;
mod host_bridge;
mod platform;
mod resources;

use acpi_tables::aml::{Path, Scope};

use crate::{description::Description, sdt};

/// Integers of 64 bits.
const REVISION: u8 = 2;

/// The table.
pub(crate) fn build(description: &Description) -> Vec<u8> {
    let mut devices = Vec::new();
    cpus::append(&mut devices, description.cpus.len());
    platform::append_serial(&mut devices, &description.serial);
    platform::append_clock(&mut devices, &description.rtc);
    platform::append_power_button(&mut devices, &description.ged);
    platform::append_ecam(&mut devices, description.pci.ecam);
    for bridge in &description.pci.bridges {
        host_bridge::append(&mut devices, bridge);
    }
    sdt::table(*b"DSDT", REVISION, &Scope::raw(Path::new("\\_SB_"), devices))
}
