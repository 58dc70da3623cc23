//! Section 7.1: errors of the command queue, and 7.5: global errors.

use super::*;
use crate::smmuv3::physical::InvalidateError;

const ILL: u8 = CmdqError::Ill as u8;
const ABT: u8 = CmdqError::Abt as u8;
const ATC_INV_SYNC: u8 = CmdqError::AtcInvSync as u8;

#[test]
fn what_the_identification_registers_do_not_show_is_illegal() {
    let illegal: [(&str, u128); 16] = [
        ("opcode 0", 0x00),
        ("CMD_CFGI_VMS_PIDM", 0x07),
        ("CMD_TLBI_EL3_ALL", 0x18),
        ("CMD_TLBI_EL3_VA", 0x1a),
        ("CMD_TLBI_EL2_ALL", 0x20),
        ("CMD_TLBI_EL2_ASID", 0x21),
        ("CMD_TLBI_EL2_VA", 0x22),
        ("CMD_TLBI_S12_VMALL", 0x28),
        ("CMD_TLBI_S2_IPA", 0x2a),
        ("CMD_PRI_RESP", 0x41),
        ("CMD_RESUME", 0x44),
        ("CMD_STALL_TERM", 0x45),
        ("CMD_SYNC with CS 3", 0x46 | 3 << 12),
        ("CMD_TLBI_EL2_VAA", 0x23),
        ("CMD_CFGI_STE with SSec", 0x03 | 1 << 10),
        ("CMD_ATC_INV with Size 53", 0x40 | 53 << 64),
    ];
    for (name, command) in illegal {
        let mut guest = Guest::running();
        guest.push(sync());
        guest.push(command);
        guest.push(sync());
        guest.kick();
        assert_eq!(guest.command_error(), Some((1, ILL)), "{name}");
        assert_eq!(guest.gerror.take(), 1, "{name}");
    }
}

#[test]
fn every_opcode_without_a_command_is_illegal() {
    // Section 4.1.1 has the table; what the features do not offer counts as unknown (section 7.1).
    let legal = [0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x10, 0x11, 0x12, 0x13, 0x30, 0x40, 0x46];
    for opcode in 0..=0xffu8 {
        let mut guest = Guest::running();
        guest.push(opcode.into());
        guest.push(sync());
        guest.kick();
        let expected = (!legal.contains(&opcode)).then_some((0, ILL));
        assert_eq!(guest.command_error(), expected, "{opcode:#x}");
    }
}

#[test]
fn the_secure_world_is_illegal_where_a_command_names_it() {
    // Section 4.1.6; in the other commands the bit is reserved, and ignored as all reserved bits are (4.1.5).
    for opcode in [0x01, 0x02, 0x03, 0x04, 0x05, 0x06] {
        let mut guest = Guest::running();
        guest.push(opcode | 1 << 10);
        guest.kick();
        assert_eq!(guest.command_error(), Some((0, ILL)), "{opcode:#x}");
    }
    let mut guest = Guest::running();
    guest.run(
        &[0x10, 0x11, 0x12, 0x13, 0x30, 0x40 | u128::from(STREAMS[0]) << 32, 0x46].map(|command| command | 1 << 10),
    );
}

#[test]
fn atc_invalidations_are_illegal_without_ats() {
    let mut features = everything();
    features.idr0.set_ats(false);
    let mut guest = Guest::running_with(features);
    guest.push(atc_inv(STREAMS[0]));
    guest.kick();
    assert_eq!(guest.command_error(), Some((0, ILL)));
}

#[test]
fn reserved_ranges_are_illegal() {
    let range = Tlbi::new().with_opcode(opcode::TLBI_NH_VA);
    let mut features = everything();
    for (name, command) in [
        ("TG without NUM, SCALE and TTL", range.with_tg(1)),
        ("the same of 16 KiB", range.with_tg(2)),
        ("TTL 1, which counts as 0, with 16 KiB", range.with_tg(2).with_ttl(1)),
    ] {
        let mut guest = Guest::running_with(features);
        guest.push(command.into_bits());
        guest.kick();
        assert_eq!(guest.command_error(), Some((0, ILL)), "{name}");
    }
    features.idr5.set_ds(true);
    let mut guest = Guest::running_with(features);
    guest.run(&[range.with_tg(2).with_ttl(1).into_bits(), sync()]);
}

