//! The way to hardware through iommufd: one vIOMMU of one host SMMU, with its devices (`PhysicalSmmu` for real).

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use nestling_iommufd as kernel;
use nestling_iommufd::{
    AttachHwpt, DeviceId, EventQueue, InvalidateFailure, Ioas, Iommufd, NestParent, NestedHwpt, Ste, Vdevice, Vevent,
    Viommu,
};

use super::physical::{
    CommandWords, HostCapabilities, HostError, HostEvent, InstallError, Installed, InvalidateError, PhysicalSmmu,
    StreamConfig,
};

/// Events that the kernel keeps for the guest before it drops some. It allocates them one by one.
const EVENT_DEPTH: u32 = 4096;

/// Events taken from the kernel at once.
const EVENT_BATCH: usize = 32;

/// Why the objects of a vSMMU cannot be made or destroyed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The vIOMMU, its stage 2, its event queue or one of its fixed stream table entries.
    #[error("the kernel gives no nested smmu for {device}")]
    Viommu {
        /// A device behind the host SMMU.
        device: DeviceId,
        /// What the kernel answered.
        #[source]
        source: kernel::Error,
    },
    /// The IOMMU of the device is no SMMUv3.
    #[error("{0} is not behind an smmuv3; only devices behind one can be given to a vsmmu")]
    NotSmmuV3(DeviceId),
    /// The StreamID is in use.
    #[error("stream {0:#x} has a device already; each function needs a requester id of its own")]
    StreamTaken(u32),
    /// No device has the StreamID.
    #[error("stream {0:#x} has no device")]
    NoStream(u32),
    /// The device cannot be put behind the vSMMU.
    #[error("{device} cannot be put behind the vsmmu as stream {stream_id:#x}")]
    Stream {
        /// The device.
        device: DeviceId,
        /// The StreamID it was to have.
        stream_id: u32,
        /// What the kernel answered.
        #[source]
        source: kernel::Error,
    },
    /// EINVAL on its first attach: stage 2 was made for a coherent device and this one is not
    /// (`arm_smmu_attach_prepare`).
    #[error(
        "{device} cannot be put behind the vsmmu as stream {stream_id:#x}: its root complex is not coherent (no CANWBS in the host's IORT) while that of the vsmmu's first device is, or another device of its iommu group has another page table; give it a vsmmu of its own"
    )]
    NotCoherent {
        /// The device.
        device: DeviceId,
        /// The StreamID it was to have.
        stream_id: u32,
    },
    /// An object is left behind.
    #[error("not everything of the vsmmu could be destroyed")]
    Teardown(#[source] kernel::Error),
    /// It is torn down already.
    #[error("the vsmmu is torn down")]
    Gone,
}

/// One vIOMMU and the devices behind it.
///
/// Order: [`new`](Self::new) with the first device of the host SMMU, [`add_stream`](Self::add_stream) for each device
/// (that one too), then the vSMMU model; at the end [`teardown`](Self::teardown), before the VFIO devices close and
/// after nobody polls [`event_fd`](PhysicalSmmu::event_fd) any more.
pub struct IommufdSmmu {
    iommufd: Iommufd,
    host: HostCapabilities,
    objects: RwLock<Option<Objects>>,
    /// Invalidation calls until the teardown.
    calls: AtomicU64,
}

struct Objects {
    // In the order of destruction, for a drop without a teardown.
    events: EventQueue,
    streams: BTreeMap<u32, Stream>,
    bypass: NestedHwpt,
    abort: NestedHwpt,
    viommu: Arc<Viommu>,
    parent: Arc<NestParent>,
    /// What all devices have in common.
    host: HostCapabilities,
}

struct Stream {
    device: Arc<dyn AttachHwpt>,
    vdevice: Vdevice,
    /// What the device is attached to; none if that is not known.
    config: Option<StreamConfig>,
    /// The device was in reset when it was to get a page table, and is detached.
    busy: bool,
    /// A page table of its own behind `config`, if it is not one of the fixed ones.
    nested: Option<NestedHwpt>,
}

