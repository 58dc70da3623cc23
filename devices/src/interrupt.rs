//! How a device model raises interrupts: wired lines and message-signalled ones.
#![forbid(unsafe_code)]

use vmm_sys_util::eventfd::EventFd;

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

/// A message route of a passed-through function: an eventfd that the host's interrupt handler signals, and the
/// event of the guest's ITS that it becomes, without a visit to this process (KVM irqfd).
pub trait MsiRouter: Send + Sync {
    /// From now on each signal of `trigger` raises event `data` of `device_id` in the guest's ITS.
    fn connect(&self, trigger: &EventFd, device_id: u32, data: u32) -> std::io::Result<MsiRoute>;
    /// Ends it; signals that come later stay in the eventfd.
    fn disconnect(&self, trigger: &EventFd, route: MsiRoute);
}

/// A route that [`MsiRouter::connect`] made; give it back to [`MsiRouter::disconnect`].
#[derive(Debug, PartialEq, Eq)]
pub struct MsiRoute(pub u32);