#[test]
fn nothing_is_consumed_until_the_error_is_acknowledged_and_then_the_entry_is_read_again() {
    let mut guest = Guest::running();
    guest.push(0xee);
    guest.push(tlbi_va(1, 0x1000));
    guest.kick();
    guest.push(tlbi_va(1, 0x2000));
    guest.kick();
    assert_eq!(guest.command_error(), Some((0, ILL)));
    assert_eq!(guest.take_invalidations(), Vec::<Vec<CommandWords>>::new());
    // Not mended: the same again.
    guest.acknowledge();
    assert_eq!(guest.command_error(), Some((0, ILL)));
    assert_eq!(guest.gerror.take(), 2);
    guest.poke(CMDQ, &words(tlbi_nsnh_all()));
    guest.acknowledge();
    assert_eq!(guest.command_error(), None);
    let expected = [tlbi_nsnh_all(), tlbi_va(1, 0x1000), tlbi_va(1, 0x2000)].map(words).to_vec();
    assert_eq!(guest.take_invalidations(), [expected]);
}

#[test]
fn an_error_is_silent_without_its_interrupt() {
    let mut guest = Guest::running();
    guest.write(IRQ_CTRL, 0);
    guest.push(0xee);
    guest.kick();
    assert_eq!(guest.command_error(), Some((0, ILL)));
    assert_eq!(guest.gerror.take(), 0);
}

#[test]
fn a_queue_outside_of_memory_is_an_abort() {
    let guest = Guest::new();
    guest.write64(CMDQ_BASE, NOWHERE | 4);
    guest.write(CR0, 8);
    guest.write(CMDQ_PROD, 3);
    assert_eq!(guest.command_error(), Some((0, ABT)));
    guest.acknowledge();
    assert_eq!(guest.command_error(), Some((0, ABT)), "tried again");
}

#[test]
fn a_queue_that_leaves_memory_aborts_where_it_leaves() {
    let guest = Guest::new();
    // The queue is aligned to its size, memory is not: it ends within the queue.
    let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(MEMORY), 0x1000 + 0x80)]).unwrap();
    let interrupts = Interrupts { its: None, ..guest.smmu.interrupts.clone() };
    let config = Config { name: "vsmmu1".into(), features: everything() };
    let smmu = Smmuv3::new(config, guest.fake.clone(), memory.clone(), interrupts);
    let guest = Guest { smmu, memory, ..guest };
    guest.write64(CMDQ_BASE, (MEMORY + 0x1000) | 8);
    guest.write(CR0, 8);
    for index in 0..8 {
        guest.poke(MEMORY + 0x1000 + 16 * index, &words(tlbi_va(1, 0)));
    }
    guest.write(CMDQ_PROD, 20);
    assert_eq!(guest.command_error(), Some((8, ABT)));
    assert_eq!(guest.take_invalidations().concat().len(), 8, "what was read is done");
}

#[test]
fn a_command_that_the_host_refuses_is_illegal_where_it_stands() {
    let mut guest = Guest::running();
    guest.fake.lock().failures.push_back(InvalidateError::Refused { index: 1 });
    // A dropped command and a configuration in between, so that batch and queue count differently.
    for command in [cfgi_cd(ROOT_PORT), tlbi_va(1, 0x1000), cfgi_cd(ROOT_PORT), tlbi_va(1, 0x2000), sync()] {
        guest.push(command);
    }
    guest.kick();
    assert_eq!(guest.command_error(), Some((3, ILL)));
    guest.acknowledge();
    assert_eq!(guest.read(CMDQ_CONS), guest.prod);
}

