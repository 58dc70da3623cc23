//! A kernel in memory for tests, with the rules of the real one.
//!
//! It keeps the object lifetimes of iommufd (EBUSY while used, smallest free id first), the checks of
//! `arm-smmu-v3-iommufd.c` on stream table entries, commands and attaches, and the meaning of `entry_num`. It records
//! what was called and what the hardware would have executed; tests can make calls fail and raise events.
#![forbid(unsafe_code)]

mod check;
mod device;
mod kernel;
mod objects;
mod smmu;

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

pub use device::FakeDevice;
pub use objects::Mapping;
pub use smmu::FakeSmmu;

use crate::context::Iommufd;
use crate::error::Call;
use crate::ids::{DeviceId, HwptId, ViommuId};
use crate::invalidate::Command;
use objects::{Entry, Objects};

/// A call as the kernel saw it, in order; failed ones too.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // the arguments of the calls
pub enum Record {
    Alloc { call: Call, device: Option<DeviceId>, ste: Option<[u64; 2]> },
    Destroy { kind: &'static str, id: u32 },
    Map { iova: u64, length: u64 },
    Unmap { iova: u64, length: u64 },
    Attach { device: DeviceId, hwpt: HwptId },
    Detach { device: DeviceId },
    Invalidate { viommu: ViommuId, commands: Vec<Command> },
}

struct Failure {
    call: Call,
    errno: i32,
    /// For [`Call::Invalidate`]: the command that the failure comes at. For [`Call::Destroy`]: how many work before.
    at: usize,
}

#[derive(Default)]
struct State {
    objects: Objects,
    smmus: Vec<FakeSmmu>,
    failures: VecDeque<Failure>,
    records: Vec<Record>,
    executed: Vec<(ViommuId, Command)>,
}

impl State {
    /// The failure that a test ordered for the next such call.
    fn injected(&mut self, call: Call) -> Option<Failure> {
        let position = self.failures.iter().position(|failure| failure.call == call)?;
        if let (Call::Destroy, Some(Failure { at: at @ 1.., .. })) = (call, self.failures.get_mut(position)) {
            *at -= 1;
            return None;
        }
        self.failures.remove(position)
    }

    fn check_injected(&mut self, call: Call) -> io::Result<()> {
        match self.injected(call) {
            Some(failure) => Err(errno(failure.errno)),
            None => Ok(()),
        }
    }
}

fn errno(number: i32) -> io::Error {
    io::Error::from_raw_os_error(number)
}

/// A host with SMMUs and devices. Make one, add devices, and build on [`FakeKernel::iommufd`].
#[derive(Default)]
pub struct FakeKernel {
    state: Mutex<State>,
}

impl std::fmt::Debug for FakeKernel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("FakeKernel")
    }
}

impl FakeKernel {
    /// A host without an SMMU.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// An iommufd on this kernel.
    pub fn iommufd(self: &Arc<Self>) -> Iommufd {
        Iommufd::with_kernel(self.clone())
    }

    /// Adds a host SMMU; returns its index.
    pub fn add_smmu(&self, smmu: FakeSmmu) -> usize {
        let mut state = self.lock();
        state.smmus.push(smmu);
        state.smmus.len() - 1
    }

    /// Binds a device behind SMMU number `smmu`, with a coherent root complex (CANWBS) or without.
    pub fn add_device(self: &Arc<Self>, smmu: usize, canwbs: bool) -> FakeDevice {
        let mut state = self.lock();
        assert!(smmu < state.smmus.len(), "there is no smmu {smmu}");
        let id = state.objects.insert(Entry::Device(objects::Device { smmu, canwbs, ..Default::default() }));
        FakeDevice::new(self.clone(), DeviceId(id))
    }

    /// Lets the next such call fail. Several failures of one call come one after the other.
    pub fn fail_next(&self, call: Call, errno: i32) {
        self.lock().failures.push_back(Failure { call, errno, at: 0 });
    }

    /// Lets an `IOMMU_DESTROY` fail, after `count` that work.
    pub fn fail_destroy_after(&self, count: usize, errno: i32) {
        self.lock().failures.push_back(Failure { call: Call::Destroy, errno, at: count });
    }

    /// Lets the next invalidation time out in the block that command `index` of the call is in.
    pub fn time_out_at(&self, index: usize) {
        self.lock().failures.push_back(Failure { call: Call::Invalidate, errno: libc::ETIMEDOUT, at: index });
    }

    /// Takes the calls recorded since the last time.
    pub fn take_records(&self) -> Vec<Record> {
        std::mem::take(&mut self.lock().records)
    }

    /// Takes the commands that reached the hardware since the last time, by vIOMMU, as the guest wrote them.
    pub fn take_executed(&self) -> Vec<(ViommuId, Command)> {
        std::mem::take(&mut self.lock().executed)
    }

    /// What is mapped in all address spaces.
    pub fn mappings(&self) -> Vec<Mapping> {
        self.lock().objects.mappings()
    }

    /// Number of live objects, devices not counted: 0 after a complete teardown.
    pub fn live_objects(&self) -> usize {
        self.lock().objects.live()
    }

    /// The page table that a device is attached to.
    pub fn attached(&self, device: DeviceId) -> Option<HwptId> {
        self.lock().objects.device(device).ok()?.attached.map(HwptId)
    }

    /// The stream table entry that a device's nested page table was made from, while attached.
    pub fn attached_ste(&self, device: DeviceId) -> Option<[u64; 2]> {
        let state = self.lock();
        let hwpt = state.objects.device(device).ok()?.attached?;
        match state.objects.get(hwpt).ok()? {
            Entry::Nested { ste, .. } => Some(*ste),
            _ => None,
        }
    }

    /// The hardware records an event of `device` (IHI 0070 section 7.3; the StreamID is filled in). Returns whether
    /// it goes to a guest: attached with a vDEVICE, an event the kernel forwards, and a queue there.
    pub fn raise_event(&self, device: DeviceId, record: [u64; 4]) -> bool {
        self.lock().objects.raise_event(device, record)
    }

    /// The kernel drops `count` events of a vIOMMU and says so at the end of its queue.
    pub fn lose_events(&self, viommu: ViommuId, count: u32) {
        self.lock().objects.lose_events(viommu, count);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }
}

#[cfg(test)]
mod tests;
