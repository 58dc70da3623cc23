use super::*;
use crate::AttachHwpt;
use crate::fake::{FakeDevice, FakeKernel, FakeSmmu};
use crate::hwpt::{NestedHwpt, Ste};
use crate::vdevice::Vdevice;

const STREAM: u32 = 0x2100;
/// F_TRANSLATION of some host StreamID.
const FAULT: [u64; 4] = [0x10 | 0x77 << 32, 0, 0xdead_b000, 0];
const SEEN: [u64; 4] = [0x10 | (STREAM as u64) << 32, 0, 0xdead_b000, 0];

struct Machine {
    queue: EventQueue,
    nested: NestedHwpt,
    _vdevice: Vdevice,
    device: FakeDevice,
    kernel: Arc<FakeKernel>,
}

fn machine() -> Machine {
    let kernel = FakeKernel::new();
    let smmu = kernel.add_smmu(FakeSmmu::default());
    let device = kernel.add_device(smmu, true);
    let id = device.dev_id();
    let ioas = kernel.iommufd().alloc_ioas().unwrap();
    let viommu = ioas.alloc_nest_parent(id).unwrap().alloc_viommu(id).unwrap();
    let vdevice = viommu.alloc_vdevice(id, STREAM).unwrap();
    let queue = viommu.alloc_event_queue(16).unwrap();
    let nested = viommu.alloc_nested(id, Ste([0x4000_0000 | 0b1011, 0])).unwrap();
    device.attach_hwpt(nested.id()).unwrap();
    Machine { queue, nested, _vdevice: vdevice, device, kernel }
}

fn event(lost: u32) -> Vevent {
    Vevent { lost, record: Some(SEEN) }
}

/// Reads until the queue is empty.
fn drain(queue: &EventQueue, room: usize) -> Vec<Vevent> {
    let mut all = Vec::new();
    let mut events = vec![Vevent::default(); room];
    loop {
        match queue.read(&mut events).unwrap() {
            0 => return all,
            count => all.extend(&events[..count]),
        }
    }
}

#[test]
fn an_event_carries_the_virtual_stream_id() {
    let machine = machine();
    assert!(machine.kernel.raise_event(machine.device.dev_id(), FAULT));
    assert_eq!(drain(&machine.queue, 4), [event(0)]);
}

#[test]
fn an_empty_queue_reads_nothing_and_does_not_block() {
    let machine = machine();
    assert_eq!(machine.queue.read(&mut [Vevent::default(); 4]).unwrap(), 0);
    assert_eq!(machine.queue.read(&mut []).unwrap(), 0);
}

#[test]
fn events_lost_in_between_show_in_the_next_one() {
    let machine = machine();
    let id = machine.device.dev_id();
    machine.kernel.raise_event(id, FAULT);
    machine.kernel.lose_events(machine.queue._viommu.id(), 3);
    machine.kernel.raise_event(id, FAULT);
    // As the kernel has it, the lone header goes when an event follows; the fake keeps it, and both count the same.
    let seen = drain(&machine.queue, 8);
    assert_eq!(seen, [event(0), Vevent { lost: 3, record: None }, event(0)]);
    let mut next = 0;
    let bytes = [record_bytes(0, 0), record_bytes(0, 4)].concat();
    let mut events = [Vevent::default(); 2];
    assert_eq!(parse(&bytes, &mut next, &mut events).unwrap(), 2);
    assert_eq!((events[0].lost, events[1].lost), (0, 3));
}

fn record_bytes(flags: u32, sequence: u32) -> Vec<u8> {
    let mut bytes = [flags.to_le_bytes(), sequence.to_le_bytes()].concat();
    if flags & LOST_EVENTS == 0 {
        bytes.extend([0; 32]);
    }
    bytes
}

#[test]
fn sequence_numbers_wrap_behind_int_max() {
    let mut next = SEQUENCE_MASK;
    let bytes = [record_bytes(0, SEQUENCE_MASK), record_bytes(0, 0), record_bytes(LOST_EVENTS, 2)].concat();
    let mut events = [Vevent::default(); 3];
    assert_eq!(parse(&bytes, &mut next, &mut events).unwrap(), 3);
    assert_eq!(events.map(|event| event.lost), [0, 0, 2]);
    assert_eq!(next, 3);
}

#[test]
fn a_lone_header_without_a_slot_shows_in_the_next_record() {
    let mut next = 0;
    let bytes = [record_bytes(0, 0), record_bytes(LOST_EVENTS, 5)].concat();
    let mut events = [Vevent::default(); 1];
    assert_eq!(parse(&bytes, &mut next, &mut events).unwrap(), 1);
    assert_eq!(parse(&record_bytes(0, 6), &mut next, &mut events).unwrap(), 1);
    assert_eq!(events[0].lost, 5);
}

#[test]
fn whatever_else_has_no_slot_shows_in_the_next_record_too() {
    let mut next = 0;
    let more = [(LOST_EVENTS, 5), (LOST_EVENTS, 7), (0, 8), (LOST_EVENTS, 9)];
    let more = more.map(|(flags, sequence)| record_bytes(flags, sequence)).concat();
    let bytes = [record_bytes(0, 0), more].concat();
    let mut events = [Vevent::default(); 1];
    assert_eq!(parse(&bytes, &mut next, &mut events).unwrap(), 1);
    assert_eq!(parse(&record_bytes(0, 10), &mut next, &mut events).unwrap(), 1);
    assert_eq!(events[0].lost, 9);
}

#[test]
fn half_a_record_is_an_error() {
    let mut events = [Vevent::default(); 2];
    let bytes = record_bytes(0, 0);
    assert!(matches!(parse(&bytes[..20], &mut 0, &mut events), Err(Error::BadEvent(20))));
}

#[test]
fn a_queue_is_destroyed_with_its_descriptor_and_can_be_made_again() {
    let machine = machine();
    let Machine { queue, nested, device, .. } = machine;
    let viommu = queue._viommu.clone();
    assert!(matches!(viommu.alloc_event_queue(16), Err(Error::EventQueueExists)));
    queue.destroy().unwrap();
    drop(viommu.alloc_event_queue(16).unwrap());
    device.detach_hwpt().unwrap();
    nested.destroy().unwrap();
}
