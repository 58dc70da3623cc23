//! From bytes to what happens to a vSMMU. Most values come from short lists, so that they meet each other.

use arbitrary::{Result, Unstructured};

use crate::reference::places::{
    CMDQ, EVENTQ, GITS_TRANSLATER, L2TAB, MEMORY, MEMORY_SIZE, NOWHERE, SCRATCH, STRANGERS, STREAMS, STRTAB,
};
use crate::reference::{Operation, Trouble, places};
use crate::smmuv3::physical::{CommandWords, HostEvent};

/// Steps in one input.
const MOST_STEPS: usize = 250;

/// Kinds of steps. A menu lists them, the likely ones more than once.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    Start,
    Register,
    Access,
    Poke,
    Entry,
    Descriptor,
    Commands,
    StrangeCommand,
    ManyCommands,
    Kick,
    Acknowledge,
    TakeEvents,
    Trouble,
    Raise,
    Poll,
    Plug,
    Unplug,
    Announce,
    Reset,
}

/// Reads steps until there are no bytes left.
pub fn operations(u: &mut Unstructured<'_>, menu: &[Kind]) -> Vec<Operation> {
    let mut operations = Vec::new();
    while !u.is_empty() && operations.len() < MOST_STEPS {
        match operation(u, menu) {
            Ok(operation) => operations.push(operation),
            Err(_) => break,
        }
    }
    operations
}

fn operation(u: &mut Unstructured<'_>, menu: &[Kind]) -> Result<Operation> {
    Ok(match u.choose(menu)? {
        Kind::Start => Operation::Start {
            commands: u.int_in_range(0..=12)?,
            events: u.int_in_range(0..=7)?,
            split: *u.choose(&SPLITS)?,
        },
        Kind::Descriptor => {
            let (stream, split) = (stream(u)?, *u.choose(&SPLITS)?);
            let span = (u64::from(split) + 2).saturating_sub(u.int_in_range(0..=3)?);
            Operation::Poke(
                places::descriptor(stream, split),
                *u.choose(&[L2TAB, L2TAB, L2TAB + 0x400, NOWHERE])? | span,
            )
        }
        Kind::Register => register(u)?,
        Kind::Access => {
            let length = u.int_in_range(0..=17)?;
            Operation::Write(u.int_in_range(0..=0x2_0010)?, u.bytes(length)?.to_vec())
        }
        Kind::Poke => Operation::Poke(address(u)?, word(u)?),
        Kind::Entry => Operation::Entry(stream(u)?, entry(u)?),
        Kind::Commands => {
            let count = u.int_in_range(1..=6)?;
            Operation::Commands((0..count).map(|_| command(u)).collect::<Result<_>>()?)
        }
        Kind::StrangeCommand => Operation::Commands(vec![[word(u)?, u.arbitrary()?]]),
        Kind::ManyCommands => {
            let times = u.arbitrary::<u8>()?;
            Operation::Commands([command(u)?, command(u)?].repeat(times.into()))
        }
        Kind::Kick => Operation::Kick,
        Kind::Acknowledge => Operation::Acknowledge,
        Kind::TakeEvents => Operation::TakeEvents,
        Kind::Trouble => Operation::Trouble(trouble(u)?),
        Kind::Raise => {
            let count = u.int_in_range(1..=40)?;
            let event = event(u)?;
            Operation::Raise(vec![event; count])
        }
        Kind::Poll => Operation::Poll,
        Kind::Plug => Operation::Plug(stream(u)?),
        Kind::Unplug => Operation::Unplug(stream(u)?),
        Kind::Announce => Operation::Announce(stream(u)?),
        Kind::Reset => Operation::Reset,
    })
}

/// One with a device, one without, or seldom any.
fn stream(u: &mut Unstructured<'_>) -> Result<u32> {
    let [first, second, third] = STREAMS;
    let [inside, outside] = STRANGERS;
    let known = [first, second, third, first, second, third, inside, outside];
    match u.int_in_range(0..=8)? {
        8 => u.arbitrary(),
        index => Ok(known[index]),
    }
}

fn address(u: &mut Unstructured<'_>) -> Result<u64> {
    const PLACES: [u64; 9] = [
        STRTAB,
        L2TAB,
        L2TAB + 0x400,
        CMDQ,
        EVENTQ,
        SCRATCH,
        MEMORY + MEMORY_SIZE as u64 - 64,
        NOWHERE,
        GITS_TRANSLATER,
    ];
    Ok(match u.int_in_range(0..=10)? {
        0 => u.arbitrary()?,
        1 => 0,
        2 => MEMORY + u.int_in_range(0..=MEMORY_SIZE as u64)?,
        // The entry of a stream.
        3 => STRTAB + 64 * u64::from(*u.choose(&STREAMS)?) + u.int_in_range(0..=1)? * 8,
        // The level 1 descriptor of a stream.
        4 => STRTAB + 8 * u64::from(*u.choose(&STREAMS)? >> *u.choose(&[6, 8, 10])?),
        5 => u.choose(&PLACES)? + 8 * u.int_in_range(0..=63)?,
        _ => *u.choose(&PLACES)?,
    })
}

/// An entry, a descriptor, a command or anything.
fn word(u: &mut Unstructured<'_>) -> Result<u64> {
    Ok(match u.int_in_range(0..=4)? {
        0 => u.arbitrary()?,
        1 => address(u)? | u.int_in_range(0..=31)?,
        2 => command(u)?[u.int_in_range(0..=1)?],
        3 => entry(u)?[u.int_in_range(0..=1)?],
        _ => u.arbitrary::<u64>()? & !0x4ff | u64::from(*u.choose(&OPCODES)?),
    })
}

