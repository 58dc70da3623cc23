//! The I/O address space: guest RAM at its guest physical addresses, pinned once for all SMMUs.
#![forbid(unsafe_code)]

use std::ops::RangeInclusive;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::{Call, Error};
use crate::hwpt::NestParent;
use crate::ids::{DeviceId, HwptId, IoasId};
use crate::kernel::Kernel;
use crate::object::Object;

/// An I/O address space. Every mapping appears in the stage 2 of every [`NestParent`] made from it.
#[derive(Debug)]
pub struct Ioas {
    object: Object,
    id: IoasId,
    mapped: AtomicU64,
}

impl Ioas {
    pub(crate) fn alloc(kernel: &Arc<dyn Kernel>) -> Result<Self, Error> {
        let id = kernel.ioas_alloc().map_err(|e| Error::failed(Call::IoasAlloc, e))?;
        Ok(Self { object: Object::new(kernel, "ioas", id.0), id, mapped: AtomicU64::new(0) })
    }

    /// Its id.
    pub fn id(&self) -> IoasId {
        self.id
    }

    /// Its id as something that a device can be attached to: pure stage 2, with a page table the kernel makes.
    pub fn page_table(&self) -> HwptId {
        HwptId(self.id.0)
    }

    /// Bytes mapped now.
    pub fn mapped_bytes(&self) -> u64 {
        self.mapped.load(Ordering::Relaxed)
    }

    /// Maps `length` bytes of a memfd from `offset` on at `iova` (the guest physical address), readable and writeable
    /// by devices. The pages are pinned and count against `RLIMIT_MEMLOCK`; addresses and length are page-aligned.
    pub fn map_file(&self, memory: impl AsFd, offset: u64, length: u64, iova: u64) -> Result<(), Error> {
        let needed = self.mapped_bytes().saturating_add(length);
        self.object.kernel().ioas_map_file(self.id, memory.as_fd(), offset, length, iova).map_err(|e| {
            match e.raw_os_error() {
                Some(libc::ENOMEM) => Error::LockedMemory { needed },
                Some(libc::EINVAL | libc::EEXIST | libc::EOVERFLOW) => Error::BadMapping { iova, length },
                _ => Error::failed(Call::IoasMapFile, e),
            }
        })?;
        self.mapped.fetch_add(length, Ordering::Relaxed);
        Ok(())
    }

    /// Unmaps all mappings in a range, which must not cut through one; returns their bytes.
    pub fn unmap(&self, iova: u64, length: u64) -> Result<u64, Error> {
        let bytes =
            self.object.kernel().ioas_unmap(self.id, iova, length).map_err(|e| Error::failed(Call::IoasUnmap, e))?;
        self.mapped.fetch_sub(bytes.min(self.mapped_bytes()), Ordering::Relaxed);
        Ok(bytes)
    }

    /// The addresses that can be mapped, ascending. They shrink with every device that is attached.
    pub fn iova_ranges(&self) -> Result<Vec<RangeInclusive<u64>>, Error> {
        self.object.kernel().ioas_iova_ranges(self.id).map_err(|e| Error::failed(Call::IoasIovaRanges, e))
    }

    /// Makes the stage 2 of the SMMU that `device` is behind: one for each host SMMU.
    ///
    /// If the devices of one SMMU differ in CANWBS, `device` must be one without it
    /// (`drivers/iommu/iommufd/hw_pagetable.c`: the parent enforces what its first device has).
    pub fn alloc_nest_parent(self: &Arc<Self>, device: DeviceId) -> Result<Arc<NestParent>, Error> {
        NestParent::alloc(self, self.object.kernel(), device).map(Arc::new)
    }

    /// Destroys it. Its nest parents must be gone.
    pub fn destroy(self: Arc<Self>) -> Result<(), Error> {
        let id = self.id.0;
        Arc::into_inner(self).ok_or_else(|| Object::still_used("ioas", id))?.object.destroy()
    }
}
