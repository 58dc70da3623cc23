//! How vCPUs are numbered.
#![forbid(unsafe_code)]

/// MPIDR_EL1 affinity fields (Aff3..Aff0, without the RES1 bit 31) of vCPU `index`, as KVM gives them: 16 vCPUs in a
/// cluster, so that one ICC_SGI1R_EL1 target list reaches each (arch/arm64/kvm/sys_regs.c, `reset_mpidr`).
///
/// This is the value for MADT GICC entries; `vcpu` checks that KVM agrees.
pub const fn mpidr(index: u16) -> u64 {
    let index = index as u64;
    (index & 0xf) | ((index >> 4) & 0xff) << 8 | ((index >> 12) & 0xff) << 16
}

#[cfg(test)]
mod tests {
    use super::mpidr;

    #[test]
    fn sixteen_vcpus_make_a_cluster() {
        assert_eq!(mpidr(0), 0);
        assert_eq!(mpidr(15), 0xf);
        assert_eq!(mpidr(16), 0x100);
        assert_eq!(mpidr(511), 0x1f0f);
        assert_eq!(mpidr(4096), 0x1_0000);
    }
}
