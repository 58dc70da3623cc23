//! Typed objects over `/dev/iommu` for a hardware-nested SMMUv3.
//!
//! One [`Iommufd`] for each VM; everything else is made from it and holds what it was made from, so that objects
//! are destroyed in the kernel's order whatever order they are dropped in:
//!
//! ```text
//! Iommufd -> Ioas          guest RAM, pinned once
//!             -> NestParent     stage 2 of one host SMMU
//!                 -> Viommu          the vSMMU in the kernel: invalidations go here
//!                     -> Vdevice          virtual StreamID of one device
//!                     -> NestedHwpt       a guest's stream table entry, attached through VFIO (AttachHwpt)
//!                     -> EventQueue       events for the guest's event queue
//! ```
//!
//! Who tears down explicitly calls `destroy` on the objects from the bottom of this picture upwards and hears of every
//! failure; `Drop` does the same and logs. All calls go through the [`Kernel`] trait: [`Iommufd::open`] uses the real
//! one, [`fake::FakeKernel`] is one for tests that keeps the same rules.
//!
//! Facts come from the Linux sources: `include/uapi/linux/iommufd.h`, `drivers/iommu/iommufd/` and
//! `drivers/iommu/arm/arm-smmu-v3/arm-smmu-v3-iommufd.c`.

#![deny(unsafe_code)] // the one exception is `sys`, which speaks ioctl

mod attach;
mod context;
mod error;
mod events;
pub mod fake;
mod hw_info;
mod hwpt;
mod ids;
mod invalidate;
mod ioas;
mod kernel;
mod ledger;
mod object;
#[allow(unsafe_code)] // ioctl takes raw pointers
mod sys;
mod vdevice;
mod viommu;

pub use attach::{AttachHwpt, retry_while_busy};
pub use context::Iommufd;
pub use error::{Call, Error};
pub use events::{EventQueue, Vevent};
pub use hw_info::{Capabilities, HwInfo, SmmuV3Flags, SmmuV3Info};
pub use hwpt::{NestParent, NestedHwpt, Ste};
pub use ids::{DeviceId, EventQueueId, HwptId, IoasId, VdeviceId, ViommuId};
pub use invalidate::{Command, InvalidateError, InvalidateFailure};
pub use ioas::Ioas;
pub use kernel::Kernel;
pub use ledger::LiveObjects;
pub use vdevice::Vdevice;
pub use viommu::{Viommu, ViommuCounters};
