//! The whole vSMMU on iommufd, on a kernel in memory that checks as Linux does.

use std::sync::Arc;
use std::time::Duration;

use arbitrary::Unstructured;
use nestling_iommufd::fake::{FakeDevice, FakeKernel, FakeSmmu, Record};
use nestling_iommufd::{AttachHwpt, Call, DeviceId, Error, HwptId, ViommuId};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use crate::bus::MmioDevice;
use crate::input::{Kind, operations};
use crate::interrupt::InterruptLine;
use crate::reference::places::{CMDQ, EVENTQ, MEMORY, MEMORY_SIZE, STREAMS, STRTAB};
use crate::reference::{Judge, Operation, Ring, Shape, Trouble, places};
use crate::smmuv3::capabilities::negotiate;
use crate::smmuv3::physical::{CommandWords, HostEvent, Stage1, StreamConfig};
use crate::smmuv3::spec::registers::{
    CMDQ_BASE, CMDQ_CONS, CMDQ_PROD, CR0, EVENTQ_BASE, EVENTQ_CONS, EVENTQ_PROD, GBPA, GERROR, GERRORN, IRQ_CTRL,
    STRTAB_BASE, STRTAB_BASE_CFG,
};
use crate::smmuv3::{Config, Interrupts, IommufdSmmu, PhysicalSmmu, Smmuv3};

const ENOMEM: i32 = 12;

/// IOAS, stage 2, vIOMMU, event queue, bypass and abort; for each device a vDEVICE and a page table.
const MOST_OBJECTS: usize = 6 + 2 * STREAMS.len();

const BYPASS: [u64; 2] = [0x9, 0];
const ABORT: [u64; 2] = [0x1, 0];

/// A real back end, and a kernel that fails now and then.
pub fn nested(data: &[u8]) {
    use Kind::*;
    let menu = [
        Commands,
        Commands,
        Commands,
        StrangeCommand,
        ManyCommands,
        Kick,
        Kick,
        Kick,
        Acknowledge,
        Entry,
        Entry,
        Entry,
        Entry,
        Trouble,
        Register,
        Poke,
        Raise,
        Poll,
        TakeEvents,
        Plug,
        Unplug,
        Announce,
        Start,
        Reset,
    ];
    let mut u = Unstructured::new(data);
    let (Ok(&shape), Ok(sound)) = (u.choose(&Shape::ALL), u.arbitrary()) else { return };
    let mut nested = Nested::new(shape, sound);
    nested.apply(&Operation::Start { commands: 8, events: 4, split: 0 });
    for operation in operations(&mut u, &menu) {
        nested.apply(&operation);
        nested.check();
    }
    nested.finish();
}

/// A device whose attaches do not wait for the end of a reset.
struct Impatient(FakeDevice);

impl AttachHwpt for Impatient {
    fn attach_hwpt(&self, hwpt: HwptId) -> Result<(), Error> {
        self.0.try_attach_hwpt(hwpt)
    }

    fn try_attach_hwpt(&self, hwpt: HwptId) -> Result<(), Error> {
        self.0.try_attach_hwpt(hwpt)
    }

    fn detach_hwpt(&self) -> Result<(), Error> {
        self.0.detach_hwpt()
    }

    fn dev_id(&self) -> DeviceId {
        self.0.dev_id()
    }
}

struct Nothing;

impl InterruptLine for Nothing {
    fn set_level(&self, _: bool) {}
}

struct Nested {
    kernel: Arc<FakeKernel>,
    viommu: ViommuId,
    devices: [FakeDevice; 3],
    /// Devices that are taken out.
    out: Vec<FakeDevice>,
    judge: Judge,
    physical: Arc<IommufdSmmu>,
    smmu: Arc<Smmuv3>,
    memory: GuestMemoryMmap,
    cmdqs: u64,
    untold: u32,
    split: u8,
    /// No failure is ordered from the kernel, so there must be none.
    sound: bool,
    /// The kernel was told to keep objects.
    leaky: bool,
}

