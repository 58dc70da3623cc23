//! The Inventory: what the host has of PCI devices, SMMUs, memory and device files.
#![forbid(unsafe_code)]

mod ask;
mod assignable;
mod error;
mod kvm;
mod process;
pub mod spec;
mod sysfs;
#[cfg(test)]
pub(crate) mod testing;

use std::path::Path;

use crate::config::HostAddress;
pub use ask::{ask, requires_ats, to_ask};
pub use assignable::{Assignable, assignable};
pub use error::Error;
pub use spec::{Access, Cdev, HostBar, HostDevice, Inventory, IommuGroup, KvmLimits, SmmuAnswer};

impl Inventory {
    /// Reads the host below `root` (`/`, except in tests). `kvm` is what [`KvmLimits::query`] gives, or none where a
    /// Plan is only looked at.
    ///
    /// A device that is taken away while it is read is left out; an attribute that cannot be read counts as absent.
    pub fn read(root: &Path, kvm: Option<KvmLimits>) -> Result<Self, Error> {
        let devices = sysfs::devices(root);
        Ok(Self {
            memory: process::memory(root)?,
            memlock: process::memlock(root)?,
            kvm,
            dev_kvm: process::access(root, Path::new("/dev/kvm")),
            dev_iommu: process::access(root, Path::new("/dev/iommu")),
            groups: sysfs::groups(root, &devices),
            smmus: sysfs::smmus(root),
            devices,
        })
    }

    /// The device at `address`.
    pub fn device(&self, address: HostAddress) -> Option<&HostDevice> {
        self.devices.iter().find(|device| device.address == address)
    }

    /// The IOMMU group with this number.
    pub fn group(&self, number: u32) -> Option<&IommuGroup> {
        self.groups.iter().find(|group| group.number == number)
    }

    /// The IOMMU group of `device`.
    pub fn group_of(&self, device: &HostDevice) -> Option<&IommuGroup> {
        self.group(device.iommu_group?)
    }
}

impl HostDevice {
    /// Vendor and device ID as `VVVV:DDDD`.
    pub fn id(&self) -> String {
        format!("{:04x}:{:04x}", self.vendor, self.device)
    }
}
