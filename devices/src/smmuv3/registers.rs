//! The register file: what a guest reads, which of its writes count, and what they set going
//! (IHI 0070, section 6.3).
//!
//! All registers are kept as 32-bit words to the outside; an access of 8 bytes is one to each half, low half first.

use super::capabilities::Features;
use super::queue::Queue;
use super::spec::command::COMMAND_SIZE;
use super::spec::event::EVENT_SIZE;
use super::spec::registers::{self as spec, *};

/// What a write set going.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Effect {
    /// Commands may be waiting.
    pub(super) commands: bool,
    /// SMMUEN or, without it, GBPA changed: every stream has another configuration.
    pub(super) translation: bool,
    /// The command queue was disabled: what it had to tell is forgotten.
    pub(super) stopped: bool,
    /// The architecture does not allow the write at this moment; it had no effect.
    pub(super) ignored: bool,
}

impl Effect {
    const NONE: Self = Self { commands: false, translation: false, stopped: false, ignored: false };
    const COMMANDS: Self = Self { commands: true, ..Self::NONE };
    const IGNORED: Self = Self { ignored: true, ..Self::NONE };
}

/// SMMU_*_IRQ_CFG0 to CFG2: where an interrupt goes as a message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct MessageConfig {
    pub(super) address: u64,
    pub(super) data: u32,
    attributes: u32,
}

impl MessageConfig {
    /// Guest physical address of the message; 0 means that the wired interrupt is used.
    pub(super) fn target(&self) -> u64 {
        IrqCfg0::from_bits(self.address).addr() << 2
    }

    /// Writes the half of CFG0 to CFG2 that lies `part` bytes behind the start of CFG0. They count only while the
    /// interrupt is disabled (section 6.3.21).
    fn write(&mut self, part: u64, value: u32, enabled: bool, address_mask: u64) -> Effect {
        if enabled {
            return Effect::IGNORED;
        }
        match part {
            0 | 4 => {
                let written = replace_half(self.address, part, value) & address_mask;
                self.address = IrqCfg0::new().with_addr(IrqCfg0::from_bits(written).addr()).into_bits();
            }
            8 => self.data = value,
            _ => self.attributes = value & 0x3f,
        }
        Effect::NONE
    }
}

/// All state that a guest sees in registers.
#[derive(Clone, Debug)]
pub(super) struct Registers {
    features: Features,
    /// Bits of an address that OAS leaves; the others are RES0 and not stored (section 3.4.3).
    address_mask: u64,
    pub(super) cr0: Cr0,
    cr1: Cr1,
    pub(super) cr2: Cr2,
    pub(super) gbpa: Gbpa,
    pub(super) irq_ctrl: IrqCtrl,
    gerror: Gerror,
    gerrorn: Gerror,
    pub(super) gerror_message: MessageConfig,
    pub(super) strtab_base: StrtabBase,
    pub(super) strtab_base_cfg: StrtabBaseCfg,
    cmdq_base: QueueBase,
    pub(super) cmdq_prod: u32,
    pub(super) cmdq_cons: CmdqCons,
    eventq_base: QueueBase,
    pub(super) eventq_prod: EventqPointer,
    pub(super) eventq_cons: EventqPointer,
    pub(super) eventq_message: MessageConfig,
}

/// Bits of an index register that hold index and wrap bit.
const INDEX_MASK: u32 = 0xf_ffff;

impl Registers {
    /// The state after a reset: everything off, transactions bypass.
    pub(super) fn new(features: Features) -> Self {
        Self {
            features,
            address_mask: features.address_mask(),
            cr0: Cr0::new(),
            cr1: Cr1::new(),
            cr2: Cr2::new(),
            gbpa: Gbpa::new(),
            irq_ctrl: IrqCtrl::new(),
            gerror: Gerror::new(),
            gerrorn: Gerror::new(),
            gerror_message: MessageConfig::default(),
            strtab_base: StrtabBase::new(),
            strtab_base_cfg: StrtabBaseCfg::new(),
            cmdq_base: QueueBase::new(),
            cmdq_prod: 0,
            cmdq_cons: CmdqCons::new(),
            eventq_base: QueueBase::new(),
            eventq_prod: EventqPointer::new(),
            eventq_cons: EventqPointer::new(),
            eventq_message: MessageConfig::default(),
        }
    }

    pub(super) fn features(&self) -> &Features {
        &self.features
    }

    /// The command queue as its base register describes it.
    pub(super) fn command_queue(&self) -> Queue {
        Queue::new(self.cmdq_base, self.features.idr1.cmdqs(), COMMAND_SIZE)
    }

