//! The VM object: how wide its guest physical addresses can be, and what KVM hands over instead of giving up.
#![forbid(unsafe_code)]

use kvm_bindings::{KVM_CAP_ARM_NISV_TO_USER, kvm_enable_cap};
use kvm_ioctls::{Kvm, VmFd};

/// What can be wrong with the VM itself.
#[derive(Debug, thiserror::Error)]
pub enum VmError {
    /// The guest physical layout is wider than KVM's stage 2.
    #[error(
        "the guest needs {needed} bits of physical address and this host's KVM gives {limit}: \
         give it less memory or devices with smaller BARs"
    )]
    AddressesTooWide {
        /// Bits that the layout needs.
        needed: u8,
        /// Bits that KVM gives.
        limit: u8,
    },
    /// KVM_CREATE_VM failed.
    #[error("KVM cannot create a VM with {bits} bits of physical address")]
    Create {
        /// Bits asked for.
        bits: u8,
        /// Its reason.
        #[source]
        source: kvm_ioctls::Error,
    },
    /// KVM_ENABLE_CAP of KVM_CAP_ARM_NISV_TO_USER failed.
    #[error("KVM hands over no accesses without a syndrome, so a guest could end its VM: nestling needs Linux 5.5")]
    Undecoded(#[source] kvm_ioctls::Error),
}

/// Width of guest physical addresses in bits that a host without KVM_CAP_ARM_VM_IPA_SIZE gives.
const DEFAULT_IPA_BITS: u8 = 40;

/// The widest guest physical address that this host's KVM gives, in bits (KVM_CAP_ARM_VM_IPA_SIZE).
pub fn ipa_limit(kvm: &Kvm) -> u8 {
    match u8::try_from(kvm.get_host_ipa_limit()) {
        Ok(0) | Err(_) => DEFAULT_IPA_BITS,
        Ok(bits) => bits,
    }
}

/// Makes a VM whose guest physical addresses have `ipa_bits` bits, 32 or more.
///
/// A load or store outside memory that ESR_EL2 does not describe (LDP, SIMD, write-back) comes out of KVM_RUN as
/// KVM_EXIT_ARM_NISV, for [`crate::vcpu::abort_access`]; without this KVM_RUN would fail with ENOSYS.
pub fn create(kvm: &Kvm, ipa_bits: u8) -> Result<VmFd, VmError> {
    let limit = ipa_limit(kvm);
    if ipa_bits > limit {
        return Err(VmError::AddressesTooWide { needed: ipa_bits, limit });
    }
    let vm = kvm
        .create_vm_with_ipa_size(u32::from(ipa_bits))
        .map_err(|source| VmError::Create { bits: ipa_bits, source })?;
    let undecoded = kvm_enable_cap { cap: KVM_CAP_ARM_NISV_TO_USER, ..Default::default() };
    vm.enable_cap(&undecoded).map_err(VmError::Undecoded)?;
    Ok(vm)
}
