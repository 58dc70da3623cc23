//! One vSMMU: its state, its lock, and what the rest of the machine calls.

use std::collections::BTreeMap;
use std::fmt;
use std::os::fd::RawFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::Duration;

use vm_memory::GuestMemoryMmap;

use super::batch::Batch;
use super::capabilities::Features;
use super::command_queue::{CHUNK, CommandBytes};
use super::decode::Decoder;
use super::interrupts::Interrupts;
use super::limit::RateLimit;
use super::physical::PhysicalSmmu;
use super::registers::{Effect, Registers};
use super::spec::registers::REGISTER_SPACE;
use super::stats::{DeviceCounters, Stats, StreamStats};
use super::streams::{Cause, FIRST_WAIT, Retry, Stream};
use crate::bus::MmioDevice;

/// Streams of which counters are kept, if not more have a device.
const MOST_STREAM_STATS: usize = 256;

/// What distinguishes one vSMMU from another.
#[derive(Clone, Debug)]
pub struct Config {
    /// Name in messages: `vsmmu0`.
    pub name: String,
    /// What the guest sees in the identification registers, from [`capabilities::negotiate`].
    ///
    /// [`capabilities::negotiate`]: super::capabilities::negotiate
    pub features: Features,
}

/// A vSMMUv3: both register pages ([`REGISTER_SPACE`] bytes) and what is behind them.
pub struct Smmuv3 {
    name: String,
    pub(super) physical: Arc<dyn PhysicalSmmu>,
    pub(super) memory: GuestMemoryMmap,
    pub(super) interrupts: Interrupts,
    pub(super) decoder: Decoder,
    state: Mutex<State>,
    /// Held by one of those who wait for the state, so that who gives it away does not get it back first.
    turn: Mutex<()>,
}

/// All that changes, under one lock.
pub(super) struct State {
    pub(super) registers: Registers,
    pub(super) batch: Batch,
    /// A vCPU executes commands, and may have given the lock away between two of them.
    pub(super) consuming: bool,
    /// Calls to the host since it took the lock.
    pub(super) calls: u32,
    /// Where commands are read to; taken while they are executed.
    pub(super) chunk: Vec<CommandBytes>,
    /// Reused for the StreamIDs of a range.
    pub(super) stream_ids: Vec<u32>,
    /// Streams with a device, as far as they were looked at since the last reset.
    pub(super) streams: BTreeMap<u32, Stream>,
    /// Some of them cannot be configured yet; when to try again.
    pub(super) busy: Option<Retry>,
    /// The first of their waits.
    pub(super) first_wait: Duration,
    /// An ATC invalidation timed out since the last CMD_SYNC.
    pub(super) atc_timeout: bool,
    /// Translations of before the last reset may still be cached.
    pub(super) stale: bool,
    pub(super) stats: Stats,
    /// Of each stream that has a device, and of some that had one.
    pub(super) stream_stats: BTreeMap<u32, StreamStats>,
    limit: RateLimit,
}

impl Smmuv3 {
    /// A vSMMU after reset, in front of `physical`; every device there gets the configuration of a reset SMMU (bypass).
    pub fn new(
        config: Config,
        physical: Arc<dyn PhysicalSmmu>,
        memory: GuestMemoryMmap,
        interrupts: Interrupts,
    ) -> Arc<Self> {
        let smmu = Self {
            name: config.name,
            physical,
            memory,
            interrupts,
            decoder: Decoder::new(&config.features),
            state: Mutex::new(State {
                registers: Registers::new(config.features),
                batch: Batch::new(),
                consuming: false,
                calls: 0,
                chunk: vec![CommandBytes::default(); CHUNK],
                stream_ids: Vec::new(),
                streams: BTreeMap::new(),
                busy: None,
                first_wait: FIRST_WAIT,
                atc_timeout: false,
                stale: false,
                stats: Stats::default(),
                stream_stats: BTreeMap::new(),
                limit: RateLimit::default(),
            }),
            turn: Mutex::new(()),
        };
        smmu.configure_all(&mut smmu.lock());
        Arc::new(smmu)
    }

    /// Its name in messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// To be called after a device appeared behind the vSMMU while it is in use, and after one was reset: gives its
    /// stream the configuration that the guest's stream table has for it.
    pub fn stream_added(&self, stream_id: u32) {
        let mut state = self.lock();
        self.configure(&mut state, stream_id, Cause::Device);
    }

    /// Lets `change` put a device behind the vSMMU, take one away or give it another StreamID, between two commands of the
    /// guest: no batch names a stream that is just going. Then the streams that are gone are forgotten, and stream `to`,
    /// if there is one, gets the configuration that the guest's stream table has for it.
    pub fn move_stream<T>(&self, to: Option<u32>, change: impl FnOnce() -> T) -> T {
        self.move_locked(&mut self.lock(), to, change)
    }

    /// The same for one device whose counters go with it.
    pub fn move_device<T>(&self, device: &mut DeviceCounters, to: Option<u32>, change: impl FnOnce() -> T) -> T {
        let mut state = self.lock();
        let from = device.stream_id.take();
        if let Some(stats) = from.and_then(|from| state.stream_stats.remove(&from)) {
            device.kept = stats;
        }
        // A StreamID that another device has is refused.
        if let Some(to) = to.filter(|&to| from == Some(to) || !self.physical.has_stream(to)) {
            state.stream_stats.insert(to, device.kept);
            device.stream_id = Some(to);
        }
        self.move_locked(&mut state, to, change)
    }

    fn move_locked<T>(&self, state: &mut State, to: Option<u32>, change: impl FnOnce() -> T) -> T {
        let result = change();
        state.streams.retain(|&stream_id, _| self.physical.has_stream(stream_id));
        if let Some(to) = to {
            self.configure(state, to, Cause::Device);
        }
        forget_some(state);
        result
    }

