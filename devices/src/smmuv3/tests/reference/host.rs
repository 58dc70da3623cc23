//! A host for the model under test: executes or fails by its [`Troubles`], judges and keeps what it is told.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Judge;
use super::trouble::{Answer, Fate, Troubles};
use crate::interrupt::{InterruptLine, MsiTarget};
use crate::smmuv3::PhysicalSmmu;
use crate::smmuv3::physical::{
    CommandWords, HostCapabilities, HostError, HostEvent, InstallError, Installed, InvalidateError, StreamConfig,
};

/// Commands that the kernel issues together.
const BLOCK: usize = 63;

/// More than the model ever collects.
const LONGEST_BATCH: usize = 4096;

/// What left the vSMMU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// A stream got another configuration.
    Install(u32, StreamConfig),
    /// An invalidation was executed.
    Execute(CommandWords),
    /// The wire of CMD_SYNC.
    Sync,
    /// The wire of global errors.
    Gerror,
    /// A message to the ITS.
    Message(u32),
}

/// The host's state, and what it was told.
#[derive(Debug, Default)]
pub struct Inner {
    pub streams: BTreeMap<u32, StreamConfig>,
    pub troubles: Troubles,
    pub pending: VecDeque<HostEvent>,
    pub log: Vec<Entry>,
    /// Edges of the event queue's wire; how records share them is up to the model.
    pub event_edges: u32,
    calls: u64,
}

/// The host SMMU with its devices, and the guest's interrupt controller, so that one log has the order of all.
#[derive(Debug)]
pub struct Host {
    capabilities: HostCapabilities,
    judge: Judge,
    inner: Mutex<Inner>,
}

/// A host with all that matters to a guest.
pub fn capabilities() -> HostCapabilities {
    let idr0 = 1 << 27 | 2 << 21 | 1 << 19 | 1 << 12 | 1 << 10 | 1 << 4 | 2 << 2 | 0b11;
    let idr1 = 19 << 21 | 19 << 16 | 20 << 6 | 32;
    let idr3 = 1 << 10 | 2 << 11;
    let idr5 = 0b111 << 4 | 5;
    HostCapabilities {
        idr: [idr0, idr1, 0, idr3, 0, idr5],
        iidr: 0x43b,
        aidr: 3,
        ats: true,
        pasid_bits: 20,
        ..HostCapabilities::default()
    }
}

impl Host {
    /// With devices at these StreamIDs.
    pub fn new(capabilities: HostCapabilities, streams: &BTreeSet<u32>) -> Arc<Self> {
        let streams = streams.iter().map(|&stream| (stream, StreamConfig::Bypass)).collect();
        let inner = Mutex::new(Inner { streams, ..Inner::default() });
        Arc::new(Self { capabilities, judge: Judge::new(capabilities), inner })
    }

    pub fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PhysicalSmmu for Host {
    fn capabilities(&self) -> HostCapabilities {
        self.capabilities
    }

    fn streams(&self, into: &mut Vec<u32>) {
        into.extend(self.lock().streams.keys());
    }

    fn has_stream(&self, stream_id: u32) -> bool {
        self.lock().streams.contains_key(&stream_id)
    }

    fn install(&self, stream_id: u32, config: StreamConfig) -> Result<Installed, InstallError> {
        self.judge.config(config);
        let mut inner = self.lock();
        let inner = &mut *inner;
        let Some(now) = inner.streams.get_mut(&stream_id) else { return Ok(Installed::NoDevice) };
        let answer = inner.troubles.answer(stream_id, *now, config);
        match answer {
            Answer::Unchanged => Ok(Installed::Unchanged),
            Answer::Replaced => {
                *now = config;
                inner.log.push(Entry::Install(stream_id, config));
                Ok(Installed::Replaced)
            }
            Answer::Busy | Answer::Failed => {
                *now = StreamConfig::Abort;
                Err(InstallError { stream_id, busy: answer == Answer::Busy, source: "trouble".into() })
            }
        }
    }

    fn invalidate(&self, commands: &[CommandWords]) -> Result<(), InvalidateError> {
        assert!(!commands.is_empty(), "the kernel answers EINVAL to an empty batch");
        assert!(commands.len() <= LONGEST_BATCH, "{} commands in one batch", commands.len());
        let mut inner = self.lock();
        inner.calls += 1;
        for command in commands {
            if let Some(stream) = self.judge.command(*command) {
                assert!(inner.streams.contains_key(&stream), "the kernel knows no stream {stream:#x}");
            }
        }
        if inner.troubles.down {
            return Err(InvalidateError::Failed("out of memory".into()));
        }
        let fates: Vec<Fate> = commands.iter().map(|command| inner.troubles.fate(*command)).collect();
        let refused = fates.iter().position(|fate| *fate == Fate::Refused);
        let taken = refused.unwrap_or(commands.len());
        for first in (0..taken).step_by(BLOCK) {
            let end = (first + BLOCK).min(taken);
            if fates[first..end].contains(&Fate::NeverCompletes) {
                return Err(InvalidateError::Timeout { first, end });
            }
            inner.log.extend(commands[first..end].iter().copied().map(Entry::Execute));
        }
        refused.map_or(Ok(()), |index| Err(InvalidateError::Refused { index }))
    }

    fn drain_events(&self, sink: &mut dyn FnMut(HostEvent)) -> Result<bool, HostError> {
        let mut inner = self.lock();
        if inner.troubles.deaf {
            return Err("no such device".into());
        }
        let events = std::mem::take(&mut inner.pending);
        drop(inner);
        events.into_iter().for_each(sink);
        Ok(true)
    }

    fn invalidation_calls(&self) -> u64 {
        self.lock().calls
    }
}

impl MsiTarget for Host {
    fn send(&self, _device_id: u32, data: u32) {
        self.lock().log.push(Entry::Message(data));
    }
}

/// A wire of the vSMMU.
pub struct Wire {
    pub host: Arc<Host>,
    /// What an edge is; none for the event queue.
    pub entry: Option<Entry>,
}

impl InterruptLine for Wire {
    fn set_level(&self, high: bool) {
        let mut inner = self.host.lock();
        match self.entry {
            _ if !high => {}
            Some(entry) => inner.log.push(entry),
            None => inner.event_edges += 1,
        }
    }
}
