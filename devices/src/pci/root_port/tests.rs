use std::sync::atomic::AtomicUsize;

use super::*;
use crate::pci::fakes::{
    Event, FakeFunction, FakeIts, capability, extended_capability, read16, read32, write16, write32,
};
use crate::pci::spec::{SlotControl, SlotStatus, capability as id, extended};

const BAR0: u64 = 0x1010_0000;

fn config() -> RootPortConfig {
    RootPortConfig {
        slot: 3,
        primary_bus: 0x60,
        secondary_bus: 0x61,
        subordinate_bus: 0x62,
        memory: 0x1000_0000..0x1010_0000,
        prefetchable: 0x80_0000_0000..0x84_0000_0000,
        bar0: BAR0,
        link: Link { speed: LinkSpeed::Gen4, width: 8 },
    }
}

/// A root port, its ITS, and what drivers do with it.
struct Machine {
    port: RootPort,
    its: Arc<FakeIts>,
    mmio: Arc<MmioBus>,
    express: u16,
}

impl Machine {
    fn new() -> Self {
        let (mmio, its) = (Arc::new(MmioBus::new()), Arc::new(FakeIts::default()));
        let port = RootPort::new(config(), mmio.clone(), its.clone()).unwrap();
        port.on_requester_id(Bdf::new(0x60, 1, 0));
        let express = capability(&port, id::PCI_EXPRESS).unwrap();
        Self { port, its, mmio, express }
    }

    fn with_function() -> (Self, Arc<FakeFunction>) {
        let machine = Self::new();
        let function = Arc::new(FakeFunction::new(0xabcd));
        machine.port.plug(0, function.clone()).unwrap();
        function.events();
        (machine, function)
    }

    /// As `pcieport` and `pciehp` do: memory and bus mastering on, vector 0 with data 9, then the events of a slot
    /// with attention button (drivers/pci/hotplug/pciehp_hpc.c, `pcie_enable_notification`).
    fn drive(&self) {
        write16(&self.port, header::COMMAND, 0x6);
        self.mmio.write(BAR0 + 8, &9u32.to_le_bytes());
        self.mmio.write(BAR0 + 12, &0u32.to_le_bytes());
        write16(&self.port, capability(&self.port, id::MSIX).unwrap() + 2, 0x8000);
        write16(&self.port, self.express + express::SLOT_STATUS, 0xffff);
        let enable = SlotControl::ATTENTION_BUTTON | SlotControl::LINK_STATE | SlotControl::HOT_PLUG_INTERRUPT;
        let control = self.slot_control();
        write16(&self.port, self.express + express::SLOT_CONTROL, control.bits() | enable.bits());
    }

    fn slot_control(&self) -> SlotControl {
        SlotControl::from_bits_retain(read16(&self.port, self.express + express::SLOT_CONTROL))
    }

    fn slot_status(&self) -> SlotStatus {
        SlotStatus::from_bits_retain(read16(&self.port, self.express + express::SLOT_STATUS))
    }

    /// The interrupt handler: reads the events and clears them until there are none.
    fn acknowledge(&self) -> SlotStatus {
        let events = self.slot_status() - SlotStatus::PRESENT;
        write16(&self.port, self.express + express::SLOT_STATUS, events.bits());
        assert_eq!(self.slot_status() - SlotStatus::PRESENT, SlotStatus::empty());
        events
    }

    fn set_power(&self, on: bool) {
        let mut control = self.slot_control();
        control.set(SlotControl::POWER_OFF, !on);
        write16(&self.port, self.express + express::SLOT_CONTROL, control.bits());
    }

    fn is_link_up(&self) -> bool {
        read16(&self.port, self.express + express::LINK_STATUS) & express::LINK_ACTIVE != 0
    }
}

const FIRST: Bdf = Bdf::new(0x61, 0, 0);
const HOT_PLUG_MESSAGE: (u32, u32) = (0x6008, 9);

#[test]
fn the_header_is_that_of_a_bridge_with_the_numbers_of_the_plan() {
    let port = Machine::new().port;
    assert_eq!(read32(&port, header::VENDOR_ID), 0x000c_1b36);
    assert_eq!(read32(&port, header::REVISION_AND_CLASS), 0x0604_0000);
    assert_eq!(read16(&port, header::HEADER_TYPE) & 0xff, 1);
    assert_eq!(read32(&port, header::PRIMARY_BUS), 0x0062_6160);
    assert_eq!(read32(&port, header::BAR0), BAR0 as u32);
    assert_eq!(read32(&port, header::MEMORY_BASE), 0x1000_1000);
    assert_eq!(read32(&port, header::PREFETCHABLE_BASE), 0xfff1_0001);
    assert_eq!(read32(&port, header::PREFETCHABLE_BASE_UPPER), 0x80);
    assert_eq!(read32(&port, header::PREFETCHABLE_LIMIT_UPPER), 0x83);
}

