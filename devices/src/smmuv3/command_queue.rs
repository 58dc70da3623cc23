//! Takes commands from the guest's queue and executes them in order (IHI 0070, sections 3.5, 4 and 7.1).

use std::error::Error;
use std::fmt;
use std::sync::MutexGuard;
use std::time::Instant;

use vm_memory::{Bytes, GuestAddress};

use super::decode::{Command, atc_stream, cfgi_cd_all};
use super::model::{Smmuv3, State};
use super::physical::{CommandWords, InvalidateError};
use super::spec::command::{COMMAND_SIZE, CS_IRQ, Sync, opcode};
use super::spec::registers::{CmdqError, Gerror};
use super::streams::{Cause, Stream};

/// Commands read from guest memory at once.
pub(super) const CHUNK: usize = 256;

/// Calls to the host (batches and configurations) after which others who wait for the vSMMU get their turn. Most writes of
/// CMDQ_PROD need one or two.
const CALLS_AT_ONCE: u32 = 8;

/// A command as it lies in guest memory.
pub(super) type CommandBytes = [u8; COMMAND_SIZE as usize];

/// The queue has stopped at an error that the guest now sees.
struct Stopped;

/// How far commands were executed.
enum Progress {
    /// There are no more.
    Done,
    /// CMDQ_CONS is behind the last that was executed, no batch is open, and others may go first.
    Paused,
}

