//! What a passed-through function needs from the host: the VFIO device calls, as a trait.

#![forbid(unsafe_code)]

use std::io;
use std::ops::Range;
use std::sync::Arc;

use nestling_iommufd::AttachHwpt;
use vmm_sys_util::eventfd::EventFd;

use crate::mapping::HostMemory;

/// Region numbers of a PCI function (`include/uapi/linux/vfio.h`); 0 to 5 are its BARs.
pub mod region {
    /// Configuration space.
    pub const CONFIG: u32 = 7;
}

/// Interrupt indices of a PCI function (`include/uapi/linux/vfio.h`).
pub mod irq {
    /// MSI.
    pub const MSI: u32 = 1;
    /// MSI-X.
    pub const MSIX: u32 = 2;
    /// An uncorrectable error that the host's AER handler saw.
    pub const ERROR: u32 = 3;
    /// The host wants the device back.
    pub const REQUEST: u32 = 4;
}

/// A region of the device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Region {
    /// Bytes; 0 if the region does not exist.
    pub size: u64,
    /// The parts that can be mapped, page-aligned, ascending; empty if none can.
    pub mappable: Vec<Range<u64>>,
}

/// One kind of interrupt of the device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Irqs {
    /// Number of vectors; 0 if the device has none of the kind.
    pub count: u32,
    /// Whether more vectors can be enabled while some are (no `VFIO_IRQ_INFO_NORESIZE`).
    pub dynamic: bool,
}

/// A bound function of the host. Implemented by [`super::VfioCdev`], and by a fake in tests.
pub trait HostFunction: AttachHwpt {
    /// A region by number; an empty one if the device has none.
    fn region(&self, index: u32) -> Region;
    /// Reads a region.
    fn read(&self, region: u32, offset: u64, data: &mut [u8]) -> io::Result<()>;
    /// Writes a region.
    fn write(&self, region: u32, offset: u64, data: &[u8]) -> io::Result<()>;
    /// Maps a part of a region that is within its [`Region::mappable`].
    ///
    /// An access to the memory faults while the device's memory space is disabled or the device is not in D0.
    fn map(&self, region: u32, part: Range<u64>) -> io::Result<Arc<dyn HostMemory>>;
    /// The vectors of an interrupt index.
    fn irqs(&self, index: u32) -> Irqs;
    /// Lets vectors from `start` on signal `triggers`; `None` lets one signal nothing. Only after an attach: the host
    /// cannot map its MSI page before.
    fn set_irqs(&self, index: u32, start: u32, triggers: &[Option<&EventFd>]) -> io::Result<()>;
    /// Frees all vectors of an index; nothing happens if none is enabled.
    fn disable_irqs(&self, index: u32) -> io::Result<()>;
    /// Resets the function; repeats while it is busy. `Ok(false)` if it has no reset.
    fn reset(&self) -> io::Result<bool>;
    /// Resets the bus of the device if nothing else is on it, else the function.
    fn reset_bus(&self) -> io::Result<bool>;
    /// Page size of the host, the granule of [`HostFunction::map`].
    fn page_size(&self) -> u64;
}
