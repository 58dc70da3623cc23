//! The walker seen from both sides: the guest that writes tables and invalidates, and the device that reads and writes.

mod contexts;
mod faults;
mod invalidations;
mod naive;
mod ports;
mod walks;

use std::sync::Arc;

use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use super::super::capabilities::{Features, Wish, Wishes, negotiate};
use super::super::physical::{CommandWords, EventWords, HostEvent, PhysicalSmmu, Stage1, StreamConfig};
use super::super::spec::cd::{Cd0, CdTable, L1Cd};
use super::super::spec::command::{Cfgi, Tlbi, opcode};
use super::super::spec::event::{EventHead, FaultSyndrome, number};
use super::super::spec::ste::{Ste0, Ste1};
use super::{DmaError, DmaPort, WalkerSmmu, WalkerStats};

const MEMORY: u64 = 0x4000_0000;
const MEMORY_SIZE: usize = 0x200_0000;
/// The context descriptor (table).
const CD: u64 = MEMORY;
/// Translation tables from here on.
const TABLES: u64 = MEMORY + 0x10_0000;
/// What is mapped.
const DATA: u64 = MEMORY + 0x100_0000;
/// Not memory.
const NOWHERE: u64 = 0x10_0000_0000;

const STREAM: u32 = 0x100;
const ASID: u16 = 7;

/// Bits of a descriptor.
const BLOCK: u64 = 0b01;
const PAGE: u64 = 0b11;
const TABLE: u64 = 0b11;
const USER: u64 = 1 << 6;
const READ_ONLY: u64 = 1 << 7;
const AF: u64 = 1 << 10;
const NG: u64 = 1 << 11;
const CONTIGUOUS: u64 = 1 << 52;
const PXN: u64 = 1 << 53;
const UXN: u64 = 1 << 54;
/// Readable and writable by devices, for one ASID.
const RW: u64 = AF | NG | USER;

/// All that the walker can do.
fn everything() -> Features {
    let wishes = Wishes { ssidsize: Wish::Exactly(20), ..Wishes::default() };
    negotiate(&wishes, &WalkerSmmu::host_capabilities()).unwrap().features
}

fn memory() -> GuestMemoryMmap {
    GuestMemoryMmap::from_ranges(&[(GuestAddress(MEMORY), MEMORY_SIZE)]).unwrap()
}

/// A guest with one device.
struct Guest {
    memory: GuestMemoryMmap,
    smmu: Arc<WalkerSmmu>,
    port: DmaPort,
}

impl Guest {
    /// One stream, which aborts.
    fn new() -> Self {
        Self::with_features(everything())
    }

    fn with_features(features: Features) -> Self {
        let memory = memory();
        let smmu = WalkerSmmu::new(memory.clone(), features).unwrap();
        let port = smmu.add_stream(STREAM).unwrap();
        Self { memory, smmu, port }
    }

    /// Writes a single context descriptor and installs it.
    fn use_cd(&self, cd0: Cd0, ttb0: u64, ttb1: u64) {
        self.write_cd(CD, cd0, ttb0, ttb1);
        self.install(Ste0::new(), Ste1::new());
    }

    fn write_cd(&self, at: u64, cd0: Cd0, ttb0: u64, ttb1: u64) {
        let table = |base: u64| CdTable::new().with_ttb(base >> 4).into_bits();
        self.poke(at, &[cd0.into_bits(), table(ttb0), table(ttb1)]);
    }

    /// Installs a stage 1 entry that points to [`CD`].
    fn install(&self, ste0: Ste0, ste1: Ste1) {
        let ste0 = ste0.with_v(true).with_config(0b101).with_s1contextptr(CD >> 6);
        let config = StreamConfig::Stage1(Stage1([ste0.into_bits(), ste1.into_bits()]));
        self.smmu.install(STREAM, config).unwrap();
    }

    fn poke(&self, at: u64, words: &[u64]) {
        for (&word, i) in words.iter().zip(0..) {
            self.memory.write_obj(word, GuestAddress(at + 8 * i)).unwrap();
        }
    }

    fn peek(&self, at: u64) -> u64 {
        self.memory.read_obj(GuestAddress(at)).unwrap()
    }

    /// What the device reads.
    fn read(&self, iova: u64) -> Result<u64, DmaError> {
        read(&self.port, iova)
    }

    /// Where the device's access ends up: a number that it writes is looked for. None if it fails.
    fn reaches(&self, iova: u64, address: u64) -> bool {
        self.poke(address, &[0x1234_5678_9abc_def0]);
        self.read(iova) == Ok(0x1234_5678_9abc_def0)
    }

    fn invalidate(&self, command: u128) {
        self.smmu.invalidate(&[words(command)]).unwrap();
    }

    fn events(&self) -> Vec<HostEvent> {
        let mut events = Vec::new();
        assert!(self.smmu.drain_events(&mut |event| events.push(event)).unwrap());
        events
    }

