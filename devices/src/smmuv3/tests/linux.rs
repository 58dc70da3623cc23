//! What Linux 7.3 does with an SMMUv3 (drivers/iommu/arm/arm-smmu-v3/arm-smmu-v3.c), step by step.

use super::*;

#[test]
fn the_probe_finds_an_smmu_that_it_can_use() {
    let guest = Guest::with_features(negotiate(&Wishes::default(), &host()).unwrap().features);
    let idr0 = Idr0::from_bits(guest.read(IDR0));
    assert!(matches!(idr0.ttendian(), 0 | 2), "TTENDIAN");
    assert!(idr0.s1p() && !idr0.s2p() && idr0.ttf() & 2 != 0 && idr0.cohacc());
    assert!(!idr0.hyp(), "a VHE guest would use EL2 contexts");
    assert!(idr0.msi() && !idr0.sev() && !idr0.pri() && idr0.httu() == 0);
    assert_eq!((idr0.st_level(), idr0.stall_model()), (1, 1));
    let idr1 = Idr1::from_bits(guest.read(IDR1));
    assert!(!idr1.tables_preset() && !idr1.queues_preset() && !idr1.rel() && !idr1.attr_types_ovr());
    assert!(idr1.cmdqs() > 6 && idr1.sidsize() == 16);
    let idr3 = Idr3::from_bits(guest.read(IDR3));
    assert!(idr3.ril() && idr3.bbml() == 2 && !idr3.fwb());
    let idr5 = Idr5::from_bits(guest.read(IDR5));
    assert!(idr5.gran4k() && idr5.gran16k() && idr5.gran64k() && idr5.oas() == 5);
    assert_eq!((guest.read(IIDR), guest.read(AIDR) & 0xff), (0, 2));
}

#[test]
fn the_reset_sequence_ends_with_translation_on() {
    let mut guest = Guest::new();
    // RMR streams have their bypass entries before the reset.
    guest.write_ste(STREAMS[0], BYPASS_STE);

    // Steps 1 and 2.
    assert_eq!(guest.read(CR0), 0);
    guest.write(CR0, 0);
    assert_eq!(guest.read(CR0ACK), 0);
    // Step 3.
    guest.write(CR1, 0xd75);
    guest.write(CR2, 0x6);
    assert_eq!((guest.read(CR1), guest.read(CR2)), (0xd75, 0x2));
    // Step 4.
    guest.write64(STRTAB_BASE, STRTAB | 1 << 62);
    guest.write(STRTAB_BASE_CFG, 16);
    assert_eq!(guest.read64(STRTAB_BASE), STRTAB | 1 << 62);
    // Step 5.
    guest.write64(CMDQ_BASE, CMDQ | 1 << 62 | 8);
    guest.write(CMDQ_PROD, 0);
    guest.write(CMDQ_CONS, 0);
    guest.write(CR0, 0x8);
    assert_eq!(guest.read(CR0ACK), 0x8);
    guest.cmdq = Queue::new(QueueBase::from_bits(CMDQ | 8), 19, 16);
    // Step 6.
    guest.run(&[cfgi_all(), sync()]);
    guest.run(&[tlbi_nsnh_all(), sync()]);
    assert_eq!(guest.fake.take_calls(), [Call::Invalidate(vec![[0x30, 0]])], "nothing is configured yet");
    // Step 7.
    guest.write64(EVENTQ_BASE, EVENTQ | 1 << 62 | 7);
    guest.write(EVENTQ_PROD, 0);
    guest.write(EVENTQ_CONS, 0);
    guest.write(CR0, 0xc);
    assert_eq!(guest.read(CR0ACK), 0xc);
    // Step 8, with ATS.
    guest.write(CR0, 0x1c);
    assert_eq!(guest.read(CR0ACK), 0x1c);
    // Step 9, with wires.
    guest.write(IRQ_CTRL, 0);
    assert_eq!(guest.read(IRQ_CTRLACK), 0);
    guest.write64(GERROR_IRQ_CFG0, 0);
    guest.write64(EVENTQ_IRQ_CFG0, 0);
    guest.write(IRQ_CTRL, 0x5);
    assert_eq!(guest.read(IRQ_CTRLACK), 0x5);
    // Step 10.
    guest.write(CR0, 0x1d);
    assert_eq!(guest.read(CR0ACK), 0x1d);
    assert_eq!(guest.fake.config(STREAMS[0]), StreamConfig::Bypass);
    assert_eq!(guest.fake.config(STREAMS[1]), StreamConfig::Abort, "no entry yet");
    assert_eq!(guest.errors().into_bits(), 0);
    assert_eq!(guest.take_events(), Vec::<[u64; 4]>::new(), "no transaction, no event");
    assert_eq!((guest.event.take(), guest.gerror.take()), (0, 0));
}

