//! The vSMMU seen as a guest sees it: registers and memory. The pages of tests follow the chapters of IHI 0070.

mod capabilities;
mod commands;
mod counters;
mod errors;
mod events;
mod later;
mod linux;
mod moves;
mod nested;
mod properties;
mod random;
mod reference;
mod register_map;
mod registers;
mod streams;
mod teardown;
mod turns;

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use super::capabilities::{Features, Wish, Wishes, negotiate};
use super::fake::{Call, FakeSmmu, host};
use super::physical::{CommandWords, StreamConfig};
use super::queue::Queue;
use super::spec::command::{AtcInv, Cfgi, Sync as CmdSync, Tlbi, opcode};
use super::spec::registers::*;
use super::spec::ste::{Ste0, Ste1};
use super::{Config, Interrupts, ItsDoorbell, Smmuv3};
use crate::bus::MmioDevice;
use crate::interrupt::{InterruptLine, MsiTarget};

const MEMORY: u64 = 0x4000_0000;
const MEMORY_SIZE: usize = 0x400_0000;
/// Linear stream table or level 1 of two.
const STRTAB: u64 = MEMORY;
/// Level 2 of a stream table.
const L2TAB: u64 = MEMORY + 0x60_0000;
const CMDQ: u64 = MEMORY + 0x100_0000;
const EVENTQ: u64 = MEMORY + 0x200_0000;
const SCRATCH: u64 = MEMORY + 0x70_0000;
/// Not memory.
const NOWHERE: u64 = 0x10_0000_0000;
const GITS_TRANSLATER: u64 = 0x0809_0040;

/// StreamIDs with devices.
const STREAMS: [u32; 2] = [0x0100, 0x0200];
/// A root port: a StreamID that the guest knows, without a device.
const ROOT_PORT: u32 = 0x00f8;

/// Counts rising edges.
#[derive(Default)]
struct Line(AtomicU32);

impl InterruptLine for Line {
    fn set_level(&self, high: bool) {
        self.0.fetch_add(high.into(), Ordering::Relaxed);
    }
}

impl Line {
    fn take(&self) -> u32 {
        self.0.swap(0, Ordering::Relaxed)
    }
}

#[derive(Default)]
struct Its(Mutex<Vec<(u32, u32)>>);

impl MsiTarget for Its {
    fn send(&self, device_id: u32, data: u32) {
        self.0.lock().unwrap().push((device_id, data));
    }
}

/// A guest's driver.
struct Guest {
    smmu: Arc<Smmuv3>,
    fake: Arc<FakeSmmu>,
    memory: GuestMemoryMmap,
    event: Arc<Line>,
    gerror: Arc<Line>,
    sync: Arc<Line>,
    its: Arc<Its>,
    cmdq: Queue,
    prod: u32,
}

/// A vSMMU without ATS and SubstreamIDs.
fn plain() -> Features {
    let wishes = Wishes { ats: Wish::Exactly(false), ssidsize: Wish::Exactly(0), ..Wishes::default() };
    negotiate(&wishes, &host()).unwrap().features
}

/// All that the fake host has, ATS and substreams too.
fn everything() -> Features {
    let wishes = Wishes { ats: Wish::Exactly(true), ssidsize: Wish::Exactly(20), ..Wishes::default() };
    negotiate(&wishes, &host()).unwrap().features
}

/// Has streams whose devices are in reset tried again at every CMD_SYNC.
fn without_waits(smmu: &Smmuv3) {
    smmu.set_first_wait(Duration::ZERO);
}

impl Guest {
    /// After power-on, with all features.
    fn new() -> Self {
        Self::with_features(everything())
    }

