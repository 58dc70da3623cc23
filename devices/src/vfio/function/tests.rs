use super::super::testing::{Entry, FakeHost, FakeMapper, FakeRouter};
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
fn an_unmasked_vector_is_enabled_on_the_host_and_routed_with_the_guests_data() {
    let guest = guest();
    guest.enable();
    guest.write16(MSIX + 2, 0x8000);
    assert_eq!(guest.take(), [Entry::SetIrqs { index: irq::MSIX, start: 0, connected: vec![true] }]);
    guest.open(3, 0x33);
    assert_eq!(
        guest.take(),
        [
            Entry::SetIrqs { index: irq::MSIX, start: 3, connected: vec![true] },
            Entry::Connect { device_id: REQUESTER, data: 0x33 }
        ]
    );
    assert_eq!(guest.function.counters().routed_vectors, 1);
}

#[test]
fn an_entry_written_before_msi_x_is_enabled_counts_afterwards() {
    let guest = guest();
    guest.enable();
    guest.open(1, 0x11);
    assert_eq!(guest.take(), []);
    guest.write16(MSIX + 2, 0x8000);
    assert!(guest.take().contains(&Entry::Connect { device_id: REQUESTER, data: 0x11 }));
}

#[test]
fn an_interrupt_at_a_masked_vector_is_pending_and_delivered_when_it_opens() {
    let guest = guest();
    guest.enable();
    guest.write16(MSIX + 2, 0x8000);
    guest.open(2, 0x22);
    guest.table(2, 3, 1);
    assert_eq!(guest.take().last(), Some(&Entry::Disconnect { data: 0x22 }));
    assert_eq!(guest.pending(), 0);
    guest.host.raise(irq::MSIX, 2);
    assert_eq!((guest.pending(), guest.pending()), (4, 4), "looking does not take it");
    guest.table(2, 2, 0x99);
    guest.table(2, 3, 0);
    assert_eq!(guest.delivered(), [0x99]);
    assert_eq!(guest.pending(), 0);
}

#[test]
fn the_function_mask_holds_all_vectors_back() {
    let guest = guest();
    guest.enable();
    guest.write16(MSIX + 2, 0xc000);
    guest.open(0, 0x10);
    guest.host.raise(irq::MSIX, 0);
    assert_eq!((guest.pending(), guest.delivered()), (1, vec![]));
    guest.write16(MSIX + 2, 0x8000);
    assert_eq!(guest.delivered(), [0x10]);
}

#[test]
fn open_vectors_follow_a_new_requester_id() {
    let guest = guest();
    guest.enable();
    guest.write16(MSIX + 2, 0x8000);
    guest.open(0, 0x10);
    guest.take();
    guest.function.set_guest_bdf(Bdf::new(0x22, 0, 0));
    let moved = [Entry::Disconnect { data: 0x10 }, Entry::Connect { device_id: 0x2200, data: 0x10 }];
    assert_eq!(guest.take(), moved);
    guest.open(1, 0x11);
    assert_eq!(guest.take().last(), Some(&Entry::Connect { device_id: 0x2200, data: 0x11 }));
}

#[test]
fn disabling_msi_x_frees_everything_and_keeps_the_table() {
    let guest = guest();
    guest.enable();
    guest.write16(MSIX + 2, 0x8000);
    guest.open(0, 0x10);
    guest.take();
    guest.write16(MSIX + 2, 0);
    let [silence, silenced] = SILENCE;
    let entries = [Entry::Disconnect { data: 0x10 }, Entry::DisableIrqs(irq::MSIX), silence, silenced];
    assert_eq!(guest.take(), entries);
    let mut data = [0; 4];
    guest.bus.read(BAR0 + 0x2008, &mut data);
    assert_eq!(u32::from_le_bytes(data), 0x10);
    guest.write16(MSIX + 2, 0x8000);
    assert!(guest.take().contains(&Entry::Connect { device_id: REQUESTER, data: 0x10 }));
}

#[test]
fn a_host_that_cannot_add_vectors_starts_over_with_more() {
    let mut host = device();
    host.vectors(irq::MSIX, 8, false);
    let guest = guest_with(host);
    guest.enable();
    guest.write16(MSIX + 2, 0x8000);
    guest.take();
    guest.open(2, 0x22);
    let entries = guest.take();
    assert_eq!(entries[0], Entry::DisableIrqs(irq::MSIX));
    assert_eq!(entries[1..3], SILENCE);
    assert_eq!(entries[3], Entry::SetIrqs { index: irq::MSIX, start: 0, connected: vec![true, false, true] });
}

