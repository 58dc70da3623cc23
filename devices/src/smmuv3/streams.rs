//! Gives the streams of real devices the configuration that registers and stream table have for them.

use std::time::{Duration, Instant};

use super::model::{Smmuv3, State};
use super::physical::{Installed, StreamConfig};
use super::spec::command::opcode;
use super::stream_table::{self, Fault};

/// Why streams are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// A command of the guest names the stream, so it cares for it.
    Command,
    /// SMMUEN or GBPA changed.
    Change,
    /// The device came, or comes out of a reset, which empties its ATC.
    Device,
}

/// What the model keeps of a stream with a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stream {
    /// What it is to have.
    config: StreamConfig,
    /// Its device is in reset and gets `config` later; nothing passes meanwhile.
    busy: bool,
    /// Its ATC does not answer any more, and ATS is off.
    dead_atc: bool,
}

/// When streams that cannot be configured yet are tried again: at a CMD_SYNC, but less and less often. A reset is over
/// after a minute at most (and who makes one calls [`Smmuv3::stream_added`] then); PASIDs of the host on a device are not,
/// and the kernel has the same answer to both (EBUSY).
#[derive(Clone, Copy, Debug)]
pub(super) struct Retry {
    at: Instant,
    wait: Duration,
}

/// The first wait; it doubles up to [`LAST_WAIT`].
pub(super) const FIRST_WAIT: Duration = Duration::from_millis(5);
const LAST_WAIT: Duration = Duration::from_secs(1);

impl Retry {
    fn after(wait: Duration) -> Self {
        Self { at: Instant::now() + wait, wait }
    }

    fn is_due(&self) -> bool {
        Instant::now() >= self.at
    }

    fn next(self) -> Self {
        Self::after((self.wait * 2).min(LAST_WAIT))
    }
}

impl Stream {
    /// Whether its ATC is empty or lost, so that an invalidation has nothing to do.
    pub(super) fn without_atc(&self) -> bool {
        self.busy || self.dead_atc
    }
}

impl Smmuv3 {
    /// Configures every stream that has a device.
    pub(super) fn configure_all(&self, state: &mut State) {
        let mut streams = std::mem::take(&mut state.stream_ids);
        streams.clear();
        self.physical.streams(&mut streams);
        for &stream_id in &streams {
            self.configure(state, stream_id, Cause::Change);
        }
        state.stream_ids = streams;
    }

    /// Configures one stream. Returns whether it translates as before, so that the host may still have context
    /// descriptors of it cached.
    pub(super) fn configure(&self, state: &mut State, stream_id: u32, cause: Cause) -> bool {
        // Emulated root ports have StreamIDs and entries too, but nothing to be configured.
        if !self.physical.has_stream(stream_id) {
            state.streams.remove(&stream_id);
            return false;
        }
        let wanted = self.wanted(state, stream_id, cause);
        // Each new try with ATS may cost seconds, so there is one for each CERROR_ATC_INV_SYNC; and a try is a stage 1 that
        // asks for it, while bypass does not.
        let dead_atc = cause != Cause::Device
            && state.streams.get(&stream_id).is_some_and(|stream| stream.dead_atc)
            && (state.atc_timeout || !matches!(wanted, StreamConfig::Stage1(_)));
        let config = if dead_atc { wanted.without_ats() } else { wanted };
        self.install(state, stream_id, Stream { config, busy: false, dead_atc })
    }

    /// Gives a stream its configuration, now or when its device is out of reset. Returns whether it has the same stage 1
    /// as before.
    fn install(&self, state: &mut State, stream_id: u32, mut stream: Stream) -> bool {
        let config = stream.config;
        stream.busy = false;
        if state.stale && matches!(config, StreamConfig::Stage1(_)) {
            self.invalidate_everything(state);
        }
        let waited = state.streams.get(&stream_id).is_some_and(|before| before.busy);
        state.calls = state.calls.saturating_add(1);
        let installed = self.physical.install(stream_id, config);
        let counters = state.stream_stats.entry(stream_id).or_default();
        match installed {
            Ok(Installed::Replaced) => {
                log::debug!("{}: stream {stream_id:#x} is {config:x?}", self.name());
                for installs in [&mut counters.installs, &mut state.stats.installs] {
                    match config {
                        StreamConfig::Abort => installs.abort += 1,
                        StreamConfig::Bypass => installs.bypass += 1,
                        StreamConfig::Stage1(_) => installs.stage1 += 1,
                    }
                }
                if waited {
                    log::debug!("{}: stream {stream_id:#x} is configured, its device is out of reset", self.name());
                }
                state.streams.insert(stream_id, stream);
                false
            }
            Ok(Installed::Unchanged) => {
                state.streams.insert(stream_id, stream);
                matches!(config, StreamConfig::Stage1(_))
            }
            Ok(Installed::NoDevice) => {
                state.streams.remove(&stream_id);
                false
            }
            Err(error) => {
                stream.busy = error.busy;
                if error.busy {
                    let first = state.first_wait;
                    state.busy.get_or_insert_with(|| Retry::after(first));
                }
                state.streams.insert(stream_id, stream);
                if waited && error.busy {
                    return false;
                }
                counters.installs.failed += 1;
                state.stats.installs.failed += 1;
                self.complain(state, format_args!("{error}: {}", error.source));
                false
            }
        }
    }

