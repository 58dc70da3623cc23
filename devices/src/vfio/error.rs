//! What keeps a device from being passed through, with what to do about it.
#![forbid(unsafe_code)]

use std::io;
use std::path::PathBuf;

/// Why a device cannot be opened, bound or shown to the guest.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The character device does not exist.
    #[error("{name}: no {path}: bind the device to vfio-pci, and use a kernel with CONFIG_VFIO_DEVICE_CDEV", path = .path.display())]
    NoCdev {
        /// The device, as the user named it.
        name: String,
        /// Its character device.
        path: PathBuf,
    },
    /// This user may not open it.
    #[error("{name}: no permission to open {path}: run as root or give this user read and write access to it", path = .path.display())]
    NoPermission {
        /// The device.
        name: String,
        /// Its character device.
        path: PathBuf,
    },
    /// Another failure to open it.
    #[error("{name}: cannot open {path}", path = .path.display())]
    Open {
        /// The device.
        name: String,
        /// Its character device.
        path: PathBuf,
        /// What the kernel answered.
        #[source]
        source: io::Error,
    },
    /// EBUSY or EINVAL on bind: somebody else has it.
    #[error(
        "{name} is in use: another process has it open (a VM that still runs?), or its iommu group's /dev/vfio file"
    )]
    InUse {
        /// The device.
        name: String,
    },
    /// EPERM on bind: the rest of its IOMMU group.
    #[error(
        "{name} shares its iommu group with devices that the host uses, or its interrupts are not isolated: bind all devices of the group to vfio-pci or to no driver"
    )]
    GroupNotViable {
        /// The device.
        name: String,
    },
    /// EACCES on bind: a virtual function whose physical one wants a token.
    #[error("{name} needs a VF token: its physical function is bound to vfio-pci with one, which is not supported")]
    NeedsToken {
        /// The device.
        name: String,
    },
    /// Its vSMMU offers PASIDs, and there is nowhere to say so.
    #[error("{name} has no room for a pasid capability in its configuration space; give its vsmmu ssidsize=0")]
    NoPasidCapability {
        /// The device.
        name: String,
    },
    /// The kernel has no VFIO with iommufd.
    #[error(
        "{name}: the host kernel cannot bind it to an iommufd: it needs CONFIG_VFIO_DEVICE_CDEV and CONFIG_IOMMUFD"
    )]
    NoBind {
        /// The device.
        name: String,
    },
    /// It is not a PCI function, or not an endpoint.
    #[error("{name} is not a pci endpoint function")]
    NotAnEndpoint {
        /// The device.
        name: String,
    },
    /// A BAR that is given an address does not exist, or one that exists has no address.
    #[error("{name}: bar {bar} {problem}")]
    Bar {
        /// The device.
        name: String,
        /// Which one.
        bar: u8,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A fake kernel has no devices.
    #[error("{name}: this iommufd is no /dev/iommu of a kernel")]
    NoDescriptor {
        /// The device.
        name: String,
    },
    /// Anything else that VFIO answered.
    #[error("{name}: {what} failed")]
    Vfio {
        /// The device.
        name: String,
        /// The call.
        what: &'static str,
        /// What VFIO answered.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl Error {
    pub(super) fn vfio(name: &str, what: &'static str, source: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self::Vfio { name: name.to_owned(), what, source: Box::new(source) }
    }
}
