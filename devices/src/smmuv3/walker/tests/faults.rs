//! IHI 0070, sections 3.12 and 7.3: what the device sees, and what the guest's record says.

use super::*;

const IOVA: u64 = 0x12_3456_7000;

fn syndrome(record: EventWords) -> FaultSyndrome {
    FaultSyndrome::from_bits(record[1])
}

#[test]
fn a_record_names_who_wanted_what_where() {
    let (guest, tables) = one_page(IOVA, RW);
    let unmapped = IOVA + 0x1238;
    assert_eq!(guest.read(unmapped), Err(DmaError::Aborted { iova: unmapped }));
    let [head, syndrome, address, rest] = guest.event();
    assert_eq!(head, u64::from(STREAM) << 32 | 0x10);
    assert_eq!(syndrome, 1 << 35 | 0b10 << 40, "RnW, CLASS IN; PnU, InD, S2 and Stall are 0");
    assert_eq!((address, rest), (unmapped, 0));

    guest.poke(CD + 64 * 3, &[guest.peek(CD), tables.root, 0]);
    guest.install(Ste0::new().with_s1cdmax(2), Ste1::new());
    let port = guest.port.with_substream(Some(3)).with_privilege(true);
    assert!(port.dma_write(unmapped, &[0]).is_err());
    let [head, syndrome, ..] = guest.event();
    assert_eq!(head, u64::from(STREAM) << 32 | 3 << 12 | 1 << 11 | 0x10, "SSV and SubstreamID");
    assert_eq!(syndrome, 1 << 33 | 0b10 << 40, "PnU, not RnW");

    assert!(read(&port.with_execution(true), unmapped).is_err());
    assert_eq!(guest.event()[1], 1 << 33 | 1 << 34 | 1 << 35 | 0b10 << 40, "InD");
    assert!(port.with_execution(true).dma_write(unmapped, &[0]).is_err());
    assert_eq!(guest.event()[1], 1 << 33 | 0b10 << 40, "a write is always data");
}

#[test]
fn each_fault_has_its_number() {
    let cases = [
        (AF | NG | USER, false, None),
        (AF | NG | USER, true, None),
        (AF | NG | USER | READ_ONLY, true, Some(number::F_PERMISSION)),
        (AF | NG, false, Some(number::F_PERMISSION)),
        (NG | USER, false, Some(number::F_ACCESS)),
        // The access flag comes before the permissions.
        (NG | READ_ONLY, true, Some(number::F_ACCESS)),
    ];
    for (attributes, write, expected) in cases {
        let (guest, _) = one_page(IOVA, attributes);
        let result = if write { guest.port.dma_write(IOVA, &[1]) } else { guest.read(IOVA).map(|_| ()) };
        assert_eq!(result.is_err(), expected.is_some());
        if let Some(expected) = expected {
            let record = guest.event();
            assert_eq!(record[0] as u8, expected);
            assert_eq!((syndrome(record).class(), syndrome(record).rnw(), record[2]), (0b10, !write, IOVA));
        }
        assert_eq!(guest.events(), []);
    }
}

#[test]
fn affd_turns_access_flag_faults_off() {
    let (guest, tables) = one_page(IOVA, NG | USER);
    guest.use_cd(cd0(&tables).with_affd(true), tables.root, 0);
    assert!(guest.reaches(IOVA, DATA));
    // Another context of the same ASID that wants the flag does not get the cached translation.
    guest.write_cd(CD, cd0(&tables), tables.root, 0);
    guest.invalidate(cfgi_cd_all());
    assert!(guest.read(IOVA).is_err());
    assert_eq!(guest.event_number(), number::F_ACCESS);
}

#[test]
fn a_table_outside_of_memory_is_an_external_abort_with_the_fetched_address() {
    let (guest, mut tables) = one_page(IOVA, RW);
    tables.put(IOVA, 1, NOWHERE | TABLE);
    // Recorded and aborted whatever CD.R and CD.A say.
    guest.use_cd(cd0(&tables).with_r(false).with_a(false), tables.root, 0);
    assert!(guest.read(IOVA).is_err());
    let record = guest.event();
    assert_eq!(record[0] as u8, number::F_WALK_EABT);
    assert_eq!((syndrome(record).class(), syndrome(record).rnw()), (0b01, true), "CLASS TTD");
    assert_eq!((record[2], record[3]), (IOVA, NOWHERE + 8 * (IOVA >> 21 & 511)));
}

#[test]
fn without_cd_r_nothing_is_recorded() {
    let (guest, tables) = one_page(IOVA, RW | READ_ONLY);
    guest.use_cd(cd0(&tables).with_r(false), tables.root, 0);
    assert!(guest.port.dma_write(IOVA, &[1]).is_err());
    assert!(guest.read(IOVA + 0x1000).is_err());
    assert_eq!(guest.events(), []);
    assert_eq!(guest.stats().faults, 2);
}