    /// Nothing of a stream passes until it is configured again.
    pub(super) fn hold(&self, state: &mut State, stream_id: u32) {
        if let Some(stream) = state.streams.get_mut(&stream_id) {
            stream.busy = true;
            let first = state.first_wait;
            state.busy.get_or_insert_with(|| Retry::after(first));
        }
    }

    /// Tries again to configure the streams whose devices were in reset, if it is time to.
    pub(super) fn configure_busy(&self, state: &mut State) {
        let Some(retry) = state.busy else { return };
        if !retry.is_due() {
            return;
        }
        // In place while streams are tried, so that those which stay busy keep it.
        state.busy = Some(retry.next());
        let mut streams = std::mem::take(&mut state.stream_ids);
        streams.clear();
        streams.extend(state.streams.iter().filter(|(_, stream)| stream.busy).map(|(&stream_id, _)| stream_id));
        for &stream_id in &streams {
            if let Some(&stream) = state.streams.get(&stream_id) {
                self.install(state, stream_id, stream);
            }
        }
        state.stream_ids = streams;
        if !state.streams.values().any(|stream| stream.busy) {
            state.busy = None;
        }
    }

    /// Turns ATS off for a stream whose ATC does not answer: what it has cached must not be used any more. This is so
    /// until the guest gives the stream a stage 1 after it has seen CERROR_ATC_INV_SYNC, or the device is reset.
    pub(super) fn give_up_atc(&self, state: &mut State, stream_id: u32) {
        if let Some(counters) = state.stream_stats.get_mut(&stream_id) {
            counters.atc_timeouts += 1;
        }
        let Some(&stream) = state.streams.get(&stream_id) else { return };
        let config = stream.config.without_ats();
        self.install(state, stream_id, Stream { config, dead_atc: true, ..stream });
    }

    /// What the guest wants for a stream now (sections 6.3.9.6 and 6.3.14 for SMMUEN and GBPA).
    fn wanted(&self, state: &mut State, stream_id: u32, cause: Cause) -> StreamConfig {
        if !state.registers.cr0.smmuen() {
            return if state.registers.gbpa.abort() { StreamConfig::Abort } else { StreamConfig::Bypass };
        }
        stream_table::find(&self.memory, &state.registers, stream_id).unwrap_or_else(|fault| {
            self.report(state, stream_id, fault, cause);
            StreamConfig::Abort
        })
    }

    /// Tells the guest of an entry that it cannot mean. The hardware would at the stream's next transaction; but there
    /// the stream is on abort now, which is silent. So the record comes once, when the entry is read.
    fn report(&self, state: &mut State, stream_id: u32, fault: Fault, cause: Cause) {
        let report = match fault {
            // On the way of every legal change of an entry.
            Fault::Invalid => return,
            // Before the guest has used a device its bus has no table.
            Fault::BadStreamId => cause == Cause::Command && state.registers.cr2.recinvsid(),
            Fault::SteFetch(_) | Fault::BadSte => true,
        };
        if cause == Cause::Command || fault != Fault::BadStreamId {
            state.stats.bad_streams += 1;
            if let Some(counters) = state.stream_stats.get_mut(&stream_id) {
                counters.bad_entries += 1;
            }
            self.complain(state, format_args!("stream {stream_id:#x} has no usable entry: {fault:x?}"));
        }
        if report {
            self.record_event(state, fault.event(stream_id));
        }
    }

    /// Drops all cached translations of the guest. If that fails it is tried again before a stream gets a stage 1.
    pub(super) fn invalidate_everything(&self, state: &mut State) {
        let result = self.physical.invalidate(&[[opcode::TLBI_NSNH_ALL.into(), 0]]);
        state.stale = result.is_err();
        if let Err(error) = result {
            state.stats.failed_invalidations += 1;
            self.complain(state, format_args!("cached translations may survive a reset: {error}"));
        }
    }
}
