//! The software back end: stage 1 in software, for emulated devices behind a vSMMU.
//!
//! ```text
//! device -> DmaPort(StreamID, SubstreamID) -> context descriptor -> IOTLB or walk -> guest memory
//!                                                   \ fault -> event record -> PhysicalSmmu::drain_events
//! ```
//!
//! It is what an SMMUv3 is to the transactions of a device: STE (as the model installed it), context descriptor tables,
//! VMSAv8-64 translation tables with 4 KiB, 16 KiB and 64 KiB granules, 48-bit addresses, blocks, contiguous groups,
//! hierarchical attributes; every fault of IHI 0070, section 7.3, that such a stage 1 can have, reported and answered as
//! CD.R and CD.A say. Context descriptors and translations stay cached until the guest invalidates them or others need
//! the room, and an invalidation is complete when no access uses what it took away.
//!
//! There is no ATS, so CMD_ATC_INV has nothing to do; no stall; no 52-bit addresses; no small tables; no hardware update
//! of the access flag. STE.MEV is not looked at: records are never merged.

#![forbid(unsafe_code)]

mod access;
mod context;
mod events;
mod flights;
mod invalidation;
mod iotlb;
mod memory;
mod port;
mod streams;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod transfer;
mod upstream;
mod walk;

use std::io;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use vm_memory::GuestMemoryMmap;

use super::capabilities::Features;
use super::physical::{
    CommandWords, EventWords, HostCapabilities, HostError, HostEvent, InstallError, Installed, InvalidateError,
    PhysicalSmmu, StreamConfig,
};
use super::spec::registers::{AIDR_SMMU_V3_2, Idr0, Idr1, Idr3, Idr5};
use access::{Access, Extent, Fault, Source, WalkFault};
use context::{Context, Select};
use events::Events;
use flights::{Flights, Generation};
use iotlb::Iotlb;
pub use port::{DmaError, DmaPort};
use streams::{Name, Stream, Streams};
pub use upstream::EmulatedUpstream;

/// How long an invalidation waits for accesses under way. They copy memory; this is for a device that is stuck.
const PATIENCE: Duration = Duration::from_secs(1);

const STUCK: &str = "an emulated device does not finish an access that it began before";

/// The widest addresses that there are here.
const MOST_BITS: u8 = 48;

/// Why a device cannot be put behind the vSMMU, or be moved.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The StreamID is in use.
    #[error("stream {0:#x} has a device already; each function needs a requester id of its own")]
    StreamTaken(u32),
    /// No device has the StreamID.
    #[error("stream {0:#x} has no device")]
    NoStream(u32),
    /// Nothing new passes, but what the device began before may still reach memory.
    #[error("stream {0:#x} is shut, but its device does not finish an access that it began before")]
    Stuck(u32),
}

/// Counters since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WalkerStats {
    /// Translations found in the IOTLB.
    pub hits: u64,
    /// Walks through translation tables.
    pub walks: u64,
    /// Context descriptors read.
    pub context_fetches: u64,
    /// Transactions that ended in a fault.
    pub faults: u64,
}

/// A stage 1 in software, with the streams of emulated devices.
///
/// Order: [`new`](Self::new), [`add_stream`](Self::add_stream) for each device, then the vSMMU model with what
/// [`host_capabilities`](Self::host_capabilities) was negotiated to.
pub struct WalkerSmmu {
    memory: GuestMemoryMmap,
    features: Features,
    events: Events,
    state: Mutex<State>,
    /// An access under way was the last of its generation.
    landed: Condvar,
    invalidations: AtomicU64,
}

#[derive(Default)]
struct State {
    streams: Streams,
    iotlb: Iotlb,
    flights: Flights,
    stats: WalkerStats,
}

impl WalkerSmmu {
    /// What it can do, to be negotiated to what the guest sees.
    pub fn host_capabilities() -> HostCapabilities {
        let idr0 = Idr0::new()
            .with_s1p(true)
            .with_ttf(2)
            .with_cohacc(true)
            .with_asid16(true)
            .with_cd2l(true)
            // Mixed: CD.ENDI decides.
            .with_ttendian(0)
            .with_stall_model(1)
            .with_st_level(1);
        let idr1 = Idr1::new().with_sidsize(32).with_ssidsize(20).with_cmdqs(19).with_eventqs(19);
        let idr3 = Idr3::new().with_had(true).with_ril(true).with_bbml(2);
        let idr5 = Idr5::new().with_oas(5).with_gran4k(true).with_gran16k(true).with_gran64k(true);
        HostCapabilities {
            idr: [idr0.into_bits(), idr1.into_bits(), 0, idr3.into_bits(), 0, idr5.into_bits()],
            aidr: AIDR_SMMU_V3_2,
            pasid_bits: 20,
            ..HostCapabilities::default()
        }
    }

