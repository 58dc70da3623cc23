//! Which objects the kernel holds: a count of what it made and destroyed, as it answered.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::ops::RangeInclusive;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard};

use crate::hw_info::HwInfo;
use crate::ids::{DeviceId, EventQueueId, HwptId, IoasId, VdeviceId, ViommuId};
use crate::invalidate::Command;
use crate::kernel::Kernel;

/// Objects that the kernel holds for one `/dev/iommu`, bound devices not counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LiveObjects {
    /// Address spaces.
    pub ioas: usize,
    /// Stage 2 page tables.
    pub nest_parents: usize,
    /// vIOMMUs.
    pub viommus: usize,
    /// vDEVICEs.
    pub vdevices: usize,
    /// Stage 1 page tables; bypass and abort are such, too.
    pub nested_hwpts: usize,
    /// Event queues.
    pub event_queues: usize,
}

/// What there is, as the kernel's headers name it: `1 vIOMMU, 2 vDEVICE`.
impl fmt::Display for LiveObjects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { ioas, nest_parents, viommus, vdevices, nested_hwpts, event_queues } = *self;
        let counts = [
            (ioas, "IOAS"),
            (nest_parents, "HWPT (nest parent)"),
            (viommus, "vIOMMU"),
            (vdevices, "vDEVICE"),
            (nested_hwpts, "HWPT (nested)"),
            (event_queues, "vEVENTQ"),
        ];
        let mut there = counts.into_iter().filter(|&(count, _)| count > 0);
        let Some((count, name)) = there.next() else { return f.write_str("no object") };
        write!(f, "{count} {name}")?;
        there.try_for_each(|(count, name)| write!(f, ", {count} {name}"))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Ioas,
    NestParent,
    Viommu,
    Vdevice,
    NestedHwpt,
    EventQueue,
}

/// A kernel with a list of its objects.
#[derive(Debug)]
pub(crate) struct Ledger {
    kernel: Arc<dyn Kernel>,
    live: Mutex<BTreeMap<u32, Kind>>,
}

impl Ledger {
    pub(crate) fn new(kernel: Arc<dyn Kernel>) -> Self {
        Self { kernel, live: Mutex::default() }
    }

    pub(crate) fn live_objects(&self) -> LiveObjects {
        let live = self.live();
        let count = |kind| live.values().filter(|&&other| other == kind).count();
        LiveObjects {
            ioas: count(Kind::Ioas),
            nest_parents: count(Kind::NestParent),
            viommus: count(Kind::Viommu),
            vdevices: count(Kind::Vdevice),
            nested_hwpts: count(Kind::NestedHwpt),
            event_queues: count(Kind::EventQueue),
        }
    }

    /// The lock is never held during a call: an id is free for the next object only when its destruction is noted.
    fn live(&self) -> MutexGuard<'_, BTreeMap<u32, Kind>> {
        self.live.lock().unwrap_or_else(|e| e.into_inner())
    }

    fn made(&self, id: u32, kind: Kind) {
        self.live().insert(id, kind);
    }
}