    fn with_features(features: Features) -> Self {
        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(MEMORY), MEMORY_SIZE)]).unwrap();
        let fake = FakeSmmu::new(&STREAMS);
        let (event, gerror, sync, its) = <(Arc<Line>, Arc<Line>, Arc<Line>, Arc<Its>)>::default();
        let doorbell = ItsDoorbell { address: GITS_TRANSLATER, device_id: 0x1_0000, target: its.clone() };
        let interrupts =
            Interrupts { event: event.clone(), gerror: gerror.clone(), sync: sync.clone(), its: Some(doorbell) };
        let config = Config { name: "vsmmu0".into(), features };
        let smmu = Smmuv3::new(config, fake.clone(), memory.clone(), interrupts);
        without_waits(&smmu);
        let cmdq = Queue::new(QueueBase::new(), 19, 16);
        Self { smmu, fake, memory, event, gerror, sync, its, cmdq, prod: 0 }
    }

    /// Queues, interrupts and an empty linear stream table are in use, translation is on, nothing is recorded yet.
    fn running() -> Self {
        Self::running_with(everything())
    }

    fn running_with(features: Features) -> Self {
        let mut guest = Self::with_features(features);
        guest.start();
        guest
    }

    fn start(&mut self) {
        self.write64(STRTAB_BASE, STRTAB);
        self.write(STRTAB_BASE_CFG, 16);
        self.use_command_queue(8);
        self.use_event_queue(7);
        self.write(IRQ_CTRL, 0b101);
        self.write(CR0, 0b1101);
        self.fake.take_calls();
    }

    fn use_command_queue(&mut self, log2size: u8) {
        self.write(CR0, self.read(CR0) & !8);
        self.write64(CMDQ_BASE, CMDQ | u64::from(log2size));
        self.write(CMDQ_PROD, 0);
        self.write(CMDQ_CONS, 0);
        self.write(CR0, self.read(CR0) | 8);
        self.cmdq = Queue::new(QueueBase::from_bits(CMDQ | u64::from(log2size)), 19, 16);
        self.prod = 0;
    }

    fn use_event_queue(&mut self, log2size: u8) {
        self.write(CR0, self.read(CR0) & !4);
        self.write64(EVENTQ_BASE, EVENTQ | u64::from(log2size));
        self.write(EVENTQ_PROD, 0);
        self.write(EVENTQ_CONS, 0);
        self.write(CR0, self.read(CR0) | 4);
    }

    fn read(&self, offset: u64) -> u32 {
        let mut data = [0; 4];
        self.smmu.read(offset, &mut data);
        u32::from_le_bytes(data)
    }

    fn read64(&self, offset: u64) -> u64 {
        let mut data = [0; 8];
        self.smmu.read(offset, &mut data);
        u64::from_le_bytes(data)
    }

    fn write(&self, offset: u64, value: u32) {
        self.smmu.write(offset, &value.to_le_bytes());
    }

    fn write64(&self, offset: u64, value: u64) {
        self.smmu.write(offset, &value.to_le_bytes());
    }

    fn peek<const WORDS: usize>(&self, address: u64) -> [u64; WORDS] {
        let mut words = [0; WORDS];
        for (word, i) in words.iter_mut().zip(0..) {
            *word = self.memory.read_obj::<u64>(GuestAddress(address + 8 * i)).unwrap();
        }
        words
    }

    fn poke(&self, address: u64, words: &[u64]) {
        for (&word, i) in words.iter().zip(0..) {
            self.memory.write_obj(word, GuestAddress(address + 8 * i)).unwrap();
        }
    }

    /// Puts a command into the queue without telling.
    fn push(&mut self, command: u128) {
        self.poke(self.cmdq.address(self.prod, 16), &[command as u64, (command >> 64) as u64]);
        self.prod = self.cmdq.advance(self.prod, 1);
    }

    fn kick(&self) {
        self.write(CMDQ_PROD, self.prod);
    }

    /// Runs commands and expects no error.
    fn run(&mut self, commands: &[u128]) {
        for &command in commands {
            self.push(command);
        }
        self.kick();
        assert_eq!(self.errors().into_bits(), 0);
        assert_eq!(self.read(CMDQ_CONS), self.prod);
    }

    fn errors(&self) -> Gerror {
        Gerror::from_bits(self.read(GERROR) ^ self.read(GERRORN))
    }

    fn acknowledge(&self) {
        self.write(GERRORN, self.read(GERROR));
    }

    /// Index and reason of the command queue's error.
    fn command_error(&self) -> Option<(u32, u8)> {
        let cons = CmdqCons::from_bits(self.read(CMDQ_CONS));
        self.errors().cmdq_err().then(|| (cons.rd(), cons.err()))
    }

    /// Writes an entry of the linear stream table without telling.
    fn write_ste(&self, stream_id: u32, words: [u64; 2]) {
        self.poke(STRTAB + 64 * u64::from(stream_id), &words);
    }

    /// Gives a stream its entry as a driver does.
    fn set_ste(&mut self, stream_id: u32, words: [u64; 2]) {
        self.write_ste(stream_id, words);
        self.run(&[cfgi_ste(stream_id), sync()]);
    }

    /// The records in the event queue, taken.
    fn take_events(&self) -> Vec<[u64; 4]> {
        self.take_events_at(EVENTQ)
    }

    fn take_events_at(&self, base: u64) -> Vec<[u64; 4]> {
        let log2size = self.read64(EVENTQ_BASE) & 31;
        let queue = Queue::new(QueueBase::from_bits(base | log2size), 19, 32);
        let prod = EventqPointer::from_bits(self.read(EVENTQ_PROD));
        let mut cons = EventqPointer::from_bits(self.read(EVENTQ_CONS));
        let mut records = Vec::new();
        while queue.used(prod.index(), cons.index()).unwrap() > 0 {
            records.push(self.peek(queue.address(cons.index(), 32)));
            cons.set_index(queue.advance(cons.index(), 1));
        }
        self.write(EVENTQ_CONS, cons.with_overflow(prod.overflow()).into_bits());
        records
    }

    /// The invalidations that reached the host since the last time, by call.
    fn take_invalidations(&self) -> Vec<Vec<CommandWords>> {
        let only = |call| match call {
            Call::Invalidate(commands) => Some(commands),
            Call::Install(..) => None,
        };
        self.fake.take_calls().into_iter().filter_map(only).collect()
    }
}

