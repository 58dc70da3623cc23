//! The calls of the fake kernel.

use std::io;
use std::ops::RangeInclusive;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixDatagram;

use super::objects::{Entry, Mapping, Queue};
use super::{FakeKernel, Record, State, check, errno};
use crate::error::Call;
use crate::hw_info::{Capabilities, HwInfo};
use crate::ids::{DeviceId, EventQueueId, HwptId, IoasId, VdeviceId, ViommuId};
use crate::invalidate::Command;
use crate::kernel::Kernel;

/// Commands issued at once.
const BLOCK: usize = 63;

impl FakeKernel {
    /// Records an allocation, fails if a test wants so, else makes the object.
    fn alloc(
        &self,
        call: Call,
        device: Option<DeviceId>,
        ste: Option<[u64; 2]>,
        make: impl FnOnce(&mut State) -> io::Result<Entry>,
    ) -> io::Result<u32> {
        let mut state = self.lock();
        state.records.push(Record::Alloc { call, device, ste });
        state.check_injected(call)?;
        let entry = make(&mut state)?;
        Ok(state.objects.insert(entry))
    }
}

/// The SMMU that a vIOMMU belongs to.
fn smmu_of(state: &State, viommu: ViommuId) -> io::Result<usize> {
    match state.objects.get(viommu.0)? {
        Entry::Viommu { smmu, .. } => Ok(*smmu),
        _ => Err(errno(libc::EINVAL)),
    }
}

impl Kernel for FakeKernel {
    fn fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn destroy(&self, id: u32) -> io::Result<()> {
        let mut state = self.lock();
        state.check_injected(Call::Destroy)?;
        let kind = state.objects.destroy(id)?;
        state.records.push(Record::Destroy { kind, id });
        Ok(())
    }

    fn ioas_alloc(&self) -> io::Result<IoasId> {
        let entry = Entry::Ioas { mappings: Vec::new(), reserved: false };
        self.alloc(Call::IoasAlloc, None, None, |_| Ok(entry)).map(IoasId)
    }

    fn ioas_map_file(
        &self,
        ioas: IoasId,
        _file: BorrowedFd<'_>,
        offset: u64,
        length: u64,
        iova: u64,
    ) -> io::Result<()> {
        let mut state = self.lock();
        state.records.push(Record::Map { iova, length });
        state.check_injected(Call::IoasMapFile)?;
        state.objects.map(ioas.0, Mapping { iova, length, offset })
    }

    fn ioas_unmap(&self, ioas: IoasId, iova: u64, length: u64) -> io::Result<u64> {
        let mut state = self.lock();
        state.records.push(Record::Unmap { iova, length });
        state.check_injected(Call::IoasUnmap)?;
        state.objects.unmap(ioas.0, iova, length)
    }

    fn ioas_iova_ranges(&self, ioas: IoasId) -> io::Result<Vec<RangeInclusive<u64>>> {
        let mut state = self.lock();
        state.check_injected(Call::IoasIovaRanges)?;
        state.objects.iova_ranges(ioas.0)
    }

    fn nest_parent_alloc(&self, device: DeviceId, ioas: IoasId) -> io::Result<HwptId> {
        self.alloc(Call::NestParentAlloc, Some(device), None, |state| {
            let owner = state.objects.device(device)?;
            let (smmu, enforces_coherency) = (owner.smmu, owner.canwbs);
            let Entry::Ioas { .. } = state.objects.get(ioas.0)? else { return Err(errno(libc::EINVAL)) };
            if !state.smmus[smmu].can_nest() {
                return Err(errno(libc::EOPNOTSUPP));
            }
            Ok(Entry::Parent { ioas: ioas.0, smmu, enforces_coherency })
        })
        .map(HwptId)
    }

    fn nested_alloc(&self, device: DeviceId, viommu: ViommuId, ste: [u64; 2]) -> io::Result<HwptId> {
        self.alloc(Call::NestedAlloc, Some(device), Some(ste), |state| {
            if state.objects.device(device)?.smmu != smmu_of(state, viommu)? {
                return Err(errno(libc::EINVAL));
            }
            check::ste_config(ste).ok_or_else(|| errno(libc::EIO))?;
            Ok(Entry::Nested { viommu: viommu.0, ste })
        })
        .map(HwptId)
    }

