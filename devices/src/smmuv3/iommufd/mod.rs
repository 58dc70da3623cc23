//! The way to hardware through iommufd: one vIOMMU of one host SMMU, with its devices (`PhysicalSmmu` for real).

#![forbid(unsafe_code)]

mod error;
mod stream;

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use nestling_iommufd as kernel;
use nestling_iommufd::{
    AttachHwpt, DeviceId, EventQueue, InvalidateFailure, Ioas, Iommufd, NestParent, NestedHwpt, Ste, Vevent, Viommu,
};

use super::capabilities::{Values, check};
use super::physical::{
    CommandWords, HostCapabilities, HostError, HostEvent, InstallError, Installed, InvalidateError, PhysicalSmmu,
    StreamConfig,
};
use super::spec::registers::Idr0;
pub use error::Error;
use stream::{Fixed, Stream, keep_first};

/// Events that the kernel keeps for the guest before it drops some. It allocates them one by one.
const EVENT_DEPTH: u32 = 4096;

/// Events taken from the kernel at once.
const EVENT_BATCH: usize = 32;

/// One vIOMMU and the devices behind it.
///
/// Order: [`new`](Self::new) with the first device of the host SMMU, [`add_stream`](Self::add_stream) for each device
/// (that one too), then the vSMMU model; at the end [`teardown`](Self::teardown), before the VFIO devices close and
/// after nobody polls [`event_fd`](PhysicalSmmu::event_fd) any more.
pub struct IommufdSmmu {
    iommufd: Iommufd,
    host: HostCapabilities,
    /// What the guest was shown, which later devices must have.
    frozen: OnceLock<Values>,
    objects: RwLock<Option<Objects>>,
    /// Invalidation calls until the teardown.
    calls: AtomicU64,
}

struct Objects {
    // In the order of destruction, for a drop without a teardown.
    events: EventQueue,
    streams: BTreeMap<u32, Stream>,
    /// Devices that the guest cannot reach by any number; they abort.
    unreachable: BTreeMap<DeviceId, Stream>,
    bypass: NestedHwpt,
    abort: NestedHwpt,
    viommu: Arc<Viommu>,
    parent: Arc<NestParent>,
    /// What all devices have in common.
    host: HostCapabilities,
}

impl Objects {
    /// Takes a device out of the lists, with the StreamID that it has.
    fn take(&mut self, device: DeviceId) -> Option<(Option<u32>, Stream)> {
        let stream_id = self.streams.iter().find(|(_, stream)| stream.device() == device).map(|(&id, _)| id);
        let stream = match stream_id {
            Some(stream_id) => self.streams.remove(&stream_id),
            None => self.unreachable.remove(&device),
        };
        stream.map(|stream| (stream_id, stream))
    }
}

impl IommufdSmmu {
    /// Makes stage 2, vIOMMU, event queue and the fixed bypass and abort entries for the host SMMU that `first` is
    /// behind. `ioas` maps guest memory. The device itself is not touched.
    pub fn new(iommufd: &Iommufd, ioas: &Arc<Ioas>, first: &dyn AttachHwpt) -> Result<Arc<Self>, Error> {
        let device = first.dev_id();
        let failed = |source| Error::Viommu { device, source };
        let info = iommufd.hw_info(device).map_err(failed)?;
        let host = HostCapabilities::of(&info).ok_or(Error::NotSmmuV3(device))?;
        let parent = ioas.alloc_nest_parent(device).map_err(|source| {
            let idr0 = Idr0::from_bits(host.idr[0]);
            match source {
                kernel::Error::NoNesting { .. } if !idr0.s1p() => Error::OneStage(1),
                kernel::Error::NoNesting { .. } if !idr0.s2p() => Error::OneStage(2),
                source => failed(source),
            }
        })?;
        let viommu = parent.alloc_viommu(device).map_err(failed)?;
        let events = viommu.alloc_event_queue(EVENT_DEPTH).map_err(failed)?;
        let bypass = viommu.alloc_nested(device, Ste::BYPASS).map_err(failed)?;
        let abort = viommu.alloc_nested(device, Ste::ABORT).map_err(failed)?;
        let objects = Objects {
            events,
            streams: BTreeMap::new(),
            unreachable: BTreeMap::new(),
            bypass,
            abort,
            viommu,
            parent,
            host,
        };
        Ok(Arc::new(Self {
            iommufd: iommufd.clone(),
            host,
            frozen: OnceLock::new(),
            objects: RwLock::new(Some(objects)),
            calls: AtomicU64::new(0),
        }))
    }

    /// From here on devices must have what the guest was shown. Only the first call counts.
    pub fn freeze(&self, shown: Values) {
        let _ = self.frozen.set(shown);
    }