impl IommufdSmmu {
    /// Makes stage 2, vIOMMU, event queue and the fixed bypass and abort entries for the host SMMU that `first` is
    /// behind. `ioas` maps guest memory. The device itself is not touched.
    pub fn new(iommufd: &Iommufd, ioas: &Arc<Ioas>, first: &dyn AttachHwpt) -> Result<Arc<Self>, Error> {
        let device = first.dev_id();
        let failed = |source| Error::Viommu { device, source };
        let info = iommufd.hw_info(device).map_err(failed)?;
        let host = HostCapabilities::of(&info).ok_or(Error::NotSmmuV3(device))?;
        let parent = ioas.alloc_nest_parent(device).map_err(failed)?;
        let viommu = parent.alloc_viommu(device).map_err(failed)?;
        let events = viommu.alloc_event_queue(EVENT_DEPTH).map_err(failed)?;
        let bypass = viommu.alloc_nested(device, Ste::BYPASS).map_err(failed)?;
        let abort = viommu.alloc_nested(device, Ste::ABORT).map_err(failed)?;
        let objects = Objects { events, streams: BTreeMap::new(), bypass, abort, viommu, parent, host };
        Ok(Arc::new(Self {
            iommufd: iommufd.clone(),
            host,
            objects: RwLock::new(Some(objects)),
            calls: AtomicU64::new(0),
        }))
    }

