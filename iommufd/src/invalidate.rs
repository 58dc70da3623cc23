//! Ordered batches of invalidation commands, and what is true after one of them failed.
//!
//! The kernel converts and issues a batch in blocks of 63 commands (`arm_vsmmu_cache_invalidate`) and leaves in
//! `entry_num` how far it came, which does not always mean what it says:
//!
//! | answer    | `entry_num`                           | truth |
//! | --------- | ------------------------------------- | ----- |
//! | success   | all                                   | all executed |
//! | EIO       | index of the command it refuses       | the commands before it in its block of 63 were *not* issued |
//! | ETIMEDOUT | index of the last command of a block  | blocks before it executed, completion of that block unknown |
//! | others    | 0, or what went in                    | none executed |
#![forbid(unsafe_code)]

use std::io;
use std::ops::Range;

use crate::ids::ViommuId;
use crate::kernel::Kernel;

/// One command of the command queue: 16 bytes as two little-endian words (IHI 0070 section 4).
pub type Command = [u64; 2];

/// Commands that the kernel issues together (`CMDQ_BATCH_ENTRIES` - 1).
const BLOCK: usize = 63;

/// Largest `entry_num` the kernel takes.
const MAX_COMMANDS: usize = 1 << 19;

/// Why a batch stopped.
#[derive(Debug, thiserror::Error)]
pub enum InvalidateFailure {
    /// The kernel refuses the command at index `handled`: to the guest that is CERROR_ILL.
    #[error("the host kernel refuses it")]
    Illegal,
    /// The hardware did not complete in time, which an ATC invalidation of a dead device causes: to the guest that is
    /// CERROR_ATC_INV_SYNC. Which commands of the block completed is unknown.
    #[error("no completion of commands {}..{} within a second", .block.start, .block.end)]
    Timeout {
        /// The commands issued together.
        block: Range<usize>,
    },
    /// The call failed as a whole.
    #[error("the call failed")]
    Failed(#[source] io::Error),
}

/// A batch that was not executed to its end.
#[derive(Debug, thiserror::Error)]
#[error("invalidation of {viommu} stopped at command {handled}")]
pub struct InvalidateError {
    /// Where the batch went.
    pub viommu: ViommuId,
    /// How many commands from the first on are certainly executed.
    pub handled: usize,
    /// Why it went no further.
    #[source]
    pub failure: InvalidateFailure,
}

/// Executes `commands` in order. Returns the number of ioctls that it took.
pub(crate) fn run(
    kernel: &dyn Kernel,
    viommu: ViommuId,
    commands: &[Command],
    repeat: bool,
) -> (u64, Result<(), InvalidateError>) {
    let mut calls = 0;
    let mut issue = |part: &[Command]| {
        // The kernel answers EINVAL to an empty batch. Erratum: once more, after the first has completed; the ATC_INV
        // among them are harmless to repeat.
        for _ in 0..if part.is_empty() { 0 } else { 1 + u32::from(repeat) } {
            calls += 1;
            issue_once(kernel, viommu, part)?;
        }
        Ok(())
    };
    let mut done = 0;
    for part in commands.chunks(MAX_COMMANDS) {
        let Err((mut stop, mut failure)) = issue(part) else {
            done += part.len();
            continue;
        };
        // Commands in front of a refused one that share its block were converted, not issued: once more without it.
        // With the erratum, the blocks before were sent only once and go again, too.
        while matches!(failure, InvalidateFailure::Illegal) {
            let from = if repeat { 0 } else { stop - stop % BLOCK };
            match issue(&part[from..stop]) {
                Ok(()) => break,
                Err((again, second)) => (stop, failure) = (from + again, shifted(second, from)),
            }
        }
        let error = InvalidateError { viommu, handled: done + stop, failure: shifted(failure, done) };
        return (calls, Err(error));
    }
    (calls, Ok(()))
}

/// One ioctl with at least one command. On failure: the index of the illegal command, else how many commands are
/// certainly executed, and why.
fn issue_once(kernel: &dyn Kernel, viommu: ViommuId, commands: &[Command]) -> Result<(), (usize, InvalidateFailure)> {
    let (entry_num, result) = kernel.invalidate(viommu, commands);
    let Err(error) = result else { return Ok(()) };
    let index = (entry_num as usize).min(commands.len().saturating_sub(1));
    Err(match error.raw_os_error() {
        Some(libc::EIO) => (index, InvalidateFailure::Illegal),
        Some(libc::ETIMEDOUT) => {
            let start = index - index % BLOCK;
            (start, InvalidateFailure::Timeout { block: start..index + 1 })
        }
        _ => (0, InvalidateFailure::Failed(error)),
    })
}

fn shifted(failure: InvalidateFailure, by: usize) -> InvalidateFailure {
    match failure {
        InvalidateFailure::Timeout { block } => InvalidateFailure::Timeout { block: block.start + by..block.end + by },
        other => other,
    }
}

#[cfg(test)]
mod tests;
