//! The walker seen from both sides: the guest that writes tables and invalidates, and the device that reads and writes.

mod contexts;
mod faults;
mod invalidations;
mod linux;
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
use super::testing::*;
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

/// Empty tables of a guest, with pages of 2^`page` bytes and `bits` of addresses.
fn tables(guest: &Guest, page: u8, bits: u8) -> Tables {
    Tables::new(&guest.memory, page, bits, TABLES)
}

/// A guest whose one page at `iova` is [`DATA`], with 4 KiB pages and 48-bit addresses.
fn one_page(iova: u64, attributes: u64) -> (Guest, Tables) {
    let guest = Guest::new();
    let mut tables = self::tables(&guest, 12, 48);
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
