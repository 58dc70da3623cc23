//! What is wrong with the host at a moment. It depends on commands and streams, never on how commands are batched, so
//! both vSMMUs meet the same.

use std::collections::BTreeSet;

use crate::smmuv3::physical::{CommandWords, StreamConfig};

/// One thing that goes wrong, or is right again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// No invalidation can be executed at all.
    Down(bool),
    /// The device of the stream is in reset.
    Busy(u32, bool),
    /// The stream cannot be given another configuration.
    Stubborn(u32, bool),
    /// The ATC of the stream does not answer.
    Dead(u32, bool),
    /// TLBIs by address with this ASID are refused.
    Refused(u16, bool),
    /// TLBIs by address with this ASID never complete.
    Lost(u16, bool),
    /// Events cannot be read.
    Deaf(bool),
}

/// All that is wrong now.
#[derive(Clone, Debug, Default)]
pub struct Troubles {
    pub down: bool,
    pub deaf: bool,
    busy: BTreeSet<u32>,
    stubborn: BTreeSet<u32>,
    dead: BTreeSet<u32>,
    refused: BTreeSet<u16>,
    lost: BTreeSet<u16>,
}

/// What becomes of one invalidation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Executed,
    Refused,
    NeverCompletes,
}

/// What becomes of an install.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    Unchanged,
    Replaced,
    Busy,
    Failed,
}

impl Troubles {
    pub fn set(&mut self, trouble: Trouble) {
        fn put<T: Ord>(set: &mut BTreeSet<T>, element: T, is: bool) {
            if is {
                set.insert(element);
            } else {
                set.remove(&element);
            }
        }
        match trouble {
            Trouble::Down(is) => self.down = is,
            Trouble::Deaf(is) => self.deaf = is,
            Trouble::Busy(stream, is) => put(&mut self.busy, stream, is),
            Trouble::Stubborn(stream, is) => put(&mut self.stubborn, stream, is),
            Trouble::Dead(stream, is) => put(&mut self.dead, stream, is),
            Trouble::Refused(asid, is) => put(&mut self.refused, asid, is),
            Trouble::Lost(asid, is) => put(&mut self.lost, asid, is),
        }
    }

    /// What becomes of a command while the host is not down.
    pub fn fate(&self, [word0, _]: CommandWords) -> Fate {
        let (asid, stream) = ((word0 >> 48) as u16, (word0 >> 32) as u32);
        match word0 as u8 {
            0x12 if self.refused.contains(&asid) => Fate::Refused,
            0x12 if self.lost.contains(&asid) => Fate::NeverCompletes,
            0x40 if self.dead.contains(&stream) => Fate::NeverCompletes,
            _ => Fate::Executed,
        }
    }

    /// What becomes of an install.
    pub fn answer(&self, stream: u32, now: StreamConfig, wanted: StreamConfig) -> Answer {
        if now == wanted {
            Answer::Unchanged
        } else if self.busy.contains(&stream) {
            Answer::Busy
        } else if self.stubborn.contains(&stream) {
            Answer::Failed
        } else {
            Answer::Replaced
        }
    }
}
