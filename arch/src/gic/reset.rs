//! Puts the interrupt controller back to its state at power-on, for a reboot in place.
//!
//! KVM resets its GIC only when it makes it (arch/arm64/kvm/vgic/vgic-init.c, `vgic_init`), and neither vCPU nor VM
//! has a reset that covers it. What a new kernel cannot live with is left-over LPI state: it finds
//! GICR_CTLR.EnableLPIs set, cannot tell where the old pending tables are, and gives up its LPIs ("Booted with LPIs
//! enabled, memory probably corrupted", drivers/irqchip/irq-gic-v3-its.c). So the ITS is reset as a whole and every
//! register of the GIC is written, as a restored migration would do it.
#![forbid(unsafe_code)]

use kvm_bindings::{
    KVM_DEV_ARM_ITS_CTRL_RESET, KVM_DEV_ARM_VGIC_GRP_CPU_SYSREGS, KVM_DEV_ARM_VGIC_GRP_CTRL,
    KVM_DEV_ARM_VGIC_GRP_DIST_REGS, KVM_DEV_ARM_VGIC_GRP_REDIST_REGS, KVM_DEV_ARM_VGIC_V3_MPIDR_SHIFT,
};

use super::{Gic, GicError};
use crate::cpu::mpidr;

// Distributor and redistributor registers (Arm IHI 0069, 12.8 to 12.11). Those from `IGROUPR` to `IPRIORITYR` are at
// the same offset in GICD (SPIs) and in the SGI_base frame of each GICR (SGIs and PPIs).
const CTLR: u32 = 0x0000;
const IGROUPR: u32 = 0x0080;
const ICENABLER: u32 = 0x0180;
const ISPENDR: u32 = 0x0200;
const ICACTIVER: u32 = 0x0380;
const IPRIORITYR: u32 = 0x0400;
const GICD_ICFGR: u32 = 0x0c00;
const GICD_CTLR_NASSGIREQ: u32 = 1 << 8;
const GICD_IROUTER: u32 = 0x6000;
const GICR_PROPBASER: u32 = 0x0070;
const GICR_PENDBASER: u32 = 0x0078;
const GICR_SGI_BASE: u32 = 0x1_0000;

/// Registers of one bit for each interrupt, and what resets all 32: group 1 as KVM starts, not enabled, not active.
/// Written from here ISPENDR is the state itself and no set-bit register (arm-vgic-v3.rst), so 0 ends all.
const BITMAPS: [(u32, u32); 4] = [(ICENABLER, !0), (ICACTIVER, !0), (ISPENDR, 0), (IGROUPR, !0)];

/// CPU interface registers that reset to 0: (CRn, CRm, op2), op0 is 3 and op1 is 0.
const CPU_INTERFACE: [(u64, u64, u64); 7] = [
    (12, 12, 6), // ICC_IGRPEN0_EL1
    (12, 12, 7), // ICC_IGRPEN1_EL1
    (4, 6, 0),   // ICC_PMR_EL1
    (12, 8, 3),  // ICC_BPR0_EL1
    (12, 12, 3), // ICC_BPR1_EL1
    (12, 8, 4),  // ICC_AP0R0_EL1
    (12, 9, 0),  // ICC_AP1R0_EL1
];
const ICC_CTLR: (u64, u64, u64) = (12, 12, 4);
/// ICC_CTLR_EL1.CBPR and .EOImode: all that software can change.
const ICC_CTLR_WRITABLE: u64 = 0b11;

impl Gic {
    /// Resets GIC and ITS. No vCPU is in KVM_RUN (else EBUSY); devices are reset, and their interrupt routes
    /// disconnected, before. The level of a wired line stays: it belongs to its device.
    pub fn reset(&self) -> Result<(), GicError> {
        // Whether SGIs are injected by hardware (GICv4.1) stays: KVM switches only when the guest writes the bit.
        let ctlr = self.gic.get(KVM_DEV_ARM_VGIC_GRP_DIST_REGS, CTLR.into(), "read GICD_CTLR")?;
        self.distributor(CTLR, ctlr as u32 & GICD_CTLR_NASSGIREQ)?;
        for cpu in 0..self.config.cpus {
            // Ends the LPIs that are pending there.
            self.redistributor(cpu, CTLR, 0)?;
        }
        self.its.command(KVM_DEV_ARM_VGIC_GRP_CTRL, KVM_DEV_ARM_ITS_CTRL_RESET, "reset it")?;
        for cpu in 0..self.config.cpus {
            self.reset_redistributor(cpu)?;
            self.reset_cpu_interface(cpu)?;
        }
        self.reset_distributor()
    }

