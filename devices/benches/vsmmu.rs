//! How fast the vSMMU is by itself, in front of a host that has nothing to do: commands per second from the write of
//! CMDQ_PROD to the end of its last batch, and how long an entry of the stream table takes.
//!
//! `cargo bench -p nestling-devices --bench vsmmu`; docs/performance.md has the numbers. Times are those of the thread's
//! CPU, so that they are of one core also on a machine that has other work.

#![allow(missing_docs)] // criterion_group makes functions without

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use criterion::measurement::{Measurement, ValueFormatter, WallTime};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use rustix::time::{ClockId, clock_gettime};

#[allow(dead_code)] // the test without allocations uses the rest of it
#[path = "../tests/idle_host/mod.rs"]
mod idle_host;

use idle_host::{CFGI_STE, Guest, LOG2SIZE, STREAM, SYNC, TLBI_NH_VA, tlbis};

/// Time that the thread has a CPU.
struct CpuTime;

impl CpuTime {
    fn now() -> Duration {
        let now = clock_gettime(ClockId::ThreadCPUTime);
        Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
    }
}

impl Measurement for CpuTime {
    type Intermediate = Duration;
    type Value = Duration;

    fn start(&self) -> Duration {
        Self::now()
    }

    fn end(&self, start: Duration) -> Duration {
        Self::now() - start
    }

    fn add(&self, one: &Duration, other: &Duration) -> Duration {
        *one + *other
    }

    fn zero(&self) -> Duration {
        Duration::ZERO
    }

    fn to_f64(&self, value: &Duration) -> f64 {
        value.as_nanos() as f64
    }

    fn formatter(&self) -> &dyn ValueFormatter {
        WallTime.formatter()
    }
}

fn commands(c: &mut Criterion<CpuTime>) {
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
    let commands = guest.host.commands.load(Ordering::Relaxed);
    assert_eq!(commands, 63 * guest.host.calls.load(Ordering::Relaxed), "one call for each CMD_SYNC");

    let mut guest = Guest::new();
    guest.fill([[TLBI_NH_VA, 0], [SYNC, 0]].into_iter().cycle());
    group.throughput(Throughput::Elements(2));
    group.bench_function("TLBI_NH_VA and CMD_SYNC", |b| b.iter(|| guest.run(2)));
    group.finish();
}

/// CMD_CFGI_STE and CMD_SYNC for an entry that changes each time; besides criterion's mean also the percentiles, which
/// are of the clock on the wall.
fn entries(c: &mut Criterion<CpuTime>) {
    let mut guest = Guest::new();
    guest.fill([[CFGI_STE | u64::from(STREAM) << 32, 1], [SYNC, 0]].into_iter().cycle());
    let mut context = 0u64;
    let mut install = || {
        context = (context + 64) & 0xf_ffff;
        guest.write_entry(context);
        guest.run(2);
    };
    c.bench_function("STE install", |b| b.iter(&mut install));
    let mut times: Vec<Duration> = (0..100_000)
        .map(|_| {
            let start = Instant::now();
            install();
            start.elapsed()
        })
        .collect();
    times.sort_unstable();
    println!("STE install, 100000 times: p50 {:?} p99 {:?} max {:?}", times[50_000], times[99_000], times[99_999]);
}

criterion_group!(name = benches; config = Criterion::default().with_measurement(CpuTime); targets = commands, entries);
criterion_main!(benches);
