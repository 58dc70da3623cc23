//! How the vSMMU tells the guest: wired edges, or messages to memory or to the ITS (IHI 0070, section 3.18).

use std::sync::Arc;
use std::sync::atomic::Ordering;

use vm_memory::{Bytes, GuestAddress};

use super::model::{Smmuv3, State};
use super::spec::command::Sync;
use super::spec::registers::Gerror;
use crate::interrupt::{InterruptLine, MsiTarget};

/// The interrupts of one vSMMU: edge-triggered lines, used for whatever the guest has not given a message.
#[derive(Clone)]
pub struct Interrupts {
    /// The event queue has records.
    pub event: Arc<dyn InterruptLine>,
    /// A global error became active.
    pub gerror: Arc<dyn InterruptLine>,
    /// A CMD_SYNC completed.
    pub sync: Arc<dyn InterruptLine>,
    /// Where messages to the ITS go; without it such a message aborts.
    pub its: Option<ItsDoorbell>,
}

/// The way of the vSMMU's own messages to the guest's ITS.
#[derive(Clone)]
pub struct ItsDoorbell {
    /// Guest physical address of GITS_TRANSLATER.
    pub address: u64,
    /// The DeviceID of the vSMMU, as its IORT node maps it (`id_mapping_index`).
    pub device_id: u32,
    /// Sends them.
    pub target: Arc<dyn MsiTarget>,
}

impl Smmuv3 {
    /// Makes global errors active and tells the guest.
    pub(super) fn global_error(&self, state: &mut State, errors: Gerror) {
        state.stats.errors.eventq_abt += u64::from(errors.eventq_abt_err());
        state.stats.errors.msi_abt += u64::from(errors.msi_cmdq_abt_err() || errors.msi_eventq_abt_err());
        let new = state.registers.activate(errors);
        if !new || !state.registers.irq_ctrl.gerror_irqen() {
            return;
        }
        let message = state.registers.gerror_message;
        match message.target() {
            0 => self.interrupts.gerror.pulse(),
            address => {
                if !self.send_message(address, message.data) {
                    // Not by another message: it would go the same way (section 7.5.1).
                    state.stats.errors.msi_abt += 1;
                    state.registers.activate(Gerror::new().with_msi_gerror_abt_err(true));
                }
            }
        }
    }

    /// Tells the guest that its event queue has something to read.
    pub(super) fn event_interrupt(&self, state: &mut State) {
        if !state.registers.irq_ctrl.eventq_irqen() {
            return;
        }
        let message = state.registers.eventq_message;
        match message.target() {
            0 => self.interrupts.event.pulse(),
            address => {
                if !self.send_message(address, message.data) {
                    self.global_error(state, Gerror::new().with_msi_eventq_abt_err(true));
                }
            }
        }
    }

    /// Signals the completion of a CMD_SYNC with CS = IRQ.
    pub(super) fn sync_interrupt(&self, state: &mut State, sync: Sync) {
        let address = if state.registers.features().idr0.msi() { sync.msi_address() << 2 } else { 0 };
        match address {
            0 => self.interrupts.sync.pulse(),
            address => {
                let address = address & state.registers.address_mask();
                if !self.send_message(address, sync.msi_data()) {
                    self.global_error(state, Gerror::new().with_msi_cmdq_abt_err(true));
                }
            }
        }
    }

    /// A write of 32 bits to memory or to the doorbell of the ITS; `false` if neither is there.
    fn send_message(&self, address: u64, data: u32) -> bool {
        if let Some(its) = self.interrupts.its.as_ref().filter(|its| its.address == address) {
            its.target.send(its.device_id, data);
            return true;
        }
        // Release: a guest that sees the message sees all that came before it.
        self.memory.store(data.to_le(), GuestAddress(address), Ordering::Release).is_ok()
    }
}
