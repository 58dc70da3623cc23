//! Attaching page tables to a device, which is a call of its VFIO descriptor and not of iommufd.
#![forbid(unsafe_code)]

use std::io;
use std::thread;
use std::time::{Duration, Instant};

use crate::error::Error;
use crate::ids::{DeviceId, HwptId};

/// A device bound to the iommufd, as the vSMMU sees it. The VFIO device implements it, and
/// [`crate::fake::FakeDevice`].
pub trait AttachHwpt: Send + Sync {
    /// Attaches a page table, replacing the one attached before without a gap.
    ///
    /// EBUSY (the device is in reset) is retried for a while inside, and then [`Error::DeviceBusy`]. To attach what is
    /// attached already does nothing at all, so a vDEVICE made since is not seen.
    fn attach_hwpt(&self, hwpt: HwptId) -> Result<(), Error>;
    /// The same, but [`Error::DeviceBusy`] comes at once.
    fn try_attach_hwpt(&self, hwpt: HwptId) -> Result<(), Error>;
    /// Detaches: the device can do no DMA and cannot be given MSIs.
    fn detach_hwpt(&self) -> Result<(), Error>;
    /// The device's id in its iommufd.
    fn dev_id(&self) -> DeviceId;
}

/// Longest time that [`retry_while_busy`] waits: a function-level reset takes 100 ms. A device with ATS may stay in reset
/// for a minute (`pci_dev_wait`); that is too long to wait for with a lock held, behind which other vCPUs wait for their
/// CMD_SYNC: Linux gives them a second.
const BUSY_LIMIT: Duration = Duration::from_millis(500);

/// Repeats `call` while it fails with EBUSY, for at most half a second; the last answer counts.
pub fn retry_while_busy<T>(call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    retry_for(BUSY_LIMIT, call)
}

pub(crate) fn retry_for<T>(limit: Duration, mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    let start = Instant::now();
    let mut pause = Duration::from_micros(100);
    loop {
        match call() {
            Err(e) if e.raw_os_error() == Some(libc::EBUSY) && start.elapsed() < limit => {
                thread::sleep(pause);
                pause = (pause * 2).min(Duration::from_millis(20));
            }
            answer => return answer,
        }
    }
}
