//! Many slow commands: what they are for those who want something of the vSMMU meanwhile.

use std::thread::{self, JoinHandle};

use super::*;
use crate::smmuv3::physical::PhysicalSmmu;

/// Some tenths of a second.
const SYNCS: u64 = 120;

/// A vCPU that has told of many invalidations, one by one, each of which takes the host some time; some are done.
fn busy() -> (Guest, JoinHandle<()>) {
    let mut guest = Guest::running();
    guest.fake.lock().slow = Some(Duration::from_millis(2));
    for page in 0..SYNCS {
        guest.push(tlbi_va(1, page << 12));
        guest.push(sync());
    }
    let (smmu, prod) = (guest.smmu.clone(), guest.prod);
    let vcpu = thread::spawn(move || smmu.write(CMDQ_PROD, &prod.to_le_bytes()));
    while guest.fake.invalidation_calls() == 0 {
        thread::yield_now();
    }
    (guest, vcpu)
}

#[test]
fn who_waits_gets_a_turn_before_all_are_done() {
    let (guest, vcpu) = busy();
    assert!(guest.smmu.events_ready());
    let done = guest.fake.invalidation_calls();
    assert!(done < SYNCS, "all of them came first");
    vcpu.join().unwrap();
    assert_eq!((guest.read(CMDQ_CONS), guest.fake.invalidation_calls()), (guest.prod, SYNCS), "one call for each");
}

#[test]
fn commands_that_another_vcpu_adds_keep_their_place() {
    let (mut guest, vcpu) = busy();
    for page in SYNCS..SYNCS + 20 {
        guest.push(tlbi_va(1, page << 12));
    }
    guest.push(sync());
    guest.kick();
    vcpu.join().unwrap();
    assert_eq!((guest.read(CMDQ_CONS), guest.errors()), (guest.prod, Gerror::new()));
    let expected: Vec<_> = (0..SYNCS + 20).map(|page| words(tlbi_va(1, page << 12))).collect();
    assert_eq!(guest.take_invalidations().concat(), expected);
    guest.run(&[tlbi_va(2, 0), sync()]);
    assert_eq!(guest.take_invalidations(), [[words(tlbi_va(2, 0))]]);
}

#[test]
fn a_queue_that_is_disabled_meanwhile_stops_between_two_commands() {
    let (guest, vcpu) = busy();
    guest.write(CR0, 0b0101);
    let stopped = guest.read(CMDQ_CONS);
    assert!(stopped < guest.prod, "all of them came first");
    vcpu.join().unwrap();
    assert_eq!(guest.read(CMDQ_CONS), stopped);
    guest.write(CR0, 0b1101);
    assert_eq!(guest.read(CMDQ_CONS), guest.prod, "and goes on there");
    assert_eq!(guest.take_invalidations().len(), SYNCS as usize);
}

#[test]
fn configurations_make_room_too_and_no_batch_is_open_then() {
    let mut guest = Guest::running();
    guest.set_ste(STREAMS[0], stage1_ste(SCRATCH));
    guest.fake.lock().slow = Some(Duration::from_millis(2));
    for _ in 0..SYNCS {
        // The same entry: its context descriptors are dropped by an invalidation.
        guest.push(cfgi_ste(STREAMS[0]));
    }
    let (smmu, prod) = (guest.smmu.clone(), guest.prod);
    let before = guest.fake.invalidation_calls();
    let vcpu = thread::spawn(move || smmu.write(CMDQ_PROD, &prod.to_le_bytes()));
    while guest.fake.invalidation_calls() == before {
        thread::yield_now();
    }
    guest.smmu.move_stream(None, || guest.fake.lock().streams.remove(&STREAMS[0]));
    let done = guest.fake.invalidation_calls() - before;
    assert!(done < SYNCS, "all of them came first");
    vcpu.join().unwrap();
    assert_eq!((guest.fake.invalidation_calls() - before, guest.read(CMDQ_CONS)), (done, guest.prod));
}
