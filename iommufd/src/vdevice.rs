//! A device as its vIOMMU knows it: by the guest's StreamID.
#![forbid(unsafe_code)]

use std::sync::Arc;

use crate::error::{Call, Error};
use crate::ids::{DeviceId, VdeviceId};
use crate::kernel::Kernel;
use crate::object::Object;
use crate::viommu::Viommu;

/// The virtual StreamID of one device. Events and invalidations of that stream need it, and so does stage 1.
///
/// Make it before the first nested attach (the kernel captures it there) and destroy it before the VFIO device is
/// closed, with the device moved off stage 1: a later destroy would leave a dead id behind
/// (`include/uapi/linux/iommufd.h`, `iommu_vdevice_alloc`).
#[derive(Debug)]
pub struct Vdevice {
    object: Object,
    id: VdeviceId,
    device: DeviceId,
    stream: u32,
    _viommu: Arc<Viommu>,
}

impl Vdevice {
    pub(crate) fn alloc(
        viommu: &Arc<Viommu>,
        kernel: &Arc<dyn Kernel>,
        device: DeviceId,
        stream: u32,
    ) -> Result<Self, Error> {
        let id = kernel.vdevice_alloc(viommu.id(), device, stream.into()).map_err(|e| match e.raw_os_error() {
            Some(libc::EEXIST) => Error::StreamTaken { device, stream },
            Some(libc::EINVAL) => Error::OtherSmmu { device, call: Call::VdeviceAlloc },
            Some(libc::EOPNOTSUPP) => Error::ManyStreams { device },
            _ => Error::failed(Call::VdeviceAlloc, e),
        })?;
        Ok(Self { object: Object::new(kernel, "vdevice", id.0), id, device, stream, _viommu: viommu.clone() })
    }

    /// Its id.
    pub fn id(&self) -> VdeviceId {
        self.id
    }

    /// The device.
    pub fn device(&self) -> DeviceId {
        self.device
    }

    /// The virtual StreamID.
    pub fn stream(&self) -> u32 {
        self.stream
    }

    /// Destroys it; the device should be off stage 1.
    pub fn destroy(self) -> Result<(), Error> {
        self.object.destroy()
    }
}
