//! Chapter 4: commands, and section 3.5: their queue.

use super::*;

#[test]
fn commands_wrap_around_in_queues_of_every_size() {
    let mut features = everything();
    features.idr1.set_cmdqs(19);
    let mut guest = Guest::with_features(features);
    guest.fake.lock().forget = true;
    for log2size in 0..=19u8 {
        guest.use_command_queue(log2size);
        // Twice over the end of the memory of the queue: the wrap bit goes up and down again.
        let size = 1u32 << log2size;
        let step = 5.min(size);
        for start in [size - 1, 2 * size - 1] {
            guest.write(CR0, 0);
            guest.write(CMDQ_PROD, start);
            guest.write(CMDQ_CONS, start);
            guest.write(CR0, 8);
            guest.prod = start;
            let before = guest.smmu.stats().opcodes.total();
            guest.run(&vec![tlbi_va(1, 0); step as usize]);
            assert_eq!(guest.smmu.stats().opcodes.total() - before, u64::from(step), "LOG2SIZE {log2size}");
        }
    }
}

#[test]
fn a_full_queue_is_not_an_empty_one() {
    let mut guest = Guest::new();
    guest.use_command_queue(4);
    guest.run(&[tlbi_va(1, 0); 16]);
    assert_eq!(guest.take_invalidations().concat().len(), 16);
}

#[test]
fn a_producer_beyond_the_queue_is_not_followed() {
    let guest = Guest::running();
    guest.write(CMDQ_PROD, 0x101);
    assert_eq!(guest.read(CMDQ_CONS), 0);
    assert_eq!(guest.smmu.stats().opcodes.total(), 0);
}

#[test]
fn commands_wait_until_the_queue_is_enabled() {
    let mut guest = Guest::new();
    guest.use_command_queue(8);
    guest.write(CR0, 0);
    guest.push(tlbi_va(1, 0));
    guest.kick();
    assert_eq!(guest.read(CMDQ_CONS), 0);
    guest.write(CR0, 8);
    assert_eq!(guest.read(CMDQ_CONS), 1);
    assert_eq!(guest.take_invalidations().len(), 1, "without a CMD_SYNC too");
}

#[test]
fn a_queue_size_above_cmdqs_counts_as_cmdqs() {
    let mut features = everything();
    features.idr1.set_cmdqs(7);
    let mut guest = Guest::with_features(features);
    guest.write64(CMDQ_BASE, CMDQ | 31);
    guest.write(CR0, 8);
    guest.cmdq = Queue::new(QueueBase::from_bits(CMDQ | 7), 19, 16);
    guest.prod = 0;
    guest.run(&[tlbi_va(1, 0); 128]);
    assert_eq!(guest.read(CMDQ_CONS), 128);
}

#[test]
fn every_invalidation_reaches_the_host_in_order_with_its_reserved_bits_cleared() {
    let mut guest = Guest::running();
    let noise = |meaningful: u128| !meaningful & !0xff;
    let address = u128::from(0x1234_5678_9000u64) << 64;
    let (asid, leaf) = (0x42u128 << 48, 1u128 << 64);
    let stream = u128::from(STREAMS[0]) << 32;
    // (opcode and fields, which bits are fields)
    let sid_field = 0xffff_ffffu128 << 32;
    let asid_field = 0xffffu128 << 48;
    let ssid_field = 0xf_ffffu128 << 12;
    // TG, TTL, SCALE and NUM mean something too; noise in them would make it illegal or another command.
    let va_field = asid_field | (!0u128 << 64 & !(0xfe << 64)) | 0x03f1_f000;
    let commands = [
        (0x30, 0xff),
        (0x10, 0xff),
        (0x11 | asid, asid_field),
        (0x12 | asid | leaf | address, va_field),
        (0x13 | leaf | address, va_field & !asid_field),
        // SSec, bit 10, makes these illegal.
        (0x05 | stream | 0x77 << 12 | leaf, sid_field | ssid_field | leaf | 1 << 10),
        (0x06 | stream, sid_field | 1 << 10),
        (
            0x40 | stream | 1 << 11 | 0x77 << 12 | address | 4 << 64,
            sid_field | ssid_field | 0xa00 | (!0 << 64 & !(0xfc0u128 << 64)),
        ),
    ];
    let mut noisy: Vec<u128> = commands.iter().map(|&(command, fields)| command | noise(fields)).collect();
    noisy.push(sync());
    guest.run(&noisy);
    let clean: Vec<_> = commands.iter().map(|&(command, _)| words(command)).collect();
    assert_eq!(guest.take_invalidations(), [clean]);
}

