//! What a guest, its devices and the host can do to a vSMMU.

use super::trouble::Trouble;
use crate::smmuv3::physical::{CommandWords, HostEvent};

/// One step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// A driver starts: queues of these LOG2SIZEs, and a stream table of two levels if there is a split, all enabled.
    Start { commands: u8, events: u8, split: u8 },
    /// An access of any size at any offset.
    Write(u64, Vec<u8>),
    /// A word somewhere in guest memory.
    Poke(u64, u64),
    /// The entry of a stream in the table of [`Start`](Self::Start).
    Entry(u32, [u64; 2]),
    /// Commands into the queue, without telling.
    Commands(Vec<CommandWords>),
    /// CMDQ_PROD is written.
    Kick,
    /// GERRORN is written: all errors that are active.
    Acknowledge,
    /// EVENTQ_CONS is written: everything is read.
    TakeEvents,
    /// Something of the host breaks or is mended.
    Trouble(Trouble),
    /// The hardware has something to tell.
    Raise(Vec<HostEvent>),
    /// The host's event queue is readable.
    Poll,
    /// A device appears behind the vSMMU.
    Plug(u32),
    /// It goes.
    Unplug(u32),
    /// The vSMMU is told of either, or of the end of a device's reset.
    Announce(u32),
    /// The machine is reset.
    Reset,
}
