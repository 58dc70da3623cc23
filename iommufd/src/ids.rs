//! Object ids of one iommufd. They are only meaningful with the file descriptor that made them.
#![forbid(unsafe_code)]

use std::fmt;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $label:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u32);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($label, " {}"), self.0)
            }
        }
    };
}

id!(
    /// A device, as `VFIO_DEVICE_BIND_IOMMUFD` names it (`out_devid`).
    DeviceId,
    "device"
);
id!(
    /// An address space of guest RAM.
    IoasId,
    "ioas"
);
id!(
    /// A hardware page table that a device can be attached to: nest parent or nested.
    HwptId,
    "hwpt"
);
id!(
    /// A virtual IOMMU.
    ViommuId,
    "viommu"
);
id!(
    /// A device as its vIOMMU sees it.
    VdeviceId,
    "vdevice"
);
id!(
    /// A queue of virtual events.
    EventQueueId,
    "veventq"
);
