//! Passed-through PCI functions: VFIO character devices bound to the VM's iommufd.
//!
//! Two halves, because page tables come between them:
//!
//! 1. [`VfioHost::open`] opens and binds a device: from then on it has an id for iommufd
//!    ([`AttachHwpt`](nestling_iommufd::AttachHwpt)), and the vSMMU's objects can be made and attached.
//! 2. [`VfioFunction::new`] makes the PCI function that the guest sees from the attached device. Configuration space
//!    is virtual where it must be, BARs are mapped into the guest while it has them enabled, and MSI and MSI-X vectors
//!    go to the guest's ITS by eventfd.
//!
//! To end: [`VfioFunction::shutdown`], then the vSMMU's objects, then drop the [`VfioCdev`] (which closes it).

#![deny(unsafe_code)] // the one exception is `sys`: ioctls and mmap

mod bars;
mod capabilities;
mod cdev;
mod config;
mod error;
mod function;
mod host;
mod msi;
mod msix;
#[allow(unsafe_code)] // see above
mod sys;
#[cfg(test)]
mod testing;
mod trap;
mod vectors;

pub use cdev::{VfioCdev, VfioHost};
pub use config::{Pasid, Translation};
pub use error::Error;
pub use function::{BarAddress, Upstream, VfioFunction, VfioFunctionConfig};
pub use host::{HostFunction, Irqs, Region, irq, region};
pub use trap::VfioCounters;
