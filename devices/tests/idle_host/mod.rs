//! A vSMMU in use by a guest, in front of a host that does what it is told in no time: what remains is the vSMMU's own.

use std::collections::VecDeque;
use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use nestling_devices::bus::MmioDevice;
use nestling_devices::interrupt::InterruptLine;
use nestling_devices::smmuv3::capabilities::{Wish, Wishes, negotiate};
use nestling_devices::smmuv3::physical::{
    CommandWords, HostCapabilities, HostError, HostEvent, InstallError, Installed, InvalidateError, StreamConfig,
};
use nestling_devices::smmuv3::spec::registers::*;
use nestling_devices::smmuv3::{Config, Interrupts, PhysicalSmmu, Smmuv3};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

const STRTAB: u64 = 0x4000_0000;
const CMDQ: u64 = 0x4100_0000;
const EVENTQ: u64 = 0x4180_0000;
/// Memory for whatever a guest has.
pub const SCRATCH: u64 = 0x41c0_0000;
/// log2 of the entries of the command queue.
pub const LOG2SIZE: u8 = 13;
/// The stream that has a device.
pub const STREAM: u32 = 0x100;

pub const TLBI_NH_VA: u64 = 0x12;
pub const CFGI_STE: u64 = 0x03;
pub const SYNC: u64 = 0x46;

/// Counts what it is told.
#[derive(Default)]
pub struct Host {
    pub commands: AtomicU64,
    pub calls: AtomicU64,
    installed: Mutex<Option<StreamConfig>>,
    pub events: Mutex<VecDeque<HostEvent>>,
}

impl PhysicalSmmu for Host {
    fn capabilities(&self) -> HostCapabilities {
        let idr0 = Idr0::new().with_ttf(2).with_asid16(true).with_ats(true).with_cd2l(true).with_stall_model(1);
        let idr5 = Idr5::new().with_oas(5).with_gran4k(true).with_gran64k(true);
        let idr = [idr0.into_bits(), 0, 0, Idr3::new().with_ril(true).into_bits(), 0, idr5.into_bits()];
        HostCapabilities { idr, ats: true, ..HostCapabilities::default() }
    }

    fn streams(&self, into: &mut Vec<u32>) {
        into.push(STREAM);
    }

    fn has_stream(&self, stream_id: u32) -> bool {
        stream_id == STREAM
    }

    fn install(&self, _: u32, config: StreamConfig) -> Result<Installed, InstallError> {
        let before = self.installed.lock().expect("no panic").replace(config);
        Ok(if before == Some(config) { Installed::Unchanged } else { Installed::Replaced })
    }

    fn invalidate(&self, commands: &[CommandWords]) -> Result<(), InvalidateError> {
        self.commands.fetch_add(black_box(commands).len() as u64, Ordering::Relaxed);
        self.calls.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn drain_events(&self, sink: &mut dyn FnMut(HostEvent)) -> Result<bool, HostError> {
        self.events.lock().expect("no panic").drain(..).for_each(sink);
        Ok(true)
    }

    fn invalidation_calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }
}

struct NoLine;

impl InterruptLine for NoLine {
    fn set_level(&self, _: bool) {}
}

/// A vSMMU whose queues, table and translation are on, and the driver of its guest.
pub struct Guest {
    pub smmu: Arc<Smmuv3>,
    pub host: Arc<Host>,
    pub memory: GuestMemoryMmap,
    prod: u32,
}

impl Guest {
    pub fn new() -> Self {
        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(STRTAB), 0x200_0000)]).expect("memory");
        let host = Arc::new(Host::default());
        let wishes = Wishes { ats: Wish::Exactly(true), ..Wishes::default() };
        let features = negotiate(&wishes, &host.capabilities()).expect("features").features;
        let line = Arc::new(NoLine);
        let interrupts = Interrupts { event: line.clone(), gerror: line.clone(), sync: line, its: None };
        let config = Config { name: "vsmmu0".into(), features };
        let smmu = Smmuv3::new(config, host.clone(), memory.clone(), interrupts);
        smmu.write(STRTAB_BASE, &STRTAB.to_le_bytes());
        smmu.write(STRTAB_BASE_CFG, &16u32.to_le_bytes());
        smmu.write(CMDQ_BASE, &(CMDQ | u64::from(LOG2SIZE)).to_le_bytes());
        smmu.write(EVENTQ_BASE, &(EVENTQ | 7).to_le_bytes());
        smmu.write(IRQ_CTRL, &5u32.to_le_bytes());
        let on = Cr0::new().with_smmuen(true).with_cmdqen(true).with_eventqen(true);
        smmu.write(CR0, &on.into_bits().to_le_bytes());
        Self { smmu, host, memory, prod: 0 }
    }

    /// Fills the command queue, from its start.
    pub fn fill(&self, commands: impl Iterator<Item = [u64; 2]>) {
        for (command, index) in commands.take(1 << LOG2SIZE).zip(0..) {
            for (word, half) in command.into_iter().zip([0, 8]) {
                self.memory.write_obj(word, GuestAddress(CMDQ + 16 * index + half)).expect("queue");
            }
        }
    }

    /// Tells of `count` more commands, which are done when this returns.
    pub fn run(&mut self, count: u32) {
        self.prod = (self.prod + count) & ((2 << LOG2SIZE) - 1);
        self.smmu.write(CMDQ_PROD, &self.prod.to_le_bytes());
    }

    /// Writes the stage 1 entry of the stream without telling.
    pub fn write_entry(&self, context: u64) {
        let entry = GuestAddress(STRTAB + 64 * u64::from(STREAM));
        self.memory.write_obj(0b1011 | context, entry).expect("stream table");
    }
}

/// CMD_TLBI_NH_VA for one page after the other.
pub fn tlbis() -> impl Iterator<Item = [u64; 2]> {
    (0u64..).map(|page| [TLBI_NH_VA | 7 << 48, page << 12 | 1])
}