    /// Puts a device behind the vSMMU with the StreamID that the guest knows it by: vDEVICE first, then bypass, as a
    /// reset SMMU does. If the vSMMU is in use already, call [`Smmuv3::stream_added`] next.
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
        let vdevice = viommu.alloc_vdevice(id, stream_id).map_err(failed)?;
        device.attach_hwpt(bypass.id()).map_err(|source| match source {
            // The vDEVICE proves that it is the same SMMU.
            kernel::Error::CannotAttach { .. } => Error::NotCoherent { device: id, stream_id },
            source => failed(source),
        })?;
        *host = host.and(&abilities);
        let config = Some(StreamConfig::Bypass);
        entry.insert(Stream { device, vdevice, config, busy: false, nested: None });
        Ok(())
    }

    /// Takes a device out: it is detached, so it can do no DMA, and its StreamID is free.
    pub fn remove_stream(&self, stream_id: u32) -> Result<(), Error> {
        let mut objects = self.write();
        let streams = &mut objects.as_mut().ok_or(Error::Gone)?.streams;
        let stream = streams.remove(&stream_id).ok_or(Error::NoStream(stream_id))?;
        let mut result = Ok(());
        stream.destroy(&mut result);
        result.map_err(Error::Teardown)
    }

    /// Gives a device another StreamID, because the guest changed bus numbers. The device aborts until
    /// [`Smmuv3::stream_added`] with the new one; if this fails it is detached and gone.
    ///
    /// [`Smmuv3::stream_added`]: super::Smmuv3::stream_added
    pub fn renumber_stream(&self, from: u32, to: u32) -> Result<(), Error> {
        let mut objects = self.write();
        let Objects { streams, bypass, abort, viommu, .. } = objects.as_mut().ok_or(Error::Gone)?;
        if streams.contains_key(&to) {
            return Err(Error::StreamTaken(to));
        }
        let mut stream = streams.remove(&from).ok_or(Error::NoStream(from))?;
        // Off stage 1 before the vDEVICE goes: the kernel could not attach it again after a reset.
        stream.fail_closed(Fixed { viommu, bypass, abort });
        let Stream { device, vdevice, busy, nested, .. } = stream;
        let id = device.dev_id();
        let moved = vdevice.destroy().and_then(|()| {
            let vdevice = viommu.alloc_vdevice(id, to)?;
            // The kernel looks for the vDEVICE only when another page table is attached.
            let fresh = viommu.alloc_nested(id, Ste::ABORT)?;
            let busy = match attach(&*device, &fresh, busy) {
                // It is detached, or aborts by the old one.
                Err(kernel::Error::DeviceBusy { .. }) => true,
                other => other.map(|()| false)?,
            };
            Ok((vdevice, fresh, busy))
        });
        drop(nested);
        match moved {
            Ok((vdevice, fresh, busy)) => {
                let mut stream = Stream { device, vdevice, config: None, busy, nested: Some(fresh) };
                if busy {
                    stream.detach();
                } else {
                    stream.config = Some(StreamConfig::Abort);
                }
                streams.insert(to, stream);
                Ok(())
            }
            Err(source) => {
                if let Err(error) = device.detach_hwpt() {
                    log::error!("{id} cannot be detached: {error}");
                }
                Err(Error::Stream { device: id, stream_id: to, source })
            }
        }
    }

    /// Destroys everything, in the kernel's order; devices are detached. Goes on after a failure and returns the first.
    /// Afterwards the vSMMU has no devices and no events.
    pub fn teardown(&self) -> Result<(), Error> {
        let Some(objects) = self.write().take() else { return Ok(()) };
        let Objects { events, streams, bypass, abort, viommu, parent, .. } = objects;
        self.calls.store(viommu.counters().invalidate_calls, Ordering::Relaxed);
        let mut result = Ok(());
        keep_first(&mut result, events.destroy());
        for stream in streams.into_values() {
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

impl Stream {
    /// Off stage 1, then page table, then vDEVICE.
    fn destroy(self, result: &mut Result<(), kernel::Error>) {
        keep_first(result, self.device.detach_hwpt());
        if let Some(nested) = self.nested {
            keep_first(result, nested.destroy());
        }
        keep_first(result, self.vdevice.destroy());
    }

    /// Replaces the configuration; what was attached before is freed only afterwards.
    fn replace(&mut self, objects: Fixed<'_>, config: StreamConfig) -> Result<(), kernel::Error> {
        let nested = match config {
            StreamConfig::Stage1(ste) => Some(objects.viommu.alloc_nested(self.device.dev_id(), Ste(ste.0))?),
            StreamConfig::Bypass | StreamConfig::Abort => None,
        };
        let hwpt = match (&nested, config) {
            (Some(nested), _) => nested,
            (None, StreamConfig::Bypass) => objects.bypass,
            (None, _) => objects.abort,
        };
        attach(&*self.device, hwpt, self.busy)?;
        self.busy = false;
        self.config = Some(config);
        if let Some(old) = std::mem::replace(&mut self.nested, nested)
            && let Err(error) = old.destroy()
        {
            log::warn!("stream {:#x}: its last stage 1 is left behind: {error}", self.vdevice.stream());
        }
        Ok(())
    }

    /// Nothing may pass any more: abort, and if even that fails, no page table at all.
    fn fail_closed(&mut self, objects: Fixed<'_>) {
        let stream_id = self.vdevice.stream();
        match self.replace(objects, StreamConfig::Abort) {
            Ok(()) => {}
            Err(kernel::Error::DeviceBusy { .. }) => self.wait_closed(),
            Err(error) => {
                log::error!("stream {stream_id:#x} cannot be aborted and is detached: {error}");
                self.detach();
            }
        }
    }

    /// The device is in reset and cannot even be made to abort. Detached it stays without a page table when the reset
    /// ends, where the kernel would attach the last one again (`pci_dev_reset_iommu_done`).
    fn wait_closed(&mut self) {
        if !self.busy {
            log::debug!("stream {:#x} is detached until its device is out of reset", self.vdevice.stream());
            self.busy = true;
            self.detach();
        }
    }

    fn detach(&mut self) {
        self.config = None;
        if let Err(error) = self.device.detach_hwpt() {
            log::error!("stream {:#x} cannot even be detached: {error}", self.vdevice.stream());
        }
    }
}

/// Attaches a page table. Who was in reset the last time may be so for a minute and is not waited for again.
fn attach(device: &dyn AttachHwpt, hwpt: &NestedHwpt, busy: bool) -> Result<(), kernel::Error> {
    if busy { device.try_attach_hwpt(hwpt.id()) } else { device.attach_hwpt(hwpt.id()) }
}

/// What all streams share.
#[derive(Clone, Copy)]
struct Fixed<'a> {
    viommu: &'a Arc<Viommu>,
    bypass: &'a NestedHwpt,
    abort: &'a NestedHwpt,
}

fn keep_first(result: &mut Result<(), kernel::Error>, next: Result<(), kernel::Error>) {
    if let Err(error) = next {
        log::warn!("teardown of a vsmmu: {error}");
        if result.is_ok() {
            *result = Err(error);
        }
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
        if stream.config == Some(config) {
            return Ok(Installed::Unchanged);
        }
        let fixed = Fixed { viommu, bypass, abort };
        match stream.replace(fixed, config) {
            Ok(()) => Ok(Installed::Replaced),
            Err(source) => {
                let busy = matches!(source, kernel::Error::DeviceBusy { .. });
                if busy {
                    stream.wait_closed()
                } else {
                    stream.fail_closed(fixed)
                }
                Err(InstallError { stream_id, busy, source: source.into() })
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