#[test]
fn linux_finds_no_io_window_and_a_64_bit_prefetchable_one() {
    // drivers/pci/probe.c, pci_read_bridge_windows
    let port = Machine::new().port;
    write16(&port, 0x1c, 0xe0f0);
    assert_eq!(read16(&port, 0x1c), 0);
    write32(&port, header::PREFETCHABLE_BASE_UPPER, u32::MAX);
    assert_eq!(read32(&port, header::PREFETCHABLE_BASE_UPPER), u32::MAX);
    write16(&port, header::MEMORY_BASE, 0xffff);
    assert_eq!(read16(&port, header::MEMORY_BASE), 0xfff0, "7.5.1.3.8");
}

#[test]
fn a_window_that_is_empty_is_closed() {
    let config = RootPortConfig { memory: 0..0, prefetchable: 0..0, ..config() };
    let port = RootPort::new(config, Arc::new(MmioBus::new()), Arc::new(FakeIts::default())).unwrap();
    assert_eq!(read32(&port, header::MEMORY_BASE), 0x0000_fff0, "base above limit");
    assert_eq!(read32(&port, header::PREFETCHABLE_BASE), 0x0001_fff1);
    assert_eq!(read32(&port, header::PREFETCHABLE_BASE_UPPER), 0);
    assert_eq!(read32(&port, header::PREFETCHABLE_LIMIT_UPPER), 0);
}

#[test]
fn every_capability_of_a_root_port_is_there() {
    let machine = Machine::new();
    let port = &machine.port;
    for id in [id::SUBSYSTEM, id::MSIX, id::PCI_EXPRESS] {
        assert!(capability(port, id).is_some(), "{id:#x}");
    }
    assert_eq!(capability(port, id::POWER_MANAGEMENT), None, "an empty port must not fall asleep");
    assert_eq!(read16(port, machine.express + express::CAPABILITIES), 0x0142, "version 2, root port, slot");
    let slot = read32(port, machine.express + express::SLOT_CAPABILITIES);
    assert_eq!(slot, 3 << 19 | 0x0004_007b, "7.5.3.9");
    assert_eq!(read32(port, machine.express + express::LINK_CAPABILITIES) & 0x3ff, 0x84, "x8 at 16 GT/s");
    assert_eq!(read32(port, machine.express + express::LINK_CAPABILITIES_2), 0b11110);
    assert_eq!(read32(port, machine.express + express::DEVICE_CAPABILITIES_2), 1 << 21 | 1 << 5);
    let aer = extended_capability(port, extended::ADVANCED_ERROR_REPORTING).unwrap();
    assert_eq!(read32(port, aer + 0x30) >> 27, 0, "message number (7.8.4.10)");
}

#[test]
fn a_port_passes_on_the_prefixes_that_pasids_are() {
    // drivers/pci/probe.c, pci_configure_eetlp_prefix; drivers/pci/ats.c, pci_enable_pasid
    let machine = Machine::new();
    let capabilities = read32(&machine.port, machine.express + express::DEVICE_CAPABILITIES_2);
    assert_eq!((capabilities >> 21 & 1, capabilities >> 22 & 0b11), (1, 0b00), "supported, up to four (7.5.3.15)");
    let control = machine.express + express::DEVICE_CONTROL_2;
    write16(&machine.port, control, 0xffff);
    assert_eq!(read16(&machine.port, control), 1 << 15 | 1 << 5, "blocking can be turned on (7.5.3.16)");
}

#[test]
fn linux_can_turn_on_every_service_that_isolates_functions() {
    // drivers/iommu/iommu.c, REQ_ACS_FLAGS
    let port = Machine::new().port;
    let acs = extended_capability(&port, extended::ACCESS_CONTROL).unwrap();
    assert_eq!(read16(&port, acs + 4), 0x1d);
    assert_eq!(read16(&port, acs + 6), 0);
    write16(&port, acs + 6, 0x1d);
    assert_eq!(read16(&port, acs + 6), 0x1d);
}

