//! What a vSMMU counts, for itself and for each stream. Counters survive a reset.

use std::time::Duration;

use super::spec::command::opcode;
use super::spec::event::number;
use super::spec::registers::CmdqError;

/// Counters of one vSMMU since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Configurations of streams.
    pub installs: Installs,
    /// Commands taken from the command queue, by opcode.
    pub opcodes: Opcodes,
    /// Invalidations that were given to the host.
    pub invalidation_commands: u64,
    /// Invalidations that nothing can be cached for, and that the host did not see: StreamIDs without a device, and
    /// CMD_ATC_INV while nothing is translated or the device does not answer.
    pub dropped_commands: u64,
    /// Batches in which they were given to the host.
    pub invalidation_batches: u64,
    /// How long the host took for a batch.
    pub latency: Latency,
    /// System calls that carried invalidations.
    pub invalidation_ioctls: u64,
    /// Batches that the host did not execute as a whole.
    pub failed_invalidations: u64,
    /// What the guest was told of in GERROR.
    pub errors: Errors,
    /// Records written to the guest's event queue.
    pub events: Events,
    /// Records lost: by the host, by a full or disabled queue, or by a queue outside of memory.
    pub lost_events: u64,
    /// Streams that could not use their stream table entry (C_BAD_STREAMID, F_STE_FETCH, C_BAD_STE).
    pub bad_streams: u64,
    /// Register accesses that the architecture does not allow and that had no effect.
    pub ignored_accesses: u64,
}

/// Counters of one stream since its device was first seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StreamStats {
    /// Its configurations.
    pub installs: Installs,
    /// Commands that named it while it had a device.
    pub opcodes: Opcodes,
    /// Its records in the guest's event queue.
    pub events: Events,
    /// Records that the guest's event queue did not take. What the host loses is not known by stream.
    pub lost_events: u64,
    /// How many times its stream table entry could not be used.
    pub bad_entries: u64,
    /// CMD_ATC_INVs that its device did not complete.
    pub atc_timeouts: u64,
}

/// Where the counters of one device are: with the StreamID that it has, or here while it has none.
#[derive(Clone, Debug, Default)]
pub struct DeviceCounters {
    pub(super) stream_id: Option<u32>,
    pub(super) kept: StreamStats,
}

impl DeviceCounters {
    /// Of a device that has this StreamID.
    pub fn new(stream_id: u32) -> Self {
        Self { stream_id: Some(stream_id), kept: StreamStats::default() }
    }
}

/// Configurations given to devices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Installs {
    /// Stage 1 of the guest.
    pub stage1: u64,
    /// Bypass.
    pub bypass: u64,
    /// Abort.
    pub abort: u64,
    /// Refused by the host; the stream aborts.
    pub failed: u64,
}

impl Installs {
    /// All that changed something.
    pub fn total(&self) -> u64 {
        self.stage1 + self.bypass + self.abort
    }
}

/// Global errors and errors of the command queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Errors {
    /// CERROR_ILL.
    pub cerror_ill: u64,
    /// CERROR_ABT.
    pub cerror_abt: u64,
    /// CERROR_ATC_INV_SYNC.
    pub cerror_atc_inv_sync: u64,
    /// GERROR.EVENTQ_ABT_ERR.
    pub eventq_abt: u64,
    /// GERROR.MSI_*_ABT_ERR.
    pub msi_abt: u64,
}

impl Errors {
    pub(super) fn count(&mut self, error: CmdqError) {
        match error {
            CmdqError::None => {}
            CmdqError::Ill => self.cerror_ill += 1,
            CmdqError::Abt => self.cerror_abt += 1,
            CmdqError::AtcInvSync => self.cerror_atc_inv_sync += 1,
        }
    }

    /// How many times the command queue stopped.
    pub fn command_queue(&self) -> u64 {
        self.cerror_ill + self.cerror_abt + self.cerror_atc_inv_sync
    }
}

/// Opcodes that can be legal, and their names (section 4.1.1).
const OPCODES: [(u8, &str); 13] = [
    (opcode::PREFETCH_CONFIG, "CMD_PREFETCH_CONFIG"),
    (opcode::PREFETCH_ADDR, "CMD_PREFETCH_ADDR"),
    (opcode::CFGI_STE, "CMD_CFGI_STE"),
    (opcode::CFGI_STE_RANGE, "CMD_CFGI_STE_RANGE"),
    (opcode::CFGI_CD, "CMD_CFGI_CD"),
    (opcode::CFGI_CD_ALL, "CMD_CFGI_CD_ALL"),
    (opcode::TLBI_NH_ALL, "CMD_TLBI_NH_ALL"),
    (opcode::TLBI_NH_ASID, "CMD_TLBI_NH_ASID"),
    (opcode::TLBI_NH_VA, "CMD_TLBI_NH_VA"),
    (opcode::TLBI_NH_VAA, "CMD_TLBI_NH_VAA"),
    (opcode::TLBI_NSNH_ALL, "CMD_TLBI_NSNH_ALL"),
    (opcode::ATC_INV, "CMD_ATC_INV"),
    (opcode::SYNC, "CMD_SYNC"),
];