const SPLITS: [u8; 6] = [0, 0, 6, 8, 10, 7];

const OPCODES: [u8; 22] = [
    0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0x10, 0x11, 0x12, 0x13, 0x18, 0x20, 0x28, 0x2a, 0x30, 0x40, 0x41, 0x44,
    0x45, 0x46, 0xff,
];

/// A command as a driver writes it.
fn command(u: &mut Unstructured<'_>) -> Result<CommandWords> {
    let opcode = u64::from(*u.choose(&[0x03u8, 0x04, 0x05, 0x06, 0x10, 0x11, 0x12, 0x13, 0x30, 0x40, 0x46, 0x46])?);
    Ok(match opcode {
        0x04 => [opcode | u64::from(stream(u)?) << 32, *u.choose(&[31, 0, 5, 8])?],
        0x03 | 0x05 | 0x06 => [opcode | u64::from(stream(u)?) << 32, u.int_in_range(0..=1)?],
        0x40 => [opcode | u64::from(stream(u)?) << 32, u.int_in_range(0..=53)?],
        0x10 | 0x30 => [opcode, 0],
        0x46 => [opcode | u.int_in_range::<u64>(0..=3)? << 12 | u64::from(u.arbitrary::<u32>()?) << 32, address(u)?],
        _ => {
            let asid = u64::from(u.int_in_range::<u16>(0..=4)?);
            let range = u64::from(u.arbitrary::<u16>()?);
            let fields = (range & 0x1f) << 12 | (range >> 5 & 0x3f) << 20;
            let low = *u.choose(&[0u64, 1, 1 << 10, 2 << 10 | 1 << 8, 3 << 10 | 3 << 8])?;
            [opcode | asid << 48 | fields, u.arbitrary::<u64>()? & !0xfff | low]
        }
    })
}

/// The first words of a stream table entry.
fn entry(u: &mut Unstructured<'_>) -> Result<[u64; 2]> {
    Ok(match u.int_in_range(0..=6)? {
        0 => [0, 0],
        1 => [0b0001, 0],
        2 => [0b1001, 0],
        3 => [u.arbitrary::<u64>()? | 1, u.arbitrary()?],
        4 => [u.arbitrary::<u64>()? & !0xf | 0b1011, u.arbitrary::<u64>()? & !(0b11 << 30)],
        _ => {
            let context = SCRATCH + 64 * u.int_in_range(0..=3)?;
            let substreams = u.int_in_range::<u64>(0..=20)? << 59 | u.int_in_range::<u64>(0..=3)? << 4;
            [0b1011 | context | substreams, u.int_in_range::<u64>(0..=1)? << 28 | u.int_in_range::<u64>(0..=255)?]
        }
    })
}

/// A write to a register that exists, with a value that could be meant for it.
fn register(u: &mut Unstructured<'_>) -> Result<Operation> {
    const REGISTERS: [u64; 18] = [
        0x20, 0x28, 0x2c, 0x44, 0x50, 0x64, 0x68, 0x70, 0x80, 0x88, 0x90, 0x98, 0x9c, 0xa0, 0xb0, 0xb8, 0x1_00a8,
        0x1_00ac,
    ];
    let offset = *u.choose(&REGISTERS)?;
    Ok(match offset {
        0x68 | 0xb0 => Operation::Write(offset, address(u)?.to_le_bytes().to_vec()),
        0x80 | 0x90 | 0xa0 => {
            Operation::Write(offset, (address(u)? & !0x1f | u.int_in_range(0..=31)?).to_le_bytes().to_vec())
        }
        _ => {
            let value: u32 = match (offset, u.int_in_range(0..=3)?) {
                (_, 0) => u.arbitrary()?,
                (0x88, _) => {
                    let (log2size, split) = (u.int_in_range(0..=20)?, *u.choose(&[0u32, 6, 8, 10, 31])?);
                    log2size | split << 6 | u.int_in_range::<u32>(0..=3)? << 16
                }
                (0x44, _) => 1 << 31 | u32::from(u.arbitrary::<bool>()?) << 20,
                _ => u.int_in_range(0..=255)?,
            };
            Operation::Write(offset, value.to_le_bytes().to_vec())
        }
    })
}

fn trouble(u: &mut Unstructured<'_>) -> Result<Trouble> {
    let is = u.arbitrary()?;
    Ok(match u.int_in_range(0..=6)? {
        0 => Trouble::Down(is),
        1 => Trouble::Deaf(is),
        2 => Trouble::Busy(stream(u)?, is),
        3 => Trouble::Stubborn(stream(u)?, is),
        4 => Trouble::Dead(stream(u)?, is),
        5 => Trouble::Refused(u.int_in_range(0..=4)?, is),
        _ => Trouble::Lost(u.int_in_range(0..=4)?, is),
    })
}

fn event(u: &mut Unstructured<'_>) -> Result<HostEvent> {
    if u.ratio(1, 5)? {
        return Ok(HostEvent::Lost(u.arbitrary()?));
    }
    let head = u64::from(u.arbitrary::<u8>()?) | u64::from(stream(u)?) << 32;
    Ok(HostEvent::Record([head, u.arbitrary()?, u.arbitrary()?, 0]))
}
