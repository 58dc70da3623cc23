//! Resets by the guest, by the machine, and the end of a function.

use super::*;

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