#[test]
fn range_fields_mean_nothing_without_ril_or_without_a_granule() {
    let ranged = Tlbi::new().with_opcode(opcode::TLBI_NH_VA).with_num(3).with_scale(2).with_ttl(1).with_tg(1);
    let mut features = everything();
    features.idr3.set_ril(false);
    let mut guest = Guest::running_with(features);
    guest.run(&[ranged.into_bits(), sync()]);
    assert_eq!(guest.take_invalidations(), [vec![[0x12, 0]]]);

    let mut guest = Guest::running();
    guest.run(&[ranged.with_tg(0).into_bits(), ranged.into_bits(), sync()]);
    assert_eq!(guest.take_invalidations(), [vec![[0x12, 0], words(ranged.into_bits())]]);
}

#[test]
fn a_level_1_hint_for_16_kib_counts_as_none_without_ds() {
    // Section 4.4.1.1: reserved, treated as TTL 0b00. With DS there are such blocks.
    let range = Tlbi::new().with_opcode(opcode::TLBI_NH_VA).with_num(1).with_tg(2);
    let mut guest = Guest::running();
    guest.run(&[range.with_ttl(1).into_bits(), sync()]);
    assert_eq!(guest.take_invalidations(), [vec![words(range.into_bits())]]);
    let mut features = everything();
    features.idr5.set_ds(true);
    let mut guest = Guest::running_with(features);
    guest.run(&[range.with_ttl(1).into_bits(), sync()]);
    assert_eq!(guest.take_invalidations(), [vec![words(range.with_ttl(1).into_bits())]]);
}

#[test]
fn the_scale_of_a_range_has_6_bits_with_ds_and_5_without() {
    // Section 4.4.1.1, SCALE: bit 25 is RES0 without DS.
    let range = Tlbi::new().with_opcode(opcode::TLBI_NH_VAA).with_num(1).with_tg(1);
    for (ds, scale) in [(false, 7), (true, 39)] {
        let mut features = everything();
        features.idr5.set_ds(ds);
        let mut guest = Guest::running_with(features);
        guest.run(&[range.with_scale(39).into_bits(), sync()]);
        assert_eq!(guest.take_invalidations(), [vec![words(range.with_scale(scale).into_bits())]]);
    }
}

#[test]
fn a_range_of_a_granule_that_is_not_shown_is_legal() {
    // Section 4.4.1.1, TG: only what was cached with this granule has to go, which is nothing.
    let mut features = everything();
    features.idr5.set_gran64k(false);
    let range = Tlbi::new().with_opcode(opcode::TLBI_NH_VA).with_num(1).with_tg(3).into_bits();
    let mut guest = Guest::running_with(features);
    guest.run(&[range, sync()]);
    assert_eq!(guest.take_invalidations(), [vec![words(range)]]);
}

#[test]
fn asids_have_8_bits_without_asid16() {
    let mut features = everything();
    features.idr0.set_asid16(false);
    let mut guest = Guest::running_with(features);
    guest.run(&[tlbi_va(0x1234, 0), sync()]);
    assert_eq!(guest.take_invalidations(), [vec![words(tlbi_va(0x34, 0))]]);
}

