//! What KVM_RUN says in exits that kvm-ioctls does not decode.
#![allow(unsafe_code)] // `kvm_run` keeps the fields of its exits in a union

use kvm_bindings::KVM_EXIT_ARM_NISV;
use kvm_ioctls::VcpuFd;

/// KVM_EXIT_ARM_LDST64B (include/uapi/linux/kvm.h), newer than kvm-bindings 0.14: a load or store of 64 bytes, which
/// KVM lets a guest try where the host has FEAT_LS64.
const KVM_EXIT_ARM_LDST64B: u32 = 42;

/// A load or store outside memory that is not emulated: ESR_EL2 does not say of which register or size (its ISV is 0),
/// or it moves 64 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UndecodedAccess {
    /// Its guest physical address.
    pub address: u64,
    /// ESR_EL2.ISS, as far as KVM lets it through.
    pub syndrome: u64,
}

impl UndecodedAccess {
    /// The access that `vcpu` left KVM_RUN for, if it was one.
    pub fn of(vcpu: &mut VcpuFd) -> Option<Self> {
        let run = vcpu.get_kvm_run();
        if ![KVM_EXIT_ARM_NISV, KVM_EXIT_ARM_LDST64B].contains(&run.exit_reason) {
            return None;
        }
        // SAFETY: both exit reasons say that KVM filled in this member (kernel: arch/arm64/kvm/mmio.c); it is two
        // integers, for which every value is valid.
        let access = unsafe { run.__bindgen_anon_1.arm_nisv };
        Some(Self { address: access.fault_ipa, syndrome: access.esr_iss })
    }
}
