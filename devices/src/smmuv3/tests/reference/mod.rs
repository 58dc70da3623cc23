//! A second vSMMU, slow and obvious, and the machine that runs both side by side.
//!
//! Written from IHI 0070 and docs/vsmmu.md, not from the model: one command at a time, no batches, registers as a list
//! of words, fields as bit numbers. It uses only what the model shows to the rest of the world ([`Smmuv3`] and
//! [`PhysicalSmmu`]), so the same files serve the property tests here and the fuzz targets in `tests/fuzz`.
//!
//! [`Smmuv3`]: crate::smmuv3::Smmuv3
//! [`PhysicalSmmu`]: crate::smmuv3::PhysicalSmmu

mod commands;
mod events;
mod host;
mod judge;
mod machine;
mod operation;
mod registers;
mod streams;
mod trouble;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use host::{Entry, Host};
pub use machine::{Machine, Shape, places};
pub use operation::Operation;
pub use trouble::{Trouble, Troubles};
#[allow(unused_imports)] // used by the fuzz targets
pub use {commands::Ring, judge::Judge};

use crate::smmuv3::capabilities::Features;
use crate::smmuv3::physical::{HostEvent, StreamConfig};

/// Guest memory of the reference: its own copy, so that writes of one vSMMU are not seen by the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Memory {
    base: u64,
    bytes: Vec<u8>,
}

impl Memory {
    fn range(&self, address: u64, length: u64) -> Option<std::ops::Range<usize>> {
        let start = address.checked_sub(self.base)?;
        let end = start.checked_add(length)?;
        (end <= self.bytes.len() as u64).then_some(start as usize..end as usize)
    }

    fn read64(&self, address: u64) -> Option<u64> {
        let range = self.range(address, 8)?;
        Some(u64::from_le_bytes(self.bytes[range].try_into().ok()?))
    }

    fn write(&mut self, address: u64, bytes: &[u8]) -> bool {
        let Some(range) = self.range(address, bytes.len() as u64) else { return false };
        self.bytes[range].copy_from_slice(bytes);
        true
    }
}

/// What the reference keeps of a stream.
#[derive(Clone, Copy, Debug)]
struct Known {
    wanted: StreamConfig,
    /// To be tried again at the next CMD_SYNC.
    busy: bool,
    /// Its ATC did not answer.
    dead_atc: bool,
}

/// The reference vSMMU with the host that it would be in front of.
#[derive(Debug)]
pub struct Reference {
    features: Features,
    memory: Memory,
    /// Registers that can be written, by offset.
    words: BTreeMap<u64, u32>,
    streams: BTreeMap<u32, Known>,
    atc_timeout: bool,
    /// Something of before the last reset may be cached.
    stale: bool,
    /// What each device has.
    host: BTreeMap<u32, StreamConfig>,
    troubles: Troubles,
    pending: VecDeque<HostEvent>,
    /// What the host and the guest's interrupt controller were told, in order.
    log: Vec<Entry>,
    /// Edges of the event queue's wire.
    event_edges: u32,
    events: u64,
    lost: u64,
    command_errors: u64,
    /// It wrote to its own command queue. How far ahead an SMMU reads is its own matter, so nothing is certain any more.
    uncertain: bool,
}

/// Bits `high..=low` of `value`.
fn bits(value: u64, high: u32, low: u32) -> u64 {
    value >> low & (u64::MAX >> (63 - (high - low)))
}

/// The same bits, at their place.
fn keep(value: u64, high: u32, low: u32) -> u64 {
    bits(value, high, low) << low
}

impl Reference {
    fn new(features: Features, base: u64, size: usize, streams: &BTreeSet<u32>) -> Self {
        let mut reference = Self {
            features,
            memory: Memory { base, bytes: vec![0; size] },
            words: BTreeMap::new(),
            streams: BTreeMap::new(),
            atc_timeout: false,
            stale: false,
            host: streams.iter().map(|&stream| (stream, StreamConfig::Bypass)).collect(),
            troubles: Troubles::default(),
            pending: VecDeque::new(),
            log: Vec::new(),
            event_edges: 0,
            events: 0,
            lost: 0,
            command_errors: 0,
            uncertain: false,
        };
        reference.configure_all();
        reference
    }

    /// Power-on, as far as the guest can tell.
    fn reset(&mut self) {
        self.words.clear();
        self.streams.clear();
        self.atc_timeout = false;
        self.configure_all();
        // Nothing cached survives, and no event of the old world.
        self.stale = self.invalidate([0x30, 0]).is_err();
        if !self.troubles.deaf {
            self.pending.clear();
        }
    }

    fn idr0(&self, high: u32, low: u32) -> u64 {
        bits(self.features.idr0.into_bits().into(), high, low)
    }

    fn idr1(&self, high: u32, low: u32) -> u64 {
        bits(self.features.idr1.into_bits().into(), high, low)
    }

    fn idr3(&self, high: u32, low: u32) -> u64 {
        bits(self.features.idr3.into_bits().into(), high, low)
    }

    /// Bits of an output address.
    fn oas(&self) -> u32 {
        [32, 36, 40, 42, 44, 48, 52, 48][self.idr5(2, 0) as usize]
    }

    fn idr5(&self, high: u32, low: u32) -> u64 {
        bits(self.features.idr5.into_bits().into(), high, low)
    }
}
