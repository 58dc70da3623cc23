//! The counters that `--stats` writes at the end of a run, as JSON (docs/configuration.md has the fields).
#![forbid(unsafe_code)]

use std::collections::BTreeMap;

use nestling_devices::smmuv3::{self, StreamStats};
use serde::{Deserialize, Serialize};

/// Counters of one run, from its start; a guest's reboot does not reset them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Stats {
    /// One for each vSMMU, by ascending bus number.
    pub vsmmus: Vec<VsmmuStats>,
    /// KVM_RUN exits of all vCPUs together.
    pub vcpu_exits: u64,
    /// How many times the guest was reset and booted again.
    pub resets: u64,
    /// Seconds from the start of the first vCPU to the end.
    pub seconds: f64,
    /// iommufd objects when the guest ended, before they were given back. (If one cannot be, nestling ends with an error.)
    pub objects: ObjectStats,
}

/// Numbers by name; names that counted nothing are left out.
pub type Named = BTreeMap<String, u64>;

/// Counters of one vSMMU.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct VsmmuStats {
    /// Its name in the Plan.
    pub name: String,
    /// The host SMMU behind it.
    pub host: String,
    /// Nested HWPTs of stage 1 that were attached to a device.
    pub stage1_installs: u64,
    /// Bypass configurations that were attached to a device.
    pub bypass_installs: u64,
    /// Abort configurations that were attached to a device.
    pub abort_installs: u64,
    /// Configurations that the host refused; the stream aborts.
    pub failed_installs: u64,
    /// Commands taken from the guest's command queue, by opcode.
    pub commands: Named,
    /// Invalidation commands handed to the host.
    pub invalidation_commands: u64,
    /// Invalidation commands that nothing can be cached for, and that the host did not see.
    pub dropped_commands: u64,
    /// Batches of invalidation commands.
    pub invalidation_batches: u64,
    /// IOMMU_HWPT_INVALIDATE calls made for them.
    pub invalidation_ioctls: u64,
    /// How long the host took for a batch: upper bound in microseconds and number, where there are any.
    pub invalidation_latency: Vec<(u64, u64)>,
    /// Batches that the host did not execute as a whole.
    pub failed_invalidations: u64,
    /// Event records delivered to the guest's event queue.
    pub events: u64,
    /// The same by event.
    pub faults: Named,
    /// Event records that were lost: by the host, or by a full, disabled or unusable queue.
    pub lost_events: u64,
    /// Streams whose stream table entry could not be used.
    pub bad_streams: u64,
    /// Errors of the command queue (CERROR_*) and global errors.
    pub errors: Named,
    /// Register accesses that the architecture does not allow.
    pub ignored_accesses: u64,
    /// Its devices.
    pub devices: Vec<DeviceStats>,
}

impl VsmmuStats {
    /// Of a vSMMU with a name, its host SMMU and its devices.
    pub fn new(name: &str, host: &str, stats: &smmuv3::Stats, devices: Vec<DeviceStats>) -> Self {
        let smmuv3::Errors { cerror_ill, cerror_abt, cerror_atc_inv_sync, eventq_abt, msi_abt } = stats.errors;
        let errors = [
            ("CERROR_ILL", cerror_ill),
            ("CERROR_ABT", cerror_abt),
            ("CERROR_ATC_INV_SYNC", cerror_atc_inv_sync),
            ("EVENTQ_ABT_ERR", eventq_abt),
            ("MSI_ABT_ERR", msi_abt),
        ];
        Self {
            name: name.into(),
            host: host.into(),
            stage1_installs: stats.installs.stage1,
            bypass_installs: stats.installs.bypass,
            abort_installs: stats.installs.abort,
            failed_installs: stats.installs.failed,
            commands: named(stats.opcodes.iter()),
            invalidation_commands: stats.invalidation_commands,
            dropped_commands: stats.dropped_commands,
            invalidation_batches: stats.invalidation_batches,
            invalidation_ioctls: stats.invalidation_ioctls,
            invalidation_latency: stats.latency.iter().collect(),
            failed_invalidations: stats.failed_invalidations,
            events: stats.events.total(),
            faults: named(stats.events.iter()),
            lost_events: stats.lost_events,
            bad_streams: stats.bad_streams,
            errors: named(errors.into_iter()),
            ignored_accesses: stats.ignored_accesses,
            devices,
        }
    }
}