impl Nested {
    fn new(shape: Shape, sound: bool) -> Self {
        let kernel = FakeKernel::new();
        let iommufd = kernel.iommufd();
        let mut host = FakeSmmu::default();
        host.info.idr = shape.host().idr;
        let smmu = kernel.add_smmu(host);
        let devices = STREAMS.map(|_| kernel.add_device(smmu, true));
        let ioas = iommufd.alloc_ioas().expect("an ioas");
        let physical = IommufdSmmu::new(&iommufd, &ioas, &devices[0]).expect("a vsmmu");
        // Kept by the objects made from it.
        drop((ioas, iommufd));
        for (stream, device) in STREAMS.into_iter().zip(&devices) {
            physical.add_stream(stream, Arc::new(Impatient(device.clone()))).expect("a stream");
        }
        let host = physical.capabilities();
        let mut features = negotiate(&shape.wishes(), &host).expect("the host has it").features;
        features.idr1.set_cmdqs(10);
        features.idr1.set_eventqs(5);
        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(MEMORY), MEMORY_SIZE)]).expect("memory");
        let line = || Arc::new(Nothing);
        let interrupts = Interrupts { event: line(), gerror: line(), sync: line(), its: None };
        let config = Config { name: "vsmmu0".into(), features };
        let smmu = Smmuv3::new(config, physical.clone(), memory.clone(), interrupts);
        smmu.set_first_wait(Duration::ZERO);
        // A reset invalidates everything.
        smmu.reset();
        let viommu = kernel.take_executed().first().expect("an invalidation").0;
        Self {
            kernel,
            viommu,
            devices,
            out: Vec::new(),
            judge: Judge::new(host),
            physical,
            smmu,
            memory,
            cmdqs: features.idr1.cmdqs().into(),
            untold: 0,
            split: 0,
            sound,
            leaky: false,
        }
    }

    fn device(&self, stream: u32) -> &FakeDevice {
        &self.devices[stream as usize % self.devices.len()]
    }

    fn apply(&mut self, operation: &Operation) {
        match operation {
            Operation::Start { commands, events, split } => self.start(*commands, *events, *split),
            Operation::Write(offset, data) => self.smmu.write(*offset, data),
            Operation::Poke(address, word) => self.poke(*address, *word),
            Operation::Entry(stream, words) => {
                let address = places::entry(*stream, self.split);
                self.poke(address, words[0]);
                self.poke(address + 8, words[1]);
            }
            Operation::Commands(commands) => commands.iter().for_each(|command| self.push(*command)),
            Operation::Kick => {
                let prod = self.read(CMDQ_PROD) + std::mem::take(&mut self.untold);
                self.write(CMDQ_PROD, prod % (2 * self.ring().size));
            }
            Operation::Acknowledge => self.write(GERRORN, self.read(GERROR)),
            Operation::TakeEvents => self.write(EVENTQ_CONS, self.read(EVENTQ_PROD)),
            Operation::Trouble(trouble) => self.trouble(*trouble),
            Operation::Raise(events) => events.iter().for_each(|event| self.raise(*event)),
            Operation::Poll => assert!(self.smmu.events_ready(), "the event queue can be read"),
            Operation::Plug(stream) => self.plug(*stream),
            Operation::Unplug(stream) => self.unplug(*stream),
            Operation::Announce(stream) => self.smmu.stream_added(*stream),
            Operation::Reset => {
                self.smmu.reset();
                self.untold = 0;
            }
        }
    }

    fn start(&mut self, commands: u8, events: u8, split: u8) {
        self.split = split;
        self.untold = 0;
        for (offset, value) in [(CR0, 0), (IRQ_CTRL, 0), (STRTAB_BASE_CFG, places::table(split))] {
            self.write(offset, value);
        }
        for (offset, value) in [
            (STRTAB_BASE, STRTAB),
            (CMDQ_BASE, CMDQ | u64::from(commands & 0x1f)),
            (EVENTQ_BASE, EVENTQ | u64::from(events & 0x1f)),
        ] {
            self.smmu.write(offset, &value.to_le_bytes());
        }
        for offset in [CMDQ_PROD, CMDQ_CONS, EVENTQ_PROD, EVENTQ_CONS] {
            self.write(offset, 0);
        }
        self.write(GERRORN, self.read(GERROR));
        self.write(CR0, 0b1101);
    }

    fn read(&self, offset: u64) -> u32 {
        let mut data = [0; 4];
        self.smmu.read(offset, &mut data);
        u32::from_le_bytes(data)
    }

    fn write(&self, offset: u64, value: u32) {
        self.smmu.write(offset, &value.to_le_bytes());
    }

    fn poke(&self, address: u64, word: u64) {
        let _ = self.memory.write_slice(&word.to_le_bytes(), GuestAddress(address & !7));
    }

    fn ring(&self) -> Ring {
        let base = u64::from(self.read(CMDQ_BASE)) | u64::from(self.read(CMDQ_BASE + 4)) << 32;
        Ring::new(base, self.cmdqs, 16)
    }

    fn push(&mut self, command: CommandWords) {
        let ring = self.ring();
        let prod = self.read(CMDQ_PROD) + self.untold;
        if ring.used(prod, self.read(CMDQ_CONS) & 0xf_ffff) < ring.size {
            self.poke(ring.address(prod), command[0]);
            self.poke(ring.address(prod) + 8, command[1]);
            self.untold += 1;
        }
    }

    fn trouble(&mut self, trouble: Trouble) {
        if self.sound {
            return;
        }
        match trouble {
            Trouble::Down(_) => self.kernel.fail_next(Call::Invalidate, ENOMEM),
            Trouble::Busy(stream, is) => self.kernel.set_in_reset(self.device(stream).dev_id(), is),
            Trouble::Stubborn(_, true) => self.kernel.fail_next(Call::Attach, ENOMEM),
            Trouble::Stubborn(_, false) => self.kernel.fail_next(Call::NestedAlloc, ENOMEM),
            Trouble::Dead(stream, _) => self.kernel.time_out_at(stream as usize % 70),
            Trouble::Refused(..) => self.kernel.fail_next(Call::VdeviceAlloc, ENOMEM),
            Trouble::Lost(_, detach) => {
                self.leaky = true;
                self.kernel.fail_next(if detach { Call::Detach } else { Call::Destroy }, ENOMEM);
            }
            Trouble::Deaf(_) => self.kernel.lose_events(self.viommu, 3),
        }
    }

    fn raise(&self, event: HostEvent) {
        match event {
            HostEvent::Record(record) => {
                let stream = (record[0] >> 32) as u32;
                self.kernel.raise_event(self.device(stream).dev_id(), record);
            }
            HostEvent::Lost(count) => self.kernel.lose_events(self.viommu, count % 1000),
        }
    }

    /// A device that is out comes back with this StreamID; otherwise one gets another.
    fn plug(&mut self, stream: u32) {
        match self.out.pop() {
            Some(device) => {
                let added = self.physical.add_stream(stream, Arc::new(Impatient(device.clone())));
                if added.is_err() {
                    self.out.push(device);
                }
                self.smmu.stream_added(stream);
            }
            None => self.renumber(stream, Some(stream)),
        }
    }

    /// A device goes if the StreamID is one of the usual, or else loses its own.
    fn unplug(&mut self, stream: u32) {
        let device = self.device(stream).clone();
        if !STREAMS.contains(&stream) || self.out.iter().any(|out| out.dev_id() == device.dev_id()) {
            return self.renumber(stream, None);
        }
        let gone = self.smmu.move_stream(None, || self.physical.remove_device(device.dev_id()));
        assert!(gone.is_ok() || !self.sound, "{gone:?}");
        if gone.is_ok() {
            self.out.push(device);
        }
    }

    fn renumber(&mut self, which: u32, to: Option<u32>) {
        let device = self.device(which).dev_id();
        let _ = self.smmu.move_stream(to, || self.physical.move_device(device, to));
    }

    fn check(&mut self) {
        self.kernel.take_executed();
        let records = self.kernel.take_records();
        for record in &records {
            if let Record::Invalidate { commands, .. } = record {
                assert!(!commands.is_empty() && commands.len() <= 4096, "{} commands in a batch", commands.len());
                for command in commands {
                    self.judge.command(*command);
                }
            }
        }
        let stes = self.devices.each_ref().map(|device| self.kernel.attached_ste(device.dev_id()));
        for ste in stes.into_iter().flatten().filter(|ste| ![BYPASS, ABORT].contains(ste)) {
            self.judge.config(StreamConfig::Stage1(Stage1(ste)));
        }
        assert!(self.leaky || self.kernel.live_objects() <= MOST_OBJECTS, "{} objects", self.kernel.live_objects());
        if self.sound {
            let stats = self.smmu.stats();
            let failed = (stats.failed_invalidations, stats.installs.failed);
            assert_eq!(failed, (0, 0), "the kernel refused something");
            let translating = self.read(CR0) & 1 != 0;
            let aborting = self.read(GBPA) >> 20 & 1 != 0;
            let nowhere = |ste: &[u64; 2]| *ste == if aborting { ABORT } else { BYPASS } || *ste == ABORT;
            assert!(translating || stes.iter().flatten().all(nowhere), "SMMUEN is 0: {stes:x?}");
        }
    }

    fn finish(self) {
        let torn_down = self.physical.teardown();
        if !self.leaky {
            torn_down.expect("nothing is in the way");
            assert_eq!(self.kernel.live_objects(), 0, "something is left behind");
            assert!(self.devices.iter().all(|device| self.kernel.attached(device.dev_id()).is_none()));
        }
    }
}
