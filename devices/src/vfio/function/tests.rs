mod identity;
mod interrupts;
mod reset;

use super::super::testing::{Diary, Entry, FakeHost, FakeMapper, FakeRouter};
use super::*;
use proptest::prelude::*;

const BAR0: u64 = 0x80_0000_0000;
const BAR4: u64 = 0x5000_0000;
const REQUESTER: u32 = 0x1100;
const MSIX: u16 = 0x40;
const MSI: u16 = 0x60;
const PM: u16 = 0x78;
const EXPRESS: u16 = 0x80;

struct Guest {
    host: Arc<FakeHost>,
    bus: Arc<MmioBus>,
    router: Arc<FakeRouter>,
    function: Arc<VfioFunction>,
}

/// An NVMe-like function: BAR 0 of 16 KiB with 8 MSI-X vectors at 0x2000 and 0x3000, a small BAR 4, MSI, PM, FLR.
fn device() -> FakeHost {
    let mut host = FakeHost::new(4096);
    host.bar(0, 0x4000, 0b0100, std::slice::from_ref(&(0..0x4000)));
    host.bar(4, 0x100, 0, &[]);
    host.vectors(irq::MSIX, 8, true);
    host.vectors(irq::MSI, 4, true);
    host.capability(MSIX as u8, 0x11, &[7, 0, 0x00, 0x20, 0, 0, 0x00, 0x30, 0, 0]);
    host.capability(MSI as u8, 0x05, &[0b1000_0100, 1]);
    host.capability(PM as u8, 0x01, &[3, 0, 0, 0]);
    host.capability(EXPRESS as u8, 0x10, &[2, 0, 0, 0, 0, 0x10]);
    host
}

fn guest_with(host: FakeHost) -> Guest {
    let host = Arc::new(host);
    let diary = host.diary.clone();
    let router = Arc::new(FakeRouter { diary: diary.clone(), delivered: Mutex::default(), refused: Mutex::default() });
    let bus = Arc::new(MmioBus::new());
    let config = VfioFunctionConfig {
        name: "0000:01:00.0".to_owned(),
        host: host.clone(),
        guest: Bdf::from_requester_id(REQUESTER as u16),
        bars: vec![BarAddress { index: 0, address: BAR0 }, BarAddress { index: 4, address: BAR4 }],
        translation: Translation::default(),
    };
    let function = VfioFunction::new(config, bus.clone(), Arc::new(FakeMapper(diary.clone())), router.clone()).unwrap();
    diary.take();
    Guest { host, bus, router, function }
}

fn guest() -> Guest {
    guest_with(device())
}

impl Guest {
    fn read(&self, offset: u16) -> u32 {
        let mut data = [0; 4];
        self.function.config_read(offset, &mut data);
        u32::from_le_bytes(data)
    }

    fn write(&self, offset: u16, value: u32) {
        self.function.config_write(offset, &value.to_le_bytes());
    }

    fn write16(&self, offset: u16, value: u16) {
        self.function.config_write(offset, &value.to_le_bytes());
    }

    fn take(&self) -> Vec<Entry> {
        self.host.diary.take()
    }

    /// Memory space and bus master on, as a driver does it.
    fn enable(&self) {
        self.write16(0x04, 0x6);
        self.take();
    }

    fn table(&self, vector: u64, field: u64, value: u32) {
        assert!(self.bus.write(BAR0 + 0x2000 + 16 * vector + 4 * field, &value.to_le_bytes()));
    }

    /// Fills an entry and unmasks it.
    fn open(&self, vector: u64, data: u32) {
        self.table(vector, 0, 0xdead_b000);
        self.table(vector, 2, data);
        self.table(vector, 3, 0);
    }

    fn pending(&self) -> u64 {
        let mut data = [0; 8];
        assert!(self.bus.read(BAR0 + 0x3000, &mut data));
        u64::from_le_bytes(data)
    }

    fn delivered(&self) -> Vec<u32> {
        std::mem::take(&mut self.router.delivered.lock().unwrap())
    }
}

fn command(value: u8) -> Entry {
    Entry::Config { offset: 4, data: vec![value, 4] }
}

/// What disables the device's INTx after VFIO has enabled it.
const SILENCE: [Entry; 2] = [Entry::Intx { disabled: false }, Entry::Intx { disabled: true }];