fn cfgi_ste(stream_id: u32) -> u128 {
    Cfgi::new().with_opcode(opcode::CFGI_STE).with_stream_id(stream_id).with_leaf_or_range(1).into_bits()
}

fn cfgi_all() -> u128 {
    Cfgi::new().with_opcode(opcode::CFGI_STE_RANGE).with_leaf_or_range(31).into_bits()
}

fn cfgi_cd(stream_id: u32) -> u128 {
    Cfgi::new().with_opcode(opcode::CFGI_CD).with_stream_id(stream_id).with_leaf_or_range(1).into_bits()
}

fn cfgi_cd_all(stream_id: u32) -> u128 {
    Cfgi::new().with_opcode(opcode::CFGI_CD_ALL).with_stream_id(stream_id).into_bits()
}

fn tlbi_va(asid: u16, address: u64) -> u128 {
    let command = Tlbi::new().with_opcode(opcode::TLBI_NH_VA).with_asid(asid).with_leaf(true);
    command.with_address(address >> 12).into_bits()
}

fn tlbi_nsnh_all() -> u128 {
    opcode::TLBI_NSNH_ALL.into()
}

fn atc_inv(stream_id: u32) -> u128 {
    AtcInv::new().with_opcode(opcode::ATC_INV).with_stream_id(stream_id).with_size(52).into_bits()
}

fn sync() -> u128 {
    opcode::SYNC.into()
}

fn sync_with_message(address: u64, data: u32) -> u128 {
    let sync = CmdSync::new().with_opcode(opcode::SYNC).with_cs(1).with_msi_address(address >> 2);
    sync.with_msi_data(data).into_bits()
}

fn words(command: u128) -> CommandWords {
    [command as u64, (command >> 64) as u64]
}

/// A stage 1 entry as Linux writes it: one context descriptor, write-back, stall and merge bits as it likes.
fn stage1_ste(context: u64) -> [u64; 2] {
    let word0 = Ste0::new().with_v(true).with_config(0b101).with_s1contextptr(context >> 6);
    let word1 = Ste1::new().with_s1dss(2).with_s1cir(1).with_s1cor(1).with_s1csh(3).with_shcfg(1).with_mev(true);
    [word0.into_bits(), word1.into_bits()]
}

const BYPASS_STE: [u64; 2] = [0b1001, 1 << 44];
const ABORT_STE: [u64; 2] = [0b0001, 0];

fn is_stage1(config: StreamConfig, context: u64) -> bool {
    match config {
        StreamConfig::Stage1(ste) => Ste0::from_bits(ste.0[0]).s1contextptr() << 6 == context,
        _ => false,
    }
}
