//! The software back end: translation tables and context descriptors of any kind, and what is cached of them.
//!
//! What is cached must never show while the guest has invalidated what it changed: the same access on a back end
//! without anything cached comes to the same.

use std::sync::Arc;

use arbitrary::{Result, Unstructured};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use crate::smmuv3::capabilities::{Features, Wish, Wishes, negotiate};
use crate::smmuv3::physical::{CommandWords, HostEvent, Stage1, StreamConfig};
use crate::smmuv3::{DmaError, DmaPort, PhysicalSmmu, WalkerSmmu};

const MEMORY: u64 = 0x4000_0000;
const PAGES: u64 = 16;
const MEMORY_SIZE: usize = (PAGES as usize) << 12;
const STREAMS: [u32; 2] = [0x08, 0x100];
const MOST_STEPS: usize = 120;

/// Tables and descriptors, accesses, invalidations.
pub fn walker(data: &[u8]) {
    let mut u = Unstructured::new(data);
    let Ok(substreams) = u.int_in_range(0..=1) else { return };
    let wishes = Wishes { ssidsize: Wish::Exactly(substreams * 20), ..Wishes::default() };
    let features = negotiate(&wishes, &WalkerSmmu::host_capabilities()).expect("it has all of it").features;
    let mut world = World::new(features);
    for _ in 0..MOST_STEPS {
        if u.is_empty() || world.step(&mut u).is_err() {
            break;
        }
    }
}

/// One access of a device.
#[derive(Clone, Copy, Debug)]
struct Access {
    device: usize,
    substream: Option<u32>,
    privileged: bool,
    instruction: bool,
    write: bool,
    iova: u64,
    length: usize,
}

/// What an access came to.
#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    result: std::result::Result<(), DmaError>,
    /// What was read.
    data: Vec<u8>,
    events: Vec<HostEvent>,
}

struct World {
    features: Features,
    memory: GuestMemoryMmap,
    smmu: Arc<WalkerSmmu>,
    ports: [DmaPort; 2],
    configs: [StreamConfig; 2],
    /// Memory has changed since everything was invalidated.
    stale: bool,
}

impl World {
    fn new(features: Features) -> Self {
        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(MEMORY), MEMORY_SIZE)]).expect("memory");
        let configs = [StreamConfig::Abort; 2];
        let (smmu, ports) = back_end(&memory, features, &configs);
        Self { features, memory, smmu, ports, configs, stale: false }
    }

    fn step(&mut self, u: &mut Unstructured<'_>) -> Result<()> {
        match u.int_in_range(0..=9)? {
            0 => {
                let device = u.int_in_range(0..=1)?;
                self.configs[device] = config(u, &self.features)?;
                let installed = self.smmu.install(STREAMS[device], self.configs[device]);
                assert!(installed.is_ok(), "{installed:?}");
            }
            1 => self.invalidate(&[invalidation(u)?]),
            2 => self.invalidate_everything(),
            3..=6 => {
                let (address, word) = (address(u)?, word(u)?);
                self.memory.write_obj(word, GuestAddress(address)).expect("memory");
                self.stale = true;
                // Most guests do what they must.
                if u.ratio(3, 4)? {
                    self.invalidate_everything();
                }
            }
            _ => self.access(access(u)?),
        }
        Ok(())
    }

    fn invalidate(&self, commands: &[CommandWords]) {
        let done = self.smmu.invalidate(commands);
        assert!(done.is_ok(), "{done:?}");
    }

    fn invalidate_everything(&mut self) {
        let cfgi_cd_all = |stream: u32| [0x06 | u64::from(stream) << 32, 0];
        self.invalidate(&[cfgi_cd_all(STREAMS[0]), cfgi_cd_all(STREAMS[1]), [0x30, 0]]);
        self.stale = false;
    }

    fn access(&mut self, access: Access) {
        let before = self.contents();
        let warm = perform(&self.smmu, &self.ports, access);
        assert!(warm.events.len() <= 1, "one record of one access: {warm:x?}");
        let after = self.contents();
        if !self.stale {
            self.memory.write_slice(&before, GuestAddress(MEMORY)).expect("memory");
            let (smmu, ports) = back_end(&self.memory, self.features, &self.configs);
            let cold = perform(&smmu, &ports, access);
            assert_eq!(warm, cold, "with and without caches: {access:x?}");
            assert!(after == self.contents(), "written with and without caches: {access:x?}");
        }
        self.stale |= before != after;
    }

    fn contents(&self) -> Vec<u8> {
        let mut contents = vec![0; MEMORY_SIZE];
        self.memory.read_slice(&mut contents, GuestAddress(MEMORY)).expect("memory");
        contents
    }
}

/// One with nothing cached.
fn back_end(
    memory: &GuestMemoryMmap,
    features: Features,
    configs: &[StreamConfig; 2],
) -> (Arc<WalkerSmmu>, [DmaPort; 2]) {
    let smmu = WalkerSmmu::new(memory.clone(), features).expect("a file descriptor");
    let ports = STREAMS.map(|stream| smmu.add_stream(stream).expect("the stream is free"));
    for (stream, config) in STREAMS.into_iter().zip(configs) {
        assert!(smmu.install(stream, *config).is_ok());
    }
    (smmu, ports)
}

fn perform(smmu: &WalkerSmmu, ports: &[DmaPort; 2], access: Access) -> Outcome {
    let port = ports[access.device].with_substream(access.substream).with_privilege(access.privileged);
    let port = port.with_execution(access.instruction);
    let mut data = vec![0xa5; access.length];
    let result = if access.write { port.dma_write(access.iova, &data) } else { port.dma_read(access.iova, &mut data) };
    let mut events = Vec::new();
    smmu.drain_events(&mut |event| events.push(event)).expect("events can be read");
    Outcome { result, data, events }
}

