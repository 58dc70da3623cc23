//! The model and the reference side by side: every step is done to both, and both must look the same afterwards.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use super::host::{Wire, capabilities};
use super::registers::{
    CMDQ_BASE, CMDQ_CONS, CMDQ_PROD, CR0, EVENTQ_BASE, EVENTQ_CONS, EVENTQ_PROD, GERROR, GERRORN, IRQ_CTRL, KNOWN,
    STRTAB_BASE, STRTAB_BASE_CFG,
};
use super::streams::Why;
use super::{Entry, Host, Operation, Reference};
use crate::bus::MmioDevice;
use crate::smmuv3::capabilities::{Wish, Wishes, negotiate};
use crate::smmuv3::physical::HostCapabilities;
use crate::smmuv3::{Config, Interrupts, ItsDoorbell, Smmuv3};

/// Where things are in the guest.
pub mod places {
    /// The first byte of memory.
    pub const MEMORY: u64 = 0x4000_0000;
    /// Bytes of memory.
    pub const MEMORY_SIZE: usize = 0x1_0000;
    /// The linear stream table of [`Operation::Start`](super::Operation::Start), for 2^9 streams.
    pub const STRTAB: u64 = MEMORY;
    /// The level 2 table of [`Operation::Start`](super::Operation::Start), and room for others.
    pub const L2TAB: u64 = MEMORY + 0xc000;
    /// The command queue.
    pub const CMDQ: u64 = MEMORY + 0x8000;
    /// The event queue.
    pub const EVENTQ: u64 = MEMORY + 0xe000;
    /// Room for messages.
    pub const SCRATCH: u64 = MEMORY + 0xf000;
    /// Not memory.
    pub const NOWHERE: u64 = 0x10_0000_0000;
    /// The doorbell of the guest's ITS.
    pub const GITS_TRANSLATER: u64 = 0x0809_0040;
    /// StreamIDs of devices.
    pub const STREAMS: [u32; 3] = [0x08, 0x41, 0x100];
    /// StreamIDs without one, of which the last is outside of the table.
    pub const STRANGERS: [u32; 2] = [0xf8, 0x1_0008];

    /// STRTAB_BASE_CFG of a table for 2^9 streams: linear, or of two levels if there is a `split`.
    pub fn table(split: u8) -> u32 {
        let two_levels = u32::from(split != 0);
        9 | u32::from(split & 0x1f) << 6 | two_levels << 16
    }

    /// Where the entry of a stream is in that; all level 2 tables of it are the same one.
    pub fn entry(stream: u32, split: u8) -> u64 {
        match split {
            0 => STRTAB + 64 * (u64::from(stream) & 0x1ff),
            split => L2TAB + 64 * (u64::from(stream) % (1 << split.min(16))),
        }
    }

    /// Where the level 1 descriptor of a stream is.
    pub fn descriptor(stream: u32, split: u8) -> u64 {
        STRTAB + 8 * (u64::from(stream) >> split.min(16))
    }
}

/// Which SMMU the guest sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// All that there is, with ATS and substreams.
    Everything,
    /// What a guest gets of that without asking.
    Default,
    /// A host without ASID16, ATS, CD2L, substreams and ranges.
    Little,
    /// A host with DS that can stall.
    Stalls,
}

impl Shape {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Everything, Self::Default, Self::Little, Self::Stalls];

    /// The host.
    pub fn host(self) -> HostCapabilities {
        let mut host = capabilities();
        match self {
            Self::Everything | Self::Default => {}
            Self::Little => {
                host.idr[0] &= !(1 << 12 | 1 << 10 | 1 << 19);
                host.idr[1] &= !(0x1f << 6);
                host.idr[3] = 0;
                host.idr[5] &= !(1 << 5);
            }
            Self::Stalls => {
                host.idr[0] &= !(3 << 24);
                host.idr[5] |= 1 << 7;
            }
        }
        if self != Self::Stalls {
            host.idr[0] |= 1 << 24;
        }
        host
    }

    /// What is asked of it.
    pub fn wishes(self) -> Wishes {
        match self {
            Self::Everything | Self::Stalls => {
                Wishes { ats: Wish::Exactly(true), ssidsize: Wish::Exactly(10), ..Wishes::default() }
            }
            Self::Default | Self::Little => Wishes::default(),
        }
    }
}

