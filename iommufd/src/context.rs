//! One open `/dev/iommu`: the root of all objects of one VM.
#![forbid(unsafe_code)]

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;

use crate::error::{Call, Error};
use crate::hw_info::HwInfo;
use crate::ids::DeviceId;
use crate::ioas::Ioas;
use crate::kernel::Kernel;
use crate::ledger::{Ledger, LiveObjects};
use crate::sys::DevIommu;

/// An open `/dev/iommu`. Cheap to clone; the descriptor closes with the last clone and the last object made from it.
///
/// Object ids and the window of MSI pages belong to one descriptor: a VM has exactly one.
#[derive(Clone, Debug)]
pub struct Iommufd {
    ledger: Arc<Ledger>,
    kernel: Arc<dyn Kernel>,
}

impl Iommufd {
    /// Opens `/dev/iommu`.
    pub fn open() -> Result<Self, Error> {
        match OpenOptions::new().read(true).write(true).open("/dev/iommu") {
            Ok(file) => Ok(Self::with_kernel(Arc::new(DevIommu::new(file)))),
            Err(e) => Err(match (e.kind(), e.raw_os_error()) {
                (io::ErrorKind::NotFound, _) | (_, Some(libc::ENODEV | libc::ENXIO)) => Error::NoIommufd,
                (io::ErrorKind::PermissionDenied, _) => Error::NoPermission,
                _ => Error::Open(e),
            }),
        }
    }

    /// Takes over an open `/dev/iommu`, as a VM manager passes it.
    pub fn from_fd(fd: OwnedFd) -> Self {
        Self::with_kernel(Arc::new(DevIommu::new(File::from(fd))))
    }

    /// On another implementation of the kernel.
    pub fn with_kernel(kernel: Arc<dyn Kernel>) -> Self {
        let ledger = Arc::new(Ledger::new(kernel));
        Self { kernel: ledger.clone(), ledger }
    }

    /// Objects that the kernel holds now, of all that was made through this and its clones.
    pub fn live_objects(&self) -> LiveObjects {
        self.ledger.live_objects()
    }

    /// The descriptor, to bind VFIO devices to it; a fake kernel has none.
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.kernel.fd()
    }

    /// Asks what the SMMU of a bound device can do. The device need not be attached.
    pub fn hw_info(&self, device: DeviceId) -> Result<HwInfo, Error> {
        self.kernel.hw_info(device).map_err(|e| Error::failed(Call::GetHwInfo, e))
    }

    /// A new, empty address space.
    pub fn alloc_ioas(&self) -> Result<Arc<Ioas>, Error> {
        Ioas::alloc(&self.kernel).map(Arc::new)
    }
}