    /// The event queue as its base register describes it.
    pub(super) fn event_queue(&self) -> Queue {
        Queue::new(self.eventq_base, self.features.idr1.eventqs(), EVENT_SIZE)
    }

    /// Whether commands are taken: the queue is enabled and no error waits for its acknowledgement (section 7.1).
    pub(super) fn takes_commands(&self) -> bool {
        self.cr0.cmdqen() && !self.active_errors().cmdq_err()
    }

    /// Global errors that the guest has not acknowledged (section 7.5).
    pub(super) fn active_errors(&self) -> Gerror {
        Gerror::from_bits(self.gerror.into_bits() ^ self.gerrorn.into_bits())
    }

    /// Makes `errors` active. Returns whether one of them was not active before, which is what an interrupt tells.
    pub(super) fn activate(&mut self, errors: Gerror) -> bool {
        let new = errors.into_bits() & !self.active_errors().into_bits();
        self.gerror = Gerror::from_bits(self.gerror.into_bits() ^ new);
        new != 0
    }

    /// Whether event records can be written (section 7.2.1), apart from a full queue.
    pub(super) fn takes_events(&self) -> bool {
        self.cr0.eventqen() && !self.active_errors().eventq_abt_err()
    }

    /// Bits of an address that the output address size leaves.
    pub(super) fn address_mask(&self) -> u64 {
        self.address_mask
    }

    /// SMMUv3.2, or less if the host does not have what that version requires (section 2.5).
    fn aidr(&self) -> u32 {
        if self.features.idr3.ril() && self.features.idr3.bbml() > 0 { AIDR_SMMU_V3_2 } else { AIDR_SMMU_V3_1 }
    }

    /// The 32 bits at `offset`. Reserved registers read as zero.
    pub(super) fn read(&self, offset: u64) -> u32 {
        match offset {
            IDR0 => self.features.idr0.into_bits(),
            IDR1 => self.features.idr1.into_bits(),
            IDR3 => self.features.idr3.into_bits(),
            IDR5 => self.features.idr5.into_bits(),
            AIDR => self.aidr(),
            // Every change takes effect within the write, so that the acknowledgement is there at once.
            CR0 | CR0ACK => self.cr0.into_bits(),
            CR1 => self.cr1.into_bits(),
            CR2 => self.cr2.into_bits(),
            spec::GBPA => self.gbpa.into_bits(),
            IRQ_CTRL | IRQ_CTRLACK => self.irq_ctrl.into_bits(),
            GERROR => self.gerror.into_bits(),
            GERRORN => self.gerrorn.into_bits(),
            GERROR_IRQ_CFG0 => low(self.gerror_message.address),
            GERROR_IRQ_CFG0_HIGH => high(self.gerror_message.address),
            GERROR_IRQ_CFG1 => self.gerror_message.data,
            GERROR_IRQ_CFG2 => self.gerror_message.attributes,
            STRTAB_BASE => low(self.strtab_base.into_bits()),
            STRTAB_BASE_HIGH => high(self.strtab_base.into_bits()),
            STRTAB_BASE_CFG => self.strtab_base_cfg.into_bits(),
            CMDQ_BASE => low(self.cmdq_base.into_bits()),
            CMDQ_BASE_HIGH => high(self.cmdq_base.into_bits()),
            CMDQ_PROD => self.cmdq_prod,
            CMDQ_CONS => self.cmdq_cons.into_bits(),
            EVENTQ_BASE => low(self.eventq_base.into_bits()),
            EVENTQ_BASE_HIGH => high(self.eventq_base.into_bits()),
            EVENTQ_PROD | EVENTQ_PROD_ALIAS => self.eventq_prod.into_bits(),
            EVENTQ_CONS | EVENTQ_CONS_ALIAS => self.eventq_cons.into_bits(),
            EVENTQ_IRQ_CFG0 => low(self.eventq_message.address),
            EVENTQ_IRQ_CFG0_HIGH => high(self.eventq_message.address),
            EVENTQ_IRQ_CFG1 => self.eventq_message.data,
            EVENTQ_IRQ_CFG2 => self.eventq_message.attributes,
            CIDR0..0x1000 => CIDR[((offset - CIDR0) / 4) as usize & 3],
            _ => 0,
        }
    }

