//! How an assigned function's stream follows the function: to another requester ID, and out of a reset.
#![forbid(unsafe_code)]

use std::error::Error;
use std::sync::{Arc, Mutex, MutexGuard};

use nestling_devices::pci::Bdf;
use nestling_devices::smmuv3::{DeviceCounters, IommufdSmmu, Smmuv3, StreamStats};
use nestling_devices::vfio::Upstream;
use nestling_iommufd::DeviceId;

/// The vSMMU in front of one device.
pub struct Behind {
    /// What the guest sees of it.
    pub model: Arc<Smmuv3>,
    /// What the kernel has of it.
    pub host: Arc<IommufdSmmu>,
    /// The device.
    pub device: DeviceId,
    /// What the vSMMU counts for it.
    pub counters: Mutex<DeviceCounters>,
}

impl Behind {
    /// What the vSMMU counted for the device, wherever it was.
    pub fn stats(&self) -> StreamStats {
        self.model.device_stats(&self.counters())
    }

    fn counters(&self) -> MutexGuard<'_, DeviceCounters> {
        self.counters.lock().unwrap_or_else(|e| e.into_inner())
    }
}

impl Upstream for Behind {
    fn renumber(&self, to: Option<Bdf>) -> Result<(), Box<dyn Error + Send + Sync>> {
        let to = to.map(|id| id.requester_id().into());
        self.model.move_device(&mut self.counters(), to, || self.host.move_device(self.device, to))?;
        Ok(())
    }

    fn hold(&self, at: Option<Bdf>) {
        self.model.hold_stream(at.map(|id| id.requester_id().into()), || self.host.hold_device(self.device));
    }

    fn release(&self) {
        self.host.release_device(self.device);
    }
}
