//! VFIO character devices: opened, bound to the VM's iommufd, and used through `vfio-ioctls`.
//!
//! What of `vfio-ioctls` 0.10 must be known here: it counts regions by position, which is right for the BARs and
//! configuration space (0 to 7) and only those are used; `Drop` of its device panics if the kernel refuses to detach,
//! so this module detaches first; errors of region accesses and interrupts are lost there, so those go past it.

#![forbid(unsafe_code)]

use std::fs::{File, OpenOptions};
use std::io;
use std::mem;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use iommufd_ioctls::IommuFd;
use nestling_iommufd::{AttachHwpt, DeviceId, Error as IommufdError, HwptId, Iommufd, retry_while_busy};
use vfio_bindings::bindings::vfio;
use vfio_ioctls::{VfioDevice, VfioError, VfioIommufd, VfioRegionInfoCap};
use vmm_sys_util::eventfd::EventFd;

use super::error::Error;
use super::host::{HostFunction, Irqs, Region, region};
use super::sys;
use crate::mapping::HostMemory;

/// How often a reset is tried while the device is locked by somebody else in the kernel, 10 ms apart.
const RESET_ATTEMPTS: u32 = 200;

/// Binds VFIO devices to one iommufd. One for each VM.
pub struct VfioHost {
    vfio: Arc<VfioIommufd>,
}

impl VfioHost {
    /// On the VM's iommufd, which must be a real one.
    pub fn new(iommufd: &Iommufd) -> Result<Self, Error> {
        let name = "iommufd";
        let fd = iommufd.fd().ok_or_else(|| Error::NoDescriptor { name: name.to_owned() })?;
        let fd = fd.try_clone_to_owned().map_err(|e| Error::vfio(name, "dup", e))?;
        let fd = Arc::new(IommuFd::new_from_fd(File::from(fd)));
        // It makes an address space that stays empty: devices are attached to page tables of the vSMMUs.
        // No KVM device: on arm64 the kernel's KVM_VFIO link changes nothing (reference: virt/kvm/vfio.c).
        let vfio = VfioIommufd::new(fd, None, None).map_err(|e| Error::vfio(name, "IOMMU_IOAS_ALLOC", e))?;
        Ok(Self { vfio: Arc::new(vfio) })
    }

    /// Opens `/dev/vfio/devices/vfioN` and binds it. `name` is what messages call the device. Binding resets it.
    pub fn open(&self, name: &str, cdev: &Path) -> Result<Arc<VfioCdev>, Error> {
        let file = OpenOptions::new().read(true).write(true).open(cdev).map_err(|source| {
            let (name, path) = (name.to_owned(), cdev.to_owned());
            match (source.kind(), source.raw_os_error()) {
                (io::ErrorKind::NotFound, _) | (_, Some(libc::ENODEV | libc::ENXIO)) => Error::NoCdev { name, path },
                (io::ErrorKind::PermissionDenied, _) => Error::NoPermission { name, path },
                (_, Some(libc::EBUSY)) => Error::InUse { name },
                _ => Error::Open { name, path, source },
            }
        })?;
        self.bind(name, file)
    }

    /// Binds an open character device that was passed in.
    pub fn from_fd(&self, name: &str, cdev: OwnedFd) -> Result<Arc<VfioCdev>, Error> {
        self.bind(name, File::from(cdev))
    }

    fn bind(&self, name: &str, file: File) -> Result<Arc<VfioCdev>, Error> {
        let own = file.try_clone().map_err(|e| Error::vfio(name, "dup", e))?;
        let device = VfioDevice::new_from_fd(file, self.vfio.clone(), false).map_err(|e| bind_error(name, e))?;
        let id = device.iommufd_dev_id().map(DeviceId);
        let mut cdev =
            VfioCdev { name: name.to_owned(), id: DeviceId(0), device: Some(device), file: own, regions: Vec::new() };
        cdev.id = id.ok_or_else(|| Error::NoBind { name: name.to_owned() })?;
        cdev.regions = (0..=region::CONFIG).map(|index| cdev.query_region(index)).collect();
        let config = cdev.regions.last().map_or(0, |config| config.region.size);
        if config < 256 {
            return Err(Error::NotAnEndpoint { name: name.to_owned() });
        }
        Ok(Arc::new(cdev))
    }
}