#[test]
fn without_cd_a_reads_are_zero_and_writes_are_ignored() {
    let (guest, tables) = one_page(IOVA, RW | READ_ONLY);
    guest.use_cd(cd0(&tables).with_a(false), tables.root, 0);
    guest.poke(DATA, &[5]);
    assert_eq!(guest.port.dma_write(IOVA, &[1; 8]), Ok(()));
    assert_eq!(guest.peek(DATA), 5);
    let mut data = [0xff; 16];
    assert_eq!(guest.port.dma_read(IOVA + 0xff8, &mut data), Ok(()), "into the page behind it");
    assert_eq!(data, [0; 16]);
    let records = guest.events();
    assert_eq!(records.len(), 2, "recorded all the same");
}

#[test]
fn a_stream_that_aborts_is_silent() {
    let guest = Guest::new();
    assert_eq!(guest.read(DATA), Err(DmaError::Aborted { iova: DATA }));
    guest.smmu.install(STREAM, StreamConfig::Bypass).unwrap();
    assert!(guest.reaches(DATA, DATA));
    guest.smmu.install(STREAM, StreamConfig::Abort).unwrap();
    assert!(guest.read(DATA).is_err());
    assert_eq!(guest.events(), []);
}

#[test]
fn bypass_ends_at_the_output_address_size() {
    let guest = Guest::new();
    guest.smmu.install(STREAM, StreamConfig::Bypass).unwrap();
    let last = (1 << 48) - 8;
    assert_eq!(guest.read(last), Err(DmaError::NoMemory { iova: last, address: last }), "passes, to nowhere");
    assert_eq!(guest.events(), []);
    assert_eq!(guest.read(last + 4), Err(DmaError::NoMemory { iova: last + 4, address: last + 4 }));
    assert_eq!(guest.read(1 << 48), Err(DmaError::Aborted { iova: 1 << 48 }));
    assert_eq!(guest.event_number(), number::F_ADDR_SIZE);
    assert!(guest.read(u64::MAX).is_err());
}

#[test]
fn a_mapping_to_where_no_memory_is_is_no_fault_of_the_smmu() {
    let (guest, mut tables) = one_page(IOVA, RW);
    tables.map(IOVA, NOWHERE, RW);
    assert_eq!(guest.read(IOVA), Err(DmaError::NoMemory { iova: IOVA, address: NOWHERE }));
    assert_eq!(guest.events(), []);
}

#[test]
fn events_are_bounded_and_the_lost_ones_counted_where_they_are_missing() {
    let (guest, _) = one_page(IOVA, RW);
    let capacity = super::super::events::CAPACITY;
    for i in 0..capacity as u64 + 10 {
        assert!(guest.read(IOVA + 0x1000 + 8 * i).is_err());
    }
    let events = guest.events();
    assert_eq!(events.len(), capacity + 1);
    assert!(events[..capacity].iter().all(|event| matches!(event, HostEvent::Record(_))));
    assert_eq!(events[capacity], HostEvent::Lost(10));
    assert!(guest.read(IOVA + 0x1000).is_err());
    assert_eq!(guest.events().len(), 1);
}

#[test]
fn the_eventfd_is_readable_while_there_are_events() {
    use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
    let (guest, _) = one_page(IOVA, RW);
    let epoll = Epoll::new().unwrap();
    let fd = guest.smmu.event_fd().unwrap();
    epoll.ctl(ControlOperation::Add, fd, EpollEvent::new(EventSet::IN, 0)).unwrap();
    let is_readable = || epoll.wait(0, &mut [EpollEvent::default()]).unwrap() == 1;
    assert!(!is_readable());
    assert!(guest.read(0).is_err());
    assert!(guest.read(8).is_err());
    assert!(is_readable());
    assert_eq!(guest.events().len(), 2);
    assert!(!is_readable());
    assert!(guest.read(0).is_err());
    assert!(is_readable());
}

#[test]
fn what_bypasses_has_the_width_of_addresses_that_the_guest_was_shown() {
    let wishes = Wishes { oas: Wish::Exactly(32), ..Wishes::default() };
    let features = negotiate(&wishes, &WalkerSmmu::host_capabilities()).unwrap().features;
    let guest = Guest::with_features(features);
    guest.smmu.install(STREAM, StreamConfig::Bypass).unwrap();
    assert!(guest.reaches(DATA, DATA));
    assert_eq!(guest.read(1 << 32), Err(DmaError::Aborted { iova: 1 << 32 }));
    assert_eq!(guest.event_number(), number::F_ADDR_SIZE);
}
