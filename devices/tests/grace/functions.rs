//! Configuration space and BARs of passed-through functions.

use nestling_devices::pci::PciFunction;
use nestling_devices::vfio::HostFunction;

use crate::guest::{Guest, guest_of, memory_bars};
use crate::machine::{build, devices, tear_down};

#[test]
fn every_function_shows_its_bars_while_memory_space_is_enabled() {
    let Some((_turn, assigned)) = devices() else { return };
    let machine = build(&assigned);
    for device in &machine.devices {
        let guest = guest_of(device);
        let shapes = memory_bars(&device.cdev);
        assert_eq!(guest.read(0x08), {
            let mut class = [0; 4];
            device.cdev.read(7, 8, &mut class).unwrap();
            u32::from_le_bytes(class)
        });
        for &(index, size, wide) in &shapes {
            let at = 0x10 + 4 * u16::from(index);
            let before = guest.read(at);
            guest.write(at, u32::MAX);
            let mut mask = u64::from(guest.read(at) & !0xf) | if wide { 0 } else { 0xffff_ffff << 32 };
            if wide {
                let high = guest.read(at + 4);
                guest.write(at + 4, u32::MAX);
                mask |= u64::from(guest.read(at + 4)) << 32;
                guest.write(at + 4, high);
            }
            guest.write(at, before);
            assert_eq!(!mask + 1, size, "bar {index} of {}", device.id);
        }
        assert!(guest.slots.0.lock().unwrap().is_empty());
        for _ in 0..3 {
            guest.write(0x04, 0x6);
            let mapped = guest.function.counters().mapped_bytes;
            let total: u64 = shapes.iter().map(|&(_, size, _)| size).sum();
            println!("{} {}: {mapped:#x} of {total:#x} bytes mapped", device.cdev.name(), device.id);
            assert!(shapes.iter().all(|&(_, size, _)| size < 0x2000) || mapped > 0);
            for &(index, size, _) in &shapes {
                assert!(guest.bus.read(guest.bar(index) + size - 4, &mut [0; 4]), "bar {index} of {}", device.id);
            }
            guest.write(0x04, 0);
            assert!(guest.slots.0.lock().unwrap().is_empty());
        }
        guest.write(0x04, 0x6);
        guest.function.reset();
        assert_eq!(guest.read(0x04) & 0xffff, 0, "the command register as at power-on");
        assert!(guest.slots.0.lock().unwrap().is_empty());
        assert_eq!(guest.function.counters().errors, 0, "{}", device.id);
        guest.function.shutdown();
    }
    tear_down(machine);
}

/// Reads the start of a BAR as the guest does, through the slot.
fn read_direct(guest: &Guest, bar: u8) -> Option<u32> {
    let memory = guest.slots.0.lock().unwrap().get(&guest.bar(bar)).cloned()?;
    // SAFETY: `memory` keeps the page mapped, and the function decodes it: its slot is there.
    Some(unsafe { (memory.host_address() as *const u32).read_volatile() })
}

#[test]
fn a_mapped_bar_is_the_devices_own() {
    let Some((_turn, assigned)) = devices() else { return };
    let machine = build(&assigned);
    for device in &machine.devices {
        let guest = guest_of(device);
        guest.write(0x04, 0x6);
        for (bar, ..) in memory_bars(&device.cdev) {
            let mut forwarded = [0; 4];
            device.cdev.read(bar.into(), 0, &mut forwarded).unwrap();
            if let Some(direct) = read_direct(&guest, bar) {
                assert_eq!(direct, u32::from_le_bytes(forwarded), "bar {bar} of {}", device.id);
            }
        }
        guest.function.shutdown();
    }
    tear_down(machine);
}

#[test]
fn a_function_comes_back_from_low_power_and_from_a_function_level_reset() {
    let Some((_turn, assigned)) = devices() else { return };
    let machine = build(&assigned);
    for device in &machine.devices {
        let guest = guest_of(device);
        guest.write(0x04, 0x6);
        let before: Vec<_> = (0..6).map(|bar| read_direct(&guest, bar)).collect();
        if let Some(power) = guest.capability(0x01) {
            guest.write(power + 4, 3);
            assert!(guest.slots.0.lock().unwrap().is_empty(), "nothing is mapped in D3hot");
            guest.write(power + 4, 0);
            assert_eq!((0..6).map(|bar| read_direct(&guest, bar)).collect::<Vec<_>>(), before, "{}", device.id);
        }
        if let Some(express) = guest.capability(0x10)
            && guest.read(express + 4) & 1 << 28 != 0
        {
            guest.function.config_write(express + 8, &0x8000u16.to_le_bytes());
            assert_eq!(guest.read(0x04) & 0x6, 0, "{}", device.id);
            assert!(guest.slots.0.lock().unwrap().is_empty());
            guest.write(0x04, 0x6);
            assert_eq!((0..6).map(|bar| read_direct(&guest, bar)).collect::<Vec<_>>(), before, "{}", device.id);
            println!("{} {}: function-level reset", device.cdev.name(), device.id);
        }
        assert_eq!(guest.function.counters().errors, 0, "{}", device.id);
        guest.function.shutdown();
    }
    tear_down(machine);
}
