//! What the tests of this room put at the ends: a function, and an ITS that remembers its messages.

use std::sync::Mutex;

use super::config::{ConfigBuilder, ConfigSpace};
use super::spec::header;
use super::{Bdf, PciFunction};
use crate::interrupt::MsiTarget;

/// An endpoint with a vendor ID, one scratch register at 0x40, and a memory of what happened to it.
pub struct FakeFunction {
    config: Mutex<ConfigSpace>,
    log: Mutex<Vec<Event>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    Write(u16),
    Reset,
    Id(Bdf),
    Unreachable,
    BusReset,
}

impl FakeFunction {
    pub fn new(vendor: u16) -> Self {
        let mut config = ConfigBuilder::new();
        config.u16(header::VENDOR_ID, vendor, 0).u32(header::END, 0, u32::MAX);
        Self { config: Mutex::new(config.build()), log: Mutex::default() }
    }

    /// What happened since the last call.
    pub fn events(&self) -> Vec<Event> {
        std::mem::take(&mut self.log.lock().unwrap())
    }
}

impl PciFunction for FakeFunction {
    fn config_read(&self, offset: u16, data: &mut [u8]) {
        self.config.lock().unwrap().read(offset, data);
    }

    fn config_write(&self, offset: u16, data: &[u8]) {
        self.config.lock().unwrap().write(offset, data);
        self.log.lock().unwrap().push(Event::Write(offset));
    }

    fn reset(&self) {
        self.log.lock().unwrap().push(Event::Reset);
    }

    fn bus_reset(&self) {
        self.log.lock().unwrap().push(Event::BusReset);
    }

    fn on_requester_id(&self, id: Bdf) {
        self.log.lock().unwrap().push(Event::Id(id));
    }

    fn on_unreachable(&self) {
        self.log.lock().unwrap().push(Event::Unreachable);
    }
}

/// Messages as (device ID, data).
#[derive(Default)]
pub struct FakeIts(Mutex<Vec<(u32, u32)>>);

impl FakeIts {
    /// The messages since the last call.
    pub fn messages(&self) -> Vec<(u32, u32)> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

impl MsiTarget for FakeIts {
    fn send(&self, device_id: u32, data: u32) {
        self.0.lock().unwrap().push((device_id, data));
    }
}

/// Reads 16 bits of a function's configuration space.
pub fn read16(function: &dyn PciFunction, offset: u16) -> u16 {
    let mut data = [0; 2];
    function.config_read(offset, &mut data);
    u16::from_le_bytes(data)
}

/// Reads 32 bits of a function's configuration space.
pub fn read32(function: &dyn PciFunction, offset: u16) -> u32 {
    let mut data = [0; 4];
    function.config_read(offset, &mut data);
    u32::from_le_bytes(data)
}

/// Writes 16 bits of a function's configuration space.
pub fn write16(function: &dyn PciFunction, offset: u16, value: u16) {
    function.config_write(offset, &value.to_le_bytes());
}

/// Writes 32 bits of a function's configuration space.
pub fn write32(function: &dyn PciFunction, offset: u16, value: u32) {
    function.config_write(offset, &value.to_le_bytes());
}

/// Walks the capability list as Linux does (drivers/pci/pci.c): offset of the capability `id`.
pub fn capability(function: &dyn PciFunction, id: u8) -> Option<u16> {
    let mut at = read16(function, header::CAPABILITIES) & 0xff;
    for _ in 0..48 {
        if at < header::END {
            return None;
        }
        let [found, next] = read16(function, at).to_le_bytes();
        if found == id {
            return Some(at);
        }
        at = next.into();
    }
    panic!("the capability list is a circle");
}

/// Walks the extended capability list: offset of the capability `id`.
pub fn extended_capability(function: &dyn PciFunction, id: u16) -> Option<u16> {
    let mut at = header::EXTENDED;
    for _ in 0..480 {
        let head = read32(function, at);
        if head as u16 == id {
            return Some(at);
        }
        at = (head >> 20) as u16;
        if at < header::EXTENDED {
            return None;
        }
    }
    panic!("the extended capability list is a circle");
}
