//! Model and reference stay the same whatever a guest, its devices and the host do.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::reference::{Machine, Operation, Shape, Trouble, places};
use crate::smmuv3::physical::{CommandWords, HostEvent};
use places::{CMDQ, EVENTQ, GITS_TRANSLATER, L2TAB, MEMORY, MEMORY_SIZE, NOWHERE, SCRATCH, STRANGERS, STREAMS, STRTAB};

/// Mostly one with a device.
fn stream() -> impl Strategy<Value = u32> {
    prop_oneof![8 => select(STREAMS.to_vec()), 1 => select(STRANGERS.to_vec())]
}

/// ASIDs of which some mean trouble.
fn asid() -> impl Strategy<Value = u16> {
    prop_oneof![4 => 0u16..4, 1 => any::<u16>()]
}

fn message() -> impl Strategy<Value = u64> {
    select(vec![0, 0, SCRATCH, SCRATCH + 0x14, GITS_TRANSLATER, NOWHERE])
}

/// A command as a driver writes it.
fn command() -> impl Strategy<Value = CommandWords> {
    let tlbi = (select(vec![0x10u64, 0x11, 0x12, 0x12, 0x12, 0x13, 0x30]), asid(), any::<u64>());
    let for_stream = (select(vec![0x03u64, 0x03, 0x03, 0x05, 0x06, 0x40, 0x40]), stream(), 0u64..2);
    prop_oneof![
        6 => tlbi.prop_map(|(opcode, asid, address)| [opcode | u64::from(asid) << 48, address & !0xffe]),
        6 => for_stream.prop_map(|(opcode, stream, leaf)| [opcode | u64::from(stream) << 32, leaf]),
        1 => (stream(), prop_oneof![0u64..32, Just(31)]).prop_map(|(stream, range)| [4 | u64::from(stream) << 32, range]),
        3 => (0u64..3, message(), any::<u32>())
            .prop_map(|(cs, address, data)| [0x46 | cs << 12 | u64::from(data) << 32, address]),
    ]
}

/// Anything, most of it with an opcode that exists.
fn strange_command() -> impl Strategy<Value = CommandWords> {
    let opcodes = vec![1u64, 2, 3, 4, 5, 6, 7, 0x10, 0x11, 0x12, 0x12, 0x13, 0x13, 0x20, 0x30, 0x40, 0x40, 0x46, 0x46];
    let reserved = prop_oneof![Just(!0x400u64), Just(!0), Just(0xffff_ffff_03ff_f0ff)];
    (select(opcodes), any::<u64>(), reserved, any::<u64>(), prop_oneof![Just(!0u64), Just(0x3f), Just(0xfff)])
        .prop_map(|(opcode, word0, mask0, word1, mask1)| [word0 & mask0 & !0xff | opcode, word1 & mask1])
}

fn commands() -> impl Strategy<Value = Operation> {
    let few = vec(prop_oneof![20 => command(), 1 => strange_command()], 1..12);
    // More than one batch, and more than one block of the kernel.
    let many = (vec(command(), 1..4), 20usize..150).prop_map(|(commands, times)| commands.repeat(times));
    prop_oneof![10 => few, 1 => many].prop_map(Operation::Commands)
}

fn entry() -> impl Strategy<Value = [u64; 2]> {
    let stage1 =
        (0u64..4, any::<bool>()).prop_map(|(n, ats)| [0b1011 | (SCRATCH + n * 64), 0x3e | u64::from(ats) << 28]);
    let substreams = (0u64..12, 0u64..4, 0u64..4)
        .prop_map(|(contexts, format, s1dss)| [0b1011 | format << 4 | SCRATCH | contexts << 59, s1dss]);
    prop_oneof![
        6 => stage1,
        1 => substreams,
        1 => Just([0b1001, 0]),
        1 => Just([0b0001, 0]),
        1 => Just([0, 0]),
        1 => (any::<u64>(), any::<u64>()).prop_map(|(word0, word1)| [word0 | 1, word1]),
        1 => (any::<u64>(), any::<u64>()).prop_map(|(word0, word1)| [word0 & !0x30 | 0b1011, word1 & !(3 << 30)]),
    ]
}

fn place() -> impl Strategy<Value = u64> {
    let bases = vec![STRTAB, L2TAB, L2TAB + 0x400, CMDQ, EVENTQ, SCRATCH, MEMORY + MEMORY_SIZE as u64 - 64, NOWHERE];
    select(bases)
}

/// A register with a value that could be meant for it.
fn register() -> impl Strategy<Value = Operation> {
    let word = |offset: u64, value: u32| Operation::Write(offset, value.to_le_bytes().to_vec());
    let long = |offset: u64, value: u64| Operation::Write(offset, value.to_le_bytes().to_vec());
    let any_offset = prop_oneof![(0u64..0x30).prop_map(|n| 4 * n), select(vec![0x1_00a8u64, 0x1_00ac])];
    prop_oneof![
        4 => (0u32..32).prop_map(move |value| word(0x20, value)),
        1 => (0u32..8, any::<bool>()).prop_map(move |(low, update)| word(0x44, low << 18 | u32::from(update) << 31)),
        1 => (0u32..8).prop_map(move |value| word(0x2c, value)),
        2 => (0u32..8).prop_map(move |value| word(0x50, value)),
        2 => (0u32..256).prop_map(move |value| word(0x64, value)),
        2 => (select(vec![0x68u64, 0xb0]), message()).prop_map(move |(offset, address)| long(offset, address)),
        3 => (select(vec![0x80u64, 0x90, 0xa0]), place(), 0u64..32)
            .prop_map(move |(offset, place, log2size)| long(offset, place | log2size)),
        2 => (0u32..18, select(vec![0u32, 6, 8, 10]), 0u32..3)
            .prop_map(move |(log2size, split, format)| word(0x88, log2size | split << 6 | format << 16)),
        2 => (select(vec![0x98u64, 0x9c, 0xa8, 0x1_00a8, 0x1_00ac]), 0u32..80)
            .prop_map(move |(offset, index)| word(offset, index)),
        2 => (any_offset, any::<u32>()).prop_map(move |(offset, value)| word(offset, value)),
        1 => (0u64..0x2_0010, vec(any::<u8>(), 0..10)).prop_map(|(offset, data)| Operation::Write(offset, data)),
    ]
}

