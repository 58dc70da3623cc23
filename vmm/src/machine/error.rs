//! Why a machine cannot be built or run.
#![forbid(unsafe_code)]

use std::path::PathBuf;

use crate::{memory, run};

/// Why a machine cannot be built or run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A kernel or initrd file.
    #[error("{what} {}", .path.display())]
    Open {
        /// Kernel or initrd.
        what: &'static str,
        /// Its path.
        path: PathBuf,
        /// Why it cannot be opened.
        #[source]
        source: std::io::Error,
    },
    /// /dev/kvm.
    #[error("/dev/kvm cannot be used: load KVM and make sure that you may read and write it")]
    Kvm(#[source] kvm_ioctls::Error),
    /// The VM.
    #[error("virtual machine")]
    Vm(#[from] nestling_arch::vm::VmError),
    /// A vCPU.
    #[error(transparent)]
    Vcpu(#[from] nestling_arch::vcpu::VcpuError),
    /// The interrupt controller.
    #[error(transparent)]
    Gic(#[from] nestling_arch::gic::GicError),
    /// An interrupt number of the Plan.
    #[error("interrupt {0} of the plan is not an spi")]
    Interrupt(u32),
    /// Guest RAM.
    #[error(transparent)]
    Memory(#[from] memory::Error),
    /// A mapping into the guest.
    #[error(transparent)]
    Mapping(#[from] nestling_devices::mapping::Error),
    /// The MMIO bus.
    #[error(transparent)]
    Bus(#[from] nestling_devices::bus::Error),
    /// The PCI hierarchy.
    #[error(transparent)]
    Pci(#[from] nestling_devices::pci::Error),
    /// A root port.
    #[error(transparent)]
    RootPort(#[from] nestling_devices::pci::root_port::Error),
    /// iommufd.
    #[error(transparent)]
    Iommufd(#[from] nestling_iommufd::Error),
    /// VFIO on the iommufd.
    #[error("vfio devices cannot share this machine's iommufd")]
    Vfio(#[source] nestling_devices::vfio::Error),
    /// A device is still in use where it should be closed; the end of the process closes it.
    #[error("device {0} is still in use and stays open until nestling ends; please report it")]
    DeviceStaysOpen(String),
    /// Objects of iommufd are left; the end of the process destroys them.
    #[error("the kernel still holds {0} of this machine; the end of nestling destroys them; please report it")]
    ObjectsLeft(nestling_iommufd::LiveObjects),
    /// A vSMMU.
    #[error("{name}, which is host smmu {host}")]
    Smmu {
        /// Its name in the Plan.
        name: String,
        /// Its host SMMU.
        host: String,
        /// What went wrong.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// An assigned device.
    #[error("device {host}")]
    Device {
        /// Its host address.
        host: String,
        /// What went wrong.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The kernel cannot be loaded.
    #[error(transparent)]
    Boot(#[from] nestling_arch::boot::BootError),
    /// The control loop.
    #[error(transparent)]
    Control(#[from] run::ControlError),
    /// The vCPU threads.
    #[error(transparent)]
    Threads(#[from] run::VcpuError),
    /// An eventfd, a random number, ...
    #[error("{0}")]
    Host(&'static str, #[source] std::io::Error),
}