fn bind_error(name: &str, error: VfioError) -> Error {
    let name = name.to_owned();
    let VfioError::VfioDeviceBindIommufd(answer) = &error else {
        return match error {
            VfioError::VfioDeviceGetInfoOther | VfioError::VfioDeviceGetInfoPCI => Error::NotAnEndpoint { name },
            other => Error::vfio(&name, "VFIO_DEVICE_GET_INFO", other),
        };
    };
    match answer.errno() {
        libc::EBUSY | libc::EINVAL => Error::InUse { name },
        libc::EPERM => Error::GroupNotViable { name },
        libc::EACCES => Error::NeedsToken { name },
        libc::ENOTTY => Error::NoBind { name },
        _ => Error::vfio(&name, "VFIO_DEVICE_BIND_IOMMUFD", error),
    }
}

struct FileRegion {
    region: Region,
    offset: u64,
}

/// An open VFIO device, bound to an iommufd. Dropping it detaches and closes it, which unbinds it: its vDEVICE must be
/// destroyed before.
pub struct VfioCdev {
    name: String,
    id: DeviceId,
    /// Always there until drop.
    device: Option<VfioDevice>,
    /// The same open file.
    file: File,
    /// BARs, ROM and configuration space, by number.
    regions: Vec<FileRegion>,
}

impl VfioCdev {
    /// What messages call it.
    pub fn name(&self) -> &str {
        &self.name
    }

    fn query_region(&self, index: u32) -> FileRegion {
        let Some(device) = &self.device else {
            return FileRegion { region: Region::default(), offset: 0 };
        };
        let size = device.get_region_size(index);
        let page = self.page_size();
        let mut mappable = Vec::new();
        if device.get_region_flags(index) & vfio::VFIO_REGION_INFO_FLAG_MMAP != 0 {
            let sparse = device.get_region_caps(index).into_iter().find_map(|cap| match cap {
                VfioRegionInfoCap::SparseMmap(sparse) => Some(sparse.areas),
                _ => None,
            });
            match sparse {
                Some(areas) => {
                    mappable.extend(areas.iter().map(|a| a.offset..a.offset.saturating_add(a.size)));
                    mappable.sort_by_key(|area| area.start);
                }
                None => mappable.push(0..size),
            }
        }
        // A BAR below a page may be mapped as a page, but in the guest it shares that page with others.
        mappable.retain(|area| !area.is_empty() && (area.start | area.end).is_multiple_of(page));
        FileRegion { region: Region { size, mappable }, offset: device.get_region_offset(index) }
    }

    fn attach(&self, hwpt: HwptId) -> io::Result<()> {
        let Some(device) = &self.device else { return Ok(()) };
        match device.attach_hwpt(hwpt.0) {
            Err(VfioError::VfioDeviceAttachIommufdPt(e)) => Err(io::Error::from_raw_os_error(e.errno())),
            other => other.map_err(io::Error::other),
        }
    }

    /// Position in the device's file of an access that lies within a region.
    fn position(&self, region: u32, offset: u64, length: u64) -> io::Result<u64> {
        self.regions
            .get(region as usize)
            .filter(|known| offset.checked_add(length).is_some_and(|end| end <= known.region.size))
            .and_then(|known| known.offset.checked_add(offset))
            .ok_or_else(|| io::Error::from_raw_os_error(libc::EINVAL))
    }
}

impl AttachHwpt for VfioCdev {
    fn attach_hwpt(&self, hwpt: HwptId) -> Result<(), IommufdError> {
        retry_while_busy(|| self.attach(hwpt)).map_err(|e| IommufdError::from_attach(self.id, hwpt, e))
    }

