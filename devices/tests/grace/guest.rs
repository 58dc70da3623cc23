//! A guest without vCPUs: the test accesses configuration space and BARs as a guest would.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use nestling_devices::bus::MmioBus;
use nestling_devices::interrupt::{MsiRoute, MsiRouter};
use nestling_devices::mapping::{self, GuestMapper, HostMemory};
use nestling_devices::pci::{Bdf, PciFunction};
use nestling_devices::vfio::{BarAddress, HostFunction, Translation, VfioCdev, VfioFunction, VfioFunctionConfig};
use vmm_sys_util::eventfd::EventFd;

use crate::machine::Device;

/// Guest memory slots that are only counted.
#[derive(Default)]
pub struct Slots(pub Mutex<BTreeMap<u64, Arc<dyn HostMemory>>>);

impl GuestMapper for Slots {
    fn map(&self, guest_address: u64, memory: Arc<dyn HostMemory>) -> Result<(), mapping::Error> {
        assert!(self.0.lock().unwrap().insert(guest_address, memory).is_none(), "{guest_address:#x} is mapped twice");
        Ok(())
    }

    fn unmap(&self, guest_address: u64) {
        assert!(self.0.lock().unwrap().remove(&guest_address).is_some(), "{guest_address:#x} is not mapped");
    }
}

/// Routes that end in this process.
#[derive(Default)]
pub struct Router(pub Mutex<BTreeMap<u32, (EventFd, u32)>>);

impl MsiRouter for Router {
    fn connect(&self, trigger: &EventFd, device_id: u32, data: u32) -> std::io::Result<MsiRoute> {
        self.0.lock().unwrap().insert(data, (trigger.try_clone()?, device_id));
        Ok(MsiRoute(data))
    }

    fn disconnect(&self, _trigger: &EventFd, route: MsiRoute) {
        self.0.lock().unwrap().remove(&route.0);
    }
}

pub struct Guest {
    pub bus: Arc<MmioBus>,
    pub slots: Arc<Slots>,
    pub router: Arc<Router>,
    pub function: Arc<VfioFunction>,
}

pub fn guest_of(device: &Device) -> Guest {
    let (bus, slots, router) = (Arc::new(MmioBus::new()), Arc::new(Slots::default()), Arc::new(Router::default()));
    let shapes = memory_bars(&device.cdev);
    let mut next = 1u64 << 40;
    let bars = shapes
        .iter()
        .map(|&(index, size, wide)| {
            let address = if wide {
                next.next_multiple_of(size)
            } else {
                (0x1000_0000 * (1 + u64::from(index))).next_multiple_of(size)
            };
            next = if wide { address + size } else { next };
            BarAddress { index, address }
        })
        .collect();
    let config = VfioFunctionConfig {
        name: device.cdev.name().to_owned(),
        host: device.cdev.clone(),
        guest: Bdf::new(0x10, 0, 0),
        bars,
        translation: Translation::default(),
    };
    let function = VfioFunction::new(config, bus.clone(), slots.clone(), router.clone()).unwrap();
    Guest { bus, slots, router, function }
}

/// Number, size and width of the memory BARs.
pub fn memory_bars(cdev: &VfioCdev) -> Vec<(u8, u64, bool)> {
    let mut bars = Vec::new();
    let mut index = 0u8;
    while index < 6 {
        let mut register = [0; 4];
        cdev.read(7, 0x10 + 4 * u64::from(index), &mut register).unwrap();
        let wide = register[0] & 0b111 == 0b100;
        let size = cdev.region(index.into()).size;
        if size > 0 && register[0] & 1 == 0 {
            bars.push((index, size, wide));
        }
        index += if wide { 2 } else { 1 };
    }
    bars
}

impl Guest {
    pub fn read(&self, offset: u16) -> u32 {
        let mut data = [0; 4];
        self.function.config_read(offset, &mut data);
        u32::from_le_bytes(data)
    }

    pub fn write(&self, offset: u16, value: u32) {
        self.function.config_write(offset, &value.to_le_bytes());
    }

    /// The address in a BAR.
    pub fn bar(&self, index: u8) -> u64 {
        let at = 0x10 + 4 * u16::from(index);
        let low = self.read(at);
        let high = if low & 0b100 != 0 { u64::from(self.read(at + 4)) << 32 } else { 0 };
        u64::from(low & !0xf) | high
    }

    pub fn capability(&self, id: u32) -> Option<u16> {
        let mut at = self.read(0x34) as u16 & 0xfc;
        while at != 0 {
            let head = self.read(at);
            if head & 0xff == id {
                return Some(at);
            }
            at = (head >> 8) as u16 & 0xfc;
        }
        None
    }
}
