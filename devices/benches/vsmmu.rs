//! How fast the vSMMU is by itself, in front of a host that has nothing to do: commands per second from the write of
//! CMDQ_PROD to the end of its last batch, and how long an entry of the stream table takes.
//!
//! `cargo bench -p nestling-devices --bench vsmmu`; docs/performance.md has the numbers.

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
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
const LOG2SIZE: u8 = 13;
const STREAM: u32 = 0x100;
const TLBI_NH_VA: u64 = 0x12;
const CFGI_STE: u64 = 0x03;
const SYNC: u64 = 0x46;

/// A host that does what it is told in no time.
#[derive(Default)]
struct Host {
    commands: AtomicU64,
    calls: AtomicU64,
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
        black_box(config);
        Ok(Installed::Replaced)
    }

    fn invalidate(&self, commands: &[CommandWords]) -> Result<(), InvalidateError> {
        self.commands.fetch_add(black_box(commands).len() as u64, Ordering::Relaxed);
        self.calls.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn drain_events(&self, _: &mut dyn FnMut(HostEvent)) -> Result<bool, HostError> {
        Ok(false)
    }

    fn invalidation_calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }
}

struct NoLine;

impl InterruptLine for NoLine {
    fn set_level(&self, _: bool) {}
}

/// A vSMMU in use, and its guest.
struct Guest {
    smmu: Arc<Smmuv3>,
    host: Arc<Host>,
    memory: GuestMemoryMmap,
    prod: u32,
}

impl Guest {
    fn new() -> Self {
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
        smmu.write(CR0, &Cr0::new().with_smmuen(true).with_cmdqen(true).into_bits().to_le_bytes());
        Self { smmu, host, memory, prod: 0 }
    }

    /// Fills the queue with the same commands over and over.
    fn fill(&self, commands: impl Iterator<Item = [u64; 2]>) {
        for (command, index) in commands.take(1 << LOG2SIZE).zip(0..) {
            for (word, half) in command.into_iter().zip([0, 8]) {
                self.memory.write_obj(word, GuestAddress(CMDQ + 16 * index + half)).expect("queue");
            }
        }
    }

    /// Tells of `count` more commands, which are done when this returns.
    fn run(&mut self, count: u32) {
        self.prod = (self.prod + count) & ((2 << LOG2SIZE) - 1);
        self.smmu.write(CMDQ_PROD, &self.prod.to_le_bytes());
    }
}

/// CMD_TLBI_NH_VA for one page after the other.
fn tlbis() -> impl Iterator<Item = [u64; 2]> {
    (0u64..).map(|page| [TLBI_NH_VA | 7 << 48, page << 12 | 1])
}

fn commands(c: &mut Criterion) {
    let mut group = c.benchmark_group("commands");
    let mut guest = Guest::new();
    guest.fill(tlbis());
    let count = 1 << LOG2SIZE;
    group.throughput(Throughput::Elements(count.into()));
    group.bench_function("TLBI_NH_VA", |b| b.iter(|| guest.run(count)));

    // What one unmap of Linux is at most: 63 commands and the CMD_SYNC behind them.
    let mut guest = Guest::new();
    guest.fill(tlbis().enumerate().map(|(i, tlbi)| if i % 64 == 63 { [SYNC, 0] } else { tlbi }));
    group.throughput(Throughput::Elements(64));
    group.bench_function("63 TLBI_NH_VA and CMD_SYNC", |b| b.iter(|| guest.run(64)));
    assert_eq!(guest.host.commands.load(Ordering::Relaxed), 63 * guest.host.invalidation_calls());

    let mut guest = Guest::new();
    guest.fill([[TLBI_NH_VA, 0], [SYNC, 0]].into_iter().cycle());
    group.throughput(Throughput::Elements(2));
    group.bench_function("TLBI_NH_VA and CMD_SYNC", |b| b.iter(|| guest.run(2)));
    group.finish();
}

/// CMD_CFGI_STE and CMD_SYNC for an entry that changes each time; besides criterion's mean also the percentiles.
fn entries(c: &mut Criterion) {
    let mut guest = Guest::new();
    guest.fill([[CFGI_STE | u64::from(STREAM) << 32, 1], [SYNC, 0]].into_iter().cycle());
    let mut context = 0u64;
    let mut install = || {
        context = (context + 64) & 0xf_ffff;
        let entry = GuestAddress(STRTAB + 64 * u64::from(STREAM));
        guest.memory.write_obj(0b1011 | context, entry).expect("stream table");
        let start = Instant::now();
        guest.run(2);
        start.elapsed()
    };
    c.bench_function("STE install", |b| b.iter_custom(|count| (0..count).map(|_| install()).sum()));
    let mut times: Vec<Duration> = (0..100_000).map(|_| install()).collect();
    times.sort_unstable();
    println!("STE install, 100000 times: p50 {:?} p99 {:?} max {:?}", times[50_000], times[99_000], times[99_999]);
}

criterion_group!(benches, commands, entries);
criterion_main!(benches);