impl Smmuv3 {
    /// Executes all commands up to CMDQ_PROD, or to the first error. A queue of slow ones does not keep the vSMMU from
    /// everybody else: now and then its lock is given away, between two commands. Who adds commands meanwhile leaves them
    /// to the vCPU that is at it, so their order stays.
    pub(super) fn consume_commands<'a>(&'a self, mut state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        if std::mem::replace(&mut state.consuming, true) {
            return state;
        }
        loop {
            state.calls = 0;
            let mut chunk = std::mem::take(&mut state.chunk);
            let progress = self.consume_chunks(&mut state, &mut chunk);
            state.chunk = chunk;
            match progress {
                Ok(Progress::Paused) => state = self.let_others_in(state),
                Ok(Progress::Done) => {
                    // Without a CMD_SYNC at the end the guest may still wait for CMDQ_CONS.
                    let _ = self.flush(&mut state);
                    break;
                }
                Err(Stopped) => break,
            }
        }
        state.consuming = false;
        state
    }

    fn consume_chunks(&self, state: &mut State, chunk: &mut [CommandBytes]) -> Result<Progress, Stopped> {
        while state.registers.takes_commands() {
            let queue = state.registers.command_queue();
            let start = queue.advance(state.registers.cmdq_cons.rd(), 0);
            let producer = state.registers.cmdq_prod;
            let Some(used) = queue.used(producer, start) else {
                // Section 3.5.1: nothing is consumed while the indices contradict each other.
                self.complain(
                    state,
                    format_args!("CMDQ_PROD {producer:#x} is beyond CMDQ_CONS {start:#x} by more than the queue holds"),
                );
                break;
            };
            let count = (used.min(queue.until_end(start)) as usize).min(chunk.len());
            if count == 0 {
                break;
            }
            let address = GuestAddress(queue.address(start, COMMAND_SIZE));
            // What cannot be read as a whole may still begin in memory.
            let mut read = |count: usize| {
                let chunk = chunk.get_mut(..count)?;
                self.memory.read_slice(chunk.as_flattened_mut(), address).ok().map(|()| count)
            };
            let Some(count) = read(count).or_else(|| read(1)) else {
                self.flush(state)?;
                self.command_error(state, start, CmdqError::Abt, format_args!("it cannot be fetched"));
                return Err(Stopped);
            };
            for (command, offset) in chunk.iter().take(count).zip(0..) {
                let (words, index) = (words(command), start + offset);
                match self.decoder.decode(words) {
                    Ok(Command::InvalidateTlb(masked)) => {
                        state.stats.opcodes.count(masked[0] as u8);
                        if state.batch.push(masked, index) {
                            self.flush(state)?;
                            if state.calls >= CALLS_AT_ONCE {
                                return Ok(pause(state, queue.advance(index, 1)));
                            }
                        }
                    }
                    Ok(command) => {
                        // Only where the batch ends anyway.
                        if state.calls >= CALLS_AT_ONCE && command.configures() {
                            self.flush(state)?;
                            return Ok(pause(state, index));
                        }
                        state.stats.opcodes.count(words[0] as u8);
                        self.execute(state, command, index)?;
                        if state.calls >= CALLS_AT_ONCE && state.batch.commands().is_empty() {
                            return Ok(pause(state, queue.advance(index, 1)));
                        }
                    }
                    Err(reason) => {
                        // Those before it come first.
                        self.flush(state)?;
                        let what = format_args!("{:#018x} {:#018x}: {reason}", words[0], words[1]);
                        self.command_error(state, index, CmdqError::Ill, what);
                        return Err(Stopped);
                    }
                }
            }
            // Nobody reads it before the lock is released.
            state.registers.cmdq_cons.set_rd(queue.advance(start, count as u32));
        }
        Ok(Progress::Done)
    }

    /// Executes one command. On an error CMDQ_CONS is at the command that caused it.
    #[inline(never)]
    fn execute(&self, state: &mut State, command: Command, index: u32) -> Result<(), Stopped> {
        match command {
            Command::Nothing => Ok(()),
            Command::InvalidateTlb(words) => self.push(state, words, index),
            Command::InvalidateContext { stream_id, words } => self.push_for(state, stream_id, words, index),
            Command::InvalidateAtc { stream_id, words } => {
                // Ignored without translation (section 4.5.1).
                if !state.registers.cr0.smmuen() || without_atc(state, stream_id) {
                    state.stats.dropped_commands += 1;
                    return Ok(());
                }
                self.push_for(state, stream_id, words, index)
            }
            Command::ConfigureStream(stream_id) => {
                self.flush(state)?;
                count_for(state, stream_id, opcode::CFGI_STE);
                self.configure_by_command(state, stream_id, index)
            }
            Command::ConfigureStreams(range) => {
                self.flush(state)?;
                let mut streams = std::mem::take(&mut state.stream_ids);
                streams.clear();
                self.physical.streams(&mut streams);
                streams.retain(|stream_id| range.contains(stream_id));
                let result = streams.iter().try_for_each(|&stream_id| {
                    count_for(state, stream_id, opcode::CFGI_STE_RANGE);
                    self.configure_by_command(state, stream_id, index)
                });
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
        count_for(state, stream_id, words[0] as u8);
        self.push(state, words, index)
    }

    fn push(&self, state: &mut State, words: CommandWords, index: u32) -> Result<(), Stopped> {
        if state.batch.push(words, index) { self.flush(state) } else { Ok(()) }
    }

    /// Has the host execute the batch.
    fn flush(&self, state: &mut State) -> Result<(), Stopped> {
        if state.batch.commands().is_empty() {
            return Ok(());
        }
        state.calls = state.calls.saturating_add(1);
        state.stats.invalidation_batches += 1;
        state.stats.invalidation_commands += state.batch.commands().len() as u64;
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
        let (position, error) = match error {
            InvalidateError::Timeout { first, .. } => match self.retry_one_by_one(state, first) {
                Ok(()) => return Ok(()),
                Err(failed) => failed,
            },
            error => (0, error),
        };
        let (position, error, reason) = match error {
            InvalidateError::Refused { index } => (position + index, CmdqError::Ill, "the host refuses it"),
            InvalidateError::Timeout { .. } => (position, CmdqError::Abt, "the host does not complete it"),
            // The guest acknowledges and the commands are fetched and tried again.
            InvalidateError::Failed(_) => (position, CmdqError::Abt, "the host cannot execute it"),
        };
        let index = state.batch.index(position).unwrap_or(state.registers.cmdq_cons.rd());
        self.command_error(state, index, error, format_args!("{reason}"));
        Err(Stopped)
    }

    /// Executes the batch from `first` on again, each command alone, so that an ATC that does not answer is known by
    /// its stream. `Err` is the position of a command that failed in another way, and how.
    fn retry_one_by_one(&self, state: &mut State, first: usize) -> Result<(), (usize, InvalidateError)> {
        let mut position = first;
        while let Some(&command) = state.batch.commands().get(position) {
            let stream = atc_stream(command);
            if stream.is_some_and(|stream| without_atc(state, stream)) {
                position += 1;
                continue;
            }
            state.calls = state.calls.saturating_add(1);
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
                (Err(error), _) => return Err((position, error)),
            }
            position += 1;
        }
        Ok(())
    }

    /// Stops the queue at `index` until the guest acknowledges GERROR.CMDQ_ERR; then the command is fetched again.
    fn command_error(&self, state: &mut State, index: u32, error: CmdqError, reason: fmt::Arguments<'_>) {
        state.stats.errors.count(error);
        state.registers.cmdq_cons.set_rd(index);
        state.registers.cmdq_cons.set_err(error as u8);
        self.complain(state, format_args!("command queue stopped at {index:#x} with {error:?}: {reason}"));
        self.global_error(state, Gerror::new().with_cmdq_err(true));
    }
}

/// Ends a stretch of commands before the one at `index`.
fn pause(state: &mut State, index: u32) -> Progress {
    state.registers.cmdq_cons.set_rd(index);
    Progress::Paused
}

/// Whether nothing can be in the ATC of a stream, or nothing of it can be used.
fn without_atc(state: &State, stream_id: u32) -> bool {
    state.streams.get(&stream_id).is_some_and(Stream::without_atc)
}

/// Counts a command for the stream that it names.
fn count_for(state: &mut State, stream_id: u32, opcode: u8) {
    if let Some(counters) = state.stream_stats.get_mut(&stream_id) {
        counters.opcodes.count(opcode);
    }
}

#[inline]
fn words(command: &CommandBytes) -> CommandWords {
    let bits = u128::from_le_bytes(*command);
    [bits as u64, (bits >> 64) as u64]
}
