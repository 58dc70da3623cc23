//! A vSMMU in the kernel: gives StreamIDs to devices, nests stage 1, takes invalidations.
#![forbid(unsafe_code)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::{Call, Error};
use crate::events::EventQueue;
use crate::hw_info::{HwInfo, SmmuV3Flags};
use crate::hwpt::{NestParent, NestedHwpt, Ste};
use crate::ids::{DeviceId, ViommuId};
use crate::invalidate::{self, Command, InvalidateError};
use crate::kernel::Kernel;
use crate::object::Object;
use crate::vdevice::Vdevice;

/// What a vIOMMU did since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ViommuCounters {
    /// Nested page tables made.
    pub nested_hwpts: u64,
    /// `IOMMU_HWPT_INVALIDATE` calls.
    pub invalidate_calls: u64,
    /// Commands handed to them by the caller of [`Viommu::invalidate`].
    pub invalidate_commands: u64,
}

#[derive(Debug, Default)]
struct Counters {
    nested_hwpts: AtomicU64,
    invalidate_calls: AtomicU64,
    invalidate_commands: AtomicU64,
}

/// A virtual SMMUv3 (`IOMMU_VIOMMU_TYPE_ARM_SMMUV3`).
#[derive(Debug)]
pub struct Viommu {
    object: Object,
    id: ViommuId,
    hw_info: HwInfo,
    counters: Counters,
    parent: Arc<NestParent>,
}

impl Viommu {
    pub(crate) fn alloc(parent: &Arc<NestParent>, kernel: &Arc<dyn Kernel>, device: DeviceId) -> Result<Self, Error> {
        let hw_info = kernel.hw_info(device).map_err(|e| Error::failed(Call::GetHwInfo, e))?;
        let id = kernel.viommu_alloc(device, parent.id()).map_err(|e| match e.raw_os_error() {
            Some(libc::EOPNOTSUPP) => Error::NoCoherency { device },
            Some(libc::EINVAL) => Error::OtherSmmu { device, call: Call::ViommuAlloc },
            _ => Error::failed(Call::ViommuAlloc, e),
        })?;
        let object = Object::new(kernel, "viommu", id.0);
        Ok(Self { object, id, hw_info, counters: Counters::default(), parent: parent.clone() })
    }

    /// Its id.
    pub fn id(&self) -> ViommuId {
        self.id
    }

    /// What the host SMMU can do. `capabilities` and `max_pasid_log2` are those of the device that it was made with.
    pub fn hw_info(&self) -> &HwInfo {
        &self.hw_info
    }

    /// Its stage 2.
    pub fn parent(&self) -> &Arc<NestParent> {
        &self.parent
    }

    /// What it did so far.
    pub fn counters(&self) -> ViommuCounters {
        ViommuCounters {
            nested_hwpts: self.counters.nested_hwpts.load(Ordering::Relaxed),
            invalidate_calls: self.counters.invalidate_calls.load(Ordering::Relaxed),
            invalidate_commands: self.counters.invalidate_commands.load(Ordering::Relaxed),
        }
    }

    /// Gives a device its StreamID in this vSMMU. One for each device, before its first nested attach.
    pub fn alloc_vdevice(self: &Arc<Self>, device: DeviceId, stream: u32) -> Result<Vdevice, Error> {
        Vdevice::alloc(self, self.object.kernel(), device, stream)
    }

    /// Makes the page table for a stream table entry of `device`: stage 1, [`Ste::BYPASS`] or [`Ste::ABORT`].
    pub fn alloc_nested(self: &Arc<Self>, device: DeviceId, ste: Ste) -> Result<NestedHwpt, Error> {
        let hwpt = NestedHwpt::alloc(self, self.object.kernel(), device, ste)?;
        self.counters.nested_hwpts.fetch_add(1, Ordering::Relaxed);
        Ok(hwpt)
    }

    /// Makes the queue of events for this vSMMU: `depth` of 1 to 2^19 records, one queue at a time.
    pub fn alloc_event_queue(self: &Arc<Self>, depth: u32) -> Result<EventQueue, Error> {
        EventQueue::alloc(self, self.object.kernel(), depth)
    }

    /// Executes invalidation commands of the guest in order; when it returns they have completed.
    ///
    /// Accepted are TLBI_NSNH_ALL, TLBI_NH_ALL, TLBI_NH_ASID, TLBI_NH_VA, TLBI_NH_VAA, CFGI_CD, CFGI_CD_ALL and
    /// ATC_INV, with virtual StreamIDs; VMIDs are ignored. After an [`InvalidateError`] exactly the first `handled`
    /// commands are known to be executed. Batches of one vIOMMU are to be sent by one thread at a time.
    pub fn invalidate(&self, commands: &[Command]) -> Result<(), InvalidateError> {
        let repeat = self.hw_info.smmu.is_some_and(|smmu| smmu.flags.contains(SmmuV3Flags::ERRATA_REPEAT_TLBI_CFGI));
        let (calls, result) = invalidate::run(&**self.object.kernel(), self.id, commands, repeat);
        self.counters.invalidate_calls.fetch_add(calls, Ordering::Relaxed);
        self.counters.invalidate_commands.fetch_add(commands.len() as u64, Ordering::Relaxed);
        result
    }

    /// Destroys it. Its nested page tables, vDEVICEs and event queue must be gone.
    pub fn destroy(self: Arc<Self>) -> Result<(), Error> {
        let id = self.id.0;
        Arc::into_inner(self).ok_or_else(|| Object::still_used("viommu", id))?.object.destroy()
    }
}