#[test]
fn it_is_so_also_behind_a_dead_atc_in_the_same_batch() {
    let mut guest = Guest::running();
    let mut fake = guest.fake.lock();
    for failure in [
        InvalidateError::Timeout { first: 0, end: 2 },
        InvalidateError::Timeout { first: 0, end: 1 },
        InvalidateError::Refused { index: 0 },
    ] {
        fake.failures.push_back(failure);
    }
    drop(fake);
    for command in [atc_inv(STREAMS[0]), tlbi_va(1, 0x1000), sync()] {
        guest.push(command);
    }
    guest.kick();
    assert_eq!(guest.command_error(), Some((1, ILL)));
    guest.acknowledge();
    assert_eq!(guest.command_error(), Some((2, ATC_INV_SYNC)));
}

#[test]
fn no_sync_completes_while_the_host_fails() {
    let mut guest = Guest::running();
    guest.poke(SCRATCH, &[!0]);
    for _ in 0..2 {
        guest.fake.lock().failures.push_back(InvalidateError::Failed("out of memory".into()));
    }
    guest.push(cfgi_cd(ROOT_PORT));
    guest.push(tlbi_va(1, 0x1000));
    guest.push(sync_with_message(SCRATCH, 0));
    guest.kick();
    assert_eq!(guest.command_error(), Some((1, ABT)), "at the first command that is not done");
    guest.acknowledge();
    assert_eq!(guest.command_error(), Some((1, ABT)));
    assert_eq!(guest.peek(SCRATCH), [!0]);
    guest.acknowledge();
    assert_eq!(guest.command_error(), None);
    assert_eq!(guest.peek(SCRATCH), [!0 << 32]);
    assert_eq!(guest.smmu.stats().failed_invalidations, 2);
}

#[test]
fn a_dead_atc_is_an_error_of_the_sync_and_stops_nobody_else() {
    let mut guest = Guest::running();
    guest.fake.lock().dead.insert(STREAMS[0]);
    let [dead, alive] = STREAMS;
    for command in [tlbi_va(1, 0x1000), atc_inv(dead), atc_inv(alive), tlbi_va(1, 0x2000), sync()] {
        guest.push(command);
    }
    guest.kick();
    assert_eq!(guest.command_error(), Some((4, ATC_INV_SYNC)));
    let calls = guest.take_invalidations();
    assert_eq!(calls.len(), 5, "together, then one by one");
    assert_eq!(calls[3], [words(atc_inv(alive))]);
    assert_eq!(calls[4], [words(tlbi_va(1, 0x2000))]);
    // Linux repeats the CMD_SYNC.
    guest.acknowledge();
    assert_eq!((guest.command_error(), guest.read(CMDQ_CONS)), (None, 5));
    // No second is lost on it again, until the stream is configured again.
    guest.run(&[atc_inv(dead), atc_inv(alive), sync()]);
    assert_eq!(guest.take_invalidations(), [vec![words(atc_inv(alive))]]);
    guest.fake.lock().dead.clear();
    guest.set_ste(dead, stage1_ste(SCRATCH));
    guest.run(&[atc_inv(dead), sync()]);
    assert_eq!(guest.take_invalidations().last().unwrap(), &[words(atc_inv(dead))]);
}

#[test]
fn a_dead_atc_is_waited_for_once() {
    let mut guest = Guest::running();
    let [dead, alive] = STREAMS;
    guest.fake.lock().dead.insert(dead);
    for command in [atc_inv(dead), atc_inv(dead), atc_inv(alive), atc_inv(dead), sync()] {
        guest.push(command);
    }
    guest.kick();
    assert_eq!(guest.command_error(), Some((4, ATC_INV_SYNC)));
    let together = [dead, dead, alive, dead].map(|stream| words(atc_inv(stream))).to_vec();
    let alone = [dead, alive].map(|stream| vec![words(atc_inv(stream))]);
    assert_eq!(guest.take_invalidations(), [vec![together], alone.to_vec()].concat());
}

