//! KVM's interrupt controller behind the device models' traits.
#![forbid(unsafe_code)]

use nestling_arch::interrupt::routes::MsiRoutes;
use nestling_arch::interrupt::{MsiSender, SpiLine};
use nestling_devices::interrupt::{InterruptLine, MsiRoute, MsiRouter, MsiTarget};
use vmm_sys_util::eventfd::EventFd;

/// A wired interrupt.
pub struct Line(pub SpiLine);

impl InterruptLine for Line {
    fn set_level(&self, high: bool) {
        self.0.set_level(high);
    }
}

/// Messages of emulated functions.
pub struct Messages(pub MsiSender);

impl MsiTarget for Messages {
    fn send(&self, device_id: u32, data: u32) {
        self.0.send(device_id, data);
    }
}

/// Messages of passed-through functions.
pub struct Routes(pub MsiRoutes);

impl MsiRouter for Routes {
    fn connect(&self, trigger: &EventFd, device_id: u32, data: u32) -> std::io::Result<MsiRoute> {
        self.0.connect(trigger, device_id, data).map(MsiRoute)
    }

    fn disconnect(&self, trigger: &EventFd, route: MsiRoute) {
        self.0.disconnect(trigger, route.0);
    }
}
