//! Devices that get other StreamIDs, or none, because the guest changed bus numbers.

use nestling_iommufd::fake::Record;
use nestling_iommufd::{AttachHwpt, Call, DeviceId};

use super::nested::{ABORT, BYPASS, Host};
use super::*;
use crate::bus::MmioBus;
use crate::pci::root_port::Link;
use crate::pci::{Bdf, PciFunction, RootPort, RootPortConfig, Segment};
use crate::smmuv3::physical::PhysicalSmmu;
use crate::smmuv3::{DeviceCounters, IommufdError, IommufdSmmu, Smmuv3};

const NEW: u32 = 0x300;

impl Host {
    fn id(&self, device: usize) -> DeviceId {
        self.devices[device].dev_id()
    }

    /// What the machine does when a device has another requester ID.
    fn renumber(&self, smmu: &Smmuv3, device: usize, to: Option<u32>) -> Result<Option<u32>, IommufdError> {
        smmu.move_stream(to, || self.physical.move_device(self.id(device), to))
    }

    fn translates(&self, device: usize) -> bool {
        self.ste(device).is_some_and(|ste| ste[0] & 0xf == 0b1011)
    }

    /// Everything goes, and nothing is left.
    fn end(self) {
        self.physical.teardown().unwrap();
        assert_eq!(self.kernel.live_objects(), 1, "the ioas");
    }
}

#[test]
fn a_device_follows_a_guest_that_renumbers_its_buses() {
    let host = Host::new();
    let mut guest = host.guest();
    let from = STREAMS[0];
    guest.set_ste(from, stage1_ste(SCRATCH));
    guest.write_ste(NEW, stage1_ste(SCRATCH));
    assert_eq!(host.renumber(&guest.smmu, 0, Some(NEW)).unwrap(), Some(from));
    assert!(host.translates(0));
    // Its events have the new StreamID, also while it is not translated by stage 1.
    for ste in [stage1_ste(SCRATCH), BYPASS_STE] {
        guest.set_ste(NEW, ste);
        assert!(host.kernel.raise_event(host.id(0), [0x10, 0, 0, 0]));
        guest.smmu.events_ready();
        assert_eq!(guest.take_events()[0][0] >> 32, u64::from(NEW));
    }
    host.executed();
    guest.run(&[cfgi_cd_all(from), cfgi_cd_all(NEW), sync()]);
    assert_eq!(host.executed(), [words(cfgi_cd_all(NEW))], "nobody is at the old one");
    host.end();
}

#[test]
fn a_device_without_an_entry_at_its_new_stream_id_aborts() {
    let host = Host::new();
    let mut guest = host.guest();
    guest.set_ste(STREAMS[0], stage1_ste(SCRATCH));
    host.renumber(&guest.smmu, 0, Some(NEW)).unwrap();
    assert_eq!(host.ste(0), ABORT);
    guest.set_ste(NEW, stage1_ste(SCRATCH));
    assert!(host.translates(0));
    host.end();
}

#[test]
fn a_device_that_nobody_reaches_aborts_until_it_has_a_stream_id_again() {
    let host = Host::new();
    let mut guest = host.guest();
    guest.set_ste(STREAMS[0], stage1_ste(SCRATCH));
    assert_eq!(host.renumber(&guest.smmu, 0, None).unwrap(), Some(STREAMS[0]));
    assert_eq!(host.ste(0), ABORT);
    host.executed();
    guest.set_ste(STREAMS[0], BYPASS_STE);
    guest.run(&[cfgi_cd_all(STREAMS[0]), atc_inv(STREAMS[0]), sync()]);
    assert_eq!(host.ste(0), ABORT, "the guest has no word for it");
    assert_eq!(host.executed(), Vec::<CommandWords>::new());
    guest.smmu.reset();
    assert_eq!((host.ste(0), host.ste(1)), (ABORT, BYPASS), "a reset smmu passes only who has a stream id");
    assert_eq!(host.renumber(&guest.smmu, 0, None).unwrap(), None, "again is no news");
    assert_eq!(host.renumber(&guest.smmu, 0, Some(STREAMS[0])).unwrap(), None);
    assert_eq!(host.ste(0), BYPASS);
    host.end();
}