#[test]
fn a_dead_atc_is_not_used_until_the_guest_configures_its_stream() {
    let mut guest = Guest::running();
    let stream = STREAMS[0];
    let [word0, word1] = stage1_ste(SCRATCH);
    let ats = |config| match config {
        StreamConfig::Stage1(ste) => Ste1::from_bits(ste.0[1]).eats() == 1,
        other => panic!("{other:?}"),
    };
    guest.set_ste(stream, [word0, word1 | 1 << 28]);
    assert!(ats(guest.fake.config(stream)));
    guest.fake.lock().dead.insert(stream);
    guest.push(atc_inv(stream));
    guest.push(sync());
    guest.kick();
    assert_eq!(guest.command_error().map(|(_, error)| error), Some(ATC_INV_SYNC));
    assert!(is_stage1(guest.fake.config(stream), SCRATCH) && !ats(guest.fake.config(stream)));
    guest.acknowledge();
    // The same entry once more is a new try.
    guest.fake.lock().dead.clear();
    guest.run(&[cfgi_ste(stream), sync()]);
    assert!(ats(guest.fake.config(stream)));
    guest.take_invalidations();
    guest.run(&[atc_inv(stream), sync()]);
    assert_eq!(guest.take_invalidations(), [[words(atc_inv(stream))]]);
}

#[test]
fn a_dead_atc_costs_one_wait_however_often_its_stream_is_configured_before_the_guest_knows() {
    let mut guest = Guest::running();
    let stream = STREAMS[0];
    let [word0, word1] = stage1_ste(SCRATCH);
    guest.set_ste(stream, [word0, word1 | 1 << 28]);
    guest.fake.lock().dead.insert(stream);
    guest.take_invalidations();
    for _ in 0..100 {
        guest.push(atc_inv(stream));
        guest.push(cfgi_ste(stream));
    }
    guest.push(sync());
    guest.kick();
    assert_eq!(guest.command_error().map(|(_, error)| error), Some(ATC_INV_SYNC));
    let tries = guest.take_invalidations().concat().into_iter().filter(|&command| command == words(atc_inv(stream)));
    assert_eq!(tries.count(), 2, "in the batch and alone");
    let eats = |config| match config {
        StreamConfig::Stage1(ste) => Ste1::from_bits(ste.0[1]).eats(),
        other => panic!("{other:?}"),
    };
    assert_eq!(eats(guest.fake.config(stream)), 0, "not before the guest knows");
    guest.fake.lock().dead.clear();
    guest.acknowledge();
    guest.run(&[cfgi_ste(stream), atc_inv(stream), sync()]);
    assert_eq!(eats(guest.fake.config(stream)), 1);
}

#[test]
fn a_dead_atc_does_not_bypass_because_the_host_would_turn_ats_on() {
    let mut guest = Guest::running();
    let stream = STREAMS[0];
    guest.set_ste(stream, BYPASS_STE);
    guest.fake.lock().dead.insert(stream);
    guest.push(atc_inv(stream));
    guest.push(sync());
    guest.kick();
    guest.acknowledge();
    assert_eq!(guest.fake.config(stream), StreamConfig::Abort);
    for ste in [BYPASS_STE, ABORT_STE, BYPASS_STE] {
        guest.set_ste(stream, ste);
        assert_eq!(guest.fake.config(stream), StreamConfig::Abort);
    }
    guest.write(CR0, 0b1100);
    assert_eq!(guest.fake.config(stream), StreamConfig::Abort, "nor without translation");
    guest.write(CR0, 0b1101);
    guest.smmu.stream_added(stream);
    assert_eq!(guest.fake.config(stream), StreamConfig::Bypass, "a reset has emptied it");
    guest.push(atc_inv(stream));
    guest.push(sync());
    guest.kick();
    guest.acknowledge();
    guest.set_ste(stream, stage1_ste(SCRATCH));
    guest.set_ste(stream, BYPASS_STE);
    assert_eq!(guest.fake.config(stream), StreamConfig::Bypass, "a stage 1 is a new try");
}

