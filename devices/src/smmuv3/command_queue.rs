//! Takes commands from the guest's queue and executes them in order (IHI 0070, sections 3.5, 4 and 7.1).

use std::error::Error;
use std::fmt;
use std::time::Instant;

use vm_memory::{Bytes, GuestAddress};

use super::decode::{Command, atc_stream, cfgi_cd_all};
use super::model::{Smmuv3, State};
use super::physical::{CommandWords, InvalidateError};
use super::spec::command::{COMMAND_SIZE, CS_IRQ, Sync};
use super::spec::registers::{CmdqError, Gerror};
use super::streams::{Cause, Stream};

/// Commands read from guest memory at once.
const CHUNK: usize = 64;

/// The queue has stopped at an error that the guest now sees.
struct Stopped;

impl Smmuv3 {
    /// Executes all commands up to CMDQ_PROD, or to the first error.
    pub(super) fn consume_commands(&self, state: &mut State) {
        let mut chunk = [[0; COMMAND_SIZE as usize]; CHUNK];
        while state.registers.takes_commands() {
            let queue = state.registers.command_queue();
            let start = queue.advance(state.registers.cmdq_cons.rd(), 0);
            let producer = state.registers.cmdq_prod;
            let Some(used) = queue.used(producer, start) else {
                self.complain(
                    state,
                    format_args!("CMDQ_PROD {producer:#x} is beyond CMDQ_CONS {start:#x} by more than the queue holds"),
                );
                break;
            };
            let count = used.min(queue.until_end(start)).min(CHUNK as u32) as usize;
            if count == 0 {
                break;
            }
            let address = GuestAddress(queue.address(start, COMMAND_SIZE));
            // What cannot be read as a whole may still begin in memory.
            let read = [count, 1]
                .into_iter()
                .find(|&count| self.memory.read_slice(chunk[..count].as_flattened_mut(), address).is_ok());
            let Some(count) = read else {
                if self.flush(state).is_ok() {
                    self.command_error(state, start, CmdqError::Abt, format_args!("it cannot be fetched"));
                }
                return;
            };
            for (command, offset) in chunk[..count].iter().zip(0..) {
                let index = queue.advance(start, offset);
                if self.execute(state, words(command), index).is_err() {
                    return;
                }
                state.registers.cmdq_cons.set_rd(queue.advance(index, 1));
            }
        }
        // Without a CMD_SYNC at the end the guest may still wait for CMDQ_CONS.
        let _ = self.flush(state);
    }

    /// Executes one command. On an error CMDQ_CONS is at the command that caused it.
    fn execute(&self, state: &mut State, words: CommandWords, index: u32) -> Result<(), Stopped> {
        let command = match self.decoder.decode(words) {
            Ok(command) => command,
            Err(reason) => {
                // Those before it come first.
                self.flush(state)?;
                let what = format_args!("{:#018x} {:#018x}: {reason}", words[0], words[1]);
                self.command_error(state, index, CmdqError::Ill, what);
                return Err(Stopped);
            }
        };
        state.stats.commands += 1;
        state.stats.opcodes.count(words[0] as u8);
        match command {
            Command::Nothing => Ok(()),
            Command::InvalidateTlb(words) => self.push(state, words, index),
            Command::InvalidateContext { stream_id, words } => self.push_for(state, stream_id, words, index),
            Command::InvalidateAtc { stream_id, words } => {
                // Without translation there is nothing to invalidate (section 4.5.1).
                if !state.registers.cr0.smmuen() || without_atc(state, stream_id) {
                    state.stats.dropped_commands += 1;
                    return Ok(());
                }
                self.push_for(state, stream_id, words, index)
            }
            Command::ConfigureStream(stream_id) => {
                self.flush(state)?;
                self.configure_by_command(state, stream_id, index)
            }
            Command::ConfigureStreams(range) => {
                self.flush(state)?;
                let mut streams = std::mem::take(&mut state.stream_ids);
                streams.clear();
                self.physical.streams(&mut streams);
                streams.retain(|stream_id| range.contains(stream_id));
                let result =
                    streams.iter().try_for_each(|&stream_id| self.configure_by_command(state, stream_id, index));
                state.stream_ids = streams;
                result
            }
            Command::Sync(sync) => self.sync(state, sync, index),
        }
    }

    /// CMD_CFGI_STE of one stream. It drops cached context descriptors too, which the host does only if it gets
    /// another entry.
    fn configure_by_command(&self, state: &mut State, stream_id: u32, index: u32) -> Result<(), Stopped> {
        if self.configure(state, stream_id, Cause::Command) {
            return self.push(state, cfgi_cd_all(stream_id), index);
        }
        Ok(())
    }

