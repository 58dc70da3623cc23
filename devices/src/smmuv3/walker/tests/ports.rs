//! What a device model gets: accesses over several pages, `vm_memory::GuestMemory`, and a place that can change.

use std::thread;
use std::time::{Duration, Instant};

use vm_memory::{GuestMemory, Permissions};

use super::super::super::physical::InvalidateError;
use super::super::Error;
use super::*;

const IOVA: u64 = 0x7000;

/// Two pages that are far from each other in memory, and in the other order.
fn two_pages() -> (Guest, Tables) {
    let (guest, mut tables) = one_page(IOVA, RW);
    tables.map(IOVA, DATA + 0x9000, RW);
    tables.map(IOVA + 0x1000, DATA, RW);
    (guest, tables)
}

#[test]
fn an_access_is_split_at_pages() {
    let (guest, _) = two_pages();
    let data: Vec<u8> = (0..0x1800u32).map(|i| (i % 251) as u8).collect();
    guest.port.dma_write(IOVA + 0x400, &data).unwrap();
    let mut first = vec![0; 0xc00];
    guest.memory.read_slice(&mut first, GuestAddress(DATA + 0x9400)).unwrap();
    assert_eq!(first, data[..0xc00]);
    let mut second = vec![0; 0xc00];
    guest.memory.read_slice(&mut second, GuestAddress(DATA)).unwrap();
    assert_eq!(second, data[0xc00..]);
    let mut all = vec![0; 0x1800];
    guest.port.dma_read(IOVA + 0x400, &mut all).unwrap();
    assert_eq!(all, data);
}

#[test]
fn an_access_that_faults_somewhere_touches_nothing_and_is_one_event() {
    let (guest, _) = two_pages();
    guest.poke(DATA + 0x9ff8, &[1]);
    let result = guest.port.dma_write(IOVA + 0xff8, &[0xff; 0x1010]);
    assert_eq!(result, Err(DmaError::Aborted { iova: IOVA + 0x2000 }));
    assert_eq!((guest.peek(DATA + 0x9ff8), guest.peek(DATA)), (1, 0));
    assert_eq!(guest.event()[2], IOVA + 0x2000);
    let mut data = [0x55; 0x1010];
    assert!(guest.port.dma_read(IOVA + 0xff8, &mut data).is_err());
    assert_eq!(data, [0x55; 0x1010]);
}

#[test]
fn an_access_of_no_bytes_needs_no_translation() {
    let guest = Guest::new();
    assert_eq!(guest.port.dma_write(IOVA, &[]), Ok(()));
    assert_eq!(guest.port.dma_read(u64::MAX, &mut []), Ok(()));
    assert_eq!(guest.stats(), WalkerStats::default());
}

#[test]
fn an_access_may_run_over_the_end_of_all_addresses() {
    let guest = Guest::new();
    let mut high = tables(&guest, 12, 48);
    high.map(u64::MAX, DATA, RW);
    guest.use_cd(cd0(&high).with_epd0(true).with_epd1(false).with_t1sz(16).with_tg1(2), 0, high.root);
    assert!(guest.reaches(u64::MAX - 7, DATA + 0xff8));
    assert_eq!(guest.read(u64::MAX - 3), Err(DmaError::Aborted { iova: 0 }));
}

#[test]
fn it_is_guest_memory_to_those_who_know_no_smmu() {
    let (guest, mut tables) = two_pages();
    let memory: &dyn Fn(&DmaPort) = &|memory| {
        memory.write_obj(0x1122_3344_5566_7788u64, GuestAddress(IOVA + 0xffc)).unwrap();
        assert_eq!(memory.read_obj::<u64>(GuestAddress(IOVA + 0xffc)).unwrap(), 0x1122_3344_5566_7788);
    };
    memory(&guest.port);
    assert_eq!(guest.peek(DATA) as u32, 0x1122_3344);
    assert!(guest.port.physical_memory().is_none(), "never around the translation");
    let pieces: Vec<_> = guest.port.get_slices(GuestAddress(IOVA + 0xff0), 0x20, Permissions::Read).unwrap().collect();
    assert_eq!(pieces.iter().map(|slice| slice.as_ref().unwrap().len()).collect::<Vec<_>>(), [0x10, 0x10]);
    assert_eq!(guest.events(), []);

    tables.map(IOVA, DATA + 0x9000, RW | READ_ONLY);
    guest.invalidate(tlbi_va(ASID, IOVA));
    let check = |access| guest.port.check_range(GuestAddress(IOVA), 0x2000, access);
    assert!(check(Permissions::Read) && !check(Permissions::Write) && !check(Permissions::ReadWrite));
    assert!(!guest.port.check_range(GuestAddress(IOVA), 0x2001, Permissions::Read));
    assert_eq!(guest.events(), [], "a look is not a transaction");
    assert!(guest.port.get_slices(GuestAddress(IOVA), 8, Permissions::ReadWrite).is_err());
    assert_eq!(guest.event_number(), number::F_PERMISSION);
    assert!(guest.port.write_obj(1u8, GuestAddress(IOVA)).is_err());
    assert_eq!(guest.event_number(), number::F_PERMISSION);
}

