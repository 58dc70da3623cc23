//! Every call to the kernel that this crate makes, as one trait.
#![forbid(unsafe_code)]

use std::fmt;
use std::io;
use std::ops::RangeInclusive;
use std::os::fd::{BorrowedFd, OwnedFd};

use crate::hw_info::HwInfo;
use crate::ids::{DeviceId, EventQueueId, HwptId, IoasId, VdeviceId, ViommuId};
use crate::invalidate::Command;

/// The ioctls of `/dev/iommu`, one function each. Errors carry the errno as it came
/// ([`io::Error::raw_os_error`]); the objects of this crate turn it into meaning.
///
/// Implementations: the real kernel, and [`crate::fake::FakeKernel`].
pub trait Kernel: Send + Sync + fmt::Debug {
    /// The open `/dev/iommu`, to bind VFIO devices to it; a fake has none.
    fn fd(&self) -> Option<BorrowedFd<'_>>;
    /// `IOMMU_DESTROY` of any object.
    fn destroy(&self, id: u32) -> io::Result<()>;
    /// `IOMMU_IOAS_ALLOC`.
    fn ioas_alloc(&self) -> io::Result<IoasId>;
    /// `IOMMU_IOAS_MAP_FILE`, readable and writeable, at exactly `iova`. All numbers are bytes.
    fn ioas_map_file(&self, ioas: IoasId, file: BorrowedFd<'_>, offset: u64, length: u64, iova: u64) -> io::Result<()>;
    /// `IOMMU_IOAS_UNMAP`; returns the number of bytes that were mapped.
    fn ioas_unmap(&self, ioas: IoasId, iova: u64, length: u64) -> io::Result<u64>;
    /// `IOMMU_IOAS_IOVA_RANGES`.
    fn ioas_iova_ranges(&self, ioas: IoasId) -> io::Result<Vec<RangeInclusive<u64>>>;
    /// `IOMMU_HWPT_ALLOC` with `NEST_PARENT`.
    fn nest_parent_alloc(&self, device: DeviceId, ioas: IoasId) -> io::Result<HwptId>;
    /// `IOMMU_HWPT_ALLOC` with `DATA_ARM_SMMUV3`: the first two words of a stream table entry.
    fn nested_alloc(&self, device: DeviceId, viommu: ViommuId, ste: [u64; 2]) -> io::Result<HwptId>;
    /// `IOMMU_GET_HW_INFO`.
    fn hw_info(&self, device: DeviceId) -> io::Result<HwInfo>;
    /// `IOMMU_VIOMMU_ALLOC` of type `ARM_SMMUV3`.
    fn viommu_alloc(&self, device: DeviceId, parent: HwptId) -> io::Result<ViommuId>;
    /// `IOMMU_VDEVICE_ALLOC`.
    fn vdevice_alloc(&self, viommu: ViommuId, device: DeviceId, virt_id: u64) -> io::Result<VdeviceId>;
    /// `IOMMU_VEVENTQ_ALLOC` of type `ARM_SMMUV3`.
    fn veventq_alloc(&self, viommu: ViommuId, depth: u32) -> io::Result<(EventQueueId, OwnedFd)>;
    /// `IOMMU_HWPT_INVALIDATE` with `VIOMMU_INVALIDATE_DATA_ARM_SMMUV3`. Returns `entry_num` as the kernel left it,
    /// which it also writes on failure.
    fn invalidate(&self, viommu: ViommuId, commands: &[Command]) -> (u32, io::Result<()>);
}
