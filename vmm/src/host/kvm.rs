//! What KVM says of itself, before any VM is made.

use super::KvmLimits;

impl KvmLimits {
    /// Asks `/dev/kvm`. None if it cannot be opened (the Inventory says why), or if this is no arm64 host.
    #[cfg(target_arch = "aarch64")]
    pub fn query() -> Option<Self> {
        let kvm = kvm_ioctls::Kvm::new().ok()?;
        Some(Self {
            max_cpus: u16::try_from(kvm.get_max_vcpus()).unwrap_or(u16::MAX),
            ipa_bits: nestling_arch::vm::ipa_limit(&kvm),
        })
    }

    /// None: this is no arm64 host.
    #[cfg(not(target_arch = "aarch64"))]
    pub fn query() -> Option<Self> {
        None
    }
}