/// One assigned device, as a stream of its vSMMU; all StreamIDs together that it had.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DeviceStats {
    /// Its address on the host.
    pub host: String,
    /// Its StreamID in the vSMMU; null while the guest cannot reach it.
    pub stream_id: Option<u32>,
    /// How many times the StreamID changed because the guest changed bus numbers; to null and back counts too.
    pub moves: u64,
    /// Resets of the device, by the guest and with it.
    pub resets: u64,
    /// Calls to the host for it that failed.
    pub errors: u64,
    /// Nested HWPTs of stage 1 that were attached to it.
    pub stage1_installs: u64,
    /// Bypass configurations that were attached to it.
    pub bypass_installs: u64,
    /// Abort configurations that were attached to it.
    pub abort_installs: u64,
    /// Configurations that the host refused; it aborts.
    pub failed_installs: u64,
    /// Commands that named it, by opcode.
    pub commands: Named,
    /// Its event records in the guest's event queue.
    pub events: u64,
    /// The same by event.
    pub faults: Named,
    /// Its event records that the guest's event queue did not take.
    pub lost_events: u64,
    /// How many times its stream table entry could not be used.
    pub bad_entries: u64,
    /// CMD_ATC_INVs that it did not complete.
    pub atc_timeouts: u64,
}

impl DeviceStats {
    /// What the vSMMU counted for the device at an address of the host.
    pub fn new(host: &str, stream_id: Option<u32>, stats: &StreamStats) -> Self {
        Self {
            host: host.into(),
            stream_id,
            stage1_installs: stats.installs.stage1,
            bypass_installs: stats.installs.bypass,
            abort_installs: stats.installs.abort,
            failed_installs: stats.installs.failed,
            commands: named(stats.opcodes.iter()),
            events: stats.events.total(),
            faults: named(stats.events.iter()),
            lost_events: stats.lost_events,
            bad_entries: stats.bad_entries,
            atc_timeouts: stats.atc_timeouts,
            ..Self::default()
        }
    }
}

/// iommufd objects that the kernel holds for a machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ObjectStats {
    /// Address spaces.
    pub ioas: u64,
    /// Stage 2 page tables.
    pub nest_parents: u64,
    /// vIOMMUs.
    pub viommus: u64,
    /// vDEVICEs.
    pub vdevices: u64,
    /// Stage 1 page tables: a bypass and an abort one for each vSMMU, and one for each device with stage 1.
    pub nested_hwpts: u64,
    /// Event queues.
    pub event_queues: u64,
}

fn named<'a>(counters: impl Iterator<Item = (&'a str, u64)>) -> Named {
    counters.filter(|&(_, count)| count > 0).map(|(name, count)| (name.into(), count)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_a_vsmmu_counts_is_left_out() {
        let stats = smmuv3::Stats {
            errors: smmuv3::Errors { cerror_ill: 3, ..smmuv3::Errors::default() },
            lost_events: 5,
            ..smmuv3::Stats::default()
        };
        let device =
            DeviceStats::new("0000:11:00.0", Some(0x900), &StreamStats { bad_entries: 2, ..StreamStats::default() });
        let vsmmu = VsmmuStats::new("vsmmu0", "smmu3.0x0000000008080000", &stats, vec![device]);
        let json = serde_json::to_value(&vsmmu).expect("it is JSON");
        assert_eq!(json["errors"], serde_json::json!({ "CERROR_ILL": 3 }));
        assert_eq!(json["lost_events"], 5);
        assert_eq!(json["devices"][0]["bad_entries"], 2);
        assert_eq!(serde_json::from_value::<VsmmuStats>(json).expect("it is read back"), vsmmu);
    }
}