    fn hw_info(&self, device: DeviceId) -> io::Result<HwInfo> {
        let mut state = self.lock();
        state.check_injected(Call::GetHwInfo)?;
        let smmu = &state.smmus[state.objects.device(device)?.smmu];
        let mut capabilities = Capabilities::empty();
        capabilities.set(Capabilities::PCI_ATS_NOT_SUPPORTED, !smmu.ats());
        Ok(HwInfo { data_type: 2, smmu: Some(smmu.info), max_pasid_log2: smmu.max_pasid_log2, capabilities })
    }

    fn viommu_alloc(&self, device: DeviceId, parent: HwptId) -> io::Result<ViommuId> {
        self.alloc(Call::ViommuAlloc, Some(device), None, |state| {
            let device = state.objects.device(device)?;
            let smmu = &state.smmus[device.smmu];
            if !smmu.can_nest() || !(device.canwbs || smmu.s2fwb()) {
                return Err(errno(libc::EOPNOTSUPP));
            }
            match state.objects.get(parent.0)? {
                Entry::Parent { smmu, .. } if *smmu == device.smmu => {
                    Ok(Entry::Viommu { parent: parent.0, smmu: *smmu })
                }
                _ => Err(errno(libc::EINVAL)),
            }
        })
        .map(ViommuId)
    }

    fn vdevice_alloc(&self, viommu: ViommuId, device: DeviceId, virt_id: u64) -> io::Result<VdeviceId> {
        self.alloc(Call::VdeviceAlloc, Some(device), None, |state| {
            if state.objects.device(device)?.smmu != smmu_of(state, viommu)? {
                return Err(errno(libc::EINVAL));
            }
            let taken = state.objects.values().any(|entry| match entry {
                Entry::Vdevice { viommu: v, device: d, stream } => {
                    *d == device.0 || (*v == viommu.0 && *stream == virt_id)
                }
                _ => false,
            });
            if taken {
                return Err(errno(libc::EEXIST));
            }
            Ok(Entry::Vdevice { viommu: viommu.0, device: device.0, stream: virt_id })
        })
        .map(VdeviceId)
    }

    fn veventq_alloc(&self, viommu: ViommuId, depth: u32) -> io::Result<(EventQueueId, OwnedFd)> {
        let (socket, reader) = UnixDatagram::pair()?;
        socket.set_nonblocking(true)?;
        reader.set_nonblocking(true)?;
        let id = self.alloc(Call::VeventqAlloc, None, None, |state| {
            smmu_of(state, viommu)?;
            if !(1..=1 << 19).contains(&depth) {
                return Err(errno(libc::EINVAL));
            }
            let exists = |entry: &Entry| matches!(entry, Entry::Queue(queue) if queue.viommu == viommu.0);
            if state.objects.values().any(exists) {
                return Err(errno(libc::EEXIST));
            }
            Ok(Entry::Queue(Queue { viommu: viommu.0, socket, sequence: 0 }))
        })?;
        Ok((EventQueueId(id), reader.into()))
    }

    fn invalidate(&self, viommu: ViommuId, commands: &[Command]) -> (u32, io::Result<()>) {
        let mut state = self.lock();
        state.records.push(Record::Invalidate { viommu, commands: commands.to_vec() });
        let smmu = match smmu_of(&state, viommu) {
            Ok(index) => state.smmus[index],
            Err(e) => return (0, Err(e)),
        };
        if commands.is_empty() || commands.len() > 1 << 19 {
            return (0, Err(errno(libc::EINVAL)));
        }
        let injected = state.injected(Call::Invalidate);
        match injected.as_ref().map(|failure| failure.errno) {
            Some(libc::ENOMEM) => return (commands.len() as u32, Err(errno(libc::ENOMEM))),
            Some(number) if number != libc::ETIMEDOUT => return (0, Err(errno(number))),
            _ => {}
        }
        let mut issued = 0;
        for (index, command) in commands.iter().enumerate() {
            let legal = match check::command(&smmu, *command) {
                Ok(Some(stream)) => state.objects.has_stream(viommu.0, stream),
                Ok(None) => true,
                Err(()) => false,
            };
            if !legal {
                return (index as u32, Err(errno(libc::EIO)));
            }
            if index + 1 != commands.len() && index + 1 - issued != BLOCK {
                continue;
            }
            if injected.as_ref().is_some_and(|failure| (issued..=index).contains(&failure.at)) {
                return (index as u32, Err(errno(libc::ETIMEDOUT)));
            }
            state.executed.extend(commands[issued..=index].iter().map(|command| (viommu, *command)));
            issued = index + 1;
        }
        (commands.len() as u32, Ok(()))
    }
}
