//! MCFG (PCI Firmware Specification 3.3, 4.1.2): one ECAM window for segment 0.
//!
//! One entry is enough for all host bridges: Linux looks for an entry that covers a bridge's buses
//! (drivers/acpi/pci_mcfg.c, pci_mcfg_lookup).

use acpi_tables::mcfg::MCFG;

use crate::{
    description::{Pci, Window},
    sdt,
};

/// ECAM bytes of one bus.
const BUS: u64 = 1 << 20;

/// The table.
pub(crate) fn build(pci: &Pci) -> Vec<u8> {
    let mut mcfg = MCFG::new(sdt::OEM_ID, sdt::OEM_TABLE_ID, sdt::OEM_REVISION);
    mcfg.add_ecam(pci.ecam.base, 0, 0, last_bus(pci.ecam));
    sdt::bytes(&mcfg)
}

fn last_bus(ecam: Window) -> u8 {
    (ecam.size / BUS).saturating_sub(1).try_into().unwrap_or(u8::MAX)
}
