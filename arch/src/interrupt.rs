//! Interrupts that emulated devices raise in KVM's GIC: wired lines and messages to the ITS.
//!
//! The shapes fit `nestling_devices::interrupt::{InterruptLine, MsiTarget}`; routes of passed-through functions are in
//! [`routes`].
#![forbid(unsafe_code)]

pub mod routes;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use kvm_bindings::{KVM_MSI_VALID_DEVID, kvm_msi};
use kvm_ioctls::VmFd;

use crate::layout::GITS_TRANSLATER;

/// `KVM_ARM_IRQ_TYPE_SPI << KVM_ARM_IRQ_TYPE_SHIFT` (arch/arm64/include/uapi/asm/kvm.h).
const KVM_ARM_IRQ_SPI: u32 = 1 << 24;
/// INTIDs of SPIs.
const SPI_INTIDS: std::ops::Range<u32> = 32..1020;

/// A wired input of the GIC: one SPI.
#[derive(Clone, Debug)]
pub struct SpiLine {
    vm: Arc<VmFd>,
    irq: u32,
    failures: Failures,
}

impl SpiLine {
    /// The line of `intid`, 32 to 1019; `None` for another kind of interrupt.
    pub fn new(vm: Arc<VmFd>, intid: u32) -> Option<Self> {
        SPI_INTIDS.contains(&intid).then(|| Self { vm, irq: KVM_ARM_IRQ_SPI | intid, failures: Failures::default() })
    }

    /// Drives the line (KVM_IRQ_LINE). Whether the guest sees an edge or a level is its ICFGR's choice.
    pub fn set_level(&self, high: bool) {
        if let Err(error) = self.vm.set_irq_line(self.irq, high) {
            self.failures.report(|| format!("SPI {}: {error}", self.irq & !KVM_ARM_IRQ_SPI));
        }
    }
}

/// The way of an emulated function's messages to KVM's ITS.
#[derive(Clone, Debug)]
pub struct MsiSender {
    vm: Arc<VmFd>,
    doorbell: u64,
    failures: Failures,
}

impl MsiSender {
    /// To the ITS whose registers are at guest physical address `its`.
    pub fn new(vm: Arc<VmFd>, its: u64) -> Self {
        Self { vm, doorbell: doorbell(its), failures: Failures::default() }
    }

    /// Sends event `data` of the device `device_id` (KVM_SIGNAL_MSI). A message that the guest has not mapped is lost,
    /// as on hardware.
    pub fn send(&self, device_id: u32, data: u32) {
        let message = kvm_msi {
            address_lo: self.doorbell as u32,
            address_hi: (self.doorbell >> 32) as u32,
            data,
            flags: KVM_MSI_VALID_DEVID,
            devid: device_id,
            ..Default::default()
        };
        match self.vm.signal_msi(message) {
            Ok(0) => log::debug!("message {data:#x} of device {device_id:#x} is not mapped in the guest's ITS"),
            Ok(_) => {}
            Err(error) => {
                self.failures.report(|| format!("message {data:#x} of device {device_id:#x}: {error}"));
            }
        }
    }
}

/// Where KVM looks for the ITS of a message: guest physical GITS_TRANSLATER (arch/arm64/kvm/vgic/vgic-its.c,
/// `vgic_msi_to_its`). What the guest wrote in its MSI-X table is an IOVA and of no use here.
const fn doorbell(its: u64) -> u64 {
    its + GITS_TRANSLATER
}

/// Interrupts that KVM refused: counted, and logged at the 1st, 2nd, 4th, 8th, ... so that a guest cannot fill the log.
#[derive(Clone, Debug, Default)]
struct Failures(Arc<AtomicU64>);

impl Failures {
    fn report(&self, what: impl FnOnce() -> String) {
        let count = self.0.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
        if count.is_power_of_two() {
            log::warn!("KVM refused an interrupt ({count} so far): {}", what());
        }
    }
}