#[test]
fn a_device_can_be_moved_again_and_again() {
    let host = Host::new();
    let mut guest = host.guest();
    let objects = host.kernel.live_objects();
    for to in (0x300..0x320).chain([STREAMS[0]]) {
        host.renumber(&guest.smmu, 0, Some(to)).unwrap();
        guest.set_ste(to, stage1_ste(SCRATCH));
        assert!(host.translates(0), "{to:#x}");
        assert_eq!(host.kernel.live_objects(), objects + 1, "a stage 1, and nothing of the last place");
    }
    host.end();
}

#[test]
fn two_devices_can_swap_their_stream_ids() {
    let host = Host::new();
    let mut guest = host.guest();
    guest.set_ste(STREAMS[0], stage1_ste(SCRATCH));
    guest.set_ste(STREAMS[1], BYPASS_STE);
    // A hierarchy in which two ports have the same bus reaches one device only.
    host.renumber(&guest.smmu, 1, None).unwrap();
    host.renumber(&guest.smmu, 0, Some(STREAMS[1])).unwrap();
    host.renumber(&guest.smmu, 1, Some(STREAMS[0])).unwrap();
    assert_eq!(host.ste(0), BYPASS);
    assert!(host.translates(1));
    assert!(host.kernel.raise_event(host.id(1), [0x10, 0, 0, 0]));
    guest.smmu.events_ready();
    assert_eq!(guest.take_events()[0][0] >> 32, u64::from(STREAMS[0]));
    host.end();
}

#[test]
fn who_wants_a_stream_id_that_is_taken_has_none() {
    let host = Host::new();
    let mut guest = host.guest();
    guest.set_ste(STREAMS[0], stage1_ste(SCRATCH));
    guest.set_ste(STREAMS[1], BYPASS_STE);
    let refused = host.renumber(&guest.smmu, 0, Some(STREAMS[1]));
    assert!(matches!(refused, Err(IommufdError::StreamTaken(_))), "{refused:?}");
    assert_eq!((host.ste(0), host.ste(1)), (ABORT, BYPASS));
    host.renumber(&guest.smmu, 0, Some(STREAMS[0])).unwrap();
    assert!(host.translates(0));
    host.end();
}

#[test]
fn a_device_that_the_kernel_does_not_renumber_is_detached_and_can_be_moved_later() {
    for call in [Call::VdeviceAlloc, Call::NestedAlloc] {
        let host = Host::new();
        let mut guest = host.guest();
        guest.set_ste(STREAMS[0], stage1_ste(SCRATCH));
        guest.write_ste(NEW, stage1_ste(SCRATCH));
        host.kernel.fail_next(call, libc::ENOMEM);
        let refused = host.renumber(&guest.smmu, 0, Some(NEW));
        assert!(matches!(refused, Err(IommufdError::Stream { .. })), "{call}: {refused:?}");
        assert_eq!(host.kernel.attached(host.id(0)), None, "{call}");
        assert!(!host.physical.has_stream(STREAMS[0]) && !host.physical.has_stream(NEW));
        host.renumber(&guest.smmu, 0, Some(NEW)).unwrap();
        assert!(host.translates(0), "{call}");
        host.end();
    }
}

#[test]
fn a_device_can_be_renumbered_during_its_reset() {
    let host = Host::new();
    let mut guest = host.guest();
    guest.set_ste(STREAMS[0], stage1_ste(SCRATCH));
    guest.write_ste(NEW, stage1_ste(SCRATCH));
    host.kernel.set_in_reset(host.id(0), true);
    host.renumber(&guest.smmu, 0, Some(NEW)).unwrap();
    assert_eq!(host.kernel.attached(host.id(0)), None);
    host.kernel.set_in_reset(host.id(0), false);
    guest.run(&[sync()]);
    assert!(host.translates(0));
    host.end();
}

#[test]
fn a_device_that_is_lost_during_its_reset_stays_without_a_page_table() {
    let host = Host::new();
    let mut guest = host.guest();
    guest.set_ste(STREAMS[0], stage1_ste(SCRATCH));
    host.kernel.set_in_reset(host.id(0), true);
    host.renumber(&guest.smmu, 0, None).unwrap();
    host.kernel.set_in_reset(host.id(0), false);
    guest.run(&[sync()]);
    assert_eq!(host.kernel.attached(host.id(0)), None);
    host.renumber(&guest.smmu, 0, Some(STREAMS[0])).unwrap();
    assert!(host.translates(0));
    host.end();
}

