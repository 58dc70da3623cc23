//! What can go wrong, with the errno of each call turned into what it means there.
#![forbid(unsafe_code)]

use std::fmt;
use std::io;

use crate::ids::{DeviceId, HwptId};

/// A call to the kernel, as its uAPI names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // each is the ioctl of its name
pub enum Call {
    Destroy,
    IoasAlloc,
    IoasMapFile,
    IoasUnmap,
    IoasIovaRanges,
    NestParentAlloc,
    NestedAlloc,
    GetHwInfo,
    ViommuAlloc,
    VdeviceAlloc,
    VeventqAlloc,
    /// `read` of an event queue.
    VeventqRead,
    Invalidate,
    /// `VFIO_DEVICE_ATTACH_IOMMUFD_PT`.
    Attach,
    /// `VFIO_DEVICE_DETACH_IOMMUFD_PT`.
    Detach,
}

impl Call {
    /// The Linux version that has it, for messages.
    const fn since(self) -> &'static str {
        match self {
            Self::Destroy | Self::IoasAlloc | Self::IoasUnmap | Self::IoasIovaRanges => "6.2",
            Self::Attach | Self::Detach | Self::GetHwInfo => "6.6",
            Self::NestParentAlloc => "6.7",
            Self::IoasMapFile | Self::NestedAlloc | Self::ViommuAlloc | Self::VdeviceAlloc | Self::Invalidate => "6.13",
            Self::VeventqAlloc | Self::VeventqRead => "6.15",
        }
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Destroy => "IOMMU_DESTROY",
            Self::IoasAlloc => "IOMMU_IOAS_ALLOC",
            Self::IoasMapFile => "IOMMU_IOAS_MAP_FILE",
            Self::IoasUnmap => "IOMMU_IOAS_UNMAP",
            Self::IoasIovaRanges => "IOMMU_IOAS_IOVA_RANGES",
            Self::NestParentAlloc => "IOMMU_HWPT_ALLOC (nest parent)",
            Self::NestedAlloc => "IOMMU_HWPT_ALLOC (nested)",
            Self::GetHwInfo => "IOMMU_GET_HW_INFO",
            Self::ViommuAlloc => "IOMMU_VIOMMU_ALLOC",
            Self::VdeviceAlloc => "IOMMU_VDEVICE_ALLOC",
            Self::VeventqAlloc => "IOMMU_VEVENTQ_ALLOC",
            Self::VeventqRead => "reading the event queue",
            Self::Invalidate => "IOMMU_HWPT_INVALIDATE",
            Self::Attach => "VFIO_DEVICE_ATTACH_IOMMUFD_PT",
            Self::Detach => "VFIO_DEVICE_DETACH_IOMMUFD_PT",
        })
    }
}