    /// The one record that there is.
    fn event(&self) -> EventWords {
        match self.events()[..] {
            [HostEvent::Record(record)] => record,
            ref other => panic!("not one record: {other:x?}"),
        }
    }

    fn event_number(&self) -> u8 {
        EventHead::from_bits(self.event()[0]).event()
    }

    fn stats(&self) -> WalkerStats {
        self.smmu.walker_stats()
    }
}

fn read(port: &DmaPort, iova: u64) -> Result<u64, DmaError> {
    let mut data = [0; 8];
    port.dma_read(iova, &mut data)?;
    Ok(u64::from_le_bytes(data))
}

/// Translation tables as a guest builds them.
#[derive(Clone)]
struct Tables {
    memory: GuestMemoryMmap,
    /// log2 of the granule.
    page: u8,
    /// Bits of addresses.
    bits: u8,
    root: u64,
    next: u64,
    big_endian: bool,
}

impl Tables {
    /// Empty ones.
    fn new(memory: &GuestMemoryMmap, page: u8, bits: u8) -> Self {
        Self { memory: memory.clone(), page, bits, root: TABLES, next: TABLES + 0x1_0000, big_endian: false }
    }

    fn stride(&self) -> u8 {
        self.page - 3
    }

    /// Level of the first table.
    fn start(&self) -> u8 {
        (0..4).rev().find(|&level| self.shift(level) + self.stride() >= self.bits).unwrap()
    }

    fn shift(&self, level: u8) -> u8 {
        self.page + self.stride() * (3 - level)
    }

    fn write(&self, at: u64, word: u64) {
        let word = if self.big_endian { word.swap_bytes() } else { word };
        self.memory.write_obj(word, GuestAddress(at)).unwrap();
    }

    fn read(&self, at: u64) -> u64 {
        let word: u64 = self.memory.read_obj(GuestAddress(at)).unwrap();
        if self.big_endian { word.swap_bytes() } else { word }
    }

    /// Where the descriptor of an address at a level is; tables on the way are made.
    fn slot(&mut self, iova: u64, level: u8) -> u64 {
        let address = iova & ((1 << self.bits) - 1);
        let (mut table, mut at) = (self.root, self.start());
        loop {
            let index = address >> self.shift(at);
            let index = if at == self.start() { index } else { index & ((1 << self.stride()) - 1) };
            let slot = table + 8 * index;
            if at == level {
                return slot;
            }
            if self.read(slot) & 3 != TABLE {
                self.write(slot, self.next | TABLE);
                self.next += 0x1_0000;
            }
            table = self.read(slot) & 0xffff_ffff_f000;
            at += 1;
        }
    }

    /// Writes the descriptor of an address at a level.
    fn put(&mut self, iova: u64, level: u8, descriptor: u64) {
        let slot = self.slot(iova, level);
        self.write(slot, descriptor);
    }

    /// Maps one page.
    fn map(&mut self, iova: u64, address: u64, attributes: u64) {
        self.put(iova, 3, address | attributes | PAGE);
    }
}

/// A legal context descriptor for tables in TTB0.
fn cd0(tables: &Tables) -> Cd0 {
    let granule = match tables.page {
        12 => 0,
        14 => 2,
        _ => 1,
    };
    Cd0::new()
        .with_v(true)
        .with_aa64(true)
        .with_t0sz(64 - tables.bits)
        .with_tg0(granule)
        .with_epd1(true)
        .with_ips(5)
        .with_endi(tables.big_endian)
        .with_r(true)
        .with_a(true)
        .with_asid(ASID)
}

/// A guest whose one page at `iova` is [`DATA`], with 4 KiB pages and 48-bit addresses.
fn one_page(iova: u64, attributes: u64) -> (Guest, Tables) {
    let guest = Guest::new();
    let mut tables = Tables::new(&guest.memory, 12, 48);
    tables.map(iova, DATA, attributes);
    guest.use_cd(cd0(&tables), tables.root, 0);
    (guest, tables)
}

fn words(command: u128) -> CommandWords {
    [command as u64, (command >> 64) as u64]
}

fn tlbi_va(asid: u16, address: u64) -> u128 {
    Tlbi::new().with_opcode(opcode::TLBI_NH_VA).with_asid(asid).with_leaf(true).with_address(address >> 12).into_bits()
}

fn tlbi_vaa(address: u64) -> u128 {
    Tlbi::new().with_opcode(opcode::TLBI_NH_VAA).with_leaf(true).with_address(address >> 12).into_bits()
}

fn tlbi_asid(asid: u16) -> u128 {
    Tlbi::new().with_opcode(opcode::TLBI_NH_ASID).with_asid(asid).into_bits()
}

fn cfgi_cd(substream_id: u32) -> u128 {
    Cfgi::new().with_opcode(opcode::CFGI_CD).with_stream_id(STREAM).with_substream_id(substream_id).into_bits()
}

fn cfgi_cd_all() -> u128 {
    Cfgi::new().with_opcode(opcode::CFGI_CD_ALL).with_stream_id(STREAM).into_bits()
}
