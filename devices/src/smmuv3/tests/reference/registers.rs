//! The reference's registers (IHI 0070, section 6.3): what can be written, when, and what follows.

use super::{Reference, keep};

pub const CR0: u64 = 0x20;
pub const CR1: u64 = 0x28;
pub const CR2: u64 = 0x2c;
pub const GBPA: u64 = 0x44;
pub const IRQ_CTRL: u64 = 0x50;
pub const GERROR: u64 = 0x60;
pub const GERRORN: u64 = 0x64;
pub const GERROR_IRQ_CFG0: u64 = 0x68;
pub const STRTAB_BASE: u64 = 0x80;
pub const STRTAB_BASE_CFG: u64 = 0x88;
pub const CMDQ_BASE: u64 = 0x90;
pub const CMDQ_PROD: u64 = 0x98;
pub const CMDQ_CONS: u64 = 0x9c;
pub const EVENTQ_BASE: u64 = 0xa0;
pub const EVENTQ_PROD: u64 = 0x1_00a8;
pub const EVENTQ_CONS: u64 = 0x1_00ac;
pub const EVENTQ_IRQ_CFG0: u64 = 0xb0;

/// Every register that the reference knows, by the offset under which it keeps it; CR0ACK and IRQ_CTRLACK follow
/// their registers.
pub const KNOWN: [u64; 30] = [
    CR0,
    0x24,
    CR1,
    CR2,
    GBPA,
    IRQ_CTRL,
    0x54,
    GERROR,
    GERRORN,
    GERROR_IRQ_CFG0,
    GERROR_IRQ_CFG0 + 4,
    GERROR_IRQ_CFG0 + 8,
    GERROR_IRQ_CFG0 + 12,
    STRTAB_BASE,
    STRTAB_BASE + 4,
    STRTAB_BASE_CFG,
    CMDQ_BASE,
    CMDQ_BASE + 4,
    CMDQ_PROD,
    CMDQ_CONS,
    EVENTQ_BASE,
    EVENTQ_BASE + 4,
    0xa8,
    0xac,
    EVENTQ_IRQ_CFG0,
    EVENTQ_IRQ_CFG0 + 4,
    EVENTQ_IRQ_CFG0 + 8,
    EVENTQ_IRQ_CFG0 + 12,
    EVENTQ_PROD,
    EVENTQ_CONS,
];

/// GERROR.CMDQ_ERR.
pub const CMDQ_ERR: u32 = 1;

impl Reference {
    /// What the guest reads.
    pub(super) fn read(&self, offset: u64) -> u32 {
        let at = match offset {
            0x24 => CR0,
            0x54 => IRQ_CTRL,
            0xa8 => EVENTQ_PROD,
            0xac => EVENTQ_CONS,
            other => other,
        };
        self.words.get(&at).copied().unwrap_or(0)
    }

    /// A register of 64 bits.
    pub(super) fn read64(&self, offset: u64) -> u64 {
        u64::from(self.read(offset)) | u64::from(self.read(offset + 4)) << 32
    }

    pub(super) fn set(&mut self, offset: u64, value: u32) {
        self.words.insert(offset, value);
    }

    pub(super) fn smmuen(&self) -> bool {
        self.read(CR0) & 1 != 0
    }

    pub(super) fn eventqen(&self) -> bool {
        self.read(CR0) & 4 != 0
    }

    pub(super) fn cmdqen(&self) -> bool {
        self.read(CR0) & 8 != 0
    }

    /// Errors that wait for their acknowledgement.
    pub(super) fn active_errors(&self) -> u32 {
        self.read(GERROR) ^ self.read(GERRORN)
    }

    /// An access of the guest. What is not aligned, not of 4 or 8 bytes or outside of the pages does nothing.
    pub(super) fn write(&mut self, offset: u64, data: &[u8]) {
        let length = data.len() as u64;
        if !matches!(length, 4 | 8) || !offset.is_multiple_of(length) || offset >= 0x2_0000 {
            return;
        }
        for (word, at) in data.chunks(4).zip((offset..).step_by(4)) {
            self.write_word(at, u32::from_le_bytes(word.try_into().expect("four bytes")));
        }
    }