#[test]
fn a_reset_by_a_second_kernel_goes_through_abort() {
    let mut guest = Guest::running();
    guest.set_ste(STREAMS[0], stage1_ste(SCRATCH));
    // arm_smmu_update_gbpa, then arm_smmu_device_disable.
    guest.write(super::super::spec::registers::GBPA, 1 << 20 | 1 << 31);
    assert_eq!(guest.read(super::super::spec::registers::GBPA), 1 << 20, "UPDATE is 0 again");
    assert!(is_stage1(guest.fake.config(STREAMS[0]), SCRATCH), "GBPA plays no role while SMMUEN is 1");
    guest.write(CR0, 0);
    assert_eq!(guest.fake.config(STREAMS[0]), StreamConfig::Abort);
}

#[test]
fn a_device_gets_its_translation_the_way_the_driver_writes_an_entry() {
    let mut guest = Guest::running();
    // arm_smmu_write_entry: word 1 first, then V with the rest; each followed by CMD_CFGI_STE.
    let [word0, word1] = stage1_ste(SCRATCH);
    guest.set_ste(STREAMS[0], [0, word1]);
    assert_eq!(guest.fake.config(STREAMS[0]), StreamConfig::Abort);
    guest.set_ste(STREAMS[0], [word0, word1]);
    assert!(is_stage1(guest.fake.config(STREAMS[0]), SCRATCH));
    assert_eq!(guest.take_events(), Vec::<[u64; 4]>::new());
}

#[test]
fn an_unmap_of_64_pages_and_its_sync_are_one_call_to_the_host() {
    let mut guest = Guest::running();
    let slot = CMDQ + 16 * 64;
    let mut commands: Vec<u128> = (0..64).map(|page| tlbi_va(1, page << 12)).collect();
    commands.push(sync_with_message(slot, 0));
    guest.run(&commands);
    let invalidations = guest.take_invalidations();
    assert_eq!(invalidations.len(), 1);
    let sent: Vec<_> = commands[..64].iter().map(|&command| words(command)).collect();
    assert_eq!(invalidations[0], sent, "in order, unchanged");
    assert_eq!(guest.peek::<1>(slot)[0] as u32, 0, "the driver polls the slot of its CMD_SYNC for 0");
    let stats = guest.smmu.stats();
    assert_eq!((stats.invalidation_commands, stats.invalidation_batches, stats.invalidation_ioctls), (64, 1, 1));
    assert_eq!((stats.opcodes.total(), stats.opcodes.get(0x46), stats.errors.command_queue()), (65, 1, 0));
}

#[test]
fn an_illegal_command_is_overwritten_with_a_sync_and_the_queue_goes_on() {
    let mut guest = Guest::running();
    guest.push(tlbi_va(1, 0x1000));
    guest.push(0xee);
    guest.push(tlbi_va(1, 0x2000));
    guest.push(sync());
    guest.kick();
    assert_eq!(guest.command_error(), Some((1, 1)), "CERROR_ILL at the second command");
    assert_eq!(guest.gerror.take(), 1);
    assert_eq!(guest.take_invalidations(), [vec![words(tlbi_va(1, 0x1000))]], "those before it are done");
    // arm_smmu_cmdq_skip_err
    guest.poke(CMDQ + 16, &words(sync()));
    guest.acknowledge();
    assert_eq!(guest.command_error(), None);
    assert_eq!(guest.read(CMDQ_CONS), guest.prod);
    assert_eq!(guest.take_invalidations(), [vec![words(tlbi_va(1, 0x2000))]]);
}
