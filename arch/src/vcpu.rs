//! vCPUs: features, initial registers, reset.
//!
//! The order that KVM asks for: [`VcpuSetup::create`] for every vCPU, then [`crate::gic::Gic::new`], then
//! [`VcpuSetup::finish`] for every vCPU, then [`enter`] for the first one; PSCI CPU_ON starts the others.
#![forbid(unsafe_code)]

use kvm_bindings::{
    KVM_ARM_VCPU_PMU_V3, KVM_ARM_VCPU_PMU_V3_CTRL, KVM_ARM_VCPU_PMU_V3_INIT, KVM_ARM_VCPU_PMU_V3_IRQ,
    KVM_ARM_VCPU_POWER_OFF, KVM_ARM_VCPU_PSCI_0_2, KVM_ARM_VCPU_PTRAUTH_ADDRESS, KVM_ARM_VCPU_PTRAUTH_GENERIC,
    KVM_ARM_VCPU_SVE, KVM_REG_ARM_CORE, KVM_REG_ARM64, KVM_REG_ARM64_SYSREG, KVM_REG_SIZE_U64, kvm_device_attr,
    kvm_vcpu_events, kvm_vcpu_init,
};
use kvm_ioctls::{Cap, VcpuFd, VmFd};

use crate::boot::Entry;
use crate::cpu::mpidr;
use crate::layout::PMU_INTID;

/// Index of `user_pt_regs` members in 32-bit words, as KVM_REG_ARM_CORE counts (arch/arm64/include/uapi/asm/kvm.h).
const CORE_X0: u64 = 0;
const CORE_PC: u64 = 64;
const CORE_PSTATE: u64 = 66;
/// PSTATE at the kernel's entry: EL1h, all of DAIF masked (Documentation/arch/arm64/booting.rst).
const PSTATE_BOOT: u64 = 0x3c5;
/// MPIDR_EL1: op0 3, op1 0, CRn 0, CRm 0, op2 5.
const SYSREG_MPIDR_EL1: u64 = 3 << 14 | 5;
/// Aff3, Aff2, Aff1 and Aff0 of MPIDR_EL1.
const MPIDR_AFFINITY: u64 = 0xff_00ff_ffff;

/// What can go wrong with a vCPU.
#[derive(Debug, thiserror::Error)]
pub enum VcpuError {
    /// KVM_ARM_PREFERRED_TARGET failed.
    #[error("KVM names no vCPU type for this host")]
    Target(#[source] kvm_ioctls::Error),
    /// KVM_CREATE_VCPU failed.
    #[error("vCPU {index}: KVM cannot create it")]
    Create {
        /// Which vCPU.
        index: u16,
        /// KVM's reason.
        #[source]
        source: kvm_ioctls::Error,
    },
    /// A step of its initialisation failed.
    #[error("vCPU {index}: KVM refuses to {step}")]
    Init {
        /// Which vCPU.
        index: u16,
        /// What was tried.
        step: &'static str,
        /// KVM's reason.
        #[source]
        source: kvm_ioctls::Error,
    },
    /// KVM numbers vCPUs in another way than the ACPI tables say.
    #[error("vCPU {index}: KVM gives it MPIDR {found:#x} and not {expected:#x}: the guest's tables would be wrong")]
    Mpidr {
        /// Which vCPU.
        index: u16,
        /// Affinity fields that KVM reports.
        found: u64,
        /// Affinity fields that [`mpidr`] gives.
        expected: u64,
    },
}

/// Optional features, the same for all vCPUs of a VM.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Features {
    /// Performance counters (PMUv3), interrupt on PPI [`PMU_INTID`].
    pub pmu: bool,
    /// Scalable vectors, of all lengths that the host has.
    pub sve: bool,
    /// Pointer authentication, address and generic.
    pub pauth: bool,
}

impl Features {
    /// All that this host gives.
    pub fn available(vm: &VmFd) -> Self {
        Self {
            pmu: vm.check_extension(Cap::ArmPmuV3),
            sve: vm.check_extension(Cap::ArmSve),
            // KVM takes both or none.
            pauth: vm.check_extension(Cap::ArmPtrAuthAddress) && vm.check_extension(Cap::ArmPtrAuthGeneric),
        }
    }
}

/// How the vCPUs of one VM are made and reset.
#[derive(Clone, Copy, Debug)]
pub struct VcpuSetup {
    init: kvm_vcpu_init,
    features: Features,
}

impl VcpuSetup {
    /// vCPUs of the host's own type with `features`, which should be from [`Features::available`].
    pub fn new(vm: &VmFd, features: Features) -> Result<Self, VcpuError> {
        let mut init = kvm_vcpu_init::default();
        vm.get_preferred_target(&mut init).map_err(VcpuError::Target)?;
        let wanted = [
            (KVM_ARM_VCPU_PSCI_0_2, true),
            (KVM_ARM_VCPU_PMU_V3, features.pmu),
            (KVM_ARM_VCPU_SVE, features.sve),
            (KVM_ARM_VCPU_PTRAUTH_ADDRESS, features.pauth),
            (KVM_ARM_VCPU_PTRAUTH_GENERIC, features.pauth),
        ];
        for (feature, _) in wanted.into_iter().filter(|(_, on)| *on) {
            init.features[0] |= 1 << feature;
        }
        Ok(Self { init, features })
    }

