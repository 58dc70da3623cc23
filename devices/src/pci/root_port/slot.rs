//! The hot-plug slot of a root port (PCIe 6.7.3): presence, power, link, and the interrupt for their changes.

#![forbid(unsafe_code)]

use super::super::config::ConfigSpace;
use super::super::spec::{INDICATOR_OFF, INDICATOR_ON, SlotControl, SlotStatus, express};

/// The registers of one slot, by the offset of its PCI Express capability.
pub(super) struct Slot {
    express: u16,
}

/// What was so before the guest wrote.
pub(super) struct Snapshot {
    power: bool,
    link_up: bool,
    interrupt: bool,
}

/// What a write of the guest led to.
pub(super) struct Outcome {
    /// The hot-plug interrupt is to be sent.
    pub interrupt: bool,
    /// The slot was switched off.
    pub power_lost: bool,
    /// The link went down: what is behind it is reset (2.9.1, 6.6.1).
    pub link_lost: bool,
}

impl Slot {
    pub fn new(express: u16) -> Self {
        Self { express }
    }

    /// The state after a reset of the machine: an occupied slot has power and its link is up, and no event is told.
    pub fn power_on(&self, config: &mut ConfigSpace, present: bool) {
        let (indicator, power) =
            if present { (INDICATOR_ON, 0) } else { (INDICATOR_OFF, SlotControl::POWER_OFF.bits()) };
        let control = INDICATOR_OFF << 6 | indicator << 8 | power;
        config.set_u16(self.express + express::SLOT_CONTROL, control);
        let status = if present { SlotStatus::PRESENT } else { SlotStatus::empty() };
        config.set_u16(self.express + express::SLOT_STATUS, status.bits());
        self.set_link(config, present);
    }

    /// The slot became occupied or empty; `true` if the interrupt is to be sent.
    ///
    /// With a card comes a press of the attention button, as if by whoever put it in: Linux listens to the button
    /// instead of to presence where there is one, and acts on both at once (drivers/pci/hotplug/pciehp_ctrl.c).
    pub fn set_present(&self, config: &mut ConfigSpace, present: bool) -> bool {
        let before = self.snapshot(config);
        let mut status = self.status(config);
        if status.contains(SlotStatus::PRESENT) == present {
            return false;
        }
        status.set(SlotStatus::PRESENT, present);
        status |= SlotStatus::PRESENCE_CHANGED;
        status.set(SlotStatus::ATTENTION_BUTTON, present || status.contains(SlotStatus::ATTENTION_BUTTON));
        self.set_status(config, status);
        self.follow(config, before).interrupt
    }

    /// `true` if the interrupt is to be sent.
    pub fn press_attention_button(&self, config: &mut ConfigSpace) -> bool {
        let before = self.snapshot(config);
        self.set_status(config, self.status(config) | SlotStatus::ATTENTION_BUTTON);
        self.follow(config, before).interrupt
    }

    pub fn is_link_up(&self, config: &ConfigSpace) -> bool {
        config.get_u16(self.express + express::LINK_STATUS) & express::LINK_ACTIVE != 0
    }

    pub fn snapshot(&self, config: &ConfigSpace) -> Snapshot {
        Snapshot {
            power: self.has_power(config),
            link_up: self.is_link_up(config),
            interrupt: self.wants_interrupt(config),
        }
    }

    /// Draws the conclusions from what changed since `before`: a link is up if the slot is occupied, has power and
    /// the link is not disabled, and the interrupt is an edge of "some enabled event is pending" (6.7.3.4).
    pub fn follow(&self, config: &mut ConfigSpace, before: Snapshot) -> Outcome {
        let power = self.has_power(config);
        let disabled = config.get_u16(self.express + express::LINK_CONTROL) & express::LINK_DISABLE != 0;
        let link_up = power && !disabled && self.status(config).contains(SlotStatus::PRESENT);
        if link_up != before.link_up {
            self.set_link(config, link_up);
            self.set_status(config, self.status(config) | SlotStatus::LINK_CHANGED);
        }
        Outcome {
            interrupt: self.wants_interrupt(config) && !before.interrupt,
            power_lost: before.power && !power,
            link_lost: before.link_up && !link_up,
        }
    }

    fn has_power(&self, config: &ConfigSpace) -> bool {
        !self.control(config).contains(SlotControl::POWER_OFF)
    }

    fn wants_interrupt(&self, config: &ConfigSpace) -> bool {
        let (control, status) = (self.control(config), self.status(config));
        let pending = [
            (SlotControl::ATTENTION_BUTTON, SlotStatus::ATTENTION_BUTTON),
            (SlotControl::PRESENCE, SlotStatus::PRESENCE_CHANGED),
            (SlotControl::LINK_STATE, SlotStatus::LINK_CHANGED),
        ];
        control.contains(SlotControl::HOT_PLUG_INTERRUPT)
            && pending.iter().any(|&(enable, event)| control.contains(enable) && status.contains(event))
    }

    fn control(&self, config: &ConfigSpace) -> SlotControl {
        SlotControl::from_bits_retain(config.get_u16(self.express + express::SLOT_CONTROL))
    }

    fn status(&self, config: &ConfigSpace) -> SlotStatus {
        SlotStatus::from_bits_retain(config.get_u16(self.express + express::SLOT_STATUS))
    }

    fn set_status(&self, config: &mut ConfigSpace, status: SlotStatus) {
        config.set_u16(self.express + express::SLOT_STATUS, status.bits());
    }

    fn set_link(&self, config: &mut ConfigSpace, up: bool) {
        let active = if up { express::LINK_ACTIVE } else { 0 };
        config.update_u16(self.express + express::LINK_STATUS, express::LINK_ACTIVE, active);
    }
}
