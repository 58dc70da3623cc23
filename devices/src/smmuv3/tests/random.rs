//! Law 1: whatever a guest does, the vSMMU goes on.

use proptest::prelude::*;

use super::*;
use crate::smmuv3::batch::CAPACITY;
use crate::smmuv3::physical::HostEvent;
use crate::smmuv3::stream_table;

/// What a guest, or the host behind it, can do.
#[derive(Clone, Debug)]
enum Action {
    Write(u64, u32),
    Write64(u64, u64),
    Raw(u64, Vec<u8>),
    Read(u64, usize),
    Poke(u64, u64),
    Events(u8),
    Reset,
}

fn interesting_offset() -> impl Strategy<Value = u64> {
    let known = [
        CR0,
        CR1,
        CR2,
        0x44,
        IRQ_CTRL,
        GERRORN,
        GERROR_IRQ_CFG0,
        STRTAB_BASE,
        STRTAB_BASE_CFG,
        CMDQ_BASE,
        CMDQ_PROD,
        CMDQ_CONS,
        EVENTQ_BASE,
        EVENTQ_PROD,
        EVENTQ_CONS,
        EVENTQ_IRQ_CFG0,
        EVENTQ_IRQ_CFG1,
    ];
    prop_oneof![8 => proptest::sample::select(known.to_vec()), 1 => any::<u64>(), 1 => 0..REGISTER_SPACE]
}

fn interesting_value() -> impl Strategy<Value = u64> {
    let bases = [STRTAB, CMDQ, EVENTQ, L2TAB, NOWHERE, MEMORY + MEMORY_SIZE as u64 - 64];
    prop_oneof![
        2 => any::<u64>(),
        2 => 0u64..64,
        2 => (proptest::sample::select(bases.to_vec()), 0u64..32).prop_map(|(base, low)| base | low),
        1 => Just(!0),
    ]
}

/// A word that often is a command, a stream table entry or a descriptor.
fn interesting_word() -> impl Strategy<Value = u64> {
    let opcodes = [1u64, 3, 4, 5, 6, 0x10, 0x11, 0x12, 0x13, 0x30, 0x40, 0x46, 0x46, 0xee];
    prop_oneof![
        4 => (proptest::sample::select(opcodes.to_vec()), any::<u32>(), 0u64..0x300)
            .prop_map(|(opcode, middle, stream)| opcode | u64::from(middle & 0x00ff_f000) | stream << 32),
        1 => interesting_value(),
        1 => 0u64..16,
    ]
}

fn action() -> impl Strategy<Value = Action> {
    let places = [STRTAB, STRTAB + 64 * 0x100, STRTAB + 64 * 0x200, L2TAB, CMDQ, EVENTQ];
    prop_oneof![
        4 => (interesting_offset(), any::<u32>()).prop_map(|(offset, value)| Action::Write(offset, value)),
        4 => (interesting_offset(), 0u32..64).prop_map(|(offset, value)| Action::Write(offset, value)),
        4 => (interesting_offset(), interesting_value()).prop_map(|(offset, value)| Action::Write64(offset, value)),
        1 => (any::<u64>(), proptest::collection::vec(any::<u8>(), 0..17)).prop_map(|(o, d)| Action::Raw(o, d)),
        1 => (interesting_offset(), 0usize..17).prop_map(|(offset, length)| Action::Read(offset, length)),
        6 => (proptest::sample::select(places.to_vec()), 0u64..64, interesting_word())
            .prop_map(|(base, index, word)| Action::Poke(base + 8 * index, word)),
        1 => any::<u8>().prop_map(Action::Events),
        1 => Just(Action::Reset),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_sequence_of_accesses_ends_in_a_panic(
        running in any::<bool>(),
        actions in proptest::collection::vec(action(), 1..200),
    ) {
        let guest = if running { Guest::running() } else { Guest::new() };
        guest.fake.lock().forget = true;
        for action in actions {
            match action {
                Action::Write(offset, value) => guest.write(offset, value),
                Action::Write64(offset, value) => guest.write64(offset, value),
                Action::Raw(offset, data) => guest.smmu.write(offset, &data),
                Action::Read(offset, length) => guest.smmu.read(offset, &mut vec![0; length]),
                Action::Poke(address, word) => guest.poke(address, &[word]),
                Action::Events(count) => {
                    let event = HostEvent::Record([0x10, 0, 0, 0]);
                    guest.fake.lock().events.extend(std::iter::repeat_n(event, count.into()));
                    guest.smmu.events_ready();
                }
                Action::Reset => guest.smmu.reset(),
            }
        }
        // Still alive: a reset makes it as new.
        guest.smmu.reset();
        prop_assert_eq!(guest.read(CR0), 0);
    }

    #[test]
    fn no_entry_reaches_the_host_with_a_bit_that_its_kernel_refuses(
        word0 in any::<u64>(), word1 in any::<u64>(), all in any::<bool>(), force in any::<bool>(),
    ) {
        let features = if all { everything() } else { negotiate(&Wishes::default(), &host()).unwrap().features };
        // V = 1 and stage 1 more often than by chance.
        let word0 = if force { word0 & !0xf | 0b1011 } else { word0 };
        if let Ok(StreamConfig::Stage1(ste)) = stream_table::decode([word0, word1], &features) {
            prop_assert_eq!(ste.0[0] & !0xf80f_ffff_ffff_ffff, 0);
            prop_assert_eq!(ste.0[1] & !0x3800_00ff, 0);
            prop_assert_eq!(ste.0[0] & 0xf, 0b1011);
            prop_assert!(ste.0[1] >> 28 & 3 <= 1);
        }
    }

    #[test]
    fn batches_keep_order_and_lose_nothing(
        choices in proptest::collection::vec((0u8..12, any::<u16>(), 0u64..1 << 36, any::<bool>()), 1..2000),
    ) {
        let mut features = everything();
        features.idr1.set_cmdqs(12);
        let mut guest = Guest::running_with(features);
        guest.use_command_queue(12);
        let mut expected = Vec::new();
        // Most commands that may be together in a batch, in each stretch between two ends of one.
        let (mut stretch, mut calls) = (0, 0);
        for (choice, asid, page, other) in choices {
            let stream = STREAMS[usize::from(other)];
            let command = match choice {
                0 => sync(),
                1 => cfgi_ste(stream),
                2 => cfgi_cd(stream),
                3 => atc_inv(stream),
                4 => atc_inv(ROOT_PORT),
                5 => tlbi_nsnh_all(),
                _ => tlbi_va(asid, page << 12),
            };
            guest.push(command);
            match choice {
                0 | 1 => calls += u64::from(std::mem::take(&mut stretch) % CAPACITY as u64 > 0),
                4 => {}
                _ => {
                    expected.push(words(command));
                    stretch += 1;
                    calls += u64::from(stretch % CAPACITY as u64 == 0);
                }
            }
            if choice == 0 {
                guest.kick();
                prop_assert_eq!(guest.smmu.stats().invalidation_ioctls, calls, "split only where it has to be");
            }
        }
        guest.kick();
        prop_assert_eq!(guest.take_invalidations().concat(), expected);
    }
}