    /// What the vCPUs have.
    pub fn features(&self) -> Features {
        self.features
    }

    /// Makes vCPU `index`. All of them come before the GIC.
    pub fn create(&self, vm: &VmFd, index: u16) -> Result<VcpuFd, VcpuError> {
        let vcpu = vm.create_vcpu(index.into()).map_err(|source| VcpuError::Create { index, source })?;
        vcpu.vcpu_init(&self.init_of(index)).map_err(failed(index, "initialise it"))?;
        if self.features.sve {
            let feature = KVM_ARM_VCPU_SVE as i32;
            vcpu.vcpu_finalize(&feature).map_err(failed(index, "finalise its vector lengths"))?;
        }
        let found = read_mpidr(&vcpu, index)? & MPIDR_AFFINITY;
        let expected = mpidr(index);
        if found != expected {
            return Err(VcpuError::Mpidr { index, found, expected });
        }
        Ok(vcpu)
    }

    /// Does what needs the GIC to be there: the PMU with its interrupt.
    pub fn finish(&self, vcpu: &VcpuFd, index: u16) -> Result<(), VcpuError> {
        if !self.features.pmu {
            return Ok(());
        }
        let intid = PMU_INTID;
        let mut attribute = kvm_device_attr {
            group: KVM_ARM_VCPU_PMU_V3_CTRL,
            attr: KVM_ARM_VCPU_PMU_V3_IRQ.into(),
            addr: &raw const intid as u64,
            flags: 0,
        };
        vcpu.set_device_attr(&attribute).map_err(failed(index, "set the interrupt of its PMU"))?;
        attribute.attr = KVM_ARM_VCPU_PMU_V3_INIT.into();
        attribute.addr = 0;
        vcpu.set_device_attr(&attribute).map_err(failed(index, "initialise its PMU"))
    }

    /// Puts a vCPU that has run back to its state after [`create`](Self::create), for a reboot in place. The caller
    /// owns the vCPU: it is not in KVM_RUN. The first one then needs [`enter`] again.
    pub fn reset(&self, vcpu: &mut VcpuFd, index: u16) -> Result<(), VcpuError> {
        // KVM completes the load of the last MMIO exit at the next KVM_RUN, in a register that is then new. Let it
        // do so now; `immediate_exit` makes it return (EINTR) before it enters the guest.
        vcpu.set_kvm_immediate_exit(1);
        let drained = vcpu.run().map(|_| ());
        vcpu.set_kvm_immediate_exit(0);
        match drained {
            Err(error) if error.errno() != libc::EINTR => return Err(failed(index, "leave the guest")(error)),
            _ => {}
        }
        vcpu.vcpu_init(&self.init_of(index)).map_err(failed(index, "reset it"))
    }

    /// The first vCPU runs at once, PSCI starts the others.
    fn init_of(&self, index: u16) -> kvm_vcpu_init {
        let mut init = self.init;
        if index != 0 {
            init.features[0] |= 1 << KVM_ARM_VCPU_POWER_OFF;
        }
        init
    }
}

/// Makes the first vCPU start at the kernel's entry, as Documentation/arch/arm64/booting.rst asks.
pub fn enter(vcpu: &VcpuFd, entry: &Entry) -> Result<(), VcpuError> {
    for (register, value) in [(CORE_PSTATE, PSTATE_BOOT), (CORE_PC, entry.pc), (CORE_X0, entry.x0)] {
        let id = KVM_REG_ARM64 | KVM_REG_SIZE_U64 | u64::from(KVM_REG_ARM_CORE) | register;
        vcpu.set_one_reg(id, &value.to_le_bytes()).map_err(failed(0, "set its first registers"))?;
    }
    Ok(())
}

/// Answers the access that `vcpu` left KVM_RUN for with a synchronous external abort, as a bus does where nobody
/// answers (ESR_EL1.DFSC 0b010000; FAR_EL1 has the address). For accesses that cannot be emulated:
/// [`crate::exit::UndecodedAccess`].
pub fn abort_access(vcpu: &VcpuFd) -> Result<(), kvm_ioctls::Error> {
    let mut events = kvm_vcpu_events::default();
    events.exception.ext_dabt_pending = 1;
    vcpu.set_vcpu_events(&events)
}

/// The program counter, for diagnostics.
pub fn program_counter(vcpu: &VcpuFd, index: u16) -> Result<u64, VcpuError> {
    let id = KVM_REG_ARM64 | KVM_REG_SIZE_U64 | u64::from(KVM_REG_ARM_CORE) | CORE_PC;
    read(vcpu, id).map_err(failed(index, "read its program counter"))
}

fn read_mpidr(vcpu: &VcpuFd, index: u16) -> Result<u64, VcpuError> {
    let id = KVM_REG_ARM64 | KVM_REG_SIZE_U64 | u64::from(KVM_REG_ARM64_SYSREG) | SYSREG_MPIDR_EL1;
    read(vcpu, id).map_err(failed(index, "read its MPIDR_EL1"))
}

fn read(vcpu: &VcpuFd, id: u64) -> Result<u64, kvm_ioctls::Error> {
    let mut value = [0; 8];
    vcpu.get_one_reg(id, &mut value)?;
    Ok(u64::from_le_bytes(value))
}

fn failed(index: u16, step: &'static str) -> impl Fn(kvm_ioctls::Error) -> VcpuError {
    move |source| VcpuError::Init { index, step, source }
}
