//! Event records to the guest (IHI 0070, sections 7.2 to 7.4).
//!
//! A record is discarded while the queue is disabled, full or (7.2.1) has an access abort that the guest has not
//! acknowledged. Only the full queue shows it, as an overflow. What the host has lost shows as an overflow too: the
//! architecture has no other word for it, though its queue would have been full first (7.4).

use vm_memory::{Bytes, GuestAddress};

use super::model::{Smmuv3, State};
use super::physical::{EventWords, HostEvent};
use super::spec::event::{EVENT_SIZE, EventHead};
use super::spec::registers::Gerror;

impl Smmuv3 {
    /// Moves pending host events to the guest's queue; one interrupt for all of them. Returns whether more can come.
    pub(super) fn forward_events(&self, state: &mut State) -> bool {
        let mut news = false;
        let drained = self.physical.drain_events(&mut |event| {
            news |= match event {
                HostEvent::Record(record) => self.write_event(state, record),
                HostEvent::Lost(count) => {
                    state.stats.lost_events += u64::from(count);
                    state.registers.takes_events() && set_overflow(state)
                }
            }
        });
        if news {
            self.event_interrupt(state);
        }
        drained.unwrap_or_else(|error| {
            self.complain(state, format_args!("events of the host cannot be read, the guest gets no more: {error}"));
            false
        })
    }

    /// Records an event of the model's own.
    pub(super) fn record_event(&self, state: &mut State, record: EventWords) {
        if self.write_event(state, record) {
            self.event_interrupt(state);
        }
    }

    /// Returns whether the guest has something new to see.
    fn write_event(&self, state: &mut State, record: EventWords) -> bool {
        let head = EventHead::from_bits(record[0]);
        let queue = state.registers.event_queue();
        let producer = state.registers.eventq_prod.index();
        if !state.registers.takes_events() {
            lose(state, head);
            return false;
        }
        if queue.is_full(producer, state.registers.eventq_cons.index()) {
            lose(state, head);
            return set_overflow(state);
        }
        let mut bytes = [0; EVENT_SIZE as usize];
        for (bytes, word) in bytes.as_chunks_mut::<8>().0.iter_mut().zip(record) {
            *bytes = word.to_le_bytes();
        }
        let address = queue.address(producer, EVENT_SIZE);
        if self.memory.write_slice(&bytes, GuestAddress(address)).is_err() {
            lose(state, head);
            self.complain(state, format_args!("event queue entry at {address:#x} is not in memory"));
            self.global_error(state, Gerror::new().with_eventq_abt_err(true));
            return false;
        }
        // The index tells of the record, so it comes after it (section 3.5.2); nobody reads it while the lock is held.
        state.registers.eventq_prod.set_index(queue.advance(producer, 1));
        state.stats.events.count(head.event());
        if let Some(counters) = state.stream_stats.get_mut(&head.stream_id()) {
            counters.events.count(head.event());
        }
        true
    }
}

/// Counts a record that the guest does not get. Every stream with a device has counters since it was configured.
fn lose(state: &mut State, head: EventHead) {
    state.stats.lost_events += 1;
    if let Some(counters) = state.stream_stats.get_mut(&head.stream_id()) {
        counters.lost_events += 1;
    }
}

/// Shows that records were lost; nothing changes while the guest has not acknowledged the last time (section 7.4).
fn set_overflow(state: &mut State) -> bool {
    let acknowledged = state.registers.eventq_cons.overflow();
    if state.registers.eventq_prod.overflow() != acknowledged {
        return false;
    }
    state.registers.eventq_prod.set_overflow(!acknowledged);
    true
}
