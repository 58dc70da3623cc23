//! What SPCR and DBG2 both say about the console's PL011.

use acpi_tables::gas::{AccessSize, AddressSpace, GAS};

use crate::description::WiredDevice;

/// Name of the console's device in the DSDT.
pub(crate) const NAME: &str = "COM0";
/// Its path in the namespace.
pub(crate) const PATH: &str = "\\_SB_.COM0";
/// Serial port subtype "ARM PL011 UART" (Debug Port Table 2).
pub(crate) const PL011: u16 = 3;

/// Registers of 32 bits, to be accessed as such.
pub(crate) fn registers(serial: &WiredDevice) -> GAS {
    GAS::new(AddressSpace::SystemMemory, 32, 0, AccessSize::DwordAccess, serial.window.base)
}