    /// Without streams. `features` are what the guest sees, by which context descriptors are legal or not. Fails only
    /// when the process has no file descriptor left.
    pub fn new(memory: GuestMemoryMmap, features: Features) -> io::Result<Arc<Self>> {
        Ok(Arc::new(Self {
            memory,
            features,
            events: Events::new()?,
            state: Mutex::default(),
            landed: Condvar::new(),
            invalidations: AtomicU64::new(0),
        }))
    }

    /// Puts a device behind the vSMMU. Its stream aborts until the model configures it: at once in [`Smmuv3::new`], or
    /// in [`Smmuv3::stream_added`], to be called next if the vSMMU is in use already.
    ///
    /// [`Smmuv3::new`]: super::Smmuv3::new
    /// [`Smmuv3::stream_added`]: super::Smmuv3::stream_added
    pub fn add_stream(self: &Arc<Self>, stream_id: u32) -> Result<DmaPort, Error> {
        let mut state = self.lock();
        if state.streams.contains(stream_id) {
            return Err(Error::StreamTaken(stream_id));
        }
        let name = Name::new(stream_id);
        state.streams.insert(stream_id, Stream::new(name.clone()));
        Ok(DmaPort::new(self.clone(), name))
    }

    /// Takes a device out: its ports abort, and the StreamID is free. Accesses under way are over then.
    pub fn remove_stream(&self, stream_id: u32) -> Result<(), Error> {
        let mut state = self.lock();
        state.streams.remove(stream_id).ok_or(Error::NoStream(stream_id))?;
        if self.wait_for_flights(state) { Ok(()) } else { Err(Error::Stuck(stream_id)) }
    }

    /// Gives the device of a port another StreamID, or none, because the guest changed bus numbers. All ports of the
    /// device follow; they abort until the model configures the new stream, which [`Smmuv3::move_stream`] does around
    /// this. After a failure (the StreamID is taken, or an access under way does not end) the device has none.
    ///
    /// [`Smmuv3::move_stream`]: super::Smmuv3::move_stream
    pub fn move_device(&self, port: &DmaPort, to: Option<u32>) -> Result<(), Error> {
        let mut state = self.lock();
        let name = port.name();
        if name.get() == to {
            return Ok(());
        }
        let from = name.get();
        if let Some(from) = from {
            state.streams.remove(from);
        }
        let result = match to {
            Some(to) if state.streams.contains(to) => Err(Error::StreamTaken(to)),
            Some(to) => {
                state.streams.insert(to, Stream::new(name.clone()));
                Ok(())
            }
            None => Ok(()),
        };
        if self.wait_for_flights(state) {
            return result;
        }
        if let (Ok(()), Some(to)) = (&result, to) {
            self.lock().streams.remove(to);
        }
        result.and(from.or(to).map_or(Ok(()), |stream_id| Err(Error::Stuck(stream_id))))
    }

    /// Counters since it was made.
    pub fn walker_stats(&self) -> WalkerStats {
        self.lock().stats
    }

    fn memory(&self) -> &GuestMemoryMmap {
        &self.memory
    }

    /// Translates one address for one access.
    fn translate(&self, source: Source, access: Access, iova: u64) -> Result<Extent, Fault> {
        let mut state = self.lock();
        let result = state.translate(&self.memory, &self.features, source, access, iova);
        state.stats.faults += u64::from(result.is_err());
        result
    }

    fn record(&self, event: Option<EventWords>) {
        if let Some(event) = event {
            self.events.push(event);
        }
    }

    fn start_flight(&self) -> Generation {
        self.lock().flights.start()
    }

    fn end_flight(&self, generation: Generation) {
        if self.lock().flights.end(generation) {
            self.landed.notify_all();
        }
    }