#[test]
fn a_port_follows_its_device_to_another_stream_id() {
    let (guest, _) = two_pages();
    let smmu = &guest.smmu;
    assert_eq!(smmu.add_stream(STREAM).err(), Some(Error::StreamTaken(STREAM)));
    let clone = guest.port.with_privilege(true);
    smmu.move_device(&guest.port, Some(0x300)).unwrap();
    assert_eq!((guest.port.stream_id(), clone.stream_id()), (Some(0x300), Some(0x300)));
    assert!(guest.read(IOVA).is_err(), "it aborts until it is configured");
    smmu.install(0x300, StreamConfig::Bypass).unwrap();
    assert!(guest.reaches(DATA, DATA));
    smmu.move_device(&clone, Some(0x300)).unwrap();
    assert!(guest.reaches(DATA, DATA), "it is there already");

    smmu.move_device(&guest.port, None).unwrap();
    assert_eq!((guest.port.stream_id(), guest.read(DATA)), (None, Err(DmaError::Aborted { iova: DATA })));
    let successor = smmu.add_stream(0x300).unwrap();
    smmu.install(0x300, StreamConfig::Bypass).unwrap();
    assert!(read(&successor, DATA).is_ok());
    assert!(guest.read(DATA).is_err(), "a device without a number does not speak for the next");
    assert_eq!(smmu.move_device(&guest.port, Some(0x300)), Err(Error::StreamTaken(0x300)));
    smmu.move_device(&guest.port, Some(0x200)).unwrap();
    let mut streams = Vec::new();
    smmu.streams(&mut streams);
    assert_eq!(streams, [0x200, 0x300]);
    assert!(smmu.has_stream(0x200) && !smmu.has_stream(STREAM));
    smmu.remove_stream(0x200).unwrap();
    assert_eq!((smmu.remove_stream(0x200), guest.port.stream_id()), (Err(Error::NoStream(0x200)), None));
    assert_eq!(guest.events(), []);
}

#[test]
fn an_invalidation_waits_for_an_access_under_way_and_not_for_later_ones() {
    let (guest, _) = two_pages();
    let slices = guest.port.get_slices(GuestAddress(IOVA), 8, Permissions::Write).unwrap();
    let smmu = guest.smmu.clone();
    let start = Instant::now();
    let waiting = thread::spawn(move || {
        smmu.invalidate(&[words(tlbi_va(ASID, IOVA))]).unwrap();
        start.elapsed()
    });
    while guest.stats().hits < 2 {
        // Accesses go on meanwhile.
        guest.read(IOVA).unwrap();
        thread::sleep(Duration::from_millis(20));
    }
    drop(slices);
    assert!(waiting.join().unwrap() >= Duration::from_millis(20));
}

#[test]
fn a_device_that_is_stuck_does_not_stop_the_guest_and_nothing_is_called_complete() {
    let (guest, _) = two_pages();
    let slices = guest.port.get_slices(GuestAddress(IOVA), 8, Permissions::Write).unwrap();
    let failed = |result| matches!(result, Err(InvalidateError::Failed(_)));
    assert!(failed(guest.smmu.invalidate(&[words(tlbi_va(ASID, IOVA))])));
    assert!(guest.smmu.install(STREAM, StreamConfig::Bypass).is_err());
    assert!(guest.read(DATA).is_err(), "it aborts");
    drop(slices);
    guest.smmu.invalidate(&[words(tlbi_va(ASID, IOVA))]).unwrap();
    guest.smmu.install(STREAM, StreamConfig::Bypass).unwrap();
    assert!(guest.reaches(DATA, DATA));
}

#[test]
fn a_device_that_is_stuck_is_not_moved_and_nobody_says_that_it_is_gone() {
    let (guest, _) = two_pages();
    let slices = guest.port.get_slices(GuestAddress(IOVA), 8, Permissions::Write).unwrap();
    assert_eq!(guest.smmu.move_device(&guest.port, Some(0x300)), Err(Error::Stuck(STREAM)));
    assert_eq!((guest.port.stream_id(), guest.smmu.has_stream(0x300)), (None, false));
    let _other = guest.smmu.add_stream(0x400).unwrap();
    assert_eq!(guest.smmu.remove_stream(0x400), Err(Error::Stuck(0x400)));
    drop(slices);
    guest.smmu.move_device(&guest.port, Some(0x300)).unwrap();
    assert_eq!(guest.port.stream_id(), Some(0x300));
}

#[test]
fn capabilities_can_be_negotiated_in_full() {
    let features = everything();
    assert!(features.idr5.gran4k() && features.idr5.gran16k() && features.idr5.gran64k());
    assert_eq!((features.idr5.oas(), features.idr1.ssidsize(), features.idr3.bbml()), (5, 20, 2));
    assert!(features.idr0.asid16() && features.idr0.cd2l() && features.idr3.ril() && !features.idr0.ats());
    assert!(!features.disable_stall);
}

#[test]
fn an_access_to_what_is_cached_allocates_nothing() {
    let (guest, _) = two_pages();
    let mut data = [0; 0x1800];
    let mut work = || {
        guest.port.dma_write(IOVA + 0x400, &data).unwrap();
        guest.port.dma_read(IOVA + 0x400, &mut data).unwrap();
        guest.port.write_obj(7u64, GuestAddress(IOVA)).unwrap();
    };
    work();
    let before = guest.stats();
    let allocations = allocation_counter::measure(work);
    assert_eq!(allocations.count_total, 0);
    assert_eq!(guest.stats().walks, before.walks);
}