#[test]
fn bar_0_answers_only_while_memory_space_is_enabled() {
    let machine = Machine::new();
    let mut word = [0; 4];
    assert!(!machine.mmio.read(BAR0 + 12, &mut word));
    write16(&machine.port, header::COMMAND, 0x2);
    assert!(machine.mmio.read(BAR0 + 12, &mut word));
    assert_eq!(u32::from_le_bytes(word), 1, "masked");
    write32(&machine.port, header::BAR0, 0x1020_0000);
    assert!(!machine.mmio.read(BAR0 + 12, &mut word));
    assert!(machine.mmio.read(0x1020_000c, &mut word));
    machine.port.reset();
    assert!(!machine.mmio.read(0x1020_000c, &mut word));
    assert_eq!(read32(&machine.port, header::BAR0), BAR0 as u32);
}

#[test]
fn a_bar_in_the_way_of_another_device_answers_nowhere() {
    let machine = Machine::new();
    let other = Arc::new(Msix::new(1, machine.its.clone()));
    machine.mmio.insert(0x900_0000..0x900_1000, other).unwrap();
    write16(&machine.port, header::COMMAND, 0x2);
    write32(&machine.port, header::BAR0, 0x900_0000);
    assert!(!machine.mmio.read(BAR0, &mut [0; 4]));
    write32(&machine.port, header::BAR0, BAR0 as u32);
    assert!(machine.mmio.read(BAR0, &mut [0; 4]));
}

#[test]
fn a_port_that_is_gone_leaves_the_bus_and_does_not_keep_it() {
    let Machine { port, mmio, .. } = Machine::new();
    write16(&port, header::COMMAND, 0x2);
    assert_eq!(Arc::strong_count(&mmio), 1, "a bus that reaches the port would never be dropped");
    drop(port);
    assert!(!mmio.read(BAR0, &mut [0; 4]));
}

#[test]
fn an_occupied_slot_starts_with_power_and_link_and_no_event() {
    let (machine, _) = Machine::with_function();
    assert_eq!(machine.slot_status(), SlotStatus::PRESENT);
    assert!(!machine.slot_control().contains(SlotControl::POWER_OFF));
    assert!(machine.is_link_up());
    assert!(machine.port.find_behind(FIRST).is_some());
}

#[test]
fn an_empty_slot_starts_without_power() {
    let machine = Machine::new();
    assert_eq!(machine.slot_status(), SlotStatus::empty());
    assert!(machine.slot_control().contains(SlotControl::POWER_OFF));
    assert!(!machine.is_link_up());
}

#[test]
fn a_write_to_slot_control_reports_no_completed_command() {
    let (machine, _) = Machine::with_function();
    machine.drive();
    assert_eq!(machine.slot_status(), SlotStatus::PRESENT, "No Command Completed Support (7.5.3.9)");
    assert_eq!(machine.its.messages(), []);
}

#[test]
fn hot_plug_tells_the_guest_and_power_brings_the_link() {
    let machine = Machine::new();
    machine.drive();
    machine.port.hot_plug(0, Arc::new(FakeFunction::new(0xabcd))).unwrap();
    assert_eq!(machine.its.messages(), [HOT_PLUG_MESSAGE]);
    assert_eq!(machine.acknowledge(), SlotStatus::PRESENCE_CHANGED | SlotStatus::ATTENTION_BUTTON);
    assert!(machine.port.find_behind(FIRST).is_none(), "no power, no link");
    machine.set_power(true);
    assert_eq!(machine.its.messages(), [HOT_PLUG_MESSAGE]);
    assert_eq!(machine.acknowledge(), SlotStatus::LINK_CHANGED);
    assert!(machine.is_link_up());
    assert!(machine.port.find_behind(FIRST).is_some());
}

#[test]
fn functions_beside_function_0_do_not_occupy_the_slot() {
    let machine = Machine::new();
    machine.drive();
    machine.port.hot_plug(1, Arc::new(FakeFunction::new(1))).unwrap();
    assert_eq!(machine.slot_status(), SlotStatus::empty());
    machine.port.hot_plug(0, Arc::new(FakeFunction::new(1))).unwrap();
    assert!(machine.slot_status().contains(SlotStatus::PRESENT));
}

#[test]
fn the_interrupt_is_an_edge_of_pending_events() {
    let (machine, _) = Machine::with_function();
    machine.drive();
    machine.port.press_attention_button();
    machine.port.press_attention_button();
    assert_eq!(machine.its.messages(), [HOT_PLUG_MESSAGE], "6.7.3.4");
    machine.acknowledge();
    machine.port.press_attention_button();
    assert_eq!(machine.its.messages(), [HOT_PLUG_MESSAGE]);
}

