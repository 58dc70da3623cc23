//! Sections 7.2 to 7.4: the event queue.

use super::*;
use crate::smmuv3::physical::HostEvent;

fn host_event(number: u64) -> [u64; 4] {
    [0x10 | u64::from(STREAMS[0]) << 32, number, 0x1000 * number, 0]
}

impl Guest {
    fn host_sends(&self, events: impl IntoIterator<Item = HostEvent>) {
        self.fake.lock().events.extend(events);
        self.smmu.events_ready();
    }

    fn overflow(&self) -> bool {
        (self.read(EVENTQ_PROD) ^ self.read(EVENTQ_CONS)) >> 31 != 0
    }
}

#[test]
fn an_interrupt_that_is_enabled_later_tells_nothing_of_before() {
    // Section 6.3.16: an occurrence before the source was enabled triggers none.
    let guest = Guest::running();
    guest.write(IRQ_CTRL, 0);
    guest.host_sends([HostEvent::Record(host_event(0))]);
    guest.write(IRQ_CTRL, 0b101);
    assert_eq!((guest.event.take(), guest.gerror.take()), (0, 0));
}

#[test]
fn host_events_arrive_in_order_with_one_interrupt() {
    let guest = Guest::running();
    guest.host_sends((0..5).map(|i| HostEvent::Record(host_event(i))));
    assert_eq!(guest.event.take(), 1);
    assert_eq!(guest.take_events(), (0..5).map(host_event).collect::<Vec<_>>());
    guest.smmu.events_ready();
    assert_eq!(guest.event.take(), 0, "nothing new");
    assert_eq!(guest.smmu.stats().events.total(), 5);
}

#[test]
fn the_queue_wraps_in_every_size() {
    let mut features = everything();
    features.idr1.set_eventqs(19);
    let mut guest = Guest::with_features(features);
    for log2size in 0..=12 {
        guest.use_event_queue(log2size);
        for round in 0..3 {
            let size = 1u64 << log2size;
            let events: Vec<_> = (0..size).map(|i| host_event(i + round * size)).collect();
            guest.host_sends(events.iter().map(|&event| HostEvent::Record(event)));
            assert_eq!(guest.take_events(), events, "LOG2SIZE {log2size}");
        }
    }
    assert_eq!(guest.smmu.stats().lost_events, 0);
}

#[test]
fn a_full_queue_shows_an_overflow_once_until_it_is_acknowledged() {
    let mut guest = Guest::running();
    guest.use_event_queue(2);
    guest.host_sends((0..4).map(|i| HostEvent::Record(host_event(i))));
    assert!(!guest.overflow(), "full, nothing lost");
    guest.host_sends((4..7).map(|i| HostEvent::Record(host_event(i))));
    assert!(guest.overflow());
    assert_eq!(guest.smmu.stats().lost_events, 3);
    guest.host_sends([HostEvent::Record(host_event(7))]);
    assert!(guest.overflow(), "toggling again would hide it");
    assert_eq!(guest.take_events(), (0..4).map(host_event).collect::<Vec<_>>());
    assert!(!guest.overflow(), "acknowledged");
    guest.host_sends((8..13).map(|i| HostEvent::Record(host_event(i))));
    assert!(guest.overflow(), "and again");
}

#[test]
fn events_that_the_host_lost_are_an_overflow_too() {
    let guest = Guest::running();
    guest.host_sends([HostEvent::Record(host_event(0)), HostEvent::Lost(7)]);
    assert!(guest.overflow());
    assert_eq!(guest.event.take(), 1);
    assert_eq!(guest.smmu.stats().lost_events, 7);
    assert_eq!(guest.take_events(), [host_event(0)]);
}

#[test]
fn a_queue_of_the_host_that_cannot_be_read_is_not_polled_any_more() {
    let guest = Guest::running();
    assert!(guest.smmu.events_ready());
    guest.fake.lock().fail_events = true;
    assert!(!guest.smmu.events_ready());
}

#[test]
fn a_disabled_queue_takes_nothing() {
    let guest = Guest::running();
    guest.write(CR0, 0b1001);
    guest.host_sends([HostEvent::Record(host_event(0)), HostEvent::Lost(1)]);
    assert_eq!((guest.read(EVENTQ_PROD), guest.event.take()), (0, 0));
    assert_eq!(guest.smmu.stats().lost_events, 2);
    assert_eq!(guest.errors().into_bits(), 0);
}

#[test]
fn a_queue_outside_of_memory_is_a_global_error() {
    let guest = Guest::running();
    guest.write(CR0, 0b1001);
    guest.write64(EVENTQ_BASE, NOWHERE | 4);
    guest.write(CR0, 0b1101);
    guest.host_sends([HostEvent::Record(host_event(0))]);
    assert_eq!(guest.errors(), Gerror::new().with_eventq_abt_err(true));
    assert_eq!((guest.read(EVENTQ_PROD), guest.event.take(), guest.gerror.take()), (0, 0, 1));
}