fn poke() -> impl Strategy<Value = Operation> {
    let descriptor =
        (select(vec![L2TAB, L2TAB + 0x400, SCRATCH, NOWHERE]), 0u64..16).prop_map(|(table, span)| table | span);
    let word = prop_oneof![4 => descriptor, 2 => entry().prop_map(|[word0, _]| word0), 1 => any::<u64>()];
    let index = prop_oneof![0u64..8, select(STREAMS.map(|stream| 8 * u64::from(stream)).to_vec())];
    let table = select(vec![STRTAB, L2TAB, L2TAB + 0x400, CMDQ]);
    (table, index, word).prop_map(|(base, index, word)| Operation::Poke(base + 8 * index, word))
}

fn trouble() -> impl Strategy<Value = Operation> {
    let is = || prop_oneof![2 => Just(true), 3 => Just(false)];
    prop_oneof![
        is().prop_map(Trouble::Down),
        is().prop_map(Trouble::Deaf),
        (stream(), is()).prop_map(|(stream, is)| Trouble::Busy(stream, is)),
        (stream(), is()).prop_map(|(stream, is)| Trouble::Stubborn(stream, is)),
        (stream(), is()).prop_map(|(stream, is)| Trouble::Dead(stream, is)),
        (0u16..4, is()).prop_map(|(asid, is)| Trouble::Refused(asid, is)),
        (0u16..4, is()).prop_map(|(asid, is)| Trouble::Lost(asid, is)),
    ]
    .prop_map(Operation::Trouble)
}

fn host_events() -> impl Strategy<Value = Operation> {
    let record = (0x10u64..0x14, stream(), any::<u64>())
        .prop_map(|(number, stream, address)| HostEvent::Record([number | u64::from(stream) << 32, 0, address, 0]));
    let event = prop_oneof![6 => record, 1 => (0u32..5).prop_map(HostEvent::Lost)];
    vec(event, 1..12).prop_map(Operation::Raise)
}

fn split() -> impl Strategy<Value = u8> {
    select(vec![0u8, 0, 6, 8, 10])
}

fn start() -> impl Strategy<Value = Operation> {
    (0u8..12, 0u8..6, split()).prop_map(|(commands, events, split)| Operation::Start { commands, events, split })
}

/// The level 1 descriptor of a stream, with a level 2 table that is large enough for it, or nearly.
fn descriptor() -> impl Strategy<Value = Operation> {
    let table = select(vec![L2TAB, L2TAB, L2TAB + 0x400, NOWHERE]);
    (stream(), split(), table, 0u64..3).prop_map(|(stream, split, table, less)| {
        let span = (u64::from(split) + 2).saturating_sub(less);
        Operation::Poke(places::descriptor(stream, split), table | span)
    })
}

fn operation() -> impl Strategy<Value = Operation> {
    prop_oneof![
        8 => commands(),
        8 => Just(Operation::Kick),
        4 => Just(Operation::Acknowledge),
        4 => (stream(), entry()).prop_map(|(stream, words)| Operation::Entry(stream, words)),
        4 => register(),
        2 => poke(),
        3 => descriptor(),
        3 => trouble(),
        2 => host_events(),
        2 => Just(Operation::Poll),
        2 => Just(Operation::TakeEvents),
        1 => stream().prop_map(Operation::Plug),
        1 => stream().prop_map(Operation::Unplug),
        1 => stream().prop_map(Operation::Announce),
        1 => start(),
    ]
}

/// A driver starts; later resets are rare.
fn script(steps: usize) -> impl Strategy<Value = Vec<Operation>> {
    let reset = prop_oneof![40 => operation(), 1 => Just(Operation::Reset)];
    (start(), vec(reset, 1..steps)).prop_map(|(start, mut operations)| {
        operations.insert(0, start);
        operations
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_model_does_what_the_reference_does(shape in select(Shape::ALL.to_vec()), script in script(120)) {
        Machine::new(shape).run(&script);
    }

    #[test]
    fn so_it_does_without_a_driver_that_starts_first(operations in vec(operation(), 1..80)) {
        Machine::new(Shape::Everything).run(&operations);
    }

    #[test]
    fn long_streams_of_commands_end_in_the_same_state(
        shape in select(Shape::ALL.to_vec()),
        operations in vec(prop_oneof![
            6 => commands(),
            6 => Just(Operation::Kick),
            2 => Just(Operation::Acknowledge),
            2 => (stream(), entry()).prop_map(|(stream, words)| Operation::Entry(stream, words)),
            1 => trouble(),
        ], 1..200),
    ) {
        let start = Operation::Start { commands: 10, events: 5, split: 0 };
        Machine::new(shape).run(std::iter::once(&start).chain(&operations));
    }
}

#[test]
fn every_illegal_command_stops_both() {
    for shape in Shape::ALL {
        for opcode in 0..=0xff {
            let start = Operation::Start { commands: 4, events: 4, split: 0 };
            let push = Operation::Commands(vec![[opcode, 0], [opcode | 0x400, 0], [0x46, 0]]);
            Machine::new(shape).run(&[start, push, Operation::Kick, Operation::Acknowledge]);
        }
    }
}
