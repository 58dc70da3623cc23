//! A guest's driver in miniature: it finds the engine behind its root port, sets up the vSMMU through its registers, maps
//! pages, lets the engine loose on them, and looks at memory, status and event queue.

mod config;
mod translation;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use super::spec::{DATA as DATA_REGISTER, *};
use super::*;
use crate::interrupt::InterruptLine;
use crate::pci::fakes::FakeIts;
use crate::pci::root_port::Link;
use crate::pci::{Ecam, HostBridge, RootPort, RootPortConfig, Segment};
use crate::smmuv3::capabilities::{Wish, Wishes, negotiate};
use crate::smmuv3::spec::cd::{Cd0, CdTable};
use crate::smmuv3::spec::command::{Cfgi, Tlbi, opcode};
use crate::smmuv3::spec::registers as smmu;
use crate::smmuv3::spec::ste::{Ste0, Ste1};
use crate::smmuv3::walker::testing::*;
use crate::smmuv3::{Config, EmulatedUpstream, Interrupts, PhysicalSmmu, Smmuv3, WalkerSmmu};

const MEMORY: u64 = 0x4000_0000;
const STRTAB: u64 = MEMORY;
const CMDQ: u64 = MEMORY + 0x40_0000;
const EVENTQ: u64 = MEMORY + 0x41_0000;
const CDS: u64 = MEMORY + 0x42_0000;
const TABLES: u64 = MEMORY + 0x80_0000;
const DATA: u64 = MEMORY + 0x100_0000;
const SMMU: u64 = 0x0c00_0000;
const ECAM: u64 = 0x40_1000_0000;
const BAR0: u64 = 0x1000_0000;
const BAR1: u64 = 0x1000_1000;
/// The engine, and its StreamID.
const ENGINE: Bdf = Bdf::new(0x61, 0, 0);
const PORT: Bdf = Bdf::new(0x60, 0, 0);
const ASID: u16 = 3;
/// log2 of the queues' entries.
const QUEUE: u32 = 4;

#[derive(Default)]
struct Line(AtomicU32);

impl InterruptLine for Line {
    fn set_level(&self, high: bool) {
        self.0.fetch_add(high.into(), Ordering::Relaxed);
    }
}

struct Guest {
    memory: GuestMemoryMmap,
    bus: Arc<MmioBus>,
    segment: Arc<Segment>,
    smmu: Arc<Smmuv3>,
    walker: Arc<WalkerSmmu>,
    its: Arc<FakeIts>,
    event_line: Arc<Line>,
    tables: Tables,
    prod: u32,
}

