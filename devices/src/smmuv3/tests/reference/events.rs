//! The reference's event queue, global errors and messages (IHI 0070, sections 3.18 and 7.2 to 7.5).

use super::commands::Ring;
use super::places::GITS_TRANSLATER;
use super::registers::{EVENTQ_BASE, EVENTQ_CONS, EVENTQ_IRQ_CFG0, EVENTQ_PROD, GERROR, GERROR_IRQ_CFG0, IRQ_CTRL};
use super::{Entry, Reference, keep};
use crate::smmuv3::physical::{EventWords, HostEvent};

const OVERFLOW: u32 = 1 << 31;

impl Reference {
    pub(super) fn event_ring(&self) -> Ring {
        Ring::new(self.read64(EVENTQ_BASE), self.idr1(20, 16), 32)
    }

    /// All that the host has goes to the guest, with one interrupt.
    pub(super) fn poll(&mut self) -> bool {
        if self.troubles.deaf {
            return false;
        }
        let mut news = false;
        for event in std::mem::take(&mut self.pending) {
            news |= match event {
                HostEvent::Record(record) => self.write_record(record),
                HostEvent::Lost(count) => {
                    self.lost += u64::from(count);
                    self.writable() && self.overflow()
                }
            };
        }
        if news {
            self.event_interrupt();
        }
        true
    }

    /// A record of the vSMMU itself.
    pub(super) fn record(&mut self, record: EventWords) {
        if self.write_record(record) {
            self.event_interrupt();
        }
    }

    /// Apart from a full queue (section 7.2.1).
    fn writable(&self) -> bool {
        self.eventqen() && self.active_errors() & (1 << 2) == 0
    }

    /// Returns whether the guest has something new to see.
    fn write_record(&mut self, record: EventWords) -> bool {
        if !self.writable() {
            self.lost += 1;
            return false;
        }
        let ring = self.event_ring();
        let producer = self.read(EVENTQ_PROD) & 0xf_ffff;
        if ring.used(producer, self.read(EVENTQ_CONS) & 0xf_ffff) >= ring.size {
            self.lost += 1;
            return self.overflow();
        }
        let bytes: Vec<u8> = record.iter().flat_map(|word| word.to_le_bytes()).collect();
        if !self.write_memory(ring.address(producer), &bytes) {
            self.lost += 1;
            self.global_error(1 << 2);
            return false;
        }
        self.set(EVENTQ_PROD, self.read(EVENTQ_PROD) & OVERFLOW | ring.next(producer));
        self.events += 1;
        true
    }

    fn overflow(&mut self) -> bool {
        let (producer, consumer) = (self.read(EVENTQ_PROD), self.read(EVENTQ_CONS));
        let pending = (producer ^ consumer) & OVERFLOW != 0;
        if !pending {
            self.set(EVENTQ_PROD, producer ^ OVERFLOW);
        }
        !pending
    }

    fn event_interrupt(&mut self) {
        if self.read(IRQ_CTRL) & 4 == 0 {
            return;
        }
        let address = keep(self.read64(EVENTQ_IRQ_CFG0), 51, 2);
        if address == 0 {
            self.event_edges += 1;
        } else if !self.message(address, self.read(EVENTQ_IRQ_CFG0 + 8)) {
            self.global_error(1 << 5);
        }
    }

    /// Makes errors active; tells of those that were not.
    pub(super) fn global_error(&mut self, errors: u32) {
        let new = errors & !self.active_errors();
        self.set(GERROR, self.read(GERROR) ^ new);
        if new == 0 || self.read(IRQ_CTRL) & 1 == 0 {
            return;
        }
        match keep(self.read64(GERROR_IRQ_CFG0), 51, 2) {
            0 => self.log.push(Entry::Gerror),
            address => {
                if !self.message(address, self.read(GERROR_IRQ_CFG0 + 8)) {
                    let new = (1 << 7) & !self.active_errors();
                    self.set(GERROR, self.read(GERROR) ^ new);
                }
            }
        }
    }

    /// Returns whether somebody is at the address.
    pub(super) fn message(&mut self, address: u64, data: u32) -> bool {
        if address == GITS_TRANSLATER {
            self.log.push(Entry::Message(data));
            return true;
        }
        self.write_memory(address, &data.to_le_bytes())
    }

    fn write_memory(&mut self, address: u64, bytes: &[u8]) -> bool {
        let ring = self.command_ring();
        let end = ring.base + ring.entry * u64::from(ring.size);
        self.uncertain |= self.cmdqen() && address < end && address + bytes.len() as u64 > ring.base;
        self.memory.write(address, bytes)
    }
}
