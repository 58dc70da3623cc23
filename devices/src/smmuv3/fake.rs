//! A `PhysicalSmmu` in memory: keeps what it was told, in order, and fails when a test wants so.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

use super::decode::atc_stream;
use super::physical::{
    CommandWords, HostCapabilities, HostError, HostEvent, InstallError, Installed, InvalidateError, PhysicalSmmu,
    StreamConfig,
};
use super::spec::registers::{Idr0, Idr1, Idr3, Idr5};

/// What the fake was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Call {
    Install(u32, StreamConfig),
    Invalidate(Vec<CommandWords>),
}

#[derive(Default)]
pub(super) struct Inner {
    /// What each device has.
    pub(super) streams: BTreeMap<u32, StreamConfig>,
    /// Installs that changed something, and invalidations.
    pub(super) calls: Vec<Call>,
    pub(super) events: VecDeque<HostEvent>,
    /// Answers to the next invalidations.
    pub(super) failures: VecDeque<InvalidateError>,
    /// Streams whose ATC never answers.
    pub(super) dead: BTreeSet<u32>,
    /// How long an invalidation takes.
    pub(super) slow: Option<Duration>,
    /// Fails the next install.
    pub(super) fail_install: bool,
    /// Streams whose devices are in reset.
    pub(super) busy: BTreeSet<u32>,
    /// The event queue cannot be read.
    pub(super) fail_events: bool,
    invalidations: u64,
    /// Calls of `install`.
    pub(super) installs: u64,
    /// Whether to keep the calls; benches and long tests do not.
    pub(super) forget: bool,
}

#[derive(Default)]
pub(super) struct FakeSmmu {
    inner: Mutex<Inner>,
}

impl FakeSmmu {
    /// With devices at these StreamIDs, in bypass.
    pub(super) fn new(streams: &[u32]) -> Arc<Self> {
        let fake = Self::default();
        fake.lock().streams = streams.iter().map(|&stream| (stream, StreamConfig::Bypass)).collect();
        Arc::new(fake)
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap()
    }

    pub(super) fn take_calls(&self) -> Vec<Call> {
        std::mem::take(&mut self.lock().calls)
    }

    pub(super) fn config(&self, stream_id: u32) -> StreamConfig {
        self.lock().streams[&stream_id]
    }
}

/// A host SMMU with all that matters to a guest.
pub(super) fn host() -> HostCapabilities {
    let idr0 = Idr0::new()
        .with_s1p(true)
        .with_s2p(true)
        .with_ttf(2)
        .with_cohacc(true)
        .with_hyp(true)
        .with_ats(true)
        .with_asid16(true)
        .with_cd2l(true)
        .with_ttendian(2)
        .with_st_level(1);
    let idr1 = Idr1::new().with_sidsize(32).with_ssidsize(20).with_cmdqs(19).with_eventqs(19);
    let idr3 = Idr3::new().with_ril(true).with_bbml(2);
    let idr5 = Idr5::new().with_oas(5).with_gran4k(true).with_gran16k(true).with_gran64k(true);
    HostCapabilities {
        idr: [idr0.into_bits(), idr1.into_bits(), 0, idr3.into_bits(), 0, idr5.into_bits()],
        iidr: 0x43b,
        aidr: 3,
        ats: true,
        pasid_bits: 20,
        ats_required: false,
        repeat_tlbi_cfgi: false,
    }
}

impl PhysicalSmmu for FakeSmmu {
    fn capabilities(&self) -> HostCapabilities {
        host()
    }

    fn streams(&self, into: &mut Vec<u32>) {
        into.extend(self.lock().streams.keys());
    }

    fn has_stream(&self, stream_id: u32) -> bool {
        self.lock().streams.contains_key(&stream_id)
    }

    fn install(&self, stream_id: u32, config: StreamConfig) -> Result<Installed, InstallError> {
        let mut inner = self.lock();
        inner.installs += 1;
        let fail = std::mem::take(&mut inner.fail_install);
        let busy = inner.busy.contains(&stream_id);
        let Some(now) = inner.streams.get_mut(&stream_id) else { return Ok(Installed::NoDevice) };
        if fail || busy && *now != config {
            *now = StreamConfig::Abort;
            let source = if busy { "in reset" } else { "out of memory" };
            return Err(InstallError { stream_id, busy, source: source.into() });
        }
        if *now == config {
            return Ok(Installed::Unchanged);
        }
        *now = config;
        if !inner.forget {
            inner.calls.push(Call::Install(stream_id, config));
        }
        Ok(Installed::Replaced)
    }

    fn invalidate(&self, commands: &[CommandWords]) -> Result<(), InvalidateError> {
        assert!(!commands.is_empty(), "the kernel answers EINVAL to an empty batch");
        let slow = self.lock().slow;
        if let Some(slow) = slow {
            thread::sleep(slow);
        }
        let mut inner = self.lock();
        inner.invalidations += 1;
        if !inner.forget {
            inner.calls.push(Call::Invalidate(commands.to_vec()));
        }
        if let Some(failure) = inner.failures.pop_front() {
            return Err(failure);
        }
        let is_dead = |command: &CommandWords| atc_stream(*command).is_some_and(|stream| inner.dead.contains(&stream));
        match commands.iter().position(is_dead) {
            Some(position) => {
                let first = position - position % 63;
                Err(InvalidateError::Timeout { first, end: (first + 63).min(commands.len()) })
            }
            None => Ok(()),
        }
    }

    fn drain_events(&self, sink: &mut dyn FnMut(HostEvent)) -> Result<bool, HostError> {
        if self.lock().fail_events {
            return Err("no such device".into());
        }
        let events = std::mem::take(&mut self.lock().events);
        events.into_iter().for_each(sink);
        Ok(true)
    }

    fn invalidation_calls(&self) -> u64 {
        self.lock().invalidations
    }
}