    /// Puts a device behind the vSMMU with the StreamID that the guest knows it by: vDEVICE first, then bypass, as a
    /// reset SMMU does. If the vSMMU is in use already, call [`Smmuv3::stream_added`] next.
    ///
    /// After [`freeze`](Self::freeze) the device must have what was shown. Whether it works with ATS only the kernel does
    /// not tell: who knows it [`check`]s that before, with [`HostCapabilities::ats_required`].
    ///
    /// [`Smmuv3::stream_added`]: super::Smmuv3::stream_added
    pub fn add_stream(&self, stream_id: u32, device: Arc<dyn AttachHwpt>) -> Result<(), Error> {
        let id = device.dev_id();
        let failed = |source| Error::Stream { device: id, stream_id, source };
        let mut objects = self.write();
        let Objects { streams, bypass, viommu, host, .. } = objects.as_mut().ok_or(Error::Gone)?;
        let Entry::Vacant(entry) = streams.entry(stream_id) else {
            return Err(Error::StreamTaken(stream_id));
        };
        let info = self.iommufd.hw_info(id).map_err(failed)?;
        let abilities = HostCapabilities::of(&info).ok_or(Error::NotSmmuV3(id))?;
        if let Some(shown) = self.frozen.get() {
            check(shown, &abilities).map_err(|source| Error::Mismatch { device: id, source })?;
        }
        let vdevice = viommu.alloc_vdevice(id, stream_id).map_err(failed)?;
        device.attach_hwpt(bypass.id()).map_err(|source| match source {
            // The vDEVICE proves that it is the same SMMU.
            kernel::Error::CannotAttach { .. } => Error::NotCoherent { device: id, stream_id },
            source => failed(source),
        })?;
        *host = host.and(&abilities);
        entry.insert(Stream::new(device, vdevice, StreamConfig::Bypass));
        Ok(())
    }

    /// Takes a device out: it is detached, so it can do no DMA, and its StreamID, if it has one, is free.
    pub fn remove_device(&self, device: DeviceId) -> Result<(), Error> {
        let mut objects = self.write();
        let (_, stream) = objects.as_mut().ok_or(Error::Gone)?.take(device).ok_or(Error::NoDevice(device))?;
        let mut result = Ok(());
        stream.destroy(&mut result);
        result.map_err(Error::Teardown)
    }

    /// Gives a device another StreamID, because the guest changed bus numbers, or none, because the guest cannot reach it
    /// any more. Returns the one that it had. Nothing happens to a device that has it already.
    ///
    /// The device aborts until [`Smmuv3::stream_added`] with the new StreamID, and as long as it has none. After a
    /// failure it has none.
    ///
    /// [`Smmuv3::stream_added`]: super::Smmuv3::stream_added
    pub fn move_device(&self, device: DeviceId, to: Option<u32>) -> Result<Option<u32>, Error> {
        let mut objects = self.write();
        let objects = objects.as_mut().ok_or(Error::Gone)?;
        let (from, mut stream) = objects.take(device).ok_or(Error::NoDevice(device))?;
        if let Some(here) = from.filter(|_| from == to) {
            objects.streams.insert(here, stream);
            return Ok(from);
        }
        let taken = to.is_some_and(|to| objects.streams.contains_key(&to));
        let fixed = Fixed { viommu: &objects.viommu, bypass: &objects.bypass, abort: &objects.abort };
        // Whoever has no StreamID must not keep what it had, also if the new one is refused.
        let left = stream.leave(fixed);
        let moved = match to {
            Some(to) if taken => Err(Error::StreamTaken(to)),
            Some(to) => left
                .and_then(|()| stream.enter(fixed, to))
                .map(|()| Some(to))
                .map_err(|source| Error::Stream { device, stream_id: to, source }),
            None => left.map(|()| None).map_err(|source| Error::Unreachable { device, source }),
        };
        match moved {
            Ok(Some(to)) => drop(objects.streams.insert(to, stream)),
            _ => drop(objects.unreachable.insert(device, stream)),
        }
        moved.map(|_| from)
    }

    /// Shuts a device whose bus is going to be reset: while that goes on the kernel answers no attach and no detach, and
    /// who waited for it would have the vSMMU wait. Until [`release_device`](Self::release_device) nothing is attached.
    pub fn hold_device(&self, device: DeviceId) {
        self.with_device(device, Stream::hold);
    }

    /// The reset is over. [`Smmuv3::stream_added`] is next.
    ///
    /// [`Smmuv3::stream_added`]: super::Smmuv3::stream_added
    pub fn release_device(&self, device: DeviceId) {
        self.with_device(device, Stream::release);
    }