impl Guest {
    /// A machine after power-on.
    fn new() -> Self {
        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(MEMORY), 0x200_0000)]).unwrap();
        let (bus, segment) = (Arc::new(MmioBus::new()), Arc::new(Segment::new()));
        let its = Arc::new(FakeIts::default());
        let wishes = Wishes { ssidsize: Wish::Exactly(8), ..Wishes::default() };
        let features = negotiate(&wishes, &WalkerSmmu::host_capabilities()).unwrap().features;
        let walker = WalkerSmmu::new(memory.clone(), features).unwrap();
        let port = walker.add_stream(ENGINE.requester_id().into()).unwrap();
        let event_line = Arc::new(Line::default());
        let interrupts = Interrupts {
            event: event_line.clone(),
            gerror: Arc::new(Line::default()),
            sync: Arc::new(Line::default()),
            its: None,
        };
        let config = Config { name: "vsmmu0".into(), features };
        let smmu = Smmuv3::new(config, walker.clone(), memory.clone(), interrupts);
        bus.insert(SMMU..SMMU + smmu::REGISTER_SPACE, smmu.clone()).unwrap();

        let config = DmaEngineConfig { bars: [BAR0, BAR1], pasid_bits: 8 };
        let engine = Arc::new(DmaEngine::new(config, port.clone(), &bus, its.clone()));
        engine.set_upstream(Arc::new(EmulatedUpstream::new(smmu.clone(), port)));
        segment.add_root_bus(0, 0x5f).unwrap();
        segment.add_root_bus(0x60, 0x6f).unwrap();
        segment.add_function(0, 0, 0, Arc::new(HostBridge::root_complex())).unwrap();
        let config = RootPortConfig {
            slot: 1,
            primary_bus: 0x60,
            secondary_bus: 0x61,
            subordinate_bus: 0x61,
            memory: 0x1000_0000..0x1010_0000,
            prefetchable: 0..0,
            bar0: 0x1010_0000,
            link: Link::default(),
        };
        let root_port = Arc::new(RootPort::new(config, bus.clone(), its.clone()).unwrap());
        segment.add_port(0x60, 0, root_port.clone()).unwrap();
        root_port.plug(0, engine).unwrap();
        bus.insert(ECAM..ECAM + crate::pci::ECAM_SIZE, Arc::new(Ecam::new(segment.clone()))).unwrap();
        let tables = Tables::new(&memory, 12, 39, TABLES);
        Self { memory, bus, segment, smmu, walker, its, event_line, tables, prod: 0 }
    }

    /// The drivers of vSMMU and engine are loaded; the engine's stream has one context.
    fn running() -> Self {
        let mut guest = Self::new();
        guest.enable_engine();
        guest.enable_smmu();
        guest.write_cd(0);
        guest.attach(ENGINE, Ste0::new(), Ste1::new());
        guest
    }

    fn enable_engine(&self) {
        self.config_write(ENGINE, header::COMMAND, 0b110);
        // MSI-X: one vector, unmasked.
        for (i, word) in [0x0809_0040u32, 0, 5, 0].into_iter().enumerate() {
            self.write32(BAR1 + 4 * i as u64, word);
        }
        let msix = self.capability(capability::MSIX);
        self.config_write(ENGINE, msix + 2, 0x8000);
    }

    fn enable_smmu(&mut self) {
        self.write64(SMMU + smmu::STRTAB_BASE, STRTAB);
        self.write32(SMMU + smmu::STRTAB_BASE_CFG, 16);
        self.write64(SMMU + smmu::CMDQ_BASE, CMDQ | u64::from(QUEUE));
        self.write64(SMMU + smmu::EVENTQ_BASE, EVENTQ | u64::from(QUEUE));
        self.write32(SMMU + smmu::IRQ_CTRL, 0b101);
        self.write32(SMMU + smmu::CR0, 0b1101);
    }

    /// A context descriptor of the tables, in place `index`.
    fn write_cd(&self, index: u64) {
        let cd0 = Cd0::new().with_v(true).with_aa64(true).with_t0sz(25).with_epd1(true).with_ips(5);
        let cd0 = cd0.with_r(true).with_a(true).with_asid(ASID);
        let ttb = CdTable::new().with_ttb(self.tables.root >> 4);
        self.poke(CDS + 64 * index, &[cd0.into_bits(), ttb.into_bits()]);
    }

    /// Writes the stage 1 entry of a stream and tells the vSMMU.
    fn attach(&mut self, id: Bdf, ste0: Ste0, ste1: Ste1) {
        let ste0 = ste0.with_v(true).with_config(0b101).with_s1contextptr(CDS >> 6);
        let stream_id = id.requester_id().into();
        self.poke(STRTAB + 64 * u64::from(stream_id), &[ste0.into_bits(), ste1.into_bits()]);
        let command = Cfgi::new().with_opcode(opcode::CFGI_STE).with_stream_id(stream_id).with_leaf_or_range(1);
        self.run(&[command.into_bits()]);
    }

    /// Runs commands and a CMD_SYNC.
    fn run(&mut self, commands: &[u128]) {
        let mask = (1 << QUEUE) - 1;
        for &command in commands.iter().chain(&[u128::from(opcode::SYNC)]) {
            let slot = CMDQ + 16 * u64::from(self.prod & mask);
            self.poke(slot, &[command as u64, (command >> 64) as u64]);
            self.prod = (self.prod + 1) & (2 * mask + 1);
        }
        self.write32(SMMU + smmu::CMDQ_PROD, self.prod);
        assert_eq!(self.read32(SMMU + smmu::CMDQ_CONS), self.prod, "all commands are consumed");
    }

    /// dma_map of one page.
    fn map(&mut self, iova: u64, address: u64, attributes: u64) {
        self.tables.map(iova, address, attributes);
    }

    /// dma_unmap of one page, strict.
    fn unmap(&mut self, iova: u64) {
        self.tables.put(iova, 3, 0);
        let command = Tlbi::new().with_opcode(opcode::TLBI_NH_VA).with_asid(ASID).with_leaf(true);
        self.run(&[command.with_address(iova >> 12).into_bits()]);
    }

    /// The event queue's records, taken as a driver takes them, after the control loop had its turn.
    fn events(&self) -> Vec<[u64; 4]> {
        assert!(self.smmu.events_ready());
        let mask = (1 << QUEUE) - 1;
        let prod = self.read32(SMMU + smmu::EVENTQ_PROD);
        let mut cons = self.read32(SMMU + smmu::EVENTQ_CONS);
        let mut records = Vec::new();
        while cons & (2 * mask + 1) != prod & (2 * mask + 1) {
            let slot = EVENTQ + 32 * u64::from(cons & mask);
            records.push(std::array::from_fn(|i| self.peek(slot + 8 * i as u64)));
            cons = (cons + 1) & (2 * mask + 1);
        }
        self.write32(SMMU + smmu::EVENTQ_CONS, cons | prod & 1 << 31);
        records
    }

    fn copy(&self, source: u64, destination: u64, length: u64) -> u32 {
        self.write64(BAR0 + SOURCE, source);
        self.write64(BAR0 + DESTINATION, destination);
        self.write64(BAR0 + LENGTH, length);
        self.command(super::spec::Command::new().with_operation(OPERATION_COPY))
    }

    /// Lets the engine work, with a message at the end, and returns its status.
    fn command(&self, command: super::spec::Command) -> u32 {
        self.write32(BAR0 + COMMAND, command.with_interrupt(true).into_bits());
        self.read32(BAR0 + STATUS)
    }

    fn write32(&self, at: u64, value: u32) {
        assert!(self.bus.write(at, &value.to_le_bytes()), "nobody is at {at:#x}");
    }

    fn write64(&self, at: u64, value: u64) {
        assert!(self.bus.write(at, &value.to_le_bytes()), "nobody is at {at:#x}");
    }

    fn read32(&self, at: u64) -> u32 {
        let mut data = [0; 4];
        self.bus.read(at, &mut data);
        u32::from_le_bytes(data)
    }

    fn read64(&self, at: u64) -> u64 {
        let mut data = [0; 8];
        self.bus.read(at, &mut data);
        u64::from_le_bytes(data)
    }

    fn config(id: Bdf, offset: u16) -> u64 {
        ECAM + (u64::from(id.requester_id()) << 12) + u64::from(offset)
    }

    fn config_write(&self, id: Bdf, offset: u16, value: u16) {
        assert!(self.bus.write(Self::config(id, offset), &value.to_le_bytes()));
    }

    fn config_read32(&self, id: Bdf, offset: u16) -> u32 {
        self.read32(Self::config(id, offset))
    }

    /// Offset of one of the engine's capabilities.
    fn capability(&self, id: u8) -> u16 {
        let mut at = self.config_read32(ENGINE, header::CAPABILITIES) as u16 & 0xff;
        while at != 0 {
            let [found, next, ..] = self.config_read32(ENGINE, at).to_le_bytes();
            if found == id {
                return at;
            }
            at = next.into();
        }
        panic!("no capability {id:#x}");
    }

    fn peek(&self, at: u64) -> u64 {
        self.memory.read_obj(GuestAddress(at)).unwrap()
    }

    fn poke(&self, at: u64, words: &[u64]) {
        for (&word, i) in words.iter().zip(0..) {
            self.memory.write_obj(word, GuestAddress(at + 8 * i)).unwrap();
        }
    }
}
