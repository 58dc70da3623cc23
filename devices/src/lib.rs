//! Device models of nestling: an MMIO bus and interrupt lines, PCIe (ECAM, expanders, root ports), the nested
//! vSMMUv3, VFIO devices, and the small devices of the `virt` machine.
//!
//! A model knows no ioctl of KVM: it sees guest memory, an [`interrupt`] to raise and, where it needs one, a small
//! trait to the outside ([`mapping::GuestMapper`], [`smmuv3::PhysicalSmmu`]). What the guest does wrong never
//! becomes an `Err` or a panic.
#![deny(unsafe_code)] // the one exception is `vfio::sys`: two ioctls and mmap

pub mod bus;
pub mod interrupt;
pub mod mapping;
pub mod pci;
pub mod power;
pub mod rtc;
pub mod serial;
pub mod smmuv3;
pub mod vfio;