#[test]
fn substreams_mean_nothing_without_ssidsize() {
    let mut features = everything();
    features.idr1.set_ssidsize(0);
    let mut guest = Guest::running_with(features);
    let full = |opcode: u128| opcode | 0xffff_fa00 | u128::from(STREAMS[0]) << 32;
    guest.run(&[full(0x05), full(0x40), sync()]);
    let stream = u64::from(STREAMS[0]) << 32;
    assert_eq!(guest.take_invalidations(), [vec![[0x05 | stream, 0], [0x40 | stream, 0]]]);
}

#[test]
fn substream_ids_are_cut_to_their_size() {
    // Section 4.1.7: out of range.
    let mut features = everything();
    features.idr1.set_ssidsize(4);
    let mut guest = Guest::running_with(features);
    let stream = u128::from(STREAMS[0]) << 32;
    guest.run(&[0x05 | stream | 0x77 << 12, 0x40 | stream | 1 << 11 | 0x77 << 12, sync()]);
    let expected = [0x05 | stream | 0x7 << 12, 0x40 | stream | 1 << 11 | 0x7 << 12].map(words).to_vec();
    assert_eq!(guest.take_invalidations(), [expected]);
}

#[test]
fn at_most_63_commands_and_their_sync_are_one_call_of_the_host() {
    for count in [1, 2, 62, 63] {
        let mut guest = Guest::running();
        let mut commands: Vec<u128> = (0..count).map(|page| tlbi_va(1, page << 12)).collect();
        commands.push(sync_with_message(SCRATCH, 1));
        guest.run(&commands);
        let calls = guest.take_invalidations();
        assert_eq!(calls.iter().map(Vec::len).collect::<Vec<_>>(), [count as usize]);
        assert_eq!(guest.smmu.stats().invalidation_ioctls, 1);
    }
}

#[test]
fn a_sync_with_nothing_before_it_calls_nobody() {
    let mut guest = Guest::running();
    guest.run(&[sync(), sync_with_message(SCRATCH, 1), sync()]);
    assert_eq!(guest.take_invalidations(), Vec::<Vec<CommandWords>>::new());
}

#[test]
fn commands_of_all_kinds_between_two_syncs_are_one_batch_in_order() {
    let mut guest = Guest::running();
    let [one, other] = STREAMS;
    let commands =
        [tlbi_va(1, 0x1000), cfgi_cd(one), atc_inv(other), tlbi_nsnh_all(), cfgi_cd_all(other), atc_inv(one)];
    let mut queue = commands.to_vec();
    // Neither hints nor streams without a device end a batch.
    queue.insert(2, 0x01 | u128::from(one) << 32);
    queue.insert(4, cfgi_cd(ROOT_PORT));
    queue.push(sync());
    guest.run(&queue);
    assert_eq!(guest.take_invalidations(), [commands.map(words).to_vec()]);
}

#[test]
fn commands_for_streams_without_a_device_are_dropped() {
    let mut guest = Guest::running();
    guest.run(&[cfgi_cd(ROOT_PORT), cfgi_cd_all(ROOT_PORT), atc_inv(ROOT_PORT), cfgi_ste(ROOT_PORT), sync()]);
    assert_eq!(guest.fake.take_calls(), []);
    assert_eq!(guest.smmu.stats().dropped_commands, 3);
}

#[test]
fn atc_invalidations_are_ignored_while_translation_is_off() {
    let mut guest = Guest::running();
    guest.write(CR0, 0xc);
    guest.fake.take_calls();
    guest.run(&[atc_inv(STREAMS[0]), sync()]);
    assert_eq!(guest.fake.take_calls(), []);
}

#[test]
fn prefetches_are_hints() {
    let mut guest = Guest::running();
    guest.run(&[0x01 | u128::from(STREAMS[0]) << 32, 0x02 | u128::from(ROOT_PORT) << 32, sync()]);
    assert_eq!(guest.fake.take_calls(), []);
}

