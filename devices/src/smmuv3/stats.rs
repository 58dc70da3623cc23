//! What a vSMMU counts.

use std::time::Duration;

use super::spec::command::opcode;

/// Counters of one vSMMU since it was made; they survive a reset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Stage 1 configurations installed on devices.
    pub stage1_installs: u64,
    /// Bypass configurations installed on devices.
    pub bypass_installs: u64,
    /// Abort configurations installed on devices.
    pub abort_installs: u64,
    /// Configurations that the host refused; the stream aborts.
    pub failed_installs: u64,
    /// Commands taken from the command queue.
    pub commands: u64,
    /// The same by opcode.
    pub opcodes: Opcodes,
    /// CMD_SYNCs among them.
    pub syncs: u64,
    /// Invalidations among them that went to the host.
    pub invalidation_commands: u64,
    /// Invalidations that named a StreamID without a device and were dropped.
    pub dropped_commands: u64,
    /// Batches of invalidations given to the host.
    pub invalidation_batches: u64,
    /// How long the host took for them.
    pub latency: Latency,
    /// System calls that carried invalidations.
    pub invalidation_ioctls: u64,
    /// Batches that the host did not execute as a whole.
    pub failed_invalidations: u64,
    /// CERROR_ILL, CERROR_ABT and CERROR_ATC_INV_SYNC given to the guest.
    pub command_errors: u64,
    /// Records written to the guest's event queue.
    pub events: u64,
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
    /// Configurations installed.
    pub installs: u64,
    /// Configurations that the host refused.
    pub failed_installs: u64,
    /// Event records written to the guest's event queue.
    pub events: u64,
}

/// Opcodes and their names, as section 4.1.4 has them.
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

/// Where an opcode is counted; opcodes without a counter have an index behind the last.
const INDEX: [u8; 256] = {
    let mut index = [OPCODES.len() as u8; 256];
    let mut i = 0;
    while i < OPCODES.len() {
        index[OPCODES[i].0 as usize] = i as u8;
        i += 1;
    }
    index
};

/// Legal commands by opcode.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Opcodes([u64; OPCODES.len()]);

impl Opcodes {
    pub(super) fn count(&mut self, opcode: u8) {
        if let Some(counter) = self.0.get_mut(usize::from(INDEX[usize::from(opcode)])) {
            *counter += 1;
        }
    }

    /// Name and number of each command that there can be.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        OPCODES.iter().map(|&(_, name)| name).zip(self.0)
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
        for opcode in [0x12, 0x12, 0x46, 0xee] {
            opcodes.count(opcode);
        }
        let counted: Vec<_> = opcodes.iter().filter(|&(_, count)| count > 0).collect();
        assert_eq!(counted, [("CMD_TLBI_NH_VA", 2), ("CMD_SYNC", 1)]);
    }
}