#[test]
fn a_host_that_fails_to_add_a_vector_keeps_those_before() {
    let mut host = device();
    host.vectors(irq::MSIX, 8, false);
    let guest = guest_with(host);
    guest.enable();
    guest.write16(MSIX + 2, 0x8000);
    guest.open(0, 0x10);
    guest.take();
    *guest.host.fail_irqs.lock().unwrap() = (0, 1);
    guest.open(2, 0x22);
    let again = Entry::SetIrqs { index: irq::MSIX, start: 0, connected: vec![true] };
    assert_eq!(guest.take().last(), Some(&again));
    guest.host.raise(irq::MSIX, 0);
    assert_eq!((guest.function.counters().routed_vectors, guest.function.counters().errors), (1, 1));
    guest.table(2, 3, 0);
    assert_eq!(guest.function.counters().routed_vectors, 2, "the next time it works");
}

#[test]
fn a_vector_that_cannot_be_routed_takes_no_other_along() {
    let guest = guest();
    guest.enable();
    guest.write16(MSIX + 2, 0xc000);
    (0..4).for_each(|vector| guest.open(vector, 0x10 + vector as u32));
    guest.router.refused.lock().unwrap().push(0x11);
    guest.write16(MSIX + 2, 0x8000);
    assert_eq!((guest.function.counters().routed_vectors, guest.function.counters().errors), (3, 1));
    guest.write16(MSIX + 2, 0);

    guest.write16(MSI + 12, 0x10);
    guest.write16(MSI + 2, 1 | 2 << 4);
    assert_eq!((guest.function.counters().routed_vectors, guest.function.counters().errors), (3, 2));
}

#[test]
fn the_table_reads_back_and_only_the_mask_bit_of_vector_control_sticks() {
    let guest = guest();
    guest.enable();
    let entry = BAR0 + 0x2000 + 16 * 7;
    assert!(guest.bus.write(entry, &0x0123_4567_89ab_cdefu64.to_le_bytes()));
    assert!(guest.bus.write(entry + 12, &u32::MAX.to_le_bytes()));
    let mut data = [0; 8];
    guest.bus.read(entry, &mut data);
    assert_eq!(u64::from_le_bytes(data), 0x0123_4567_89ab_cdef);
    guest.bus.read(entry + 8, &mut data);
    assert_eq!(u64::from_le_bytes(data), 1 << 32);
    assert!(guest.bus.write(entry + 2, &[0xff; 2]), "half a field is ignored");
    guest.bus.read(entry, &mut data);
    assert_eq!(u64::from_le_bytes(data), 0x0123_4567_89ab_cdef);
}

#[test]
fn msi_vectors_take_their_number_into_the_low_bits_of_the_data() {
    let guest = guest();
    guest.enable();
    guest.write(MSI + 4, 0xdead_b000);
    guest.write16(MSI + 12, 0x57);
    guest.write16(MSI + 2, 0x0001 | 1 << 4); // two vectors
    assert_eq!(
        guest.take(),
        [
            Entry::SetIrqs { index: irq::MSI, start: 0, connected: vec![true, true] },
            Entry::Connect { device_id: REQUESTER, data: 0x56 },
            Entry::Connect { device_id: REQUESTER, data: 0x57 },
        ]
    );
    guest.write16(MSI + 2, 0);
    assert!(guest.take().contains(&Entry::DisableIrqs(irq::MSI)));
}

#[test]
fn a_masked_msi_vector_is_pending_until_it_opens() {
    let guest = guest();
    guest.enable();
    guest.write16(MSI + 12, 0x40);
    guest.write(MSI + 16, 1);
    guest.write16(MSI + 2, 1);
    guest.host.raise(irq::MSI, 0);
    assert_eq!(guest.read(MSI + 20), 1);
    guest.write(MSI + 16, 0);
    assert_eq!(guest.delivered(), [0x40]);
    assert_eq!(guest.read(MSI + 20), 0);
}

#[test]
fn a_function_level_reset_clears_what_it_clears_on_hardware() {
    let guest = guest();
    guest.enable();
    guest.write16(MSIX + 2, 0x8000);
    guest.open(0, 0x10);
    guest.take();
    guest.write16(EXPRESS + 8, 0x8000);
    let entries = guest.take();
    let flr = entries.iter().position(|entry| *entry == Entry::Reset).unwrap();
    assert!(
        !entries.iter().any(|entry| matches!(entry, Entry::Config { offset: 0x88, .. })),
        "VFIO might do nothing and say nothing: {entries:?}"
    );
    let before = |entry: &Entry| entries[..flr].contains(entry);
    assert!(
        before(&Entry::Unmap(BAR0)) && before(&Entry::DisableIrqs(irq::MSIX)) && before(&command(0)),
        "{entries:?}"
    );
    assert_eq!(entries.last(), Some(&command(0)), "VFIO brought the old command register back");
    assert_eq!(guest.read(0x04) as u16, 0);
    assert_eq!(guest.read(MSIX) >> 16, 7, "disabled");
    guest.enable();
    guest.write16(MSIX + 2, 0x8000);
    assert_eq!(guest.function.counters().routed_vectors, 0, "all entries are masked");
}

