//! A bound VFIO device of the fake kernel.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::objects::Entry;
use super::{FakeKernel, Record, check, errno};
use crate::attach::{AttachHwpt, retry_for};
use crate::error::{Call, Error};
use crate::ids::{DeviceId, HwptId};

/// Shorter than a real device's: no test is to wait for seconds.
const PATIENCE: Duration = Duration::from_millis(20);

/// A device that [`FakeKernel::add_device`] bound.
#[derive(Clone, Debug)]
pub struct FakeDevice {
    kernel: Arc<FakeKernel>,
    id: DeviceId,
}

impl FakeDevice {
    pub(super) fn new(kernel: Arc<FakeKernel>, id: DeviceId) -> Self {
        Self { kernel, id }
    }
}

impl AttachHwpt for FakeDevice {
    fn attach_hwpt(&self, hwpt: HwptId) -> Result<(), Error> {
        retry_for(PATIENCE, || self.kernel.attach(self.id, hwpt)).map_err(|e| Error::from_attach(self.id, hwpt, e))
    }

    fn try_attach_hwpt(&self, hwpt: HwptId) -> Result<(), Error> {
        self.kernel.attach(self.id, hwpt).map_err(|e| Error::from_attach(self.id, hwpt, e))
    }

    fn detach_hwpt(&self) -> Result<(), Error> {
        self.kernel.detach(self.id).map_err(Error::from_detach)
    }

    fn dev_id(&self) -> DeviceId {
        self.id
    }
}

impl FakeKernel {
    /// `VFIO_DEVICE_ATTACH_IOMMUFD_PT`.
    pub fn attach(&self, device: DeviceId, hwpt: HwptId) -> io::Result<()> {
        let mut state = self.lock();
        state.records.push(Record::Attach { device, hwpt });
        state.check_injected(Call::Attach)?;
        let objects = &mut state.objects;
        let (smmu, canwbs) = objects.device(device).map(|d| (d.smmu, d.canwbs))?;
        if objects.device(device)?.attached == Some(hwpt.0) {
            return Ok(()); // nothing is evaluated again, not even the vDEVICE
        }
        if objects.device(device)?.in_reset {
            return Err(errno(libc::EBUSY));
        }
        let mut vmaster = None;
        // Walk to the address space, checking what the driver checks on the way.
        let mut table = hwpt.0;
        let ioas = loop {
            table = match objects.get(table)? {
                Entry::Ioas { .. } => break table,
                Entry::Parent { ioas, smmu: owner, enforces_coherency } => {
                    if *owner != smmu || (*enforces_coherency && !canwbs) {
                        return Err(errno(libc::EINVAL));
                    }
                    *ioas
                }
                Entry::Nested { viommu, ste } => {
                    let stream = objects.stream_of(*viommu, device.0);
                    if stream.is_none() && check::is_stage1(*ste) {
                        return Err(errno(libc::ENOENT));
                    }
                    vmaster = stream.map(|stream| (*viommu, stream as u32));
                    *viommu
                }
                Entry::Viommu { parent, .. } if table != hwpt.0 => *parent,
                _ => return Err(errno(libc::EINVAL)),
            };
        };
        objects.reserve_msi_window(ioas)?;
        let device = objects.device_mut(device)?;
        device.attached = Some(hwpt.0);
        device.vmaster = vmaster;
        Ok(())
    }

    /// A reset of the device starts or ends: meanwhile it can be detached but not attached
    /// (`pci_dev_reset_iommu_prepare`).
    pub fn set_in_reset(&self, device: DeviceId, in_reset: bool) {
        if let Ok(device) = self.lock().objects.device_mut(device) {
            device.in_reset = in_reset;
        }
    }

    /// `VFIO_DEVICE_DETACH_IOMMUFD_PT`.
    pub fn detach(&self, device: DeviceId) -> io::Result<()> {
        let mut state = self.lock();
        state.records.push(Record::Detach { device });
        state.check_injected(Call::Detach)?;
        let device = state.objects.device_mut(device)?;
        device.attached = None;
        device.vmaster = None;
        Ok(())
    }
}
