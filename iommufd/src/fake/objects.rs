//! The objects of the fake kernel and who holds whom.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::net::UnixDatagram;

use super::errno;
use crate::events::{LOST_EVENTS, RECORD_SIZE, SEQUENCE_MASK};
use crate::ids::{DeviceId, ViommuId};

/// IOVAs that a device's MSI pages need (`MSI_IOVA_BASE`, `MSI_IOVA_LENGTH`).
const MSI_WINDOW: (u64, u64) = (0x800_0000, 0x80f_ffff);

/// A piece of an address space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // bytes
pub struct Mapping {
    pub iova: u64,
    pub length: u64,
    pub offset: u64,
}

impl Mapping {
    fn last(&self) -> u64 {
        self.iova + self.length - 1
    }

    fn hits(&self, first: u64, last: u64) -> bool {
        self.iova <= last && first <= self.last()
    }
}

#[derive(Default)]
pub(super) struct Device {
    pub(super) smmu: usize,
    pub(super) canwbs: bool,
    pub(super) in_reset: bool,
    pub(super) attached: Option<u32>,
    /// vIOMMU and virtual StreamID as the attach found them (`struct arm_smmu_vmaster`).
    pub(super) vmaster: Option<(u32, u32)>,
}

pub(super) struct Queue {
    pub(super) viommu: u32,
    pub(super) socket: UnixDatagram,
    pub(super) sequence: u32,
}

pub(super) enum Entry {
    Device(Device),
    Ioas { mappings: Vec<Mapping>, reserved: bool },
    Parent { ioas: u32, smmu: usize, enforces_coherency: bool },
    Viommu { parent: u32, smmu: usize },
    Vdevice { viommu: u32, device: u32, stream: u64 },
    Nested { viommu: u32, ste: [u64; 2] },
    Queue(Queue),
}

impl Entry {
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Device(_) => "device",
            Self::Ioas { .. } => "ioas",
            Self::Parent { .. } => "nest parent",
            Self::Viommu { .. } => "viommu",
            Self::Vdevice { .. } => "vdevice",
            Self::Nested { .. } => "nested hwpt",
            Self::Queue(_) => "veventq",
        }
    }

    fn holds(&self, id: u32) -> bool {
        match self {
            Self::Device(device) => device.attached == Some(id),
            Self::Ioas { .. } => false,
            Self::Parent { ioas, .. } => *ioas == id,
            Self::Viommu { parent, .. } => *parent == id,
            Self::Vdevice { viommu, .. } | Self::Nested { viommu, .. } => *viommu == id,
            Self::Queue(queue) => queue.viommu == id,
        }
    }
}

#[derive(Default)]
pub(super) struct Objects(BTreeMap<u32, Entry>);

impl Objects {
    /// Ids start at 1 and the smallest free one is taken, as `xa_alloc` does: a stale id soon names another object.
    pub(super) fn insert(&mut self, entry: Entry) -> u32 {
        let id = (1..).find(|id| !self.0.contains_key(id)).unwrap_or(0);
        self.0.insert(id, entry);
        id
    }

    pub(super) fn get(&self, id: u32) -> io::Result<&Entry> {
        self.0.get(&id).ok_or_else(|| errno(libc::ENOENT))
    }

    pub(super) fn get_mut(&mut self, id: u32) -> io::Result<&mut Entry> {
        self.0.get_mut(&id).ok_or_else(|| errno(libc::ENOENT))
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &Entry> {
        self.0.values()
    }

    pub(super) fn device(&self, id: DeviceId) -> io::Result<&Device> {
        match self.get(id.0)? {
            Entry::Device(device) => Ok(device),
            _ => Err(errno(libc::ENOENT)),
        }
    }

    pub(super) fn device_mut(&mut self, id: DeviceId) -> io::Result<&mut Device> {
        match self.get_mut(id.0)? {
            Entry::Device(device) => Ok(device),
            _ => Err(errno(libc::ENOENT)),
        }
    }

    pub(super) fn live(&self) -> usize {
        self.values().filter(|entry| !matches!(entry, Entry::Device(_))).count()
    }

    pub(super) fn mappings(&self) -> Vec<Mapping> {
        self.values()
            .filter_map(|entry| match entry {
                Entry::Ioas { mappings, .. } => Some(mappings.iter().copied()),
                _ => None,
            })
            .flatten()
            .collect()
    }

    /// Returns the kind of what was destroyed.
    pub(super) fn destroy(&mut self, id: u32) -> io::Result<&'static str> {
        let entry = self.get(id)?;
        // An open event descriptor holds its queue; a closed one refuses what is sent to it.
        let open = match entry {
            Entry::Queue(queue) => !queue.socket.send(&[]).is_err_and(|e| e.kind() == io::ErrorKind::ConnectionRefused),
            _ => false,
        };
        if open || self.values().any(|other| other.holds(id)) {
            return Err(errno(libc::EBUSY));
        }
        let kind = entry.kind();
        self.0.remove(&id);
        Ok(kind)
    }