#[test]
fn nothing_is_recorded_while_an_access_abort_is_not_acknowledged() {
    // Section 7.2.1: the queue is not writable then, and what is discarded is no overflow (7.4).
    let guest = Guest::running();
    guest.write(CR0, 0b1001);
    guest.write64(EVENTQ_BASE, NOWHERE | 4);
    guest.write(CR0, 0b1101);
    guest.host_sends([HostEvent::Record(host_event(0))]);
    guest.write(CR0, 0b1001);
    guest.write64(EVENTQ_BASE, EVENTQ | 4);
    guest.write(CR0, 0b1101);
    guest.host_sends([HostEvent::Record(host_event(1)), HostEvent::Lost(3)]);
    assert_eq!((guest.read(EVENTQ_PROD), guest.event.take()), (0, 0));
    assert_eq!(guest.smmu.stats().lost_events, 5);
    guest.acknowledge();
    guest.host_sends([HostEvent::Record(host_event(2))]);
    assert_eq!((guest.take_events(), guest.event.take()), (vec![host_event(2)], 1));
}

#[test]
fn the_queue_can_be_disabled_resized_moved_and_enabled_at_any_time() {
    let mut guest = Guest::running();
    let mut next = 0;
    for (base, log2size) in [(EVENTQ, 3), (EVENTQ + 0x1000, 0), (EVENTQ, 7), (EVENTQ + 0x2000, 5), (EVENTQ, 1)] {
        guest.write(CR0, 0b1001);
        // Discarded, and no overflow (section 7.4).
        guest.host_sends([HostEvent::Record(host_event(999))]);
        guest.write64(EVENTQ_BASE, base | log2size);
        // Anywhere, as long as the indices agree; the overflow flags too.
        let index = (next as u32) & ((2 << log2size) - 1) | 1 << 31;
        guest.write(EVENTQ_PROD, index);
        guest.write(EVENTQ_CONS, index);
        guest.write(CR0, 0b1101);
        for _ in 0..3 {
            let fits = 1u64 << log2size;
            let events: Vec<_> = (next..next + fits).map(host_event).collect();
            guest.host_sends(events.iter().map(|&event| HostEvent::Record(event)));
            assert_eq!(guest.take_events_at(base), events, "LOG2SIZE {log2size}");
            assert!(!guest.overflow());
            next += fits;
        }
    }
    guest.use_event_queue(7);
    guest.host_sends([HostEvent::Record(host_event(next))]);
    assert_eq!(guest.take_events(), [host_event(next)]);
}

#[test]
fn a_queue_whose_indices_contradict_each_other_is_full() {
    // Section 3.5.1.
    let guest = Guest::running();
    guest.write(CR0, 0b1001);
    guest.write(EVENTQ_PROD, 5);
    guest.write(EVENTQ_CONS, 7);
    guest.write(CR0, 0b1101);
    guest.host_sends([HostEvent::Record(host_event(0))]);
    assert!(guest.overflow());
    assert_eq!(guest.read(EVENTQ_PROD) & 0xff, 5);
}

#[test]
fn a_queue_in_unacknowledged_overflow_takes_records() {
    // Section 7.4, the second note.
    let mut guest = Guest::running();
    guest.use_event_queue(0);
    guest.host_sends((0..2).map(|i| HostEvent::Record(host_event(i))));
    assert!(guest.overflow());
    let prod = guest.read(EVENTQ_PROD);
    guest.write(EVENTQ_CONS, prod & 0x7fff_ffff);
    guest.host_sends([HostEvent::Record(host_event(2))]);
    assert_eq!(guest.read(EVENTQ_PROD), prod ^ 1);
    assert_eq!(guest.peek(EVENTQ), host_event(2));
}

#[test]
fn there_is_no_interrupt_that_was_not_enabled() {
    let guest = Guest::running();
    guest.write(IRQ_CTRL, 1);
    guest.host_sends([HostEvent::Record(host_event(0))]);
    assert_eq!(guest.event.take(), 0);
    assert_eq!(guest.take_events().len(), 1);
}

#[test]
fn the_interrupt_can_be_a_message_to_memory_or_to_the_its() {
    for (address, data) in [(SCRATCH, 0x77), (GITS_TRANSLATER, 3)] {
        let guest = Guest::running();
        guest.write(IRQ_CTRL, 0);
        guest.write64(EVENTQ_IRQ_CFG0, address);
        guest.write(EVENTQ_IRQ_CFG1, data);
        guest.write(IRQ_CTRL, 5);
        guest.host_sends([HostEvent::Record(host_event(0))]);
        assert_eq!(guest.event.take(), 0);
        if address == SCRATCH {
            assert_eq!(guest.peek(SCRATCH), [u64::from(data)]);
        } else {
            assert_eq!(*guest.its.0.lock().unwrap(), [(0x1_0000, data)]);
        }
    }
}

#[test]
fn a_message_that_goes_nowhere_is_a_global_error() {
    let guest = Guest::running();
    guest.write(IRQ_CTRL, 0);
    guest.write64(EVENTQ_IRQ_CFG0, NOWHERE);
    guest.write(IRQ_CTRL, 5);
    guest.host_sends([HostEvent::Record(host_event(0))]);
    assert_eq!(guest.errors(), Gerror::new().with_msi_eventq_abt_err(true));
    assert_eq!(guest.take_events().len(), 1, "the record is there");
}

#[test]
fn pending_host_events_do_not_survive_a_reset() {
    let guest = Guest::running();
    guest.fake.lock().events.push_back(HostEvent::Record(host_event(0)));
    guest.smmu.reset();
    assert!(guest.fake.lock().events.is_empty());
    assert_eq!(guest.smmu.stats().events.total(), 0);
}