/// As the model lets it pass.
fn config(u: &mut Unstructured<'_>, features: &Features) -> Result<StreamConfig> {
    Ok(match u.int_in_range(0..=7)? {
        0 => StreamConfig::Abort,
        1 => StreamConfig::Bypass,
        _ => {
            let context = MEMORY + 64 * u.int_in_range(0..=70)?;
            let (mut word0, mut word1) = (0b1011 | context, 0);
            if features.idr1.ssidsize() > 0 {
                let contexts = u.int_in_range::<u64>(0..=12)?;
                if contexts > 0 {
                    word0 |= contexts << 59 | u.int_in_range::<u64>(0..=2)? << 4;
                    word1 |= u.int_in_range::<u64>(0..=2)?;
                }
            }
            StreamConfig::Stage1(Stage1([word0, word1]))
        }
    })
}

fn invalidation(u: &mut Unstructured<'_>) -> Result<CommandWords> {
    let asid = u64::from(u.int_in_range::<u16>(0..=3)?) << 48;
    let stream = u64::from(*u.choose(&STREAMS)?) << 32;
    Ok(match u.int_in_range(0..=6)? {
        0 => [0x10, 0],
        1 => [0x11 | asid, 0],
        2 => [0x05 | stream | u.int_in_range::<u64>(0..=70)? << 12, u.int_in_range(0..=1)?],
        3 => [0x06 | stream, 0],
        4 => [0x30, 0],
        opcode => {
            let (opcode, asid) = if opcode == 5 { (0x12, asid) } else { (0x13, 0) };
            let leaf = u.int_in_range::<u64>(0..=1)?;
            let granule = u.int_in_range::<u64>(0..=3)?;
            let (mut range, mut hints) = (0, 0);
            if granule != 0 {
                range = u.int_in_range::<u64>(1..=31)? << 12 | u.int_in_range::<u64>(0..=31)? << 20;
                hints = granule << 10 | u.choose(&[0u64, 2, 3])? << 8;
            }
            [opcode | asid | range, iova(u)? & !0xfff | hints | leaf]
        }
    })
}

/// Somewhere in memory: a context descriptor, an entry of a table, or anything.
fn address(u: &mut Unstructured<'_>) -> Result<u64> {
    Ok(match u.int_in_range(0..=2)? {
        0 => MEMORY + 64 * u.int_in_range(0..=70)? + 8 * u.int_in_range(0..=3)?,
        1 => MEMORY + (u.int_in_range(0..=PAGES - 1)? << 12) + 8 * u.int_in_range(0..=3)?,
        _ => MEMORY + 8 * u.int_in_range(0..=MEMORY_SIZE as u64 / 8 - 1)?,
    })
}

/// Part of a context descriptor, a descriptor of a table, or anything.
fn word(u: &mut Unstructured<'_>) -> Result<u64> {
    let page = MEMORY + (u.int_in_range(0..=PAGES)? << 12);
    Ok(match u.int_in_range(0..=5)? {
        0 => u.arbitrary()?,
        // A table.
        1 => page | 0b11 | (u64::from(u.arbitrary::<u8>()? & 0xf8) << 56),
        // A page or a block with the access flag.
        2 => page & !(u64::from(u.arbitrary::<bool>()?) << 12) | u64::from(u.arbitrary::<u16>()? & 0xfff) | 1 << 10,
        3 => page | 1 << 10 | 0b11 | u64::from(u.arbitrary::<u16>()?) << 50,
        // The first word of a context descriptor that is valid: V, AA64, no stall.
        4 => {
            let size = |u: &mut Unstructured<'_>| Ok(*u.choose(&[16u64, 17, 25, 28, 34, 39])?);
            let bits = u64::from(u.arbitrary::<u8>()?);
            let attributes = (bits & 1) << 14 | (bits >> 1 & 1) << 30 | (bits >> 2 & 7) << 35 | (bits >> 5 & 3) << 45;
            size(u)?
                | size(u)? << 16
                | u.int_in_range::<u64>(0..=3)? << 6
                | u.int_in_range::<u64>(0..=3)? << 22
                | 1 << 31
                | 1 << 41
                | u.int_in_range::<u64>(0..=5)? << 32
                | attributes
                | u.int_in_range::<u64>(0..=3)? << 48
        }
        // TTB0 or TTB1.
        _ => page,
    })
}

fn iova(u: &mut Unstructured<'_>) -> Result<u64> {
    let small = u.int_in_range::<u64>(0..=3)?;
    let shift = *u.choose(&[12u32, 14, 16, 21, 25, 29, 30, 36, 39, 42])?;
    let offset = u64::from(u.arbitrary::<u16>()?);
    Ok(match u.int_in_range(0..=6)? {
        0 => u.arbitrary()?,
        1 => !0 << 39 | small << shift | offset,
        2 => 0xff << 56 | small << shift | offset,
        3 => MEMORY + offset,
        _ => (small << shift).wrapping_add(offset),
    })
}

fn access(u: &mut Unstructured<'_>) -> Result<Access> {
    Ok(Access {
        device: u.int_in_range(0..=1)?,
        substream: if u.ratio(1, 3)? { Some(*u.choose(&[0, 1, 2, 63, 64, 0xf_ffff])?) } else { None },
        privileged: u.ratio(1, 4)?,
        instruction: u.ratio(1, 6)?,
        write: u.arbitrary()?,
        iova: iova(u)?,
        length: *u.choose(&[1usize, 8, 8, 0, 64, 4096, 9000])?,
    })
}
