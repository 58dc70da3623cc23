//! The engine's DMA through the vSMMU.

use super::*;

const IOVA: u64 = 0x12_3450_0000;
const FAULT_HEAD: u64 = (ENGINE.requester_id() as u64) << 32;

fn status(status: Status) -> u32 {
    status as u32
}

#[test]
fn what_is_mapped_is_copied_and_what_is_unmapped_is_an_event() {
    let mut guest = Guest::running();
    guest.map(IOVA, DATA, RW);
    guest.map(IOVA + 0x1000, DATA + 0x8000, RW);
    guest.map(IOVA + 0x2000, DATA + 0x4000, RW);
    guest.poke(DATA + 0xff0, &[1, 2]);
    guest.poke(DATA + 0x8000, &[3, 4]);
    // Over a page boundary, to another page.
    assert_eq!(guest.copy(IOVA + 0xff0, IOVA + 0x2008, 32), status(Status::Done));
    assert_eq!((0..4).map(|i| guest.peek(DATA + 0x4008 + 8 * i)).collect::<Vec<_>>(), [1, 2, 3, 4]);
    assert_eq!(guest.its.messages(), [(ENGINE.requester_id().into(), 5)]);
    assert_eq!(guest.events(), Vec::<[u64; 4]>::new());

    guest.unmap(IOVA + 0x2000);
    guest.poke(DATA + 0xff0, &[9]);
    assert_eq!(guest.copy(IOVA + 0xff0, IOVA + 0x2008, 32), status(Status::Aborted));
    assert_eq!((guest.read64(BAR0 + FAULT), guest.read64(BAR0 + DONE)), (IOVA + 0x2008, 0));
    assert_eq!(guest.peek(DATA + 0x4008), 1, "memory that was unmapped is not touched");
    // F_TRANSLATION, a write, CLASS IN.
    assert_eq!(guest.events(), [[FAULT_HEAD | 0x10, 0b10 << 40, IOVA + 0x2008, 0]]);
    assert_eq!(guest.event_line.0.swap(0, Ordering::Relaxed), 1);

    // Mapped to another place.
    guest.map(IOVA + 0x2000, DATA + 0x6000, RW | READ_ONLY);
    assert_eq!(guest.copy(IOVA + 0x2000, IOVA, 8), status(Status::Done));
    assert_eq!(guest.copy(IOVA, IOVA + 0x2000, 8), status(Status::Aborted));
    assert_eq!(guest.events(), [[FAULT_HEAD | 0x13, 0b10 << 40, IOVA + 0x2000, 0]], "F_PERMISSION");
}

#[test]
fn the_vsmmu_is_off_then_bypasses_and_aborts_what_it_does_not_know() {
    let mut guest = Guest::new();
    guest.enable_engine();
    guest.poke(DATA, &[7]);
    assert_eq!(guest.copy(DATA, DATA + 8, 8), status(Status::Done), "SMMUEN is 0 and GBPA bypasses");
    assert_eq!(guest.peek(DATA + 8), 7);
    guest.write32(SMMU + smmu::GBPA, 1 << 20 | 1 << 31);
    assert_eq!(guest.copy(DATA, DATA + 16, 8), status(Status::Aborted), "GBPA.ABORT");
    guest.enable_smmu();
    assert_eq!(guest.copy(DATA, DATA + 16, 8), status(Status::Aborted), "no entry");
    guest.poke(STRTAB + 64 * u64::from(ENGINE.requester_id()), &[0b1001, 1 << 44]);
    let all = Cfgi::new().with_opcode(opcode::CFGI_STE_RANGE).with_leaf_or_range(31);
    guest.run(&[all.into_bits()]);
    assert_eq!(guest.copy(DATA, DATA + 16, 8), status(Status::Done), "bypass");
    assert_eq!(guest.peek(DATA + 16), 7);
    assert_eq!(guest.copy(DATA, 0x9000_0000, 8), status(Status::Aborted), "no memory there");
    assert_eq!(guest.read64(BAR0 + FAULT), 0x9000_0000);
    assert_eq!(guest.events(), Vec::<[u64; 4]>::new());
}

