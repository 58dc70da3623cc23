//! Gives the streams of real devices the configuration that registers and stream table have for them.

use super::model::{Smmuv3, State};
use super::physical::{Installed, StreamConfig};
use super::spec::command::opcode;
use super::stream_table::{self, Fault};

/// Why streams are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// A command of the guest names the stream, so it cares for it.
    Command,
    /// SMMUEN, GBPA or the presence of the device changed.
    Change,
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
            return false;
        }
        let config = self.wanted(state, stream_id, cause);
        let installed = self.physical.install(stream_id, config);
        let counters = state.stream_stats.entry(stream_id).or_default();
        match installed {
            Ok(Installed::Replaced) => {
                counters.installs += 1;
                log::debug!("{}: stream {stream_id:#x} is {config:x?}", self.name());
                match config {
                    StreamConfig::Abort => state.stats.abort_installs += 1,
                    StreamConfig::Bypass => state.stats.bypass_installs += 1,
                    StreamConfig::Stage1(_) => state.stats.stage1_installs += 1,
                }
                state.dead_atcs.retain(|&dead| dead != stream_id);
                false
            }
            Ok(Installed::Unchanged) => matches!(config, StreamConfig::Stage1(_)),
            Ok(Installed::NoDevice) => false,
            Err(error) => {
                counters.failed_installs += 1;
                state.stats.failed_installs += 1;
                self.complain(state, format_args!("{error}: {}", error.source));
                false
            }
        }
    }

    /// What the guest wants for a stream now (section 3.11 for SMMUEN and GBPA).
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
            self.complain(state, format_args!("stream {stream_id:#x} has no usable entry: {fault:x?}"));
        }
        if report {
            self.record_event(state, fault.event(stream_id));
        }
    }

    /// Drops all cached translations of the guest.
    pub(super) fn invalidate_everything(&self, state: &mut State) {
        if let Err(error) = self.physical.invalidate(&[[opcode::TLBI_NSNH_ALL.into(), 0]]) {
            state.stats.failed_invalidations += 1;
            self.complain(state, format_args!("cached translations may survive a reset: {error}"));
        }
    }
}
