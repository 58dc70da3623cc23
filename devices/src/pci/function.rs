//! What every PCI function offers to the bus it sits on.
#![forbid(unsafe_code)]

use super::Bdf;

/// One PCI function: 4 KiB of configuration space and a reset.
///
/// Offsets are below 4096 and accesses are 1, 2 or 4 bytes, naturally aligned. Called from any vCPU thread.
pub trait PciFunction: Send + Sync {
    /// Fills `data` from configuration space.
    fn config_read(&self, offset: u16, data: &mut [u8]);
    /// Writes configuration space; read-only bits are kept.
    fn config_write(&self, offset: u16, data: &[u8]);
    /// Conventional reset, as the machine's reset does it: configuration space as at power-on (the Plan's BAR
    /// addresses, bus numbers and windows included), no interrupt enabled, no mapping left in the guest.
    fn reset(&self);
    /// The secondary bus of the port above is reset (Bridge Control, 7.5.1.3.10), or its link went down: the same as
    /// [`PciFunction::reset`] unless the device tells the two apart.
    fn bus_reset(&self) {
        self.reset();
    }
    /// From now on the function's requester ID is `id`, which nobody else has.
    ///
    /// A function captures its bus and device number from every Type 0 configuration write that it completes (PCIe
    /// 2.2.6.2), so this comes right before the first [`PciFunction::config_write`] that the guest addresses to a new
    /// number; and when the function is put into the segment, and after a reset of the segment, with the number that
    /// the Plan gave it. Only changes are told.
    fn on_requester_id(&self, _id: Bdf) {}
    /// From now on the function has no requester ID, until [`PciFunction::on_requester_id`].
    ///
    /// The guest changed the bridges above so that the number which the function has captured leads elsewhere or
    /// nowhere. A function that went on would speak in the name of who has, or will have, that number: it must be
    /// kept from memory and interrupts.
    fn on_unreachable(&self) {}
}
