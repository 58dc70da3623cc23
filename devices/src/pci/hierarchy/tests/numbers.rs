//! Which requester ID a function has while the guest changes bus numbers.

use proptest::prelude::*;

use super::*;
use crate::pci::fakes::capability;
use crate::pci::spec::express;

impl Machine {
    /// A second endpoint behind the other port, on bus 0x62.
    fn with_second() -> (Self, Arc<FakeFunction>) {
        let machine = Self::new();
        let second = Arc::new(FakeFunction::new(0x2222));
        machine.ports[1].plug(0, second.clone()).unwrap();
        machine.endpoint.events();
        second.events();
        (machine, second)
    }

    /// Primary, secondary and subordinate bus in one write, as Linux does it (`pci_scan_bridge_extend`).
    fn buses(&self, port: Bdf, secondary: u8, subordinate: u8) {
        self.write(port, header::PRIMARY_BUS, &[0x60, secondary, subordinate, 0]);
    }

    /// A port has its new bus, and nobody has been told yet.
    fn half_write(&self, port: Bdf, bus: u8) {
        self.ports[usize::from(port.device())].config_write(header::PRIMARY_BUS, &[0x60, bus, bus, 0]);
    }

    /// Whoever wrote to a port comes to tell what follows from it.
    fn settle(&self) {
        let _numbers = self.segment.numbers.lock().unwrap();
        self.segment.settle(&self.ports);
    }

    /// A configuration write, from which a function captures its number.
    fn touch(&self, bus: u8) {
        self.write(Bdf::new(bus, 0, 0), 0x40, &[1]);
    }
}

fn id(bus: u8) -> Event {
    Event::Id(Bdf::new(bus, 0, 0))
}

const TOUCHED: Event = Event::Write(0x40);

#[test]
fn a_function_has_its_new_number_from_the_first_write_that_uses_it() {
    let (machine, _) = Machine::with_second();
    machine.buses(PORT_0, 0x68, 0x69);
    assert_eq!(machine.vendor(Bdf::new(0x61, 0, 0)), 0xffff);
    assert_eq!(machine.vendor(Bdf::new(0x68, 0, 0)), ENDPOINT);
    assert_eq!(machine.vendor(Bdf::new(0x69, 0, 0)), 0xffff, "nothing is behind the endpoint");
    assert_eq!(machine.endpoint.events(), [Event::Unreachable], "a read tells it nothing");
    machine.touch(0x68);
    machine.touch(0x68);
    assert_eq!(machine.endpoint.events(), [id(0x68), TOUCHED, TOUCHED], "2.2.6.2");
}

#[test]
fn a_function_that_cannot_be_reached_has_no_number() {
    let (machine, second) = Machine::with_second();
    let express = capability(&*machine.ports[0], 0x10).unwrap();
    let link_control = express + express::LINK_CONTROL;
    for (unreachable, offset, data) in [
        ("secondary 0", header::PRIMARY_BUS, &[0x60, 0, 0x6f, 0][..]),
        ("all 0", header::PRIMARY_BUS, &[0, 0, 0, 0]),
        ("subordinate below secondary", header::SUBORDINATE_BUS, &[0x60]),
        ("another bus", header::SECONDARY_BUS, &[0x60]),
        ("out of the root's buses", header::PRIMARY_BUS, &[0x60, 0x90, 0x91, 0]),
        ("a bus of the other root", header::PRIMARY_BUS, &[0x60, 0x05, 0x05, 0]),
    ] {
        machine.write(PORT_0, offset, data);
        assert_eq!(machine.endpoint.events(), [Event::Unreachable], "{unreachable}");
        machine.buses(PORT_0, 0x61, 0x61);
        assert_eq!(machine.endpoint.events(), [id(0x61)], "the number it captured leads to it again");
    }
    machine.write(PORT_0, link_control, &express::LINK_DISABLE.to_le_bytes());
    assert_eq!(machine.endpoint.events(), [Event::BusReset, Event::Unreachable], "2.9.1");
    machine.write(PORT_0, link_control, &[0, 0]);
    assert_eq!(machine.endpoint.events(), [id(0x61)]);
    assert_eq!(second.events(), [], "it is none of its business");
}

#[test]
fn a_port_that_takes_the_buses_of_another_takes_its_functions_numbers_away() {
    let (machine, second) = Machine::with_second();
    // The first port in the order of the bus answers; which one does is not defined.
    machine.buses(PORT_0, 0x61, 0x6f);
    assert_eq!(second.events(), [Event::Unreachable], "the range of the first port goes over its bus");
    assert_eq!(machine.endpoint.events(), []);
    machine.buses(PORT_0, 0x61, 0x61);
    assert_eq!(second.events(), [id(0x62)]);
}

#[test]
fn two_functions_can_swap_their_numbers_and_never_have_the_same() {
    let (machine, second) = Machine::with_second();
    machine.buses(PORT_0, 0x62, 0x62);
    assert_eq!(machine.endpoint.events(), [Event::Unreachable]);
    assert_eq!(second.events(), [Event::Unreachable], "requests to 62:00.0 go to the other");
    machine.touch(0x62);
    assert_eq!(machine.endpoint.events(), [id(0x62), TOUCHED]);
    machine.buses(PORT_1, 0x61, 0x61);
    machine.touch(0x61);
    assert_eq!(second.events(), [id(0x61), TOUCHED]);
    assert_eq!(machine.endpoint.events(), []);
}

