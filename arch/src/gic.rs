//! KVM's GICv3 and its ITS: made in the order that KVM asks for, and reset for a reboot in place.
#![forbid(unsafe_code)]

mod reset;

use kvm_bindings::{
    KVM_DEV_ARM_VGIC_CTRL_INIT, KVM_DEV_ARM_VGIC_GRP_ADDR, KVM_DEV_ARM_VGIC_GRP_CTRL, KVM_DEV_ARM_VGIC_GRP_NR_IRQS,
    KVM_VGIC_ITS_ADDR_TYPE, KVM_VGIC_V3_ADDR_TYPE_DIST, KVM_VGIC_V3_ADDR_TYPE_REDIST_REGION, kvm_create_device,
    kvm_device_type_KVM_DEV_TYPE_ARM_VGIC_ITS, kvm_device_type_KVM_DEV_TYPE_ARM_VGIC_V3,
};
use kvm_ioctls::VmFd;

use crate::attributes::Attributes;

/// What can go wrong with the interrupt controller.
#[derive(Debug, thiserror::Error)]
pub enum GicError {
    /// KVM_CREATE_DEVICE failed.
    #[error("KVM cannot create a {device}: nestling needs a host with a GICv3 or later and an ITS")]
    Create {
        /// GICv3 or ITS.
        device: &'static str,
        /// KVM's reason.
        #[source]
        source: kvm_ioctls::Error,
    },
    /// KVM_SET_DEVICE_ATTR or KVM_GET_DEVICE_ATTR failed.
    #[error("{device}: KVM refuses to {step}")]
    Attribute {
        /// GICv3 or ITS.
        device: &'static str,
        /// What was tried.
        step: &'static str,
        /// KVM's reason; EBUSY says that a vCPU is still in KVM_RUN.
        #[source]
        source: kvm_ioctls::Error,
    },
}

/// Where the interrupt controller is and how large.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GicConfig {
    /// Guest physical address of GICD, 64 KiB aligned.
    pub distributor: u64,
    /// Guest physical address of the first GICR, 64 KiB aligned; the others follow, 128 KiB each.
    pub redistributors: u64,
    /// Guest physical address of the ITS, 64 KiB aligned.
    pub its: u64,
    /// Number of SGIs, PPIs and SPIs: a multiple of 32 from 64 to 992.
    pub interrupts: u32,
    /// Number of vCPUs; they all exist already.
    pub cpus: u16,
}

/// A GICv3 with one ITS. KVM ends both with the VM.
#[derive(Debug)]
pub struct Gic {
    gic: Attributes,
    its: Attributes,
    config: GicConfig,
}

impl Gic {
    /// Makes both, after the last vCPU. From then on KVM takes irqfds and messages.
    pub fn new(vm: &VmFd, config: GicConfig) -> Result<Self, GicError> {
        let gic = create(vm, "GICv3", kvm_device_type_KVM_DEV_TYPE_ARM_VGIC_V3)?;
        let address = KVM_DEV_ARM_VGIC_GRP_ADDR;
        gic.set_u32(KVM_DEV_ARM_VGIC_GRP_NR_IRQS, 0u32, config.interrupts, "set its number of interrupts")?;
        gic.set_u64(address, KVM_VGIC_V3_ADDR_TYPE_DIST, config.distributor, "place its distributor")?;
        // Bits 63 to 52: how many; 51 to 16: address; 11 to 0: number of the region.
        let region = u64::from(config.cpus) << 52 | config.redistributors;
        gic.set_u64(address, KVM_VGIC_V3_ADDR_TYPE_REDIST_REGION, region, "place its redistributors")?;
        gic.command(KVM_DEV_ARM_VGIC_GRP_CTRL, KVM_DEV_ARM_VGIC_CTRL_INIT, "initialise it")?;

        let its = create(vm, "ITS", kvm_device_type_KVM_DEV_TYPE_ARM_VGIC_ITS)?;
        its.set_u64(address, KVM_VGIC_ITS_ADDR_TYPE, config.its, "place it")?;
        its.command(KVM_DEV_ARM_VGIC_GRP_CTRL, KVM_DEV_ARM_VGIC_CTRL_INIT, "initialise it")?;
        Ok(Self { gic, its, config })
    }

    /// What it was made from.
    pub fn config(&self) -> &GicConfig {
        &self.config
    }
}

fn create(vm: &VmFd, device: &'static str, type_: u32) -> Result<Attributes, GicError> {
    let mut request = kvm_create_device { type_, fd: 0, flags: 0 };
    let fd = vm.create_device(&mut request).map_err(|source| GicError::Create { device, source })?;
    Ok(Attributes::new(fd, device))
}
