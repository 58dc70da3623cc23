//! The counters that `--stats-file` writes at the end of a run, as JSON.
#![forbid(unsafe_code)]

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
    /// Invalidation commands handed to the host.
    pub invalidation_commands: u64,
    /// IOMMU_HWPT_INVALIDATE calls made for them.
    pub invalidation_ioctls: u64,
    /// Event records delivered to the guest's event queue.
    pub events: u64,
    /// Its devices.
    pub devices: Vec<DeviceStats>,
}

/// One assigned device.
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
