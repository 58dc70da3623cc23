//! What KVM gives: the VM with its RAM, vCPUs, interrupt controller, and the ways to raise interrupts.
#![forbid(unsafe_code)]

use std::sync::Arc;

use kvm_ioctls::{Kvm, VcpuFd, VmFd};
use nestling_arch::boot::Entry;
use nestling_arch::gic::{Gic, GicConfig};
use nestling_arch::interrupt::routes::MsiRoutes;
use nestling_arch::interrupt::{MsiSender, SpiLine};
use nestling_arch::vcpu::{self, Features, VcpuSetup};
use nestling_arch::vm;
use nestling_devices::interrupt::{InterruptLine, MsiRouter, MsiTarget};
use nestling_devices::mapping::GuestMapper;

use super::error::Error;
use super::interrupts::{Line, Messages, Routes};
use super::slots::KvmSlots;
use crate::memory::GuestRam;
use crate::plan::Plan;

/// The VM and all that KVM models of it.
pub struct Platform {
    vm: Arc<VmFd>,
    setup: VcpuSetup,
    gic: Gic,
    its: u64,
    /// Where memory is mapped into the guest.
    pub slots: Arc<dyn GuestMapper>,
}

impl Platform {
    /// Makes the VM of `plan`, with `ram` in it, and its vCPUs, in the order that KVM asks for.
    pub fn new(plan: &Plan, ram: &GuestRam) -> Result<(Self, Vec<VcpuFd>), Error> {
        let kvm = Kvm::new().map_err(Error::Kvm)?;
        let vm = Arc::new(vm::create(&kvm, plan.ipa_bits)?);
        let slots = Arc::new(KvmSlots::new(vm.clone()));
        slots.map(ram.window().base, Arc::new(ram.host_memory()))?;

        let setup = VcpuSetup::new(&vm, Features::available(&vm))?;
        let vcpus = (0..plan.cpus).map(|index| setup.create(&vm, index)).collect::<Result<Vec<_>, _>>()?;
        let config = GicConfig {
            distributor: plan.gic.distributor.base,
            redistributors: plan.gic.redistributors.base,
            its: plan.gic.its.base,
            interrupts: plan.gic.interrupts,
            cpus: plan.cpus,
        };
        let gic = Gic::new(&vm, config)?;
        for (index, vcpu) in (0..).zip(&vcpus) {
            setup.finish(vcpu, index)?;
        }
        Ok((Self { vm, setup, gic, its: plan.gic.its.base, slots }, vcpus))
    }

    /// Whether the vCPUs have performance counters.
    pub fn has_pmu(&self) -> bool {
        self.setup.features().pmu
    }

    /// The wired interrupt `gsiv`.
    pub fn line(&self, gsiv: u32) -> Result<Arc<dyn InterruptLine>, Error> {
        let line = SpiLine::new(self.vm.clone(), gsiv).ok_or(Error::Interrupt(gsiv))?;
        Ok(Arc::new(Line(line)))
    }

    /// The way of emulated functions' messages.
    pub fn messages(&self) -> Arc<dyn MsiTarget> {
        Arc::new(Messages(MsiSender::new(self.vm.clone(), self.its)))
    }

    /// The way of passed-through functions' messages. There may be one for each VM only.
    pub fn routes(&self) -> Arc<dyn MsiRouter> {
        Arc::new(Routes(MsiRoutes::new(self.vm.clone(), self.its)))
    }

    /// Makes the first vCPU start at `entry`.
    pub fn enter(&self, vcpus: &[VcpuFd], entry: &Entry) -> Result<(), Error> {
        vcpus.first().map_or(Ok(()), |first| vcpu::enter(first, entry)).map_err(Error::Vcpu)
    }

    /// Puts vCPUs and interrupt controller back to power-on. No vCPU runs, and the devices are reset.
    pub fn reset(&self, vcpus: &mut [VcpuFd]) -> Result<(), Error> {
        for (index, vcpu) in (0..).zip(vcpus) {
            self.setup.reset(vcpu, index)?;
        }
        Ok(self.gic.reset()?)
    }
}