#[test]
fn during_a_reset_of_its_bus_a_device_is_shut_and_the_kernel_is_not_asked() {
    let host = Host::new();
    let mut guest = host.guest();
    let stream = STREAMS[0];
    guest.set_ste(stream, stage1_ste(SCRATCH));
    guest.smmu.hold_stream(Some(stream), || host.physical.hold_device(host.id(0)));
    assert_eq!(host.kernel.attached(host.id(0)), None);
    host.kernel.take_records();
    host.executed();
    // What would wait for the end of the reset with the vSMMU locked.
    guest.set_ste(stream, stage1_ste(SCRATCH + 0x1000));
    guest.set_ste(stream, BYPASS_STE);
    guest.run(&[atc_inv(stream), sync()]);
    guest.write(CR0, 0b1100);
    guest.write(CR0, 0b1101);
    host.renumber(&guest.smmu, 0, None).unwrap();
    host.renumber(&guest.smmu, 0, Some(NEW)).unwrap();
    guest.set_ste(NEW, stage1_ste(SCRATCH));
    host.renumber(&guest.smmu, 0, Some(NEW)).unwrap();
    let records = host.kernel.take_records();
    let asked = |record: &&Record| matches!(record, Record::Attach { device, .. } | Record::Detach { device } if *device == host.id(0));
    assert_eq!(records.iter().find(asked), None);
    assert_eq!(host.executed(), Vec::<CommandWords>::new(), "nothing is in the atc");
    assert_eq!(host.kernel.attached(host.id(0)), None);
    host.physical.release_device(host.id(0));
    host.renumber(&guest.smmu, 0, Some(NEW)).unwrap();
    assert!(host.translates(0));
    assert_eq!(guest.smmu.stats().installs.failed, 1, "at the new number, once");
    host.end();
}

#[test]
fn only_devices_behind_the_vsmmu_are_moved() {
    let host = Host::new();
    let guest = host.guest();
    let stranger = host.kernel.add_device(0, true);
    let moved = guest.smmu.move_stream(None, || host.physical.move_device(stranger.dev_id(), None));
    assert!(matches!(moved, Err(IommufdError::NoDevice(_))), "{moved:?}");
    host.physical.teardown().unwrap();
    let moved = host.renumber(&guest.smmu, 0, Some(NEW));
    assert!(matches!(moved, Err(IommufdError::Gone)), "{moved:?}");
}

/// A function behind a root port, as far as its stream goes; the machine wires real ones in the same way.
struct Function {
    smmu: Arc<Smmuv3>,
    host: Arc<IommufdSmmu>,
    device: DeviceId,
}

impl Function {
    fn renumber(&self, to: Option<Bdf>) {
        let to = to.map(|id| id.requester_id().into());
        self.smmu.move_stream(to, || self.host.move_device(self.device, to)).unwrap();
    }
}

impl PciFunction for Function {
    fn config_read(&self, _: u16, data: &mut [u8]) {
        data.fill(0);
    }
    fn config_write(&self, _: u16, _: &[u8]) {}
    fn reset(&self) {}
    fn on_requester_id(&self, id: Bdf) {
        self.renumber(Some(id));
    }
    fn on_unreachable(&self) {
        self.renumber(None);
    }
}

struct NoMessages;

impl MsiTarget for NoMessages {
    fn send(&self, _: u32, _: u32) {}
}

/// Root bus 0 with two ports, buses 1 and 2, and a device behind each.
fn hierarchy(host: &Host, guest: &Guest) -> Segment {
    let segment = Segment::new();
    segment.add_root_bus(0, 0xf).unwrap();
    for (device, bus) in [(0, 1), (1, 2)] {
        let config = RootPortConfig {
            slot: bus.into(),
            primary_bus: 0,
            secondary_bus: bus,
            subordinate_bus: bus,
            memory: 0..0,
            prefetchable: 0..0,
            bar0: 0x1000_0000 + 0x1000 * u64::from(bus),
            link: Link::default(),
        };
        let port = Arc::new(RootPort::new(config, Arc::new(MmioBus::new()), Arc::new(NoMessages)).unwrap());
        segment.add_port(0, device, port.clone()).unwrap();
        let (smmu, physical) = (guest.smmu.clone(), host.physical.clone());
        let device = host.id(usize::from(device));
        port.plug(0, Arc::new(Function { smmu, host: physical, device })).unwrap();
    }
    segment
}