#[test]
fn intx_of_the_device_is_disabled_from_the_start_and_whatever_the_guest_writes() {
    let guest = guest();
    let disabled = |guest: &Guest| guest.host.config(5) & 4 != 0;
    assert!(disabled(&guest), "VFIO enables it when the device is opened");
    guest.write16(0x04, 0x6);
    assert!(disabled(&guest));
    assert_eq!(guest.read(0x04) as u16, 0x6, "the guest's bit is its own");
    guest.function.reset();
    assert!(disabled(&guest));
    guest.function.shutdown();
    assert!(disabled(&guest));
}

#[test]
fn intx_is_disabled_again_after_vfio_freed_messages() {
    for (enable, disabled) in [(MSIX + 2, irq::MSIX), (MSI + 2, irq::MSI)] {
        let guest = guest();
        guest.enable();
        guest.write16(enable, if disabled == irq::MSIX { 0x8000 } else { 1 });
        guest.take();
        guest.write16(enable, 0);
        let entries = guest.take();
        assert!(entries.contains(&Entry::DisableIrqs(disabled)));
        assert!(entries.ends_with(&SILENCE), "{entries:?}");
    }
}

#[test]
fn memory_space_maps_bars_after_the_device_decodes_and_unmaps_them_before_it_stops() {
    let guest = guest();
    assert!(!guest.bus.read(BAR0, &mut [0; 4]), "nothing before the guest enables it");
    guest.write16(0x04, 0x6);
    let placed = guest.take();
    assert_eq!(placed[0], command(6));
    assert!(placed.ends_with(&[Entry::Map(BAR0, 0x2000)]), "the pages of table and pending bits stay out: {placed:?}");
    guest.write16(0x04, 0x4);
    let removed = guest.take();
    assert_eq!(removed[..2], [Entry::Unmap(BAR0), command(4)]);
    assert!(!guest.bus.read(BAR0 + 0x2000, &mut [0; 4]));
}

#[test]
fn a_moved_bar_is_mapped_at_its_new_place_only() {
    let guest = guest();
    guest.enable();
    guest.write(0x10, 0x1_0000);
    let moved: Vec<_> =
        guest.take().into_iter().filter(|entry| matches!(entry, Entry::Map(..) | Entry::Unmap(_))).collect();
    assert_eq!(moved, [Entry::Unmap(BAR0), Entry::Map(BAR0 + 0x1_0000, 0x2000)]);
    assert!(!guest.bus.read(BAR0 + 0x2000, &mut [0; 4]));
    assert!(guest.bus.read(BAR0 + 0x1_2000, &mut [0; 4]));
}

#[test]
fn sizing_a_bar_while_it_is_enabled_harms_nobody() {
    let guest = guest();
    guest.enable();
    guest.write(0x10, u32::MAX);
    guest.write(0x14, u32::MAX);
    assert_eq!((guest.read(0x10), guest.read(0x14)), (0xffff_c004, u32::MAX));
    guest.write(0x10, BAR0 as u32);
    guest.write(0x14, (BAR0 >> 32) as u32);
    assert_eq!(guest.function.counters().mapped_bytes, 0x2000);
    assert!(guest.bus.read(BAR0 + 0x2000, &mut [0; 4]));
}

#[test]
fn a_bar_on_something_else_answers_nowhere_and_comes_back() {
    let guest = guest();
    guest.enable();
    guest.write(0x20, 0x100);
    assert_eq!(guest.function.counters().errors, 0);
    guest.write(0x14, 0);
    assert_eq!(guest.function.counters().errors, 1, "bar 0 would lie over bar 4");
    assert_eq!(guest.function.counters().mapped_bytes, 0);
    guest.write(0x20, BAR4 as u32);
    assert!(guest.bus.read(BAR4, &mut [0; 4]));
    assert!(guest.bus.read(0x2000, &mut [0; 4]), "its place is free now");
}

#[test]
fn a_bar_below_a_page_is_forwarded_to_the_device() {
    let guest = guest();
    guest.enable();
    let mut data = [0; 4];
    assert!(guest.bus.read(BAR4 + 0x10, &mut data));
    assert_eq!(data, [0x10; 4]);
    assert!(guest.bus.write(BAR4 + 0x20, &[1, 2, 3, 4]));
    assert_eq!(guest.take(), [Entry::Bar { region: 4, offset: 0x20, data: vec![1, 2, 3, 4] }]);
    assert_eq!(guest.function.counters().trapped, 2);
}

#[test]
fn the_rest_of_the_page_of_the_table_is_the_devices() {
    let guest = guest();
    guest.enable();
    assert!(guest.bus.write(BAR0 + 0x2100, &[9; 4]));
    assert_eq!(guest.take(), [Entry::Bar { region: 0, offset: 0x2100, data: vec![9; 4] }]);
}

