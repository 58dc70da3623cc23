//! The Inventory: what the host has of PCI devices, SMMUs, memory and device files.
#![forbid(unsafe_code)]

pub mod spec;

pub use spec::{Access, HostDevice, Inventory, KvmLimits};
