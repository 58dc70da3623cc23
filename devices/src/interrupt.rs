//! How a device model raises interrupts: wired lines and message-signalled ones.

/// A wired interrupt of the guest's GIC (one SPI).
pub trait InterruptLine: Send + Sync {
    /// Drives a level-triggered line.
    fn set_level(&self, high: bool);

    /// One edge on an edge-triggered line.
    fn pulse(&self) {
        self.set_level(true);
        self.set_level(false);
    }
}

/// The way of an emulated function's message to the guest's ITS.
pub trait MsiTarget: Send + Sync {
    /// Sends event `data` of the device `device_id` (its requester ID, as the IORT maps it to the ITS).
    ///
    /// The address that the guest wrote is an IOVA behind a vSMMU and plays no role: there is one ITS.
    fn send(&self, device_id: u32, data: u32);
}