#[test]
fn a_device_that_does_not_answer_reads_all_ones_and_is_counted() {
    let guest = guest();
    guest.enable();
    *guest.host.broken.lock().unwrap() = true;
    let mut data = [0; 4];
    assert!(guest.bus.read(BAR4, &mut data));
    assert_eq!(data, [0xff; 4]);
    assert_eq!(guest.read(0), u32::MAX);
    assert!(guest.function.counters().errors > 0);
    *guest.host.broken.lock().unwrap() = false;
}

#[test]
fn low_power_takes_the_bars_out_and_full_power_brings_them_back() {
    let guest = guest();
    guest.enable();
    guest.write16(PM + 4, 3);
    let entries = guest.take();
    assert_eq!(entries, [Entry::Unmap(BAR0), Entry::Config { offset: u64::from(PM) + 4, data: vec![3, 0] }]);
    guest.write16(PM + 4, 0);
    let power = Entry::Config { offset: u64::from(PM) + 4, data: vec![0, 0] };
    assert_eq!(guest.take(), [power, command(6), Entry::Map(BAR0, 0x2000)], "it decodes again before it is mapped");
}

#[test]
fn a_plan_that_does_not_fit_the_device_is_refused_by_name() {
    let refusal = |bars: Vec<BarAddress>| {
        let host = Arc::new(device());
        let diary = host.diary.clone();
        let router =
            Arc::new(FakeRouter { diary: diary.clone(), delivered: Mutex::default(), refused: Mutex::default() });
        let guest = Bdf::from_requester_id(0);
        let config = VfioFunctionConfig {
            name: "0000:01:00.0".to_owned(),
            host,
            guest,
            bars,
            translation: Translation::default(),
        };
        let bus = Arc::new(MmioBus::new());
        VfioFunction::new(config, bus, Arc::new(FakeMapper(diary)), router).err().unwrap().to_string()
    };
    let at = |index, address| BarAddress { index, address };
    assert_eq!(refusal(vec![at(0, BAR0)]), "0000:01:00.0: bar 4 has no address in the plan");
    assert!(refusal(vec![at(0, BAR0), at(4, BAR4), at(2, 0)]).starts_with("0000:01:00.0: bar 2 has an address"));
    assert!(refusal(vec![at(0, BAR0 + 0x1000), at(4, BAR4)]).contains("not aligned"));
    assert!(refusal(vec![at(0, BAR0), at(4, 1 << 40)]).contains("beyond its width"));
}

#[derive(Clone, Debug)]
enum Access {
    Config(u16, Vec<u8>),
    Table(u64, Vec<u8>),
    Reset,
}

fn access() -> impl Strategy<Value = Access> {
    let data = prop_oneof![
        prop::collection::vec(any::<u8>(), 1),
        prop::collection::vec(any::<u8>(), 2),
        prop::collection::vec(any::<u8>(), 4)
    ];
    let aligned = |offset: u16, data: &Vec<u8>| offset - offset % data.len() as u16;
    prop_oneof![
        8 => (0u16..0x120, data.clone()).prop_map(move |(offset, data)| Access::Config(aligned(offset, &data), data)),
        2 => (0u16..4096, data.clone()).prop_map(move |(offset, data)| Access::Config(aligned(offset, &data), data)),
        4 => (0u64..0x4000, data).prop_map(|(offset, data)| Access::Table(offset, data)),
        1 => Just(Access::Reset),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(256) })]

    #[test]
    fn no_guest_can_make_it_panic_or_lose_a_mapping(accesses in prop::collection::vec(access(), 0..200)) {
        let guest = guest();
        let mut mapped = std::collections::BTreeSet::new();
        for access in accesses {
            match access {
                Access::Config(offset, data) => guest.function.config_write(offset, &data),
                Access::Table(offset, data) => {
                    guest.bus.write(BAR0 + offset, &data);
                }
                Access::Reset => guest.function.reset(),
            }
            for entry in guest.take() {
                match entry {
                    Entry::Map(address, _) => prop_assert!(mapped.insert(address), "{address:#x} twice"),
                    Entry::Unmap(address) => prop_assert!(mapped.remove(&address), "{address:#x} is not there"),
                    _ => {}
                }
            }
            let mut registers = [0; 4];
            guest.function.config_read(4, &mut registers);
            prop_assert!(registers[0] & 2 != 0 || mapped.is_empty(), "memory space is off");
        }
    }
}
