//! What KVM_RUN says in exits that kvm-ioctls does not decode.
#![allow(unsafe_code)] // `kvm_run` keeps the fields of its exits in a union

use kvm_bindings::KVM_EXIT_ARM_NISV;
use kvm_ioctls::VcpuFd;

/// A load or store outside memory of which ESR_EL2 says neither register nor size (ISV is 0).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UndecodedAccess {
    /// Its guest physical address.
    pub address: u64,
    /// ESR_EL2.ISS: CM, WnR and DFSC, which is all that KVM lets through.
    pub syndrome: u64,
}

impl UndecodedAccess {
    /// The access that `vcpu` left KVM_RUN for, if it was one.
    pub fn of(vcpu: &mut VcpuFd) -> Option<Self> {
        let run = vcpu.get_kvm_run();
        if run.exit_reason != KVM_EXIT_ARM_NISV {
            return None;
        }
        // SAFETY: the exit reason says that KVM filled in this member; it is two integers, for which every value is
        // valid.
        let access = unsafe { run.__bindgen_anon_1.arm_nisv };
        Some(Self { address: access.fault_ipa, syndrome: access.esr_iss })
    }
}