    /// Takes a write of 32 bits. Reserved and read-only registers ignore it.
    pub(super) fn write(&mut self, offset: u64, value: u32) -> Effect {
        match offset {
            CR0 => return self.write_cr0(Cr0::from_bits(value)),
            CR1 => return self.write_cr1(Cr1::from_bits(value)),
            CR2 => {
                if self.cr0.smmuen() {
                    return Effect::IGNORED;
                }
                // E2H is RES0 without IDR0.HYP, PTM without IDR0.BTM.
                self.cr2 = Cr2::new().with_recinvsid(Cr2::from_bits(value).recinvsid());
            }
            spec::GBPA => return self.write_gbpa(Gbpa::from_bits(value)),
            IRQ_CTRL => {
                let written = IrqCtrl::from_bits(value);
                self.irq_ctrl =
                    IrqCtrl::new().with_gerror_irqen(written.gerror_irqen()).with_eventq_irqen(written.eventq_irqen());
            }
            GERRORN => return self.write_gerrorn(value),
            // Without IDR0.MSI these registers are RES0.
            GERROR_IRQ_CFG0..=GERROR_IRQ_CFG2 | EVENTQ_IRQ_CFG0..=EVENTQ_IRQ_CFG2 if !self.features.idr0.msi() => {}
            GERROR_IRQ_CFG0 | GERROR_IRQ_CFG0_HIGH | GERROR_IRQ_CFG1 | GERROR_IRQ_CFG2 => {
                let (part, enabled) = (offset - GERROR_IRQ_CFG0, self.irq_ctrl.gerror_irqen());
                return self.gerror_message.write(part, value, enabled, self.address_mask);
            }
            EVENTQ_IRQ_CFG0 | EVENTQ_IRQ_CFG0_HIGH | EVENTQ_IRQ_CFG1 | EVENTQ_IRQ_CFG2 => {
                let (part, enabled) = (offset - EVENTQ_IRQ_CFG0, self.irq_ctrl.eventq_irqen());
                return self.eventq_message.write(part, value, enabled, self.address_mask);
            }
            STRTAB_BASE | STRTAB_BASE_HIGH | STRTAB_BASE_CFG => return self.write_strtab(offset, value),
            CMDQ_BASE | CMDQ_BASE_HIGH | CMDQ_CONS if self.cr0.cmdqen() => return Effect::IGNORED,
            CMDQ_BASE | CMDQ_BASE_HIGH => {
                self.cmdq_base = self.queue_base(self.cmdq_base, offset, value);
                self.truncate_indices();
            }
            CMDQ_CONS => {
                let written = CmdqCons::from_bits(value);
                self.cmdq_cons = CmdqCons::new().with_rd(written.rd()).with_err(written.err());
                self.truncate_indices();
            }
            CMDQ_PROD => {
                self.cmdq_prod = value & INDEX_MASK;
                return Effect::COMMANDS;
            }
            EVENTQ_BASE | EVENTQ_BASE_HIGH | EVENTQ_PROD | EVENTQ_PROD_ALIAS if self.cr0.eventqen() => {
                return Effect::IGNORED;
            }
            EVENTQ_BASE | EVENTQ_BASE_HIGH => {
                self.eventq_base = self.queue_base(self.eventq_base, offset, value);
                self.truncate_indices();
            }
            EVENTQ_PROD | EVENTQ_PROD_ALIAS => {
                self.eventq_prod = res0_pointer(value);
                self.truncate_indices();
            }
            EVENTQ_CONS | EVENTQ_CONS_ALIAS => self.eventq_cons = res0_pointer(value),
            _ => {}
        }
        Effect::NONE
    }

    fn write_cr0(&mut self, written: Cr0) -> Effect {
        let before = self.cr0;
        // PRIQEN is RES0 without IDR0.PRI, VMW without IDR0.VMW.
        self.cr0 = Cr0::new()
            .with_smmuen(written.smmuen())
            .with_eventqen(written.eventqen())
            .with_cmdqen(written.cmdqen())
            .with_atschk(written.atschk() && self.features.idr0.ats());
        Effect {
            commands: !before.cmdqen() && written.cmdqen(),
            translation: before.smmuen() != written.smmuen(),
            stopped: before.cmdqen() && !written.cmdqen(),
            ignored: false,
        }
    }

    /// TABLE_* may change while SMMUEN is 0, QUEUE_* while no queue is enabled (section 6.3.11).
    fn write_cr1(&mut self, written: Cr1) -> Effect {
        let table = if self.cr0.smmuen() { self.cr1.table() } else { written.table() };
        let queues = self.cr0.cmdqen() || self.cr0.eventqen();
        let queue = if queues { self.cr1.queue() } else { written.queue() };
        self.cr1 = Cr1::new().with_table(table).with_queue(queue);
        let ignored = table != written.table() || queue != written.queue();
        Effect { ignored, ..Effect::NONE }
    }