#[test]
fn what_the_guest_writes_to_its_ports_decides_which_entry_a_device_has() {
    let host = Host::new();
    let mut guest = host.guest();
    let segment = hierarchy(&host, &guest);
    let buses = |port: u8, bus: u8| segment.config_write(Bdf::new(0, port, 0), 0x18, &[0, bus, bus, 0]);
    guest.set_ste(0x100, stage1_ste(SCRATCH));
    guest.set_ste(0x200, BYPASS_STE);
    guest.set_ste(0x300, BYPASS_STE);
    assert_eq!((host.translates(0), host.ste(1)), (true, BYPASS));
    buses(0, 3);
    assert_eq!(host.ste(0), ABORT, "not before a write reaches it there");
    segment.config_write(Bdf::new(3, 0, 0), 4, &[6, 0]);
    assert_eq!(host.ste(0), BYPASS);
    buses(1, 3);
    assert_eq!((host.ste(0), host.ste(1)), (BYPASS, ABORT), "the first port answers");
    buses(0, 0);
    segment.config_write(Bdf::new(3, 0, 0), 4, &[6, 0]);
    assert_eq!((host.ste(0), host.ste(1)), (ABORT, BYPASS));
    buses(1, 1);
    segment.config_write(Bdf::new(1, 0, 0), 4, &[6, 0]);
    assert_eq!((host.ste(0), host.translates(1)), (ABORT, true));
    segment.reset();
    assert_eq!((host.translates(0), host.ste(1)), (true, BYPASS), "as planned");
    host.end();
}

#[test]
fn bus_numbers_change_on_one_processor_while_another_sends_commands() {
    let host = Host::new();
    let mut guest = host.guest();
    let segment = Arc::new(hierarchy(&host, &guest));
    for stream_id in [0x100, 0x200, 0x300] {
        guest.set_ste(stream_id, stage1_ste(SCRATCH));
    }
    let done = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let mover = {
        let (segment, done) = (segment.clone(), done.clone());
        std::thread::spawn(move || {
            for round in 0..200u8 {
                let bus = [1, 3, 2, 0][usize::from(round % 4)];
                segment.config_write(Bdf::new(0, 0, 0), 0x18, &[0, bus, bus, 0]);
                segment.config_write(Bdf::new(bus, 0, 0), 4, &[6, 0]);
            }
            done.store(true, Ordering::Relaxed);
        })
    };
    while !done.load(Ordering::Relaxed) {
        for stream_id in [0x100, 0x200, 0x300] {
            guest.run(&[cfgi_cd_all(stream_id), atc_inv(stream_id), cfgi_ste(stream_id), sync()]);
            assert_eq!(guest.command_error(), None, "no command names who is gone");
        }
    }
    mover.join().unwrap();
    segment.reset();
    assert!(host.translates(0) && host.translates(1));
    assert_eq!(guest.smmu.stats().failed_invalidations, 0);
    host.end();
}

#[test]
fn counters_are_those_of_the_device_wherever_it_is() {
    let host = Host::new();
    let mut guest = host.guest();
    let [one, two] = STREAMS;
    let mut counters = STREAMS.map(DeviceCounters::new);
    guest.set_ste(one, stage1_ste(SCRATCH));
    let before = counters.each_ref().map(|device| guest.smmu.device_stats(device));
    assert_ne!(before[0], before[1]);
    let mut go = |device: usize, to: Option<u32>| {
        let moved = || host.physical.move_device(host.id(device), to);
        guest.smmu.move_device(&mut counters[device], to, moved).map(|_| counters.clone())
    };
    go(1, None).unwrap();
    go(0, Some(two)).unwrap();
    assert!(go(1, Some(two)).is_err(), "it is taken");
    let counters = go(1, Some(one)).unwrap();
    let commands = |device: usize| guest.smmu.device_stats(&counters[device]).opcodes;
    assert_eq!([commands(0), commands(1)], before.map(|stats| stats.opcodes));
    guest.run(&[cfgi_cd(two), sync()]);
    let commands = |device: usize| guest.smmu.device_stats(&counters[device]).opcodes.total();
    assert_eq!([commands(0), commands(1)], [before[0].opcodes.total() + 1, before[1].opcodes.total()]);
    assert_eq!(guest.smmu.stream_stats().len(), 2, "nothing is left where nobody is");
    host.end();
}
