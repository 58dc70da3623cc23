//! What a vSMMU counts.

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
    /// CMD_SYNCs among them.
    pub syncs: u64,
    /// Invalidations among them that went to the host.
    pub invalidation_commands: u64,
    /// Invalidations that named a StreamID without a device and were dropped.
    pub dropped_commands: u64,
    /// Batches of invalidations given to the host.
    pub invalidation_batches: u64,
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