/// Event numbers that can come from the kernel, the model or the walker, and their names (section 7.3).
const EVENTS: [(u8, &str); 12] = [
    (number::C_BAD_STREAMID, "C_BAD_STREAMID"),
    (number::F_STE_FETCH, "F_STE_FETCH"),
    (number::C_BAD_STE, "C_BAD_STE"),
    (number::F_STREAM_DISABLED, "F_STREAM_DISABLED"),
    (number::C_BAD_SUBSTREAMID, "C_BAD_SUBSTREAMID"),
    (number::F_CD_FETCH, "F_CD_FETCH"),
    (number::C_BAD_CD, "C_BAD_CD"),
    (number::F_WALK_EABT, "F_WALK_EABT"),
    (number::F_TRANSLATION, "F_TRANSLATION"),
    (number::F_ADDR_SIZE, "F_ADDR_SIZE"),
    (number::F_ACCESS, "F_ACCESS"),
    (number::F_PERMISSION, "F_PERMISSION"),
];

/// Where a number is counted: its position in the table, or behind the last.
const fn positions<const N: usize>(table: &[(u8, &str); N]) -> [u8; 256] {
    let mut positions = [N as u8; 256];
    let mut i = 0;
    while i < N {
        positions[table[i].0 as usize] = i as u8;
        i += 1;
    }
    positions
}

const OPCODE_POSITIONS: [u8; 256] = positions(&OPCODES);
const EVENT_POSITIONS: [u8; 256] = positions(&EVENTS);

/// Legal commands by opcode.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Opcodes([u64; OPCODES.len() + 1]);

impl Opcodes {
    #[inline]
    pub(super) fn count(&mut self, opcode: u8) {
        if let Some(counter) = self.0.get_mut(usize::from(OPCODE_POSITIONS[usize::from(opcode)])) {
            *counter += 1;
        }
    }

    /// Name and number of each command that there can be.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        OPCODES.iter().map(|&(_, name)| name).zip(self.0)
    }

    /// Of one opcode.
    pub fn get(&self, opcode: u8) -> u64 {
        self.0.get(usize::from(OPCODE_POSITIONS[usize::from(opcode)])).copied().unwrap_or(0)
    }

    /// Of all opcodes.
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }
}

/// Event records by number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Events([u64; EVENTS.len() + 1]);

impl Events {
    pub(super) fn count(&mut self, number: u8) {
        if let Some(counter) = self.0.get_mut(usize::from(EVENT_POSITIONS[usize::from(number)])) {
            *counter += 1;
        }
    }

    /// Name and number of each event; `other` for all that have no name here.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        EVENTS.iter().map(|&(_, name)| name).chain(["other"]).zip(self.0)
    }

    /// Of all events.
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }
}

/// Histogram of durations: bucket `n` counts those below 2^n microseconds that no lower bucket counts; the last one also
/// counts all that are longer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Latency([u64; 24]);

impl Latency {
    pub(super) fn count(&mut self, duration: Duration) {
        let microseconds = duration.as_micros().min(u128::from(u64::MAX)) as u64;
        let bucket = (u64::BITS - microseconds.leading_zeros()) as usize;
        let last = self.0.len() - 1;
        self.0[bucket.min(last)] += 1;
    }

    /// Upper bound in microseconds and number of each bucket that is not empty, in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        (0..).map(|n| 1 << n).zip(self.0).filter(|&(_, count)| count > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_fall_into_powers_of_two() {
        let mut latency = Latency::default();
        for microseconds in [0, 1, 2, 3, 4, 1000, 1024] {
            latency.count(Duration::from_micros(microseconds));
        }
        latency.count(Duration::MAX);
        let buckets: Vec<_> = latency.iter().collect();
        assert_eq!(buckets, [(1, 1), (2, 1), (4, 2), (8, 1), (1024, 1), (2048, 1), (1 << 23, 1)]);
    }

    #[test]
    fn opcodes_are_counted_by_name() {
        let mut opcodes = Opcodes::default();
        for opcode in [0x12, 0x12, 0x46] {
            opcodes.count(opcode);
        }
        let counted: Vec<_> = opcodes.iter().filter(|&(_, count)| count > 0).collect();
        assert_eq!(counted, [("CMD_TLBI_NH_VA", 2), ("CMD_SYNC", 1)]);
        assert_eq!((opcodes.total(), opcodes.get(0x12)), (3, 2));
    }

    #[test]
    fn events_are_counted_by_name_and_strange_ones_too() {
        let mut events = Events::default();
        for number in [0x10, 0x13, 0x13, 0x24] {
            events.count(number);
        }
        let counted: Vec<_> = events.iter().filter(|&(_, count)| count > 0).collect();
        assert_eq!(counted, [("F_TRANSLATION", 1), ("F_PERMISSION", 2), ("other", 1)]);
        assert_eq!(events.total(), 4);
    }
}
