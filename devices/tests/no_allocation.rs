//! Nothing is allocated for commands, entries and events: what a guest does costs no memory of the host.
//!
//! A test binary of its own, because `allocation_counter` is its allocator. It counts those of the measuring thread.

use nestling_devices::bus::MmioDevice;
use nestling_devices::smmuv3::physical::HostEvent;
use nestling_devices::smmuv3::spec::registers::{EVENTQ_CONS, EVENTQ_PROD, GERROR, GERRORN};

#[allow(dead_code)] // the benchmark uses the rest of it
mod idle_host;

use idle_host::{CFGI_STE, Guest, LOG2SIZE, SCRATCH, STREAM, SYNC, TLBI_NH_VA, tlbis};

/// Allocations of the second time; the first may still make buffers.
fn allocations(mut what: impl FnMut()) -> u64 {
    what();
    allocation_counter::measure(what).count_total
}

#[test]
fn the_allocator_counts() {
    assert_eq!(allocations(|| drop(std::hint::black_box(vec![1u8]))), 1);
}

#[test]
fn invalidations_allocate_nothing() {
    let mut guest = Guest::new();
    guest.fill(tlbis());
    assert_eq!(allocations(|| guest.run(1 << LOG2SIZE)), 0, "many batches of one kick");
    assert_eq!(guest.host.commands.load(std::sync::atomic::Ordering::Relaxed), 2 << LOG2SIZE);
}

#[test]
fn no_command_allocates() {
    let stream = u64::from(STREAM) << 32;
    let commands = [
        [TLBI_NH_VA, 1],
        [0x10, 0],
        [0x11 | 3 << 48, 0],
        [0x13, 0x1000],
        [0x30, 0],
        [0x05 | stream, 1],
        [0x06 | stream, 0],
        [0x40 | stream, 52],
        [0x01 | stream, 0],
        [0x02 | stream, 0],
        // An entry that changes, one that does not, all of them, and one without a device.
        [CFGI_STE | stream, 1],
        [CFGI_STE | stream, 1],
        [0x04, 31],
        [CFGI_STE | 0xf8 << 32, 1],
        // By message to memory, by wire, and not at all.
        [SYNC | 1 << 12, SCRATCH],
        [SYNC | 1 << 12, 0],
        [SYNC, 0],
    ];
    let mut guest = Guest::new();
    guest.fill(commands.into_iter().cycle());
    let mut context = 0;
    let count = allocations(|| {
        for _ in 0..100 {
            context = (context + 64) & 0xf_ffff;
            guest.write_entry(context);
            guest.run(commands.len() as u32);
        }
    });
    assert_eq!(count, 0);
    assert_eq!(guest.smmu.stats().opcodes.total(), 200 * commands.len() as u64);
    assert_eq!(guest.smmu.stats().errors.command_queue(), 0);
}

#[test]
fn an_illegal_command_allocates_nothing() {
    let mut guest = Guest::new();
    guest.fill([[0xee, 0]].into_iter().cycle());
    guest.run(1);
    let count = allocations(|| {
        for _ in 0..100 {
            let mut gerror = [0; 4];
            guest.smmu.read(GERROR, &mut gerror);
            guest.smmu.write(GERRORN, &gerror);
        }
    });
    assert_eq!(count, 0);
    assert_eq!(guest.smmu.stats().errors.cerror_ill, 201, "each acknowledgement has it read again");
}

#[test]
fn events_allocate_nothing() {
    let guest = Guest::new();
    let record = HostEvent::Record([0x10 | u64::from(STREAM) << 32, 0, 0, 0]);
    let mut pending: Vec<HostEvent> = vec![record; 100];
    pending.push(HostEvent::Lost(3));
    let deliver = || {
        guest.host.events.lock().expect("no panic").extend(&pending);
        guest.smmu.events_ready();
        let mut prod = [0; 4];
        guest.smmu.read(EVENTQ_PROD, &mut prod);
        guest.smmu.write(EVENTQ_CONS, &prod);
    };
    assert_eq!(allocations(deliver), 0);
    assert_eq!(guest.smmu.stats().events.total(), 200);
}