#[test]
fn a_function_without_flr_is_not_reset_by_the_bit() {
    let host = device();
    host.put(usize::from(EXPRESS) + 7, &[0]);
    let guest = guest_with(host);
    guest.enable();
    guest.write16(EXPRESS + 8, 0x8000);
    assert_eq!(guest.read(0x04) as u16, 6);
    assert_eq!(guest.function.counters().mapped_bytes, 0x2000);
}

#[test]
fn a_machine_reset_resets_the_device_and_goes_back_to_the_plan() {
    let guest = guest();
    guest.enable();
    guest.write(0x10, 0x1_0000);
    guest.write16(PM + 4, 3);
    guest.take();
    guest.function.reset();
    let entries = guest.take();
    let at = |entry: &Entry| entries.iter().position(|other| other == entry).unwrap_or(usize::MAX);
    assert!(at(&command(0)) < at(&Entry::Reset), "DMA stops first: {entries:?}");
    assert!(at(&Entry::Config { offset: u64::from(PM) + 4, data: vec![0, 0] }) < at(&Entry::Reset));
    assert_eq!((guest.read(0x10), guest.read(0x14)), (BAR0 as u32 | 4, (BAR0 >> 32) as u32));
    guest.enable();
    assert!(guest.bus.read(BAR0 + 0x2000, &mut [0; 4]));
}

#[test]
fn a_device_that_was_not_reset_does_no_dma_until_it_is() {
    for answer in [Ok(false), Err(std::io::Error::from_raw_os_error(libc::EAGAIN))] {
        let guest = guest();
        guest.enable();
        guest.host.resets.lock().unwrap().push_back(answer);
        guest.function.reset();
        guest.take();
        guest.write16(0x04, 0x6);
        assert!(guest.take().contains(&command(2)), "no bus master");
        assert_eq!((guest.read(0x04) as u16, guest.function.counters().errors), (6, 1));
        assert_eq!(guest.function.counters().mapped_bytes, 0x2000, "the rest works");
        guest.function.reset();
        guest.take();
        guest.write16(0x04, 0x6);
        assert!(guest.take().contains(&command(6)));
    }
}

#[test]
fn who_waits_for_a_reset_is_told_when_it_is_over() {
    let guest = guest();
    let count = Arc::new(std::sync::atomic::AtomicU32::new(0));
    let (resets, function) = (count.clone(), Arc::downgrade(&guest.function));
    guest.function.after_reset(move || {
        let function = function.upgrade().unwrap();
        assert_eq!(function.counters().mapped_bytes, 0, "and may ask the function");
        resets.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    });
    guest.enable();
    guest.write16(EXPRESS + 8, 0x8000);
    guest.function.reset();
    assert_eq!(count.load(std::sync::atomic::Ordering::Relaxed), 2);
}

#[test]
fn a_function_level_reset_that_fails_stops_dma_too() {
    let guest = guest();
    guest.enable();
    guest.host.resets.lock().unwrap().push_back(Err(std::io::Error::from_raw_os_error(libc::EAGAIN)));
    guest.write16(EXPRESS + 8, 0x8000);
    guest.take();
    guest.write16(0x04, 0x6);
    assert!(guest.take().contains(&command(2)));
    guest.write16(EXPRESS + 8, 0x8000);
    guest.take();
    guest.write16(0x04, 0x6);
    assert!(guest.take().contains(&command(6)));
}

#[test]
fn after_shutdown_nothing_appears_any_more() {
    let guest = guest();
    guest.enable();
    guest.function.shutdown();
    assert_eq!(guest.take()[..2], [Entry::Unmap(BAR0), command(0)]);
    guest.write16(0x04, 6);
    guest.function.reset();
    assert_eq!(guest.take(), []);
    assert!(!guest.bus.read(BAR0 + 0x2000, &mut [0; 4]));
}

#[test]
fn dropping_a_function_shuts_it_down() {
    let Guest { host, bus, function, .. } = guest();
    function.config_write(0x04, &6u16.to_le_bytes());
    host.diary.take();
    drop(function);
    assert!(host.diary.take().contains(&Entry::Unmap(BAR0)));
    assert!(!bus.read(BAR4, &mut [0; 4]));
    assert_eq!(Arc::strong_count(&host), 1);
}

#[test]
fn a_plan_that_does_not_fit_the_device_is_refused_by_name() {
    let refusal = |bars: Vec<BarAddress>| {
        let host = Arc::new(device());
        let diary = host.diary.clone();
        let router =
            Arc::new(FakeRouter { diary: diary.clone(), delivered: Mutex::default(), refused: Mutex::default() });
        let guest = Bdf::from_requester_id(0);
        let config = VfioFunctionConfig { name: "0000:01:00.0".to_owned(), host, guest, bars };
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