    fn with_device(&self, device: DeviceId, change: fn(&mut Stream)) {
        if let Some(Objects { streams, unreachable, .. }) = self.write().as_mut() {
            let mut all = streams.values_mut().chain(unreachable.values_mut());
            if let Some(stream) = all.find(|stream| stream.device() == device) {
                change(stream);
            }
        }
    }

    /// Destroys everything, in the kernel's order; devices are detached. Goes on after a failure and returns the first.
    /// Afterwards the vSMMU has no devices and no events.
    pub fn teardown(&self) -> Result<(), Error> {
        let Some(objects) = self.write().take() else { return Ok(()) };
        let Objects { events, streams, unreachable, bypass, abort, viommu, parent, .. } = objects;
        self.calls.store(viommu.counters().invalidate_calls, Ordering::Relaxed);
        let mut result = Ok(());
        keep_first(&mut result, events.destroy());
        for stream in streams.into_values().chain(unreachable.into_values()) {
            stream.destroy(&mut result);
        }
        keep_first(&mut result, bypass.destroy());
        keep_first(&mut result, abort.destroy());
        keep_first(&mut result, viommu.destroy());
        keep_first(&mut result, parent.destroy());
        result.map_err(Error::Teardown)
    }

    fn read(&self) -> RwLockReadGuard<'_, Option<Objects>> {
        self.objects.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Option<Objects>> {
        self.objects.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PhysicalSmmu for IommufdSmmu {
    fn capabilities(&self) -> HostCapabilities {
        self.read().as_ref().map_or(self.host, |objects| objects.host)
    }

    fn streams(&self, into: &mut Vec<u32>) {
        if let Some(objects) = &*self.read() {
            into.extend(objects.streams.keys());
        }
    }

    fn has_stream(&self, stream_id: u32) -> bool {
        self.read().as_ref().is_some_and(|objects| objects.streams.contains_key(&stream_id))
    }

    fn install(&self, stream_id: u32, config: StreamConfig) -> Result<Installed, InstallError> {
        let mut objects = self.write();
        let Some(Objects { streams, viommu, bypass, abort, .. }) = objects.as_mut() else {
            return Ok(Installed::NoDevice);
        };
        let Some(stream) = streams.get_mut(&stream_id) else { return Ok(Installed::NoDevice) };
        if stream.has(config) {
            return Ok(Installed::Unchanged);
        }
        let fixed = Fixed { viommu, bypass, abort };
        match stream.replace(fixed, config) {
            Ok(()) => Ok(Installed::Replaced),
            Err(source) => {
                if matches!(source, kernel::Error::DeviceBusy { .. }) {
                    stream.wait_closed()
                } else {
                    stream.fail_closed(fixed)
                }
                // Also if it was the abort that could not be attached.
                Err(InstallError { stream_id, busy: stream.is_busy(), source: source.into() })
            }
        }
    }

    fn invalidate(&self, commands: &[CommandWords]) -> Result<(), InvalidateError> {
        let objects = self.read();
        let Some(objects) = &*objects else { return Ok(()) };
        objects.viommu.invalidate(commands).map_err(|error| match error.failure {
            InvalidateFailure::Illegal => InvalidateError::Refused { index: error.handled },
            InvalidateFailure::Timeout { block } => InvalidateError::Timeout { first: block.start, end: block.end },
            InvalidateFailure::Failed(source) => InvalidateError::Failed(source.into()),
        })
    }

    fn drain_events(&self, sink: &mut dyn FnMut(HostEvent)) -> Result<bool, HostError> {
        let objects = self.read();
        let Some(objects) = &*objects else { return Ok(false) };
        let mut events = [Vevent::default(); EVENT_BATCH];
        // A device can fault faster than this reads, and others wait for the lock.
        for _ in 0..EVENT_DEPTH as usize / EVENT_BATCH {
            let count = match objects.events.read(&mut events) {
                Ok(count) => count,
                // For the header that tells of lost events; poll comes again.
                Err(kernel::Error::Failed { source, .. }) if source.raw_os_error() == Some(libc::ENOMEM) => 0,
                Err(error) => return Err(error.into()),
            };
            if count == 0 {
                break;
            }
            for event in events.iter().take(count) {
                if event.lost > 0 {
                    sink(HostEvent::Lost(event.lost));
                }
                if let Some(record) = event.record {
                    sink(HostEvent::Record(record));
                }
            }
        }
        Ok(true)
    }

    fn event_fd(&self) -> Option<RawFd> {
        self.read().as_ref().map(|objects| objects.events.as_raw_fd())
    }

    fn invalidation_calls(&self) -> u64 {
        match &*self.read() {
            Some(objects) => objects.viommu.counters().invalidate_calls,
            None => self.calls.load(Ordering::Relaxed),
        }
    }
}