    pub(super) fn map(&mut self, ioas: u32, new: Mapping) -> io::Result<()> {
        let Entry::Ioas { mappings, reserved } = self.get_mut(ioas)? else { return Err(errno(libc::ENOENT)) };
        if new.length == 0 || (new.iova | new.length | new.offset) & 0xfff != 0 {
            return Err(errno(libc::EINVAL));
        }
        if new.iova.checked_add(new.length).is_none() {
            return Err(errno(libc::EOVERFLOW));
        }
        if *reserved && new.hits(MSI_WINDOW.0, MSI_WINDOW.1) {
            return Err(errno(libc::EINVAL));
        }
        if mappings.iter().any(|old| old.hits(new.iova, new.last())) {
            return Err(errno(libc::EEXIST));
        }
        mappings.push(new);
        Ok(())
    }

    pub(super) fn unmap(&mut self, ioas: u32, iova: u64, length: u64) -> io::Result<u64> {
        let Entry::Ioas { mappings, .. } = self.get_mut(ioas)? else { return Err(errno(libc::ENOENT)) };
        let last = iova.saturating_add(length.saturating_sub(1));
        let touched = |mapping: &Mapping| mapping.hits(iova, last);
        if mappings.iter().any(|mapping| touched(mapping) && (mapping.iova < iova || mapping.last() > last)) {
            return Err(errno(libc::ENOENT));
        }
        let bytes: u64 = mappings.iter().filter(|mapping| touched(mapping)).map(|mapping| mapping.length).sum();
        mappings.retain(|mapping| !touched(mapping));
        if bytes == 0 { Err(errno(libc::ENOENT)) } else { Ok(bytes) }
    }

    /// Reserves the MSI window of an attached device in its address space.
    pub(super) fn reserve_msi_window(&mut self, ioas: u32) -> io::Result<()> {
        let Entry::Ioas { mappings, reserved } = self.get_mut(ioas)? else { return Err(errno(libc::ENOENT)) };
        if mappings.iter().any(|mapping| mapping.hits(MSI_WINDOW.0, MSI_WINDOW.1)) {
            return Err(errno(libc::EADDRINUSE));
        }
        *reserved = true;
        Ok(())
    }

    pub(super) fn iova_ranges(&self, ioas: u32) -> io::Result<Vec<std::ops::RangeInclusive<u64>>> {
        const LAST: u64 = (1 << 48) - 1;
        match self.get(ioas)? {
            Entry::Ioas { reserved: true, .. } => Ok(vec![0..=MSI_WINDOW.0 - 1, MSI_WINDOW.1 + 1..=LAST]),
            Entry::Ioas { .. } => Ok(vec![0..=u64::MAX]),
            _ => Err(errno(libc::ENOENT)),
        }
    }

    pub(super) fn stream_of(&self, viommu: u32, device: u32) -> Option<u64> {
        self.values().find_map(|entry| match entry {
            Entry::Vdevice { viommu: v, device: d, stream } if (*v, *d) == (viommu, device) => Some(*stream),
            _ => None,
        })
    }

    pub(super) fn has_stream(&self, viommu: u32, stream: u32) -> bool {
        self.values().any(
            |entry| matches!(entry, Entry::Vdevice { viommu: v, stream: s, .. } if (*v, *s) == (viommu, stream.into())),
        )
    }

    fn queue_of(&mut self, viommu: u32) -> Option<&mut Queue> {
        self.0.values_mut().find_map(|entry| match entry {
            Entry::Queue(queue) if queue.viommu == viommu => Some(queue),
            _ => None,
        })
    }

    pub(super) fn raise_event(&mut self, device: DeviceId, mut record: [u64; 4]) -> bool {
        let stalled = record[1] & 1 << 31 != 0;
        let stage2 = record[1] & 1 << 39 != 0;
        let forwarded = matches!(record[0] & 0xff, 0x04 | 0x06 | 0x08 | 0x0a | 0x10..=0x13);
        let Ok(Device { vmaster: Some((viommu, stream)), .. }) = self.device(device) else { return false };
        let (viommu, stream) = (*viommu, *stream);
        let Some(queue) = self.queue_of(viommu).filter(|_| forwarded && !stalled && !stage2) else { return false };
        record[0] = record[0] & u64::from(u32::MAX) | u64::from(stream) << 32;
        let mut bytes = Vec::with_capacity(RECORD_SIZE);
        bytes.extend(0u32.to_le_bytes());
        bytes.extend(queue.sequence.to_le_bytes());
        bytes.extend(record.iter().flat_map(|word| word.to_le_bytes()));
        queue.sequence = queue.sequence.wrapping_add(1) & SEQUENCE_MASK;
        queue.socket.send(&bytes).is_ok()
    }

    pub(super) fn lose_events(&mut self, viommu: ViommuId, count: u32) {
        let Some(queue) = self.queue_of(viommu.0).filter(|_| count > 0) else { return };
        queue.sequence = queue.sequence.wrapping_add(count) & SEQUENCE_MASK;
        let last = queue.sequence.wrapping_sub(1) & SEQUENCE_MASK;
        let _ = queue.socket.send(&[LOST_EVENTS.to_le_bytes(), last.to_le_bytes()].concat());
    }
}