/// Both vSMMUs.
pub struct Machine {
    smmu: Arc<Smmuv3>,
    host: Arc<Host>,
    memory: GuestMemoryMmap,
    reference: Reference,
    /// Commands that the driver has in the queue beyond CMDQ_PROD.
    untold: u32,
    /// Of the driver's stream table.
    split: u8,
}

impl Machine {
    /// After power-on.
    pub fn new(shape: Shape) -> Self {
        use places::{GITS_TRANSLATER, MEMORY, MEMORY_SIZE, STREAMS};
        let streams = BTreeSet::from(STREAMS);
        let host = Host::new(shape.host(), &streams);
        let mut features = negotiate(&shape.wishes(), &shape.host()).expect("the host has it").features;
        // Queues that are full now and then.
        features.idr1.set_cmdqs(10);
        features.idr1.set_eventqs(5);
        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(MEMORY), MEMORY_SIZE)]).expect("memory");
        let wire = |entry| Arc::new(Wire { host: host.clone(), entry });
        let its = ItsDoorbell { address: GITS_TRANSLATER, device_id: 0x1_0000, target: host.clone() };
        let interrupts = Interrupts {
            event: wire(None),
            gerror: wire(Some(Entry::Gerror)),
            sync: wire(Some(Entry::Sync)),
            its: Some(its),
        };
        let config = Config { name: "vsmmu0".into(), features };
        let smmu = Smmuv3::new(config, host.clone(), memory.clone(), interrupts);
        smmu.set_first_wait(Duration::ZERO);
        let reference = Reference::new(features, MEMORY, MEMORY_SIZE, &streams);
        Self { smmu, host, memory, reference, untold: 0, split: 0 }
    }

    /// Does one step to both and compares.
    pub fn step(&mut self, operation: &Operation) {
        self.apply(operation);
        if !self.reference.uncertain {
            self.compare(operation);
        }
        self.host.lock().log.clear();
        self.reference.log.clear();
    }

    /// Does all steps, and compares guest memory and counters at the end. Both must come to life again by a reset.
    pub fn run<'a>(mut self, operations: impl IntoIterator<Item = &'a Operation>) {
        for operation in operations {
            self.step(operation);
        }
        self.compare_memory();
        if !self.reference.uncertain {
            let stats = self.smmu.stats();
            let model = (stats.events.total(), stats.lost_events, stats.errors.command_queue());
            let reference = (self.reference.events, self.reference.lost, self.reference.command_errors);
            assert_eq!(model, reference, "events, lost events and command errors");
        }
        self.smmu.reset();
        let mut cr0 = [0; 4];
        self.smmu.read(CR0, &mut cr0);
        assert_eq!(cr0, [0; 4], "a reset ends everything");
    }

    fn apply(&mut self, operation: &Operation) {
        match operation {
            Operation::Start { commands, events, split } => self.start(*commands, *events, *split),
            Operation::Write(offset, data) => self.write(*offset, data),
            Operation::Poke(address, word) => self.poke(*address, *word),
            Operation::Entry(stream, words) => {
                let address = places::entry(*stream, self.split);
                self.poke(address, words[0]);
                self.poke(address + 8, words[1]);
            }
            Operation::Commands(commands) => commands.iter().for_each(|command| self.push(*command)),
            Operation::Kick => {
                let ring = self.reference.command_ring();
                let prod = (self.reference.read(CMDQ_PROD) + std::mem::take(&mut self.untold)) % (2 * ring.size);
                self.write(CMDQ_PROD, &prod.to_le_bytes());
            }
            Operation::Acknowledge => self.write(GERRORN, &self.reference.read(GERROR).to_le_bytes()),
            Operation::TakeEvents => {
                self.compare_memory();
                self.write(EVENTQ_CONS, &self.reference.read(EVENTQ_PROD).to_le_bytes());
            }
            Operation::Trouble(trouble) => {
                self.host.lock().troubles.set(*trouble);
                self.reference.troubles.set(*trouble);
            }
            Operation::Raise(events) => {
                self.host.lock().pending.extend(events);
                self.reference.pending.extend(events);
            }
            Operation::Poll => {
                let (model, reference) = (self.smmu.events_ready(), self.reference.poll());
                assert_eq!(model, reference, "whether to go on polling");
            }
            Operation::Plug(stream) => {
                let bypass = crate::smmuv3::physical::StreamConfig::Bypass;
                self.host.lock().streams.entry(*stream).or_insert(bypass);
                self.reference.host.entry(*stream).or_insert(bypass);
            }
            Operation::Unplug(stream) => {
                self.host.lock().streams.remove(stream);
                self.reference.host.remove(stream);
            }
            Operation::Announce(stream) => {
                self.smmu.stream_added(*stream);
                self.reference.configure(*stream, Why::Device);
            }
            Operation::Reset => {
                self.smmu.reset();
                self.reference.reset();
                self.untold = 0;
            }
        }
    }

    fn start(&mut self, commands: u8, events: u8, split: u8) {
        self.untold = 0;
        self.split = split;
        let base = |place: u64, log2size: u8| (place | u64::from(log2size & 0x1f)).to_le_bytes();
        for (offset, value) in [(CR0, 0), (IRQ_CTRL, 0), (STRTAB_BASE_CFG, places::table(split))] {
            self.write(offset, &value.to_le_bytes());
        }
        self.write(STRTAB_BASE, &places::STRTAB.to_le_bytes());
        self.write(CMDQ_BASE, &base(places::CMDQ, commands));
        self.write(EVENTQ_BASE, &base(places::EVENTQ, events));
        for (offset, value) in [
            (CMDQ_PROD, 0u32),
            (CMDQ_CONS, 0),
            (EVENTQ_PROD, 0),
            (EVENTQ_CONS, 0),
            (GERRORN, self.reference.read(GERROR)),
            (IRQ_CTRL, 0b101),
            (CR0, 0b1101),
        ] {
            self.write(offset, &value.to_le_bytes());
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        self.smmu.write(offset, data);
        self.reference.write(offset, data);
    }

    fn poke(&mut self, address: u64, word: u64) {
        let address = address & !7;
        let in_memory = self.memory.write_slice(&word.to_le_bytes(), GuestAddress(address)).is_ok();
        assert_eq!(self.reference.memory.write(address, &word.to_le_bytes()), in_memory);
    }

    /// A command behind the last one, unless the queue is full.
    fn push(&mut self, command: [u64; 2]) {
        let ring = self.reference.command_ring();
        let prod = self.reference.read(CMDQ_PROD) + self.untold;
        if ring.used(prod, self.reference.read(CMDQ_CONS) & 0xf_ffff) >= ring.size {
            return;
        }
        let address = ring.address(prod);
        self.poke(address, command[0]);
        self.poke(address + 8, command[1]);
        self.untold += 1;
    }

    fn compare(&mut self, after: &Operation) {
        for offset in KNOWN {
            let mut data = [0; 4];
            self.smmu.read(offset, &mut data);
            let (model, reference) = (u32::from_le_bytes(data), self.reference.read(offset));
            assert_eq!(model, reference, "register {offset:#x} of model and reference after {after:x?}");
        }
        let mut host = self.host.lock();
        let reference = &mut self.reference;
        assert_eq!(host.log, reference.log, "what left model and reference after {after:x?}");
        assert_eq!(host.streams, reference.host, "streams of model and reference after {after:x?}");
        assert_eq!(host.pending.len(), reference.pending.len(), "events not taken after {after:x?}");
        assert_eq!(host.event_edges > 0, reference.event_edges > 0, "event interrupt after {after:x?}");
        host.event_edges = 0;
        reference.event_edges = 0;
    }

    fn compare_memory(&self) {
        if self.reference.uncertain {
            return;
        }
        let mut model = [0; 4096];
        for (reference, address) in
            self.reference.memory.bytes.chunks(model.len()).zip((places::MEMORY..).step_by(4096))
        {
            self.memory.read_slice(&mut model, GuestAddress(address)).expect("memory");
            assert!(model == *reference, "guest memory of model and reference at {address:#x}");
        }
    }
}