/// Why an object of iommufd cannot be made, used or destroyed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no `/dev/iommu`.
    #[error(
        "no /dev/iommu: the host kernel lacks iommufd (CONFIG_IOMMUFD), or the module is not loaded (modprobe iommufd)"
    )]
    NoIommufd,
    /// This user may not open `/dev/iommu`.
    #[error("no permission to open /dev/iommu: run as root or give this user read and write access to it")]
    NoPermission,
    /// Another failure to open `/dev/iommu`.
    #[error("cannot open /dev/iommu")]
    Open(#[source] io::Error),
    /// ENOTTY: the kernel does not know the call.
    #[error("the host kernel has no {call}: use Linux {} or later", .call.since())]
    NotImplemented {
        /// The call it does not know.
        call: Call,
    },
    /// EOPNOTSUPP on the nest parent: stage 1 or stage 2 is missing in the host SMMU or taken away by an erratum.
    #[error(
        "the host smmu of {device} cannot nest: it needs stage 1 and stage 2 (SMMU_IDR0.S1P and S2P), and an MMU-600 from r2 or an MMU-700 from r1p1; leave its devices out"
    )]
    NoNesting {
        /// A device behind that SMMU.
        device: DeviceId,
    },
    /// EOPNOTSUPP on the vIOMMU: a guest could break cache coherency, or the kernel is built without it.
    #[error(
        "the host kernel gives no vIOMMU for {device}: its root complex must be coherent (CANWBS in the host's IORT) or its smmu have S2FWB (SMMU_IDR3.FWB), and the kernel CONFIG_ARM_SMMU_V3_IOMMUFD"
    )]
    NoCoherency {
        /// The device.
        device: DeviceId,
    },
    /// EINVAL where the only thing left to be wrong is the SMMU.
    #[error("{device} is behind another host smmu than the object it was used with ({call})")]
    OtherSmmu {
        /// The device.
        device: DeviceId,
        /// The call that said so.
        call: Call,
    },
    /// EOPNOTSUPP on the vDEVICE.
    #[error("{device} has more than one stream id, which the host kernel cannot nest")]
    ManyStreams {
        /// The device.
        device: DeviceId,
    },
    /// EEXIST on the vDEVICE.
    #[error("{device} has a vdevice already, or virtual stream id {stream:#x} is taken in its viommu")]
    StreamTaken {
        /// The device.
        device: DeviceId,
        /// Virtual StreamID that was asked for.
        stream: u32,
    },
    /// EEXIST on the event queue.
    #[error("the viommu has an event queue already")]
    EventQueueExists,
    /// EIO on the nested HWPT: a bit or value that may not be nested.
    #[error("the host kernel refuses stream table entry {:#018x} {:#018x} for {device}", .ste[0], .ste[1])]
    BadSte {
        /// The device.
        device: DeviceId,
        /// The words.
        ste: [u64; 2],
    },
    /// ENOENT on attach of stage 1.
    #[error("{device} has no vdevice, so {hwpt} with stage 1 cannot be attached to it")]
    NoVdevice {
        /// The device.
        device: DeviceId,
        /// What was to be attached.
        hwpt: HwptId,
    },
    /// EINVAL on attach.
    #[error(
        "{hwpt} cannot be attached to {device}: it is of another host smmu, or was made for a coherent device (CANWBS) and this one is not, or another device of its iommu group has another page table"
    )]
    CannotAttach {
        /// The device.
        device: DeviceId,
        /// What was to be attached.
        hwpt: HwptId,
    },
    /// EADDRINUSE on attach: guest memory lies where the device's MSI window must be.
    #[error(
        "{hwpt} cannot be attached to {device}: memory is mapped in an address range that the device reserves (the msi window 0x8000000..0x8100000)"
    )]
    ReservedAddress {
        /// The device.
        device: DeviceId,
        /// What was to be attached.
        hwpt: HwptId,
    },
    /// EBUSY on attach that did not pass: the device is being reset, or the host uses its PASIDs.
    #[error("{device} stayed busy while {hwpt} was to be attached: it is in reset, or the host uses its pasids")]
    DeviceBusy {
        /// The device.
        device: DeviceId,
        /// What was to be attached.
        hwpt: HwptId,
    },
    /// ENOMEM on a mapping.
    #[error(
        "cannot pin guest memory: RLIMIT_MEMLOCK must be at least {needed} bytes for this user (ulimit -l {}, or LimitMEMLOCK= of the service), and the host must have that much memory",
        .needed.div_ceil(1024)
    )]
    LockedMemory {
        /// Bytes that this address space would have pinned, with this mapping.
        needed: u64,
    },
    /// EINVAL or EEXIST on a mapping.
    #[error(
        "cannot map {length:#x} bytes at iova {iova:#x}: the range is misaligned, reserved or already mapped, or the file is no memfd"
    )]
    BadMapping {
        /// Where.
        iova: u64,
        /// How much.
        length: u64,
    },
    /// EBUSY on destroy, or somebody in this process still holds the object.
    #[error("{object} cannot be destroyed: something still uses it")]
    StillUsed {
        /// The object, with its id.
        object: String,
    },
    /// A vEVENT record that does not look like one.
    #[error("the event queue of the kernel returned {0} bytes that are no record")]
    BadEvent(usize),
    /// Anything else.
    #[error("{call} failed")]
    Failed {
        /// The call.
        call: Call,
        /// What the kernel answered.
        #[source]
        source: io::Error,
    },
}

impl Error {
    /// An answer without a special meaning for its call.
    pub(crate) fn failed(call: Call, source: io::Error) -> Self {
        match source.raw_os_error() {
            Some(libc::ENOTTY) => Self::NotImplemented { call },
            _ => Self::Failed { call, source },
        }
    }

    /// What the kernel's answer to `VFIO_DEVICE_ATTACH_IOMMUFD_PT` means.
    pub fn from_attach(device: DeviceId, hwpt: HwptId, source: io::Error) -> Self {
        match source.raw_os_error() {
            Some(libc::ENOENT) => Self::NoVdevice { device, hwpt },
            Some(libc::EADDRINUSE) => Self::ReservedAddress { device, hwpt },
            Some(libc::EBUSY) => Self::DeviceBusy { device, hwpt },
            Some(libc::EINVAL) => Self::CannotAttach { device, hwpt },
            _ => Self::failed(Call::Attach, source),
        }
    }

    /// What the kernel's answer to `VFIO_DEVICE_DETACH_IOMMUFD_PT` means.
    pub fn from_detach(source: io::Error) -> Self {
        Self::failed(Call::Detach, source)
    }
}