#[test]
fn more_commands_than_a_batch_holds_keep_their_order() {
    let mut guest = Guest::new();
    guest.use_command_queue(10);
    let commands: Vec<u128> = (0..1000).map(|page| tlbi_va(7, page << 12)).collect();
    guest.run(&commands);
    let invalidations = guest.take_invalidations();
    assert_eq!(invalidations.len(), 4);
    assert_eq!(invalidations.concat(), commands.iter().map(|&command| words(command)).collect::<Vec<_>>());
}

#[test]
fn a_batch_ends_in_front_of_a_configuration() {
    let mut guest = Guest::running();
    guest.write_ste(STREAMS[0], BYPASS_STE);
    guest.run(&[tlbi_va(1, 0x1000), cfgi_ste(STREAMS[0]), tlbi_va(1, 0x2000), sync()]);
    let expected = [
        Call::Invalidate(vec![words(tlbi_va(1, 0x1000))]),
        Call::Install(STREAMS[0], StreamConfig::Bypass),
        Call::Invalidate(vec![words(tlbi_va(1, 0x2000))]),
    ];
    assert_eq!(guest.fake.take_calls(), expected);
}

#[test]
fn a_sync_writes_its_message_after_everything_before_it() {
    let mut guest = Guest::running();
    guest.poke(SCRATCH, &[!0]);
    guest.run(&[tlbi_va(1, 0x1000), sync_with_message(SCRATCH + 4, 0x1234)]);
    assert_eq!(guest.peek(SCRATCH), [0x1234_ffff_ffff], "32 bits");
    assert_eq!(guest.sync.take(), 0);
}

#[test]
fn a_sync_without_an_address_uses_the_wire() {
    let mut guest = Guest::running();
    guest.run(&[sync_with_message(0, 1), sync(), sync() | 2 << 12]);
    assert_eq!(guest.sync.take(), 1, "CS 0 and 2 signal nothing");
}

#[test]
fn without_msis_a_sync_uses_the_wire_whatever_its_address() {
    // Section 4.7.3: MSIAddress is IGNORED then.
    let mut features = everything();
    features.idr0.set_msi(false);
    let mut guest = Guest::running_with(features);
    guest.poke(SCRATCH, &[!0]);
    guest.run(&[sync_with_message(SCRATCH, 1)]);
    assert_eq!((guest.peek(SCRATCH), guest.sync.take()), ([!0], 1));
}

#[test]
fn the_address_of_a_message_is_cut_to_the_output_address_size() {
    // Section 4.7.3: the check for zero applies to the whole field, then it is truncated.
    let mut guest = Guest::running();
    guest.run(&[sync_with_message(SCRATCH | 1 << 50, 0x55)]);
    assert_eq!(guest.peek(SCRATCH), [0x55]);
    guest.push(sync_with_message(1 << 50, 0x55));
    guest.kick();
    assert_eq!(guest.sync.take(), 0, "no wire");
    assert_eq!(guest.errors(), Gerror::new().with_msi_cmdq_abt_err(true), "address 0 is no memory");
}

#[test]
fn a_sync_can_signal_through_the_its() {
    let mut guest = Guest::running();
    guest.run(&[sync_with_message(GITS_TRANSLATER, 5)]);
    assert_eq!(*guest.its.0.lock().unwrap(), [(0x1_0000, 5)]);
}

#[test]
fn a_sync_whose_message_goes_nowhere_is_a_global_error_and_completes() {
    let mut guest = Guest::running();
    guest.push(sync_with_message(NOWHERE, 5));
    guest.push(tlbi_va(1, 0));
    guest.kick();
    assert_eq!(guest.errors(), Gerror::new().with_msi_cmdq_abt_err(true));
    assert_eq!((guest.gerror.take(), guest.read(CMDQ_CONS)), (1, 2), "the queue goes on");
}