#[test]
fn a_function_can_be_moved_twice_before_it_hears_of_it() {
    let (machine, _) = Machine::with_second();
    machine.buses(PORT_0, 0x64, 0x64);
    machine.buses(PORT_0, 0x65, 0x65);
    machine.touch(0x64);
    assert_eq!(machine.endpoint.events(), [Event::Unreachable], "nobody is there any more");
    machine.touch(0x65);
    assert_eq!(machine.endpoint.events(), [id(0x65), TOUCHED]);
}

#[test]
fn a_reset_gives_everybody_the_first_number_back_whoever_has_it() {
    let (machine, second) = Machine::with_second();
    machine.buses(PORT_0, 0x62, 0x62);
    machine.touch(0x62);
    machine.buses(PORT_1, 0x61, 0x61);
    machine.touch(0x61);
    machine.endpoint.events();
    second.events();
    machine.segment.reset();
    assert_eq!(machine.endpoint.events(), [Event::Reset, Event::Unreachable, id(0x61)]);
    assert_eq!(second.events(), [Event::Reset, Event::Unreachable, id(0x62)]);
}

#[test]
fn a_function_plugged_into_a_running_machine_has_no_number_before_its_first_write() {
    let machine = Machine::new();
    let late = Arc::new(FakeFunction::new(1));
    machine.ports[1].hot_plug(0, late.clone()).unwrap();
    // The guest switches the slot on.
    let express = capability(&*machine.ports[1], 0x10).unwrap();
    machine.write(PORT_1, express + express::SLOT_CONTROL, &[0, 0]);
    assert_eq!(late.events(), []);
    machine.touch(0x62);
    assert_eq!(late.events(), [id(0x62), TOUCHED]);
}

#[test]
fn who_gets_a_number_takes_it_from_who_has_lost_it_without_hearing_of_it() {
    let (machine, second) = Machine::with_second();
    // Another processor writes to the port, and comes to tell what follows from it last.
    machine.half_write(PORT_0, 0x64);
    machine.half_write(PORT_1, 0x61);
    machine.touch(0x61);
    assert_eq!(machine.endpoint.events(), [Event::Unreachable]);
    assert_eq!(second.events(), [id(0x61), TOUCHED]);
    machine.settle();
    assert_eq!((machine.endpoint.events(), second.events()), (vec![], vec![]));
}

/// What a guest does to one of two ports, or to the function on a bus.
#[derive(Clone, Debug)]
enum Step {
    Buses {
        port: u8,
        secondary: u8,
        subordinate: u8,
    },
    /// The same on another processor, which has not come further yet.
    HalfWrite {
        port: u8,
        bus: u8,
    },
    /// It has.
    Settle,
    Touch(u8),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        (0u8..2, 0x5fu8..0x6a, 0x5fu8..0x71).prop_map(|(port, secondary, subordinate)| Step::Buses {
            port,
            secondary,
            subordinate
        }),
        (0u8..2, 0x60u8..0x64).prop_map(|(port, bus)| Step::HalfWrite { port, bus }),
        Just(Step::Settle),
        (0x5fu8..0x6a).prop_map(Step::Touch),
        (0x60u8..0x64).prop_map(Step::Touch),
    ];
    proptest::collection::vec(step, 1..60)
}

proptest! {
    #[test]
    fn whatever_the_guest_writes_no_two_functions_have_the_same_number(steps in steps()) {
        let (machine, second) = Machine::with_second();
        let functions = [&machine.endpoint, &second];
        let mut numbers = [Some(Bdf::new(0x61, 0, 0)), Some(Bdf::new(0x62, 0, 0))];
        let mut settled = true;
        for step in steps {
            match step {
                Step::Buses { port, secondary, subordinate } => {
                    machine.buses(Bdf::new(0x60, port, 0), secondary, subordinate);
                }
                Step::HalfWrite { port, bus } => {
                    machine.half_write(Bdf::new(0x60, port, 0), bus);
                    settled = false;
                }
                Step::Settle => {
                    machine.settle();
                    settled = true;
                }
                Step::Touch(bus) => machine.touch(bus),
            }
            // All that lose a number are told before anybody gets one, so the order of the two does not matter.
            for (number, function) in numbers.iter_mut().zip(functions) {
                for event in function.events() {
                    match event {
                        Event::Id(id) => *number = Some(id),
                        Event::Unreachable => *number = None,
                        _ => {}
                    }
                }
            }
            prop_assert!(numbers[0].is_none() || numbers[0] != numbers[1], "{numbers:?}");
            for (number, vendor) in numbers.iter().zip([ENDPOINT, 0x2222]) {
                if let Some(id) = number.filter(|_| settled) {
                    prop_assert_eq!(machine.vendor(id), vendor);
                }
            }
        }
    }
}