#[test]
fn an_atc_without_ats_is_sent_invalidations_again_after_any_configuration() {
    let mut guest = Guest::running();
    let stream = STREAMS[0];
    guest.set_ste(stream, stage1_ste(SCRATCH));
    guest.fake.lock().dead.insert(stream);
    guest.push(atc_inv(stream));
    guest.push(sync());
    guest.kick();
    guest.acknowledge();
    guest.fake.lock().dead.clear();
    guest.run(&[cfgi_ste(stream), sync()]);
    guest.take_invalidations();
    guest.run(&[atc_inv(stream), sync()]);
    assert_eq!(guest.take_invalidations(), [[words(atc_inv(stream))]]);
}

#[test]
fn a_queue_that_is_disabled_forgets_what_its_next_sync_had_to_tell() {
    let mut guest = Guest::running();
    guest.fake.lock().dead.insert(STREAMS[0]);
    guest.run(&[atc_inv(STREAMS[0])]);
    guest.use_command_queue(8);
    guest.run(&[sync()]);
}

#[test]
fn what_a_reset_could_not_invalidate_is_invalidated_before_the_next_stage_1() {
    let mut guest = Guest::running();
    guest.fake.lock().failures.push_back(InvalidateError::Failed("out of memory".into()));
    guest.smmu.reset();
    guest.start();
    guest.set_ste(STREAMS[0], BYPASS_STE);
    guest.fake.take_calls();
    guest.set_ste(STREAMS[0], stage1_ste(SCRATCH));
    guest.set_ste(STREAMS[1], stage1_ste(SCRATCH));
    let calls = guest.fake.take_calls();
    assert_eq!(calls[0], Call::Invalidate(vec![words(tlbi_nsnh_all())]));
    assert!(matches!(calls[1..], [Call::Install(..), Call::Install(..)]), "once: {calls:?}");
}

#[test]
fn a_reset_forgets_dead_atcs() {
    let mut guest = Guest::running();
    let stream = STREAMS[0];
    guest.fake.lock().dead.insert(stream);
    guest.push(atc_inv(stream));
    guest.push(sync());
    guest.kick();
    guest.fake.lock().dead.clear();
    guest.smmu.reset();
    guest.start();
    guest.run(&[atc_inv(stream), sync()]);
    assert_eq!(guest.take_invalidations(), [[words(atc_inv(stream))]]);
}

#[test]
fn a_host_that_does_not_complete_a_tlb_invalidation_is_an_abort() {
    let mut guest = Guest::running();
    for _ in 0..2 {
        guest.fake.lock().failures.push_back(InvalidateError::Timeout { first: 0, end: 2 });
    }
    guest.push(tlbi_va(1, 0x1000));
    guest.push(sync());
    guest.kick();
    assert_eq!(guest.command_error(), Some((0, ABT)));
    guest.acknowledge();
    assert_eq!((guest.command_error(), guest.read(CMDQ_CONS)), (None, 2));
}

#[test]
fn a_global_error_can_be_a_message() {
    let mut guest = Guest::running();
    guest.write(IRQ_CTRL, 0);
    guest.write64(GERROR_IRQ_CFG0, SCRATCH);
    guest.write(GERROR_IRQ_CFG1, 0x55);
    guest.write(IRQ_CTRL, 5);
    guest.push(0xee);
    guest.kick();
    assert_eq!(guest.peek(SCRATCH), [0x55]);
    assert_eq!(guest.gerror.take(), 0, "not by wire too");
}

#[test]
fn a_message_of_a_global_error_that_goes_nowhere_is_one_more_error() {
    let mut guest = Guest::running();
    guest.write(IRQ_CTRL, 0);
    guest.write64(GERROR_IRQ_CFG0, NOWHERE);
    guest.write(IRQ_CTRL, 5);
    guest.push(0xee);
    guest.kick();
    assert_eq!(guest.errors(), Gerror::new().with_cmdq_err(true).with_msi_gerror_abt_err(true));
}