    fn write_word(&mut self, offset: u64, value: u32) {
        // Bits high..=low of the value; as part of a 64-bit register if it is the upper half of one.
        let mask = |high, low| keep(value.into(), high, low) as u32;
        let upper = |high, low| (keep(u64::from(value) << 32, high, low) >> 32) as u32;
        let oas = self.oas();
        let queues = self.cmdqen() || self.eventqen();
        let (gerror_irqen, eventq_irqen) = (self.read(IRQ_CTRL) & 1 != 0, self.read(IRQ_CTRL) & 4 != 0);
        match offset {
            CR0 => self.write_cr0(value),
            CR1 => {
                let table = if self.smmuen() { self.read(CR1) } else { value };
                let queue = if queues { self.read(CR1) } else { value };
                self.set(CR1, keep(table.into(), 11, 6) as u32 | keep(queue.into(), 5, 0) as u32);
            }
            CR2 if !self.smmuen() => self.set(CR2, mask(1, 1)),
            GBPA if value >> 31 != 0 => {
                let changed = (self.read(GBPA) ^ value) >> 20 & 1 != 0;
                self.set(GBPA, mask(20, 20));
                if changed && !self.smmuen() {
                    self.configure_all();
                }
            }
            IRQ_CTRL => self.set(IRQ_CTRL, value & 0b101),
            GERRORN => {
                let stopped = self.active_errors() & CMDQ_ERR != 0;
                self.set(GERRORN, mask(0, 0) | mask(2, 2) | mask(5, 4) | mask(8, 7));
                if stopped && self.active_errors() & CMDQ_ERR == 0 {
                    self.set(CMDQ_CONS, self.read(CMDQ_CONS) & 0xf_ffff);
                    self.consume();
                }
            }
            0x68 if !gerror_irqen => self.set(offset, mask(31, 2)),
            0x6c if !gerror_irqen => self.set(offset, upper(oas - 1, 32)),
            0x70 if !gerror_irqen => self.set(offset, value),
            0x74 if !gerror_irqen => self.set(offset, mask(5, 0)),
            0xb0 if !eventq_irqen => self.set(offset, mask(31, 2)),
            0xb4 if !eventq_irqen => self.set(offset, upper(oas - 1, 32)),
            0xb8 if !eventq_irqen => self.set(offset, value),
            0xbc if !eventq_irqen => self.set(offset, mask(5, 0)),
            0x80 if !self.smmuen() => self.set(offset, mask(31, 6)),
            0x84 if !self.smmuen() => self.set(offset, upper(oas - 1, 32) | upper(62, 62)),
            STRTAB_BASE_CFG if !self.smmuen() => {
                let two_levels = if self.idr0(28, 27) != 0 { mask(10, 6) | mask(17, 16) } else { 0 };
                self.set(offset, mask(5, 0) | two_levels);
            }
            0x90 if !self.cmdqen() => self.set(offset, mask(31, 5) | mask(4, 0)),
            0x94 if !self.cmdqen() => self.set(offset, upper(oas - 1, 32) | upper(62, 62)),
            CMDQ_PROD => {
                self.set(offset, mask(19, 0));
                self.consume();
            }
            CMDQ_CONS if !self.cmdqen() => self.set(offset, mask(19, 0) | mask(30, 24)),
            0xa0 if !self.eventqen() => self.set(offset, mask(31, 5) | mask(4, 0)),
            0xa4 if !self.eventqen() => self.set(offset, upper(oas - 1, 32) | upper(62, 62)),
            0xa8 | EVENTQ_PROD if !self.eventqen() => self.set(EVENTQ_PROD, mask(19, 0) | mask(31, 31)),
            0xac | EVENTQ_CONS => self.set(EVENTQ_CONS, mask(19, 0) | mask(31, 31)),
            _ => {}
        }
        // The SMMU's own indices have no bits above the wrap bit.
        if matches!(offset, 0x90 | 0x94 | CMDQ_CONS | 0xa0 | 0xa4 | 0xa8 | EVENTQ_PROD) {
            for (index, size) in [(CMDQ_CONS, self.command_ring().size), (EVENTQ_PROD, self.event_ring().size)] {
                let value = self.read(index);
                self.set(index, value & !0xf_ffff | ((value & 0xf_ffff) % (2 * size)));
            }
        }
    }

    fn write_cr0(&mut self, value: u32) {
        let before = self.read(CR0);
        let ats = self.idr0(10, 10) as u32;
        self.set(CR0, value & (0b1101 | ats << 4));
        if before & !value & 8 != 0 {
            self.atc_timeout = false;
        }
        if (before ^ value) & 1 != 0 {
            self.configure_all();
        }
        self.consume();
    }
}
