//! Why the host, as it is now, cannot give what was asked for.

use std::path::PathBuf;

use crate::config::HostAddress;

/// One object of the host, what is wrong with it, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file that every host has cannot be read.
    #[error("{} cannot be read", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// There is no such device.
    #[error("there is no PCI device {0} on this host; 'lspci -D' lists them")]
    NoDevice(HostAddress),
    /// The device is a bridge.
    #[error("{0} is a bridge and cannot be assigned; assign the devices behind it")]
    Bridge(HostAddress),
    /// The device's DMA is not confined by anything.
    #[error(
        "{0} is behind no IOMMU, so its DMA cannot be confined to a guest; enable its SMMU in the host's firmware, or \
         assign another device"
    )]
    NoIommu(HostAddress),
    /// The device's IOMMU cannot be nested.
    #[error("{address} is behind '{iommu}', which is not an SMMUv3; only devices behind an SMMUv3 can be assigned")]
    NotSmmu {
        /// The device.
        address: HostAddress,
        /// Its IOMMU.
        iommu: String,
    },
    /// The device has no driver.
    #[error(
        "{0} is bound to no driver; bind it to vfio-pci: echo vfio-pci > /sys/bus/pci/devices/{0}/driver_override; \
         echo {0} > /sys/bus/pci/drivers_probe"
    )]
    Unbound(HostAddress),
    /// The device is in use by the host.
    #[error(
        "{address} is bound to '{driver}'; bind it to vfio-pci: \
         echo vfio-pci > /sys/bus/pci/devices/{address}/driver_override; \
         echo {address} > /sys/bus/pci/drivers/{driver}/unbind; echo {address} > /sys/bus/pci/drivers_probe"
    )]
    OtherDriver {
        /// The device.
        address: HostAddress,
        /// Its driver.
        driver: String,
    },
    /// A VFIO driver without character devices.
    #[error(
        "{address} is bound to '{driver}' but has no VFIO character device; the host kernel needs \
         CONFIG_VFIO_DEVICE_CDEV"
    )]
    NoCdev {
        /// The device.
        address: HostAddress,
        /// Its driver.
        driver: String,
    },
    /// The character device is not in `/dev`.
    #[error("{} of {address} does not exist, although sysfs lists it; mount devtmpfs or start udev", .path.display())]
    CdevMissing {
        /// The device.
        address: HostAddress,
        /// Its character device.
        path: PathBuf,
    },
    /// The character device may not be opened.
    #[error("no permission to open {} of {address}; give it to your user (chown), or run as root", .path.display())]
    CdevDenied {
        /// The device.
        address: HostAddress,
        /// Its character device.
        path: PathBuf,
    },
    /// The device's physical function has a VFIO driver.
    #[error(
        "{address} is a virtual function of {physical}, which is bound to '{driver}': VFIO asks for a VF token then, and \
         nestling has none; let the host's own driver of {physical} make the virtual functions, or assign {physical} \
         itself"
    )]
    VfToken {
        /// The device.
        address: HostAddress,
        /// Its physical function.
        physical: HostAddress,
        /// The driver of that one.
        driver: String,
    },
    /// The host uses another device of the same IOMMU group.
    #[error(
        "{address} shares IOMMU group {group} with {other}, which is bound to '{driver}'; \
         unbind that first: echo {other} > /sys/bus/pci/drivers/{driver}/unbind"
    )]
    GroupInUse {
        /// The device.
        address: HostAddress,
        /// The group's number.
        group: u32,
        /// The other device.
        other: HostAddress,
        /// Its driver.
        driver: String,
    },
    /// Another device is in the same IOMMU group.
    #[error(
        "{address} shares IOMMU group {group} with {other}: the host gives both one stage 1, so neither can have its \
         own in a guest; move it to a slot below a root port with ACS, or enable ACS in the host's firmware"
    )]
    SharedGroup {
        /// The device.
        address: HostAddress,
        /// The group's number.
        group: u32,
        /// The other device.
        other: HostAddress,
    },
}
