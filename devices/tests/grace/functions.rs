//! Configuration space and BARs of passed-through functions.

use nestling_devices::pci::PciFunction;
use nestling_devices::vfio::HostFunction;

use crate::guest::{guest_of, memory_bars};
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
