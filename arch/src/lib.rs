//! The aarch64 side of nestling: the guest physical layout, GICv3 and ITS, vCPUs, interrupts, direct boot.
//!
//! Knows neither devices nor the VMM above it. Only `gic`, `vcpu`, `exit` and `vm` need an aarch64 host; everything else
//! is built and tested everywhere.
#![deny(unsafe_code)] // exceptions: `attributes` (KVM writes through a pointer) and `exit` (a union)

#[cfg(target_arch = "aarch64")]
mod attributes;
pub mod boot;
pub mod cpu;
#[cfg(target_arch = "aarch64")]
pub mod exit;
#[cfg(target_arch = "aarch64")]
pub mod gic;
pub mod interrupt;
pub mod layout;
#[cfg(target_arch = "aarch64")]
pub mod vcpu;
#[cfg(target_arch = "aarch64")]
pub mod vm;