    fn try_attach_hwpt(&self, hwpt: HwptId) -> Result<(), IommufdError> {
        self.attach(hwpt).map_err(|e| IommufdError::from_attach(self.id, hwpt, e))
    }

    fn detach_hwpt(&self) -> Result<(), IommufdError> {
        let Some(device) = &self.device else { return Ok(()) };
        device.detach_hwpt().map_err(|e| {
            IommufdError::from_detach(match e {
                VfioError::VfioDeviceDetachIommufdPt(e) => io::Error::from_raw_os_error(e.errno()),
                other => io::Error::other(other),
            })
        })
    }

    fn dev_id(&self) -> DeviceId {
        self.id
    }
}

impl HostFunction for VfioCdev {
    fn region(&self, index: u32) -> Region {
        self.regions.get(index as usize).map(|known| known.region.clone()).unwrap_or_default()
    }

    fn read(&self, region: u32, offset: u64, data: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(data, self.position(region, offset, data.len() as u64)?)
    }

    fn write(&self, region: u32, offset: u64, data: &[u8]) -> io::Result<()> {
        self.file.write_all_at(data, self.position(region, offset, data.len() as u64)?)
    }

    fn map(&self, region: u32, part: Range<u64>) -> io::Result<Arc<dyn HostMemory>> {
        let length = part.end.saturating_sub(part.start);
        let offset = self.position(region, part.start, length)?;
        Ok(Arc::new(sys::Mapping::new(&self.file, offset, length)?))
    }

    fn irqs(&self, index: u32) -> Irqs {
        let info = self.device.as_ref().and_then(|device| device.get_irq_info(index));
        info.map_or_else(Irqs::default, |info| Irqs {
            count: info.count,
            dynamic: info.flags & vfio::VFIO_IRQ_INFO_NORESIZE == 0,
        })
    }

    fn set_irqs(&self, index: u32, start: u32, triggers: &[Option<&EventFd>]) -> io::Result<()> {
        if triggers.is_empty() {
            return Ok(());
        }
        sys::set_irqs(&self.file, index, start, triggers)
    }

    fn disable_irqs(&self, index: u32) -> io::Result<()> {
        match sys::set_irqs(&self.file, index, 0, &[]) {
            // The kernel refuses to disable what is not enabled.
            Err(e) if e.raw_os_error() == Some(libc::EINVAL) => Ok(()),
            other => other,
        }
    }

    fn reset(&self) -> io::Result<bool> {
        for _ in 0..RESET_ATTEMPTS {
            match sys::reset(&self.file) {
                Err(e) if matches!(e.raw_os_error(), Some(libc::EAGAIN | libc::EBUSY)) => {
                    thread::sleep(Duration::from_millis(10));
                }
                // What the kernel says of a function that it could not reset when it was opened.
                Err(e) if matches!(e.raw_os_error(), Some(libc::EINVAL | libc::ENOTTY)) => return Ok(false),
                other => return other.map(|()| true),
            }
        }
        Err(io::Error::from_raw_os_error(libc::EAGAIN))
    }

    fn reset_bus(&self) -> io::Result<bool> {
        // Another function on that bus may be behind another port of the guest, or not in this guest at all.
        if sys::is_alone_on_bus(&self.file).unwrap_or(false) {
            match sys::reset_bus(&self.file) {
                Ok(()) => return Ok(true),
                Err(error) => log::debug!("vfio: {}: its bus cannot be reset: {error}", self.name),
            }
        }
        self.reset()
    }

    fn page_size(&self) -> u64 {
        sys::page_size()
    }
}

impl Drop for VfioCdev {
    fn drop(&mut self) {
        let Some(device) = self.device.take() else { return };
        // Its own Drop unwraps the answer to DETACH. Once detached, the kernel accepts a second one always.
        if let Err(e) = device.detach_hwpt() {
            log::error!("vfio: {} stays open until the process ends: {e}", self.name);
            mem::forget(device);
        }
    }
}
