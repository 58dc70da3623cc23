//! The machine: KVM VM, memory, interrupt controller, devices and vSMMUs, built from the Plan and torn down in order.
//!
//! ```text
//! build     RAM, VM, vCPUs, GIC -> iommufd objects, devices bound and attached -> functions, PCI, vSMMUs -> boot image
//! run       vCPU threads and the control loop, until the guest or somebody outside ends it
//! reset     vCPUs stopped -> devices, vSMMUs, GIC, vCPUs reset -> boot image loaded again
//! shutdown  vCPUs stopped -> functions quiet -> streams, vSMMUs, devices, stage 2, IOAS
//! ```

#[cfg(target_arch = "aarch64")]
mod assigned;
#[cfg(target_arch = "aarch64")]
mod boot;
#[cfg(target_arch = "aarch64")]
mod error;
#[cfg(any(test, target_arch = "aarch64"))]
mod features;
#[cfg(target_arch = "aarch64")]
mod interrupts;
#[cfg(target_arch = "aarch64")]
mod life;
#[cfg(target_arch = "aarch64")]
mod pci;
#[cfg(target_arch = "aarch64")]
mod platform;
#[cfg(target_arch = "aarch64")]
#[allow(unsafe_code)] // KVM maps host memory by its address
mod slots;
pub mod tables;
#[cfg(target_arch = "aarch64")]
mod upstream;

#[cfg(target_arch = "aarch64")]
pub use error::Error;
#[cfg(target_arch = "aarch64")]
pub use life::Machine;