    /// Lets `change` shut the device of a stream before a reset in which its back end cannot configure it, between two
    /// commands of the guest. [`stream_added`](Self::stream_added) or [`move_stream`](Self::move_stream) is next, when the
    /// reset is over.
    pub fn hold_stream(&self, stream_id: Option<u32>, change: impl FnOnce()) {
        let mut state = self.lock();
        change();
        if let Some(stream_id) = stream_id {
            self.hold(&mut state, stream_id);
        }
    }

    /// How long a stream that cannot be configured yet is left alone, the first time. For tests, which do not want to
    /// wait.
    pub fn set_first_wait(&self, wait: Duration) {
        self.lock().first_wait = wait;
    }

    /// To be called when [`event_fd`](Self::event_fd) is readable: moves the host's events to the guest's queue. Returns
    /// whether to go on polling it: one that cannot be read stays readable for ever.
    pub fn events_ready(&self) -> bool {
        self.forward_events(&mut self.lock())
    }

    /// Readable while host events are pending; poll it for input (level-triggered).
    pub fn event_fd(&self) -> Option<RawFd> {
        self.physical.event_fd()
    }

    /// Back to the state after power-on: streams bypass, cached translations are gone, pending events are dropped.
    /// Devices should have been reset before, so that none of their old DMA meets the new world.
    pub fn reset(&self) {
        let mut state = self.lock();
        state.registers = Registers::new(*state.registers.features());
        state.batch.clear();
        state.streams.clear();
        state.busy = None;
        state.atc_timeout = false;
        self.configure_all(&mut state);
        self.invalidate_everything(&mut state);
        if let Err(error) = self.physical.drain_events(&mut |_| {}) {
            self.complain(&mut state, format_args!("events of the host cannot be read: {error}"));
        }
    }

    /// Counters since it was made.
    pub fn stats(&self) -> Stats {
        let stats = self.lock().stats;
        Stats { invalidation_ioctls: self.physical.invalidation_calls(), ..stats }
    }

    /// Counters of each stream that has a device, by StreamID, and of 256 in all that have or had one.
    pub fn stream_stats(&self) -> Vec<(u32, StreamStats)> {
        self.lock().stream_stats.iter().map(|(&stream_id, &stats)| (stream_id, stats)).collect()
    }

    /// Counters of one device, whose moves all were [`move_device`](Self::move_device).
    pub fn device_stats(&self, device: &DeviceCounters) -> StreamStats {
        let state = self.lock();
        let counted = device.stream_id.and_then(|stream_id| state.stream_stats.get(&stream_id));
        counted.copied().unwrap_or(device.kept)
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere must not become one of every vCPU.
        match self.state.try_lock() {
            Ok(state) => state,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => self.wait_for_turn(),
        }
    }

    #[cold]
    fn wait_for_turn(&self) -> MutexGuard<'_, State> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives the lock away and takes it again: after who waits for it, if somebody does.
    pub(super) fn let_others_in<'a>(&'a self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        drop(state);
        self.wait_for_turn()
    }

    /// Logs what the guest or the host did wrong, at a limited rate.
    pub(super) fn complain(&self, state: &mut State, what: fmt::Arguments<'_>) {
        match state.limit.pass() {
            Some(0) => log::warn!("{}: {what}", self.name),
            Some(suppressed) => log::warn!("{}: {what} ({suppressed} messages suppressed)", self.name),
            None => {}
        }
    }

    fn write_register<'a>(
        &'a self,
        mut guard: MutexGuard<'a, State>,
        offset: u64,
        value: u32,
    ) -> MutexGuard<'a, State> {
        let state = &mut *guard;
        let Effect { commands, translation, stopped, ignored } = state.registers.write(offset, value);
        if ignored {
            state.stats.ignored_accesses += 1;
            log::debug!("{}: write of {value:#x} to register {offset:#x} is not allowed now", self.name);
        }
        if stopped {
            state.atc_timeout = false;
        }
        if translation {
            self.configure_all(state);
        }
        if commands { self.consume_commands(guard) } else { guard }
    }
}

/// Keeps a guest that gives its devices one StreamID after the other from filling the memory with counters.
fn forget_some(state: &mut State) {
    let State { streams, stream_stats, .. } = state;
    while stream_stats.len() > MOST_STREAM_STATS {
        let without_device = stream_stats.keys().find(|stream_id| !streams.contains_key(stream_id)).copied();
        match without_device {
            Some(stream_id) => drop(stream_stats.remove(&stream_id)),
            None => break,
        }
    }
}

/// Whether the architecture has such an access: 4 or 8 bytes, aligned, inside the register pages (section 6.2).
fn is_register_access(offset: u64, length: usize) -> bool {
    matches!(length, 4 | 8) && offset.is_multiple_of(length as u64) && offset < REGISTER_SPACE
}

impl MmioDevice for Smmuv3 {
    fn read(&self, offset: u64, data: &mut [u8]) {
        let mut state = self.lock();
        if !is_register_access(offset, data.len()) {
            state.stats.ignored_accesses += 1;
            data.fill(0);
            return;
        }
        for (offset, half) in (offset..).step_by(4).zip(data.chunks_exact_mut(4)) {
            half.copy_from_slice(&state.registers.read(offset).to_le_bytes());
        }
    }

    fn write(&self, offset: u64, data: &[u8]) {
        let mut state = self.lock();
        if !is_register_access(offset, data.len()) {
            state.stats.ignored_accesses += 1;
            return;
        }
        for (offset, half) in (offset..).step_by(4).zip(data.as_chunks::<4>().0) {
            state = self.write_register(state, offset, u32::from_le_bytes(*half));
        }
    }
}
