mod numbers;

use super::*;
use crate::bus::{MmioBus, MmioDevice};
use crate::pci::fakes::{Event, FakeFunction, FakeIts};
use crate::pci::root_port::{Link, RootPortConfig};
use crate::pci::spec::header;
use crate::pci::{Ecam, HostBridge};

/// pcie.0, and an expander at 0x60 with two ports: one to an endpoint on bus 0x61, one empty to 0x62..=0x63.
struct Machine {
    mmio: Arc<MmioBus>,
    segment: Arc<Segment>,
    ecam: Ecam,
    endpoint: Arc<FakeFunction>,
    ports: [Arc<RootPort>; 2],
}

const ENDPOINT: u16 = 0xabcd;

fn port(mmio: &Arc<MmioBus>, slot: u16, secondary_bus: u8, subordinate_bus: u8) -> Arc<RootPort> {
    let config = RootPortConfig {
        slot,
        primary_bus: 0x60,
        secondary_bus,
        subordinate_bus,
        memory: 0x1000_0000..0x1010_0000,
        prefetchable: 0..0,
        bar0: 0x1010_0000 + 0x1000 * u64::from(slot),
        link: Link::default(),
    };
    Arc::new(RootPort::new(config, mmio.clone(), Arc::new(FakeIts::default())).unwrap())
}

impl Machine {
    fn new() -> Self {
        let mmio = Arc::new(MmioBus::new());
        let segment = Arc::new(Segment::new());
        segment.add_root_bus(0, 0x5f).unwrap();
        segment.add_root_bus(0x60, 0x6f).unwrap();
        segment.add_function(0, 0, 0, Arc::new(HostBridge::root_complex())).unwrap();
        segment.add_function(0, 1, 0, Arc::new(HostBridge::expander())).unwrap();
        let ports = [port(&mmio, 1, 0x61, 0x61), port(&mmio, 2, 0x62, 0x63)];
        segment.add_port(0x60, 0, ports[0].clone()).unwrap();
        segment.add_port(0x60, 1, ports[1].clone()).unwrap();
        let endpoint = Arc::new(FakeFunction::new(ENDPOINT));
        ports[0].plug(0, endpoint.clone()).unwrap();
        Self { mmio, ecam: Ecam::new(segment.clone()), segment, endpoint, ports }
    }

    fn vendor(&self, id: Bdf) -> u16 {
        let mut data = [0; 2];
        self.ecam.read(u64::from(id.requester_id()) << 12, &mut data);
        u16::from_le_bytes(data)
    }

    fn write(&self, id: Bdf, offset: u16, data: &[u8]) {
        self.ecam.write(u64::from(id.requester_id()) << 12 | u64::from(offset), data);
    }
}

const PORT_0: Bdf = Bdf::new(0x60, 0, 0);
const PORT_1: Bdf = Bdf::new(0x60, 1, 0);

#[test]
fn functions_answer_where_they_are_and_nobody_answers_elsewhere() {
    let machine = Machine::new();
    assert_eq!(machine.vendor(Bdf::new(0, 0, 0)), 0x1b36);
    assert_eq!(machine.vendor(Bdf::new(0, 1, 0)), 0x1b36);
    assert_eq!(machine.vendor(PORT_1), 0x1b36);
    assert_eq!(machine.vendor(Bdf::new(0x61, 0, 0)), ENDPOINT);
    for nobody in [
        Bdf::new(0, 2, 0),
        Bdf::new(0, 0, 1),
        Bdf::new(1, 0, 0),
        Bdf::new(0x61, 0, 1),
        Bdf::new(0x62, 0, 0),
        Bdf::new(0x64, 0, 0),
        Bdf::new(0x70, 0, 0),
        Bdf::new(0xff, 31, 7),
    ] {
        assert_eq!(machine.vendor(nobody), 0xffff, "{nobody}");
        machine.write(nobody, 0, &[0; 4]);
    }
}

#[test]
fn an_endpoint_has_device_number_0_only() {
    let machine = Machine::new();
    assert_eq!(machine.vendor(Bdf::new(0x61, 1, 0)), 0xffff, "7.3.1");
}

#[test]
fn with_ari_forwarding_all_256_functions_are_reached() {
    let machine = Machine::new();
    machine.ports[0].plug(0x88, Arc::new(FakeFunction::new(0x1234))).unwrap();
    let far = Bdf::from_devfn(0x61, 0x88);
    assert_eq!(machine.vendor(far), 0xffff);
    let express = crate::pci::fakes::capability(&*machine.ports[0], 0x10).unwrap();
    machine.write(PORT_0, express + 0x28, &[1 << 5, 0]);
    assert_eq!(machine.vendor(far), 0x1234, "6.13");
}

#[test]
fn a_function_is_told_its_place_when_it_is_put_there() {
    let machine = Machine::new();
    assert_eq!(machine.endpoint.events(), [Event::Id(Bdf::new(0x61, 0, 0))]);
    let endpoint = Arc::new(FakeFunction::new(1));
    machine.segment.add_function(0, 5, 0, endpoint.clone()).unwrap();
    assert_eq!(endpoint.events(), [Event::Id(Bdf::new(0, 5, 0))]);
}