#[test]
fn a_pasid_has_its_own_context_once_it_is_enabled() {
    let mut guest = Guest::running();
    guest.map(IOVA, DATA, RW);
    guest.write_cd(5);
    guest.attach(ENGINE, Ste0::new().with_s1cdmax(8), Ste1::new().with_s1dss(0));
    guest.poke(DATA, &[0x0101_0101_0101_0101]);
    guest.write64(BAR0 + SOURCE, IOVA);
    guest.write64(BAR0 + LENGTH, 8);
    guest.write32(BAR0 + PASID, Pasid::new().with_pasid(5).with_valid(true).into_bits());
    let sum = crate::pci::dma_engine::spec::Command::new().with_operation(OPERATION_SUM);
    assert_eq!(guest.command(sum), status(Status::Refused), "PASID Enable is 0");
    assert_eq!(guest.config_read32(ENGINE, 0x100) as u16, PASID_CAPABILITY);
    guest.config_write(ENGINE, 0x100 + PASID_CONTROL, 0b001);
    assert_eq!(guest.command(sum), status(Status::Done));
    assert_eq!(guest.read64(BAR0 + super::DATA_REGISTER), 8);
    assert_eq!(guest.command(sum.with_privileged(true)), status(Status::Refused));
    guest.config_write(ENGINE, 0x100 + PASID_CONTROL, 0b111);
    guest.write64(BAR0 + SOURCE, IOVA + 0x1000);
    assert_eq!(guest.command(sum.with_privileged(true).with_execute(true)), status(Status::Aborted));
    guest.write32(BAR0 + PASID, Pasid::new().with_pasid(6).with_valid(true).into_bits());
    assert_eq!(guest.command(sum), status(Status::Aborted));
    guest.write32(BAR0 + PASID, 0);
    assert_eq!(guest.command(sum), status(Status::Aborted));
    let substream = |ssid: u64| FAULT_HEAD | ssid << 12 | 1 << 11;
    let expected = [
        [substream(5) | 0x10, 0b111 << 33 | 0b10 << 40, IOVA + 0x1000, 0],
        [substream(6) | 0x0a, 0, 0, 0],
        [FAULT_HEAD | 0x06, 0, 0, 0],
    ];
    assert_eq!(guest.events(), expected, "F_TRANSLATION, C_BAD_CD, F_STREAM_DISABLED");
}

#[test]
fn an_event_storm_overflows_the_queue_and_the_guest_recovers() {
    let guest = Guest::running();
    for i in 0..100 {
        assert_eq!(guest.copy(IOVA + 8 * i, IOVA, 8), status(Status::Aborted));
    }
    let records = guest.events();
    assert_eq!(records.len(), 1 << QUEUE);
    assert!(records.iter().zip(0..).all(|(record, i)| record[2] == IOVA + 8 * i), "the oldest, in order");
    assert_eq!(guest.read32(SMMU + smmu::EVENTQ_PROD) >> 31, 1, "OVFLG");
    assert_eq!(guest.smmu.stats().lost_events, 100 - (1 << QUEUE));
    assert_eq!(guest.copy(IOVA, IOVA, 8), status(Status::Aborted));
    assert_eq!(guest.events().len(), 1);
}

#[test]
fn the_stream_follows_the_guests_bus_numbers() {
    let mut guest = Guest::running();
    guest.map(IOVA, DATA, RW);
    assert_eq!(guest.copy(IOVA, IOVA + 8, 8), status(Status::Done));
    // Secondary and subordinate bus 0x62.
    guest.write32(Guest::config(PORT, header::PRIMARY_BUS), 0x0062_6260);
    assert_eq!(guest.copy(IOVA, IOVA + 8, 8), status(Status::Refused), "it has no number");
    let moved = Bdf::new(0x62, 0, 0);
    guest.config_write(moved, header::COMMAND, 0b110);
    assert!(guest.walker.has_stream(0x6200) && !guest.walker.has_stream(0x6100));
    assert_eq!(guest.copy(IOVA, IOVA + 8, 8), status(Status::Aborted), "no entry for that StreamID");
    guest.attach(moved, Ste0::new(), Ste1::new());
    guest.its.messages();
    assert_eq!(guest.copy(IOVA, IOVA + 8, 8), status(Status::Done));
    assert_eq!(guest.its.messages(), [(0x6200, 5)]);
}

#[test]
fn a_machine_reset_leaves_nothing_of_the_old_world() {
    let mut guest = Guest::running();
    guest.map(IOVA, DATA, RW);
    assert_eq!(guest.copy(IOVA, IOVA + 8, 8), status(Status::Done));
    guest.copy(0, 0, 8);
    guest.segment.reset();
    guest.smmu.reset();
    guest.prod = 0;
    guest.enable_engine();
    guest.enable_smmu();
    assert_eq!(guest.events(), Vec::<[u64; 4]>::new(), "old faults");
    assert_eq!(guest.read32(BAR0 + STATUS), status(Status::Idle));
    guest.tables.put(IOVA, 3, 0);
    guest.attach(ENGINE, Ste0::new(), Ste1::new());
    assert_eq!(guest.copy(IOVA, IOVA + 8, 8), status(Status::Aborted), "no translation of the old world");
}