impl Kernel for Ledger {
    fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.kernel.fd()
    }

    fn destroy(&self, id: u32) -> io::Result<()> {
        // The kernel may give the id to another object before this call returns: noted before, and taken back if it fails.
        let kind = self.live().remove(&id);
        let result = self.kernel.destroy(id);
        if let (Err(_), Some(kind)) = (&result, kind) {
            self.made(id, kind);
        }
        result
    }

    fn ioas_alloc(&self) -> io::Result<IoasId> {
        self.kernel.ioas_alloc().inspect(|id| self.made(id.0, Kind::Ioas))
    }

    fn ioas_map_file(&self, ioas: IoasId, file: BorrowedFd<'_>, offset: u64, length: u64, iova: u64) -> io::Result<()> {
        self.kernel.ioas_map_file(ioas, file, offset, length, iova)
    }

    fn ioas_unmap(&self, ioas: IoasId, iova: u64, length: u64) -> io::Result<u64> {
        self.kernel.ioas_unmap(ioas, iova, length)
    }

    fn ioas_iova_ranges(&self, ioas: IoasId) -> io::Result<Vec<RangeInclusive<u64>>> {
        self.kernel.ioas_iova_ranges(ioas)
    }

    fn nest_parent_alloc(&self, device: DeviceId, ioas: IoasId) -> io::Result<HwptId> {
        self.kernel.nest_parent_alloc(device, ioas).inspect(|id| self.made(id.0, Kind::NestParent))
    }

    fn nested_alloc(&self, device: DeviceId, viommu: ViommuId, ste: [u64; 2]) -> io::Result<HwptId> {
        self.kernel.nested_alloc(device, viommu, ste).inspect(|id| self.made(id.0, Kind::NestedHwpt))
    }

    fn hw_info(&self, device: DeviceId) -> io::Result<HwInfo> {
        self.kernel.hw_info(device)
    }

    fn viommu_alloc(&self, device: DeviceId, parent: HwptId) -> io::Result<ViommuId> {
        self.kernel.viommu_alloc(device, parent).inspect(|id| self.made(id.0, Kind::Viommu))
    }

    fn vdevice_alloc(&self, viommu: ViommuId, device: DeviceId, virt_id: u64) -> io::Result<VdeviceId> {
        self.kernel.vdevice_alloc(viommu, device, virt_id).inspect(|id| self.made(id.0, Kind::Vdevice))
    }

    fn veventq_alloc(&self, viommu: ViommuId, depth: u32) -> io::Result<(EventQueueId, OwnedFd)> {
        self.kernel.veventq_alloc(viommu, depth).inspect(|(id, _)| self.made(id.0, Kind::EventQueue))
    }

    fn invalidate(&self, viommu: ViommuId, commands: &[Command]) -> (u32, io::Result<()>) {
        self.kernel.invalidate(viommu, commands)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Call;
    use crate::fake::{FakeKernel, FakeSmmu};
    use crate::hwpt::Ste;

    #[test]
    fn what_is_made_counts_until_the_kernel_has_destroyed_it() {
        let kernel = FakeKernel::new();
        let iommufd = kernel.iommufd();
        let smmu = kernel.add_smmu(FakeSmmu::default());
        let device = crate::AttachHwpt::dev_id(&kernel.add_device(smmu, true));
        assert_eq!(iommufd.live_objects(), LiveObjects::default());
        let ioas = iommufd.alloc_ioas().unwrap();
        let parent = ioas.alloc_nest_parent(device).unwrap();
        let viommu = parent.alloc_viommu(device).unwrap();
        let queue = viommu.alloc_event_queue(8).unwrap();
        let vdevice = viommu.alloc_vdevice(device, 0x100).unwrap();
        let nested =
            [viommu.alloc_nested(device, Ste::ABORT).unwrap(), viommu.alloc_nested(device, Ste::BYPASS).unwrap()];
        let all = LiveObjects { ioas: 1, nest_parents: 1, viommus: 1, vdevices: 1, nested_hwpts: 2, event_queues: 1 };
        assert_eq!((iommufd.live_objects(), kernel.live_objects()), (all, 7));
        let said = "1 IOAS, 1 HWPT (nest parent), 1 vIOMMU, 1 vDEVICE, 2 HWPT (nested), 1 vEVENTQ";
        assert_eq!((all.to_string().as_str(), LiveObjects::default().to_string().as_str()), (said, "no object"));
        kernel.fail_next(Call::NestedAlloc, libc::ENOMEM);
        viommu.alloc_nested(device, Ste::ABORT).unwrap_err();
        assert_eq!(iommufd.live_objects(), all, "nothing was made");
        let [first, second] = nested;
        kernel.fail_next(Call::Destroy, libc::EBUSY);
        first.destroy().unwrap_err();
        assert_eq!(iommufd.live_objects(), all, "it is still there");
        second.destroy().unwrap();
        assert_eq!(iommufd.live_objects(), LiveObjects { nested_hwpts: 1, ..all });
        vdevice.destroy().unwrap();
        queue.destroy().unwrap();
        assert_eq!(
            iommufd.live_objects(),
            LiveObjects { nested_hwpts: 1, vdevices: 0, event_queues: 0, ..all },
            "the one that is left behind"
        );
    }
}