    /// SPIs: back to level, priority 0, routed to the first vCPU.
    fn reset_distributor(&self) -> Result<(), GicError> {
        for intid in (32..self.config.interrupts).step_by(32) {
            for (register, value) in BITMAPS {
                self.distributor(register + intid / 8, value)?;
            }
            for offset in (0..32).step_by(4) {
                self.distributor(IPRIORITYR + intid + offset, 0)?;
            }
            for offset in [0, 4] {
                self.distributor(GICD_ICFGR + intid / 4 + offset, 0)?;
            }
        }
        for intid in 32..self.config.interrupts {
            self.distributor(GICD_IROUTER + intid * 8, 0)?;
        }
        Ok(())
    }

    /// SGIs and PPIs, and the tables of LPIs (KVM takes them only while LPIs are off).
    fn reset_redistributor(&self, cpu: u16) -> Result<(), GicError> {
        for register in [GICR_PROPBASER, GICR_PROPBASER + 4, GICR_PENDBASER, GICR_PENDBASER + 4] {
            self.redistributor(cpu, register, 0)?;
        }
        for (register, value) in BITMAPS {
            self.redistributor(cpu, GICR_SGI_BASE + register, value)?;
        }
        // KVM's SGIs are always edges and its PPIs levels: no ICFGR.
        (0..32).step_by(4).try_for_each(|offset| self.redistributor(cpu, GICR_SGI_BASE + IPRIORITYR + offset, 0))
    }

    fn reset_cpu_interface(&self, cpu: u16) -> Result<(), GicError> {
        let group = KVM_DEV_ARM_VGIC_GRP_CPU_SYSREGS;
        // Numbers of bits are in it and must stay: KVM compares them with the host's.
        let ctlr = self.gic.get(group, sysreg(cpu, ICC_CTLR), "read ICC_CTLR_EL1")?;
        self.gic.set_u64(group, sysreg(cpu, ICC_CTLR), ctlr & !ICC_CTLR_WRITABLE, "reset ICC_CTLR_EL1")?;
        for register in CPU_INTERFACE {
            self.gic.set_u64(group, sysreg(cpu, register), 0, "reset a CPU interface")?;
        }
        // ICC_AP0R<1..3>_EL1 and ICC_AP1R<1..3>_EL1 exist with more than 5 priority bits.
        for n in 1..4 {
            for register in [(12, 8, 4 + n), (12, 9, n)] {
                if self.gic.set_u64(group, sysreg(cpu, register), 0, "reset active priorities").is_err() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn distributor(&self, offset: u32, value: u32) -> Result<(), GicError> {
        self.gic.set_u32(KVM_DEV_ARM_VGIC_GRP_DIST_REGS, offset, value, "reset its distributor")
    }

    fn redistributor(&self, cpu: u16, offset: u32, value: u32) -> Result<(), GicError> {
        let register = affinity(cpu) | u64::from(offset);
        self.gic.set_u32(KVM_DEV_ARM_VGIC_GRP_REDIST_REGS, register, value, "reset a redistributor")
    }
}

/// The vCPU that an attribute is for. Aff3 is always 0, so that MPIDR_EL1 needs no repacking.
const fn affinity(cpu: u16) -> u64 {
    mpidr(cpu) << KVM_DEV_ARM_VGIC_V3_MPIDR_SHIFT
}

/// A CPU interface register as the attribute group counts it (op0 3, op1 0).
const fn sysreg(cpu: u16, (crn, crm, op2): (u64, u64, u64)) -> u64 {
    affinity(cpu) | 3 << 14 | crn << 7 | crm << 3 | op2
}
