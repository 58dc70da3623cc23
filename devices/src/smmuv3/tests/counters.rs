//! What is counted, for the vSMMU and for each stream.

use super::*;
use crate::smmuv3::physical::HostEvent;
use crate::smmuv3::{Stats, StreamStats};

/// The counters that are not 0.
fn named<'a>(counters: impl Iterator<Item = (&'a str, u64)>) -> Vec<(&'a str, u64)> {
    counters.filter(|&(_, count)| count > 0).collect()
}

fn stream(guest: &Guest, stream_id: u32) -> StreamStats {
    guest.smmu.stream_stats().into_iter().find(|&(id, _)| id == stream_id).unwrap().1
}

#[test]
fn commands_are_counted_by_opcode_and_by_the_stream_that_they_name() {
    let mut guest = Guest::running();
    let [one, other] = STREAMS;
    guest.set_ste(one, stage1_ste(SCRATCH));
    guest.run(&[cfgi_all(), tlbi_va(1, 0), tlbi_va(1, 0x1000), tlbi_nsnh_all(), cfgi_cd(one), atc_inv(one), sync()]);
    guest.run(&[cfgi_cd_all(other), cfgi_cd(ROOT_PORT), 0x01 | u128::from(one) << 32, sync()]);
    let stats = guest.smmu.stats();
    let expected = [
        ("CMD_PREFETCH_CONFIG", 1),
        ("CMD_CFGI_STE", 1),
        ("CMD_CFGI_STE_RANGE", 1),
        ("CMD_CFGI_CD", 2),
        ("CMD_CFGI_CD_ALL", 1),
        ("CMD_TLBI_NH_VA", 2),
        ("CMD_TLBI_NSNH_ALL", 1),
        ("CMD_ATC_INV", 1),
        ("CMD_SYNC", 3),
    ];
    assert_eq!(named(stats.opcodes.iter()), expected);
    assert_eq!((stats.dropped_commands, stats.opcodes.total()), (1, 13));
    // CMD_CFGI_STE_RANGE drops the context descriptors of the unchanged stream by one command more.
    assert_eq!((stats.invalidation_commands, stats.invalidation_batches, stats.invalidation_ioctls), (7, 2, 2));
    assert_eq!(stats.latency.iter().map(|(_, count)| count).sum::<u64>(), 2);
    let expected = [("CMD_CFGI_STE", 1), ("CMD_CFGI_STE_RANGE", 1), ("CMD_CFGI_CD", 1), ("CMD_ATC_INV", 1)];
    assert_eq!(named(stream(&guest, one).opcodes.iter()), expected);
    assert_eq!(named(stream(&guest, other).opcodes.iter()), [("CMD_CFGI_STE_RANGE", 1), ("CMD_CFGI_CD_ALL", 1)]);
}

#[test]
fn faults_are_counted_by_event_and_stream_and_so_is_what_is_lost() {
    let mut guest = Guest::running();
    guest.use_event_queue(1);
    let [one, other] = STREAMS;
    let record = |stream_id: u32, number: u64| HostEvent::Record([number | u64::from(stream_id) << 32, 0, 0, 0]);
    guest.fake.lock().events.extend([record(one, 0x10), record(other, 0x13), record(other, 0x13), HostEvent::Lost(4)]);
    guest.smmu.events_ready();
    let stats = guest.smmu.stats();
    assert_eq!(named(stats.events.iter()), [("F_TRANSLATION", 1), ("F_PERMISSION", 1)]);
    assert_eq!((stats.events.total(), stats.lost_events), (2, 5));
    assert_eq!(named(stream(&guest, one).events.iter()), [("F_TRANSLATION", 1)]);
    assert_eq!((stream(&guest, one).lost_events, stream(&guest, other).lost_events), (0, 1));
}

#[test]
fn installs_are_counted_by_kind_and_stream() {
    let mut guest = Guest::running();
    let [one, other] = STREAMS;
    guest.set_ste(one, stage1_ste(SCRATCH));
    guest.set_ste(one, BYPASS_STE);
    guest.set_ste(other, [0b1111, 0]);
    guest.fake.lock().fail_install = true;
    guest.set_ste(other, stage1_ste(SCRATCH));
    let of = |installs: crate::smmuv3::Installs| (installs.stage1, installs.bypass, installs.abort, installs.failed);
    assert_eq!(of(guest.smmu.stats().installs), (1, 1, 2, 1));
    assert_eq!(of(stream(&guest, one).installs), (1, 1, 1, 0));
    assert_eq!(of(stream(&guest, other).installs), (0, 0, 1, 1));
    assert_eq!((guest.smmu.stats().bad_streams, stream(&guest, other).bad_entries), (1, 1));
    assert_eq!(stream(&guest, one).installs.total(), 3);
}

#[test]
fn errors_are_counted_by_what_the_guest_is_told() {
    let mut guest = Guest::running();
    guest.push(0xee);
    guest.kick();
    guest.poke(CMDQ, &words(sync()));
    guest.acknowledge();
    guest.fake.lock().dead.insert(STREAMS[0]);
    guest.push(atc_inv(STREAMS[0]));
    guest.push(sync_with_message(NOWHERE, 0));
    guest.kick();
    guest.acknowledge();
    let errors = guest.smmu.stats().errors;
    assert_eq!((errors.cerror_ill, errors.cerror_abt, errors.cerror_atc_inv_sync), (1, 0, 1));
    assert_eq!((errors.command_queue(), errors.msi_abt, errors.eventq_abt), (2, 1, 0));
    assert_eq!(stream(&guest, STREAMS[0]).atc_timeouts, 1);
    assert_eq!(guest.smmu.stats().failed_invalidations, 1);
}

#[test]
fn a_guest_that_renumbers_its_buses_for_ever_does_not_fill_the_memory_with_counters() {
    let guest = Guest::running();
    let [mut at, other] = STREAMS;
    for to in 0x1000..0x3000 {
        guest.smmu.move_stream(Some(to), || {
            let mut fake = guest.fake.lock();
            let config = fake.streams.remove(&at).unwrap();
            fake.streams.insert(to, config);
        });
        at = to;
    }
    let known = guest.smmu.stream_stats();
    assert!(known.len() <= 256, "{}", known.len());
    assert!([at, other].iter().all(|stream_id| known.iter().any(|(known, _)| known == stream_id)));
}

#[test]
fn a_reset_does_not_reset_them() {
    let mut guest = Guest::running();
    guest.run(&[tlbi_va(1, 0), sync()]);
    let before = guest.smmu.stats();
    guest.smmu.reset();
    let after = guest.smmu.stats();
    assert_eq!(after.opcodes, before.opcodes);
    assert_ne!(after, Stats::default());
}

#[test]
fn an_abort_of_a_queue_is_counted_for_each_of_them() {
    let guest = Guest::running();
    guest.write(CR0, 0b0001);
    guest.write64(CMDQ_BASE, NOWHERE | 4);
    guest.write64(EVENTQ_BASE, NOWHERE | 4);
    guest.write(CR0, 0b1101);
    guest.write(CMDQ_PROD, 1);
    guest.fake.lock().events.push_back(HostEvent::Record([0x10, 0, 0, 0]));
    guest.smmu.events_ready();
    let errors = guest.smmu.stats().errors;
    assert_eq!((errors.cerror_abt, errors.eventq_abt, errors.command_queue()), (1, 1, 1));
    assert_eq!(guest.smmu.name(), "vsmmu0");
}
