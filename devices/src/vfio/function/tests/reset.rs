//! Resets by the guest, by the machine, and the end of a function.

use std::time::{Duration, Instant};

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
fn a_bus_reset_is_one_of_the_bus() {
    let guest = guest();
    guest.enable();
    guest.function.bus_reset();
    let entries = guest.take();
    assert!(entries.contains(&Entry::BusReset) && !entries.contains(&Entry::Reset), "{entries:?}");
    assert_eq!((guest.read(0x04) as u16, guest.function.counters().resets), (0, 1));
}

/// A vSMMU that notes when it shuts the function.
struct Shutting(Diary);

impl Upstream for Shutting {
    fn renumber(&self, _: Option<Bdf>) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        Ok(())
    }
    fn hold(&self, at: Option<Bdf>) {
        assert_eq!(at, Some(Bdf::from_requester_id(REQUESTER as u16)));
        self.0.add(Entry::Hold);
    }
    fn release(&self) {
        self.0.add(Entry::Release);
    }
}

#[test]
fn the_vsmmu_shuts_the_function_before_its_bus_is_reset() {
    let guest = guest();
    guest.function.set_upstream(Arc::new(Shutting(guest.host.diary.clone())));
    guest.enable();
    guest.take();
    guest.function.bus_reset();
    let entries = guest.take();
    let at = |entry: &Entry| entries.iter().position(|other| other == entry).unwrap_or(usize::MAX);
    assert!(at(&command(0)) < at(&Entry::Hold) && at(&Entry::Hold) < at(&Entry::BusReset), "{entries:?}");
    assert_eq!(entries.last(), Some(&Entry::Release));
    guest.write16(EXPRESS + 8, 0x8000);
    assert!(!guest.take().contains(&Entry::Hold), "the kernel answers during a reset of a function");
}

/// A guest whose device does not come back from the reset that it has just asked for.
fn stuck(ask: impl Fn(&Guest)) -> Guest {
    let guest = guest();
    guest.enable();
    guest.write16(MSIX + 2, 0x8000);
    guest.open(0, 0x10);
    *guest.host.stuck.lock().unwrap() = true;
    let asked = Instant::now();
    ask(&guest);
    assert!(asked.elapsed() < Duration::from_secs(5), "the vcpu goes on");
    guest
}

fn unstick(guest: &Guest) {
    *guest.host.stuck.lock().unwrap() = false;
    guest.host.unstuck.notify_all();
}

#[test]
fn a_device_that_does_not_come_back_answers_all_ones_and_stalls_nobody() {
    for ask in [|guest: &Guest| guest.write16(EXPRESS + 8, 0x8000), |guest: &Guest| guest.function.bus_reset()] {
        let guest = stuck(ask);
        assert_eq!((guest.read(0), guest.read(4)), (u32::MAX, u32::MAX), "2.3.2");
        assert!(!guest.bus.read(BAR0 + 0x2000, &mut [0; 4]));
        guest.take();
        guest.write16(0x04, 6);
        ask(&guest);
        assert_eq!(guest.take(), [], "nor does it hear");
        unstick(&guest);
        let end = Instant::now() + Duration::from_secs(5);
        while guest.read(4) == u32::MAX && Instant::now() < end {
            std::thread::yield_now();
        }
        assert_eq!((guest.read(4) as u16, guest.function.counters().resets), (0, 1));
        guest.enable();
        assert_eq!(guest.function.counters().mapped_bytes, 0x2000);
    }
}

#[test]
fn the_machines_reset_waits_for_that_of_the_guest() {
    let guest = stuck(|guest| guest.write16(EXPRESS + 8, 0x8000));
    let function = guest.function.clone();
    let machine = std::thread::spawn(move || function.reset());
    unstick(&guest);
    machine.join().unwrap();
    assert_eq!((guest.read(4) as u16, guest.function.counters().resets), (0, 2));
}

#[test]
fn the_end_of_a_function_waits_for_its_reset() {
    let guest = stuck(|guest| guest.write16(EXPRESS + 8, 0x8000));
    let function = guest.function.clone();
    let end = std::thread::spawn(move || function.shutdown());
    unstick(&guest);
    end.join().unwrap();
    let Guest { host, function, .. } = guest;
    drop(function);
    assert_eq!(Arc::strong_count(&host), 1, "the device can be closed");
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
