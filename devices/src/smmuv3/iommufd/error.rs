//! Why the kernel's objects of a vSMMU cannot be made, changed or destroyed.

#![forbid(unsafe_code)]

use nestling_iommufd as kernel;
use nestling_iommufd::DeviceId;

use crate::smmuv3::capabilities::Mismatch;

/// Why the objects of a vSMMU cannot be made or destroyed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The vIOMMU, its stage 2, its event queue or one of its fixed stream table entries.
    #[error("the kernel gives no nested smmu for {device}")]
    Viommu {
        /// A device behind the host SMMU.
        device: DeviceId,
        /// What the kernel answered.
        #[source]
        source: kernel::Error,
    },
    /// The IOMMU of the device is no SMMUv3, or the kernel cannot nest any.
    #[error(
        "the host kernel tells nothing of an smmuv3 in front of {0}: the device must be behind one, and the kernel have CONFIG_ARM_SMMU_V3_IOMMUFD"
    )]
    NotSmmuV3(DeviceId),
    /// The kernel refused stage 2, and SMMU_IDR0 says why.
    #[error("the host smmu has no stage {0} (SMMU_IDR0.S{0}P), and nesting needs both; leave its devices out")]
    OneStage(u8),
    /// The StreamID is in use.
    #[error("stream {0:#x} has a device already; each function needs a requester id of its own")]
    StreamTaken(u32),
    /// The device was never put behind the vSMMU, or was taken out.
    #[error("{0} is not behind the vsmmu")]
    NoDevice(DeviceId),
    /// The device cannot be put behind the vSMMU.
    #[error("{device} cannot be put behind the vsmmu as stream {stream_id:#x}")]
    Stream {
        /// The device.
        device: DeviceId,
        /// The StreamID it was to have.
        stream_id: u32,
        /// What the kernel answered.
        #[source]
        source: kernel::Error,
    },
    /// The device lost its StreamID, and something of it is left behind.
    #[error("{device} cannot be taken off its stream id and aborts until the machine is reset")]
    Unreachable {
        /// The device.
        device: DeviceId,
        /// What the kernel answered.
        #[source]
        source: kernel::Error,
    },
    /// EINVAL on its first attach: stage 2 was made for a coherent device and this one is not
    /// (`arm_smmu_attach_prepare`).
    #[error(
        "{device} cannot be put behind the vsmmu as stream {stream_id:#x}: its root complex is not coherent (no CANWBS in the host's IORT) while that of the vsmmu's first device is, or another device of its iommu group has another page table; give it a vsmmu of its own"
    )]
    NotCoherent {
        /// The device.
        device: DeviceId,
        /// The StreamID it was to have.
        stream_id: u32,
    },
    /// The guest was shown more than the device has.
    #[error("{device} cannot be put behind the vsmmu; start the guest with less, or give the device to another")]
    Mismatch {
        /// The device.
        device: DeviceId,
        /// The field.
        #[source]
        source: Mismatch,
    },
    /// An object is left behind.
    #[error("not everything of the vsmmu could be destroyed")]
    Teardown(#[source] kernel::Error),
    /// It is torn down already.
    #[error("the vsmmu is torn down")]
    Gone,
}