    /// Only a write with UPDATE counts; UPDATE reads as 0 again at once (section 6.3.14). The attribute overrides are
    /// RES0 without IDR1.ATTR_TYPES_OVR and ATTR_PERMS_OVR.
    fn write_gbpa(&mut self, written: Gbpa) -> Effect {
        if !written.update() {
            return Effect::IGNORED;
        }
        let changed = self.gbpa.abort() != written.abort();
        self.gbpa = Gbpa::new().with_abort(written.abort());
        Effect { translation: changed && !self.cr0.smmuen(), ..Effect::NONE }
    }

    /// Reads as it was written (section 6.3.20): who toggles an inactive error makes it active.
    fn write_gerrorn(&mut self, value: u32) -> Effect {
        let stopped = self.active_errors().cmdq_err();
        let written = Gerror::from_bits(value);
        let msi = self.features.idr0.msi();
        // The other errors do not occur without IDR0.PRI and IDR1.ECMDQ and are reserved.
        self.gerrorn = Gerror::new()
            .with_cmdq_err(written.cmdq_err())
            .with_eventq_abt_err(written.eventq_abt_err())
            .with_msi_cmdq_abt_err(msi && written.msi_cmdq_abt_err())
            .with_msi_eventq_abt_err(msi && written.msi_eventq_abt_err())
            .with_msi_gerror_abt_err(msi && written.msi_gerror_abt_err())
            .with_sfm_err(written.sfm_err());
        if stopped && !self.active_errors().cmdq_err() {
            self.cmdq_cons.set_err(CmdqError::None as u8);
            return Effect::COMMANDS;
        }
        Effect::NONE
    }

    /// The indices that the SMMU writes have no bits above the wrap bit; a smaller queue truncates them (sections 6.3.28
    /// and 6.3.55).
    fn truncate_indices(&mut self) {
        self.cmdq_cons.set_rd(self.command_queue().advance(self.cmdq_cons.rd(), 0));
        self.eventq_prod.set_index(self.event_queue().advance(self.eventq_prod.index(), 0));
    }

    /// A queue's base register with one half written.
    fn queue_base(&self, register: QueueBase, offset: u64, value: u32) -> QueueBase {
        let written = QueueBase::from_bits(replace_half(register.into_bits(), offset, value));
        let addr = written.addr() & (self.address_mask >> 5);
        QueueBase::new().with_log2size(written.log2size()).with_addr(addr).with_allocate(written.allocate())
    }

    fn write_strtab(&mut self, offset: u64, value: u32) -> Effect {
        if self.cr0.smmuen() {
            return Effect::IGNORED;
        }
        if offset == STRTAB_BASE_CFG {
            let written = StrtabBaseCfg::from_bits(value);
            self.strtab_base_cfg = StrtabBaseCfg::new().with_log2size(written.log2size());
            // SPLIT and FMT are RES0 without 2-level tables.
            if self.features.idr0.st_level() != 0 {
                self.strtab_base_cfg.set_split(written.split());
                self.strtab_base_cfg.set_fmt(written.fmt());
            }
        } else {
            let bits = replace_half(self.strtab_base.into_bits(), offset, value);
            let written = StrtabBase::from_bits(bits);
            let addr = written.addr() & (self.address_mask >> 6);
            self.strtab_base = StrtabBase::new().with_addr(addr).with_ra(written.ra());
        }
        Effect::NONE
    }
}

const GERROR_IRQ_CFG0_HIGH: u64 = GERROR_IRQ_CFG0 + 4;
const STRTAB_BASE_HIGH: u64 = STRTAB_BASE + 4;
const CMDQ_BASE_HIGH: u64 = CMDQ_BASE + 4;
const EVENTQ_BASE_HIGH: u64 = EVENTQ_BASE + 4;
const EVENTQ_IRQ_CFG0_HIGH: u64 = EVENTQ_IRQ_CFG0 + 4;

fn res0_pointer(value: u32) -> EventqPointer {
    let written = EventqPointer::from_bits(value);
    EventqPointer::new().with_index(written.index()).with_overflow(written.overflow())
}

fn low(value: u64) -> u32 {
    value as u32
}

fn high(value: u64) -> u32 {
    (value >> 32) as u32
}

/// Replaces the half of a 64-bit register that lies at `offset`.
fn replace_half(register: u64, offset: u64, value: u32) -> u64 {
    if offset & 4 == 0 {
        register & !0xffff_ffff | u64::from(value)
    } else {
        register & 0xffff_ffff | u64::from(value) << 32
    }
}