#[test]
fn enabling_the_interrupt_with_an_event_pending_sends_it() {
    let (machine, _) = Machine::with_function();
    machine.drive();
    let control = machine.slot_control();
    let off = control - SlotControl::HOT_PLUG_INTERRUPT;
    write16(&machine.port, machine.express + express::SLOT_CONTROL, off.bits());
    machine.port.press_attention_button();
    assert_eq!(machine.its.messages(), []);
    write16(&machine.port, machine.express + express::SLOT_CONTROL, control.bits());
    assert_eq!(machine.its.messages(), [HOT_PLUG_MESSAGE]);
}

#[test]
fn a_guest_that_lets_go_switches_off_and_the_function_is_reset_and_gone() {
    let (machine, function) = Machine::with_function();
    machine.drive();
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    machine.port.on_power_off(move || {
        count.fetch_add(1, Ordering::Relaxed);
    });
    machine.set_power(false);
    assert_eq!(function.events(), [Event::BusReset]);
    assert_eq!(asked.load(Ordering::Relaxed), 1);
    assert!(!machine.is_link_up());
    assert!(machine.port.find_behind(FIRST).is_none());
    machine.acknowledge();
    machine.its.messages();
    assert!(machine.port.unplug(0).is_some());
    assert_eq!(machine.slot_status(), SlotStatus::PRESENCE_CHANGED);
    assert_eq!(machine.its.messages(), [], "a guest that has a button does not listen to presence");
}

#[test]
fn a_function_that_is_pulled_out_takes_the_link_down() {
    let (machine, _) = Machine::with_function();
    machine.drive();
    machine.port.unplug(0).unwrap();
    assert_eq!(machine.its.messages(), [HOT_PLUG_MESSAGE]);
    assert_eq!(machine.acknowledge(), SlotStatus::PRESENCE_CHANGED | SlotStatus::LINK_CHANGED);
    assert!(machine.port.unplug(0).is_none());
}

#[test]
fn a_link_that_is_disabled_is_down() {
    let (machine, _) = Machine::with_function();
    write16(&machine.port, machine.express + express::LINK_CONTROL, express::LINK_DISABLE);
    assert!(machine.port.find_behind(FIRST).is_none(), "7.5.3.7");
    write16(&machine.port, machine.express + express::LINK_CONTROL, 0);
    assert!(machine.port.find_behind(FIRST).is_some());
}

#[test]
fn a_secondary_bus_reset_resets_the_function_once_and_keeps_the_port() {
    let (machine, function) = Machine::with_function();
    write16(&machine.port, header::MEMORY_BASE, 0x2000);
    write16(&machine.port, header::BRIDGE_CONTROL, 0x40);
    write16(&machine.port, header::BRIDGE_CONTROL, 0x40);
    write16(&machine.port, header::BRIDGE_CONTROL, 0);
    assert_eq!(function.events(), [Event::BusReset], "7.5.1.3.10");
    assert_eq!(read16(&machine.port, header::MEMORY_BASE), 0x2000);
    assert_eq!(machine.slot_status(), SlotStatus::PRESENT, "no hot-plug event comes of it");
}

#[test]
fn reset_turns_interrupts_off_and_keeps_what_is_plugged() {
    let (machine, function) = Machine::with_function();
    machine.drive();
    machine.port.reset_all();
    assert_eq!(function.events(), [Event::Reset]);
    assert_eq!(machine.slot_status(), SlotStatus::PRESENT);
    machine.port.press_attention_button();
    assert_eq!(machine.its.messages(), []);
}

#[test]
fn what_the_registers_cannot_hold_is_refused() {
    let refused = |change: fn(&mut RootPortConfig)| {
        let mut config = config();
        change(&mut config);
        let port = RootPort::new(config, Arc::new(MmioBus::new()), Arc::new(FakeIts::default()));
        port.err().expect("it must be refused").to_string()
    };
    assert_eq!(refused(|c| c.slot = 8192), "root port slot 8192: slot numbers are below 8192");
    assert_eq!(
        refused(|c| c.secondary_bus = 0x60),
        "root port slot 3: buses 0x60 to 0x62 do not follow its root bus 0x60"
    );
    assert_eq!(
        refused(|c| c.memory = 0xfff0_0000..0x1_0010_0000),
        "root port slot 3: window 0xfff00000..0x100100000 is not in granules of 1 MiB below 4 GiB"
    );
    assert_eq!(
        refused(|c| c.prefetchable = 0x1000..0x10_0000),
        "root port slot 3: window 0x1000..0x100000 is not in granules of 1 MiB"
    );
    assert_eq!(refused(|c| c.bar0 = 0x800), "root port slot 3: bar 0 at 0x800 is not aligned to 0x1000");
}