#[test]
fn a_port_without_bus_numbers_leads_nowhere() {
    let machine = Machine::new();
    machine.write(PORT_0, header::PRIMARY_BUS, &[0, 0, 0, 0]);
    assert_eq!(machine.vendor(Bdf::new(0x61, 0, 0)), 0xffff);
    assert_eq!(machine.vendor(Bdf::new(0x60, 0, 0)), 0x1b36, "the root bus is not behind it");
    machine.write(PORT_0, header::PRIMARY_BUS, &[0x60, 0x61, 0x60, 0]);
    assert_eq!(machine.vendor(Bdf::new(0x61, 0, 0)), 0xffff, "an upside-down range is empty");
}

#[test]
fn no_port_leads_out_of_the_buses_of_its_root() {
    let machine = Machine::new();
    machine.write(PORT_0, header::PRIMARY_BUS, &[0x60, 0x80, 0x80, 0]);
    assert_eq!(machine.vendor(Bdf::new(0x80, 0, 0)), 0xffff);
}

#[test]
fn reset_goes_from_the_leaves_up_and_brings_the_bus_numbers_back() {
    let machine = Machine::new();
    let first = Bdf::new(0x61, 0, 0);
    machine.write(PORT_0, header::PRIMARY_BUS, &[0x60, 0x68, 0x68, 0]);
    machine.write(Bdf::new(0x68, 0, 0), 0x40, &[1]);
    machine.endpoint.events();
    machine.segment.reset();
    assert_eq!(machine.endpoint.events(), [Event::Reset, Event::Unreachable, Event::Id(first)]);
    assert_eq!(machine.vendor(first), ENDPOINT);
    machine.segment.reset();
    assert_eq!(machine.endpoint.events(), [Event::Reset], "the number is no news");
}

#[test]
fn each_place_is_taken_once() {
    let machine = Machine::new();
    let other = || Arc::new(FakeFunction::new(1));
    assert_eq!(machine.segment.add_function(0x60, 1, 0, other()), Err(Error::Occupied(PORT_1)));
    assert_eq!(machine.segment.add_function(0x70, 0, 0, other()), Err(Error::NoRootBus(Bdf::new(0x70, 0, 0))));
    assert!(machine.ports[0].plug(0, other()).is_err());
    for (bus, last_bus) in [(0x5f, 0x5f), (0x60, 0x60), (0x6f, 0xff), (0x80, 0x7f)] {
        assert_eq!(machine.segment.add_root_bus(bus, last_bus), Err(Error::Buses { bus, last_bus }));
    }
    machine.segment.add_root_bus(0x70, 0xff).unwrap();
}

#[test]
fn ecam_takes_aligned_accesses_of_up_to_8_bytes() {
    let machine = Machine::new();
    let scratch = u64::from(Bdf::new(0x61, 0, 0).requester_id()) << 12 | 0x40;
    machine.ecam.write(scratch, &[1, 2, 3, 4, 5, 6, 7, 8]);
    let mut data = [0; 8];
    machine.ecam.read(scratch, &mut data);
    assert_eq!(data, [1, 2, 3, 4, 0, 0, 0, 0], "two DWORDs, the second is read-only");
    machine.ecam.write(scratch + 1, &[9, 9]);
    let mut data = [0; 4];
    machine.ecam.read(scratch + 2, &mut data);
    assert_eq!(data, [0xff; 4], "not aligned (7.2.2)");
    machine.ecam.read(scratch, &mut data);
    assert_eq!(data, [1, 2, 3, 4]);
    machine.ecam.read(u64::MAX - 3, &mut data);
    assert_eq!(data, [0xff; 4]);
}

#[test]
fn no_access_of_the_guest_makes_it_panic() {
    let machine = Machine::new();
    // Numbers of a linear congruential generator (Knuth's MMIX), so that a failure can be repeated.
    let mut state = 1u64;
    let mut random = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state >> 16
    };
    for _ in 0..200_000 {
        // Mostly the two ports, whose registers do something.
        let id = if random() % 4 == 0 { random() as u16 } else { (random() % 16) as u16 | 0x6000 };
        let offset = random() % if random() % 2 == 0 { 0x160 } else { 0x1000 };
        let address = u64::from(id) << 12 | offset;
        let mut data = random().to_le_bytes();
        let length = 1 << (random() % 4);
        match random() % 8 {
            0 => machine.ecam.read(address, &mut data[..length]),
            1 => drop(machine.mmio.write(0x1010_1000 + random() % 0x2000, &data[..length])),
            2 => drop(machine.mmio.read(0x1010_1000 + random() % 0x2000, &mut data[..length])),
            3 => machine.ports[0].press_attention_button(),
            _ => machine.ecam.write(address, &data[..length]),
        }
    }
    machine.segment.reset();
    assert_eq!(machine.vendor(Bdf::new(0x61, 0, 0)), ENDPOINT);
}