    /// CMD_SYNC: all that came before it is complete when it is.
    fn sync(&self, state: &mut State, sync: Sync, index: u32) -> Result<(), Stopped> {
        self.flush(state)?;
        self.configure_busy(state);
        state.stats.syncs += 1;
        if std::mem::take(&mut state.atc_timeout) {
            let reason = format_args!("a device did not complete an atc invalidation");
            self.command_error(state, index, CmdqError::AtcInvSync, reason);
            return Err(Stopped);
        }
        // SEV needs nothing: the guest's WFE ends by its next exit, and IDR0.SEV is 0.
        if sync.cs() == CS_IRQ {
            self.sync_interrupt(state, sync);
        }
        Ok(())
    }

    /// Adds an invalidation for a stream to the batch, unless no device is there to have anything cached.
    fn push_for(&self, state: &mut State, stream_id: u32, words: CommandWords, index: u32) -> Result<(), Stopped> {
        if !self.physical.has_stream(stream_id) {
            state.stats.dropped_commands += 1;
            return Ok(());
        }
        self.push(state, words, index)
    }

    fn push(&self, state: &mut State, words: CommandWords, index: u32) -> Result<(), Stopped> {
        state.batch.push(words, index);
        state.stats.invalidation_commands += 1;
        if state.batch.is_full() { self.flush(state) } else { Ok(()) }
    }

    /// Has the host execute the batch.
    fn flush(&self, state: &mut State) -> Result<(), Stopped> {
        if state.batch.commands().is_empty() {
            return Ok(());
        }
        state.stats.invalidation_batches += 1;
        let start = Instant::now();
        let result = self.physical.invalidate(state.batch.commands());
        state.stats.latency.count(start.elapsed());
        let result = match result {
            Ok(()) => Ok(()),
            Err(error) => {
                state.stats.failed_invalidations += 1;
                match error.source() {
                    Some(source) => self.complain(state, format_args!("{error}: {source}")),
                    None => self.complain(state, format_args!("{error}")),
                }
                self.recover(state, error)
            }
        };
        state.batch.clear();
        result
    }

    /// After a failed batch: no command may count as done that is not, and one dead device must not stop the others.
    fn recover(&self, state: &mut State, error: InvalidateError) -> Result<(), Stopped> {
        let (position, error, reason) = match error {
            InvalidateError::Refused { index } => (index, CmdqError::Ill, "the host refuses it"),
            InvalidateError::Timeout { first, .. } => match self.retry_one_by_one(state, first) {
                Ok(()) => return Ok(()),
                Err(position) => (position, CmdqError::Abt, "the host does not complete it"),
            },
            // The guest acknowledges and the commands are fetched and tried again.
            InvalidateError::Failed(_) => (0, CmdqError::Abt, "the host cannot execute it"),
        };
        let index = state.batch.index(position).unwrap_or(state.registers.cmdq_cons.rd());
        self.command_error(state, index, error, format_args!("{reason}"));
        Err(Stopped)
    }

    /// Executes the batch from `first` on again, each command alone, so that an ATC that does not answer is known by
    /// its stream. `Err` is the position of a command that failed for another reason.
    fn retry_one_by_one(&self, state: &mut State, first: usize) -> Result<(), usize> {
        let mut position = first;
        while let Some(&command) = state.batch.commands().get(position) {
            let stream = atc_stream(command);
            if stream.is_some_and(|stream| without_atc(state, stream)) {
                position += 1;
                continue;
            }
            match (self.physical.invalidate(&[command]), stream) {
                (Ok(()), _) => {}
                (Err(InvalidateError::Timeout { .. }), Some(stream)) => {
                    log::warn!(
                        "{}: stream {stream:#x} does not complete atc invalidations; it has no ats until it is configured again",
                        self.name()
                    );
                    self.give_up_atc(state, stream);
                    state.atc_timeout = true;
                }
                (Err(_), _) => return Err(position),
            }
            position += 1;
        }
        Ok(())
    }

    /// Stops the queue at `index` until the guest acknowledges GERROR.CMDQ_ERR; then the command is fetched again.
    fn command_error(&self, state: &mut State, index: u32, error: CmdqError, reason: fmt::Arguments<'_>) {
        state.stats.command_errors += 1;
        state.registers.cmdq_cons.set_rd(index);
        state.registers.cmdq_cons.set_err(error as u8);
        self.complain(state, format_args!("command queue stopped at {index:#x} with {error:?}: {reason}"));
        self.global_error(state, Gerror::new().with_cmdq_err(true));
    }
}

/// Whether nothing can be in the ATC of a stream, or nothing of it can be used.
fn without_atc(state: &State, stream_id: u32) -> bool {
    state.streams.get(&stream_id).is_some_and(Stream::without_atc)
}

fn words(command: &[u8; COMMAND_SIZE as usize]) -> CommandWords {
    let bits = u128::from_le_bytes(*command);
    [bits as u64, (bits >> 64) as u64]
}