    /// Waits until no access is under way that started before. Returns whether that came to be.
    fn wait_for_flights(&self, state: MutexGuard<'_, State>) -> bool {
        let since = state.flights.now();
        let landed = |state: &mut State| state.flights.have_landed(since);
        let (_state, wait) = self
            .landed
            .wait_timeout_while(state, PATIENCE, |state| !landed(state))
            .unwrap_or_else(PoisonError::into_inner);
        !wait.timed_out()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn translate(
        &mut self,
        memory: &GuestMemoryMmap,
        features: &Features,
        source: Source,
        access: Access,
        iova: u64,
    ) -> Result<Extent, Fault> {
        let stream = self.streams.get_mut(source.stream_id).ok_or(Fault::Abort)?;
        let ste = match stream.config {
            StreamConfig::Abort => return Err(Fault::Abort),
            StreamConfig::Bypass => return bypass(features, iova),
            StreamConfig::Stage1(ste) => ste,
        };
        let index = match context::select(ste, source.substream_id)? {
            Select::Bypass => return bypass(features, iova),
            Select::Context(index) => index,
        };
        let context = stream.context(index, || {
            self.stats.context_fetches += 1;
            context::fetch(memory, features, ste, index)
        })?;
        self.look_up(memory, &context, access, iova).map_err(|fault| match fault {
            // Not a matter of the mapping, so CD.R and CD.A play no role (section 3.12.2).
            WalkFault::ExternalAbort(_) => Fault::Walk { fault, record: true, abort: true },
            _ => Fault::Walk { fault, record: context.record, abort: context.abort },
        })
    }

    fn look_up(
        &mut self,
        memory: &GuestMemoryMmap,
        context: &Context,
        access: Access,
        iova: u64,
    ) -> Result<Extent, WalkFault> {
        if !walk::is_in_region(context, iova) {
            return Err(WalkFault::Translation);
        }
        let accessible = |leaf: &walk::Leaf| leaf.access_flag || context.ignore_access_flag;
        // What is cached may forbid more than the tables do by now, so only the tables are the reason for a fault.
        let cached = self.iotlb.find(context.asid, iova);
        if let Some(leaf) = cached.filter(|leaf| accessible(leaf) && leaf.allows(context, access)) {
            self.stats.hits += 1;
            return Ok(leaf.extent(iova));
        }
        self.stats.walks += 1;
        let leaf = walk::walk(memory, context, iova)?;
        if !accessible(&leaf) {
            return Err(WalkFault::AccessFlag);
        }
        self.iotlb.insert(context.asid, leaf);
        if !leaf.allows(context, access) {
            return Err(WalkFault::Permission);
        }
        Ok(leaf.extent(iova))
    }
}

/// What is wider than the output address size ends in a stage 1 fault, also without stage 1 (section 3.4).
fn bypass(features: &Features, iova: u64) -> Result<Extent, Fault> {
    match (1u64 << features.oas_bits().min(MOST_BITS)).checked_sub(iova) {
        Some(length @ 1..) => Ok(Extent { address: iova, length }),
        _ => Err(Fault::Walk { fault: WalkFault::AddressSize, record: true, abort: true }),
    }
}

impl PhysicalSmmu for WalkerSmmu {
    fn capabilities(&self) -> HostCapabilities {
        Self::host_capabilities()
    }

    fn streams(&self, into: &mut Vec<u32>) {
        into.extend(self.lock().streams.ids());
    }

    fn has_stream(&self, stream_id: u32) -> bool {
        self.lock().streams.contains(stream_id)
    }

    fn install(&self, stream_id: u32, config: StreamConfig) -> Result<Installed, InstallError> {
        let mut state = self.lock();
        let Some(stream) = state.streams.get_mut(stream_id) else { return Ok(Installed::NoDevice) };
        if stream.config == config {
            return Ok(Installed::Unchanged);
        }
        stream.configure(config);
        if self.wait_for_flights(state) {
            return Ok(Installed::Replaced);
        }
        if let Some(stream) = self.lock().streams.get_mut(stream_id) {
            stream.configure(StreamConfig::Abort);
        }
        Err(InstallError { stream_id, busy: false, source: STUCK.into() })
    }

    fn invalidate(&self, commands: &[CommandWords]) -> Result<(), InvalidateError> {
        self.invalidations.fetch_add(1, Ordering::Relaxed);
        let mut state = self.lock();
        let State { iotlb, streams, .. } = &mut *state;
        for &command in commands {
            invalidation::execute(command, iotlb, streams);
        }
        if self.wait_for_flights(state) {
            return Ok(());
        }
        // Its commands are done, but not complete: the guest stops at CERROR_ABT and repeats them.
        Err(InvalidateError::Failed(STUCK.into()))
    }

    fn drain_events(&self, sink: &mut dyn FnMut(HostEvent)) -> Result<bool, HostError> {
        self.events.drain(sink);
        Ok(true)
    }

    fn event_fd(&self) -> Option<RawFd> {
        Some(self.events.fd())
    }

    /// None of them was a system call; what is counted are the batches.
    fn invalidation_calls(&self) -> u64 {
        self.invalidations.load(Ordering::Relaxed)
    }
}
