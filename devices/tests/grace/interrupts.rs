//! Interrupts and events of passed-through functions.

use std::thread;
use std::time::{Duration, Instant};

use nestling_devices::vfio::{HostFunction, irq};
use nestling_iommufd::{AttachHwpt, Vevent};

use crate::guest::guest_of;
use crate::machine::{EDU, RAM, build, devices, stage1, tear_down};

#[test]
fn msi_x_vectors_are_routed_when_the_guest_unmasks_them() {
    let Some((_turn, assigned)) = devices() else { return };
    let machine = build(&assigned);
    for device in machine.devices.iter().filter(|device| device.cdev.irqs(irq::MSIX).count > 1) {
        let guest = guest_of(device);
        let Some(at) = guest.capability(0x11) else { continue };
        let table = guest.read(at + 4);
        guest.write(0x04, 0x6);
        let base = guest.bar(table as u8 & 7) + u64::from(table & !7);
        guest.write(at, guest.read(at) | 1 << 31);
        for vector in [1u64, 0] {
            let entry = base + 16 * vector;
            for (field, value) in [(0, 0x1234_5000u32), (4, 0), (8, 0x40 + vector as u32), (12, 0)] {
                assert!(guest.bus.write(entry + field, &value.to_le_bytes()));
            }
            assert_eq!(guest.router.0.lock().unwrap()[&(0x40 + vector as u32)].1, 0x1000, "{}", device.id);
        }
        assert_eq!(guest.function.counters().routed_vectors, 2);
        assert!(guest.bus.write(base + 12, &1u32.to_le_bytes()));
        assert_eq!(guest.function.counters().routed_vectors, 1);
        guest.write(at, guest.read(at) & !(1 << 31));
        assert_eq!(guest.function.counters().routed_vectors, 0);
        assert_eq!(guest.function.counters().errors, 0, "{}", device.id);
        guest.function.shutdown();
    }
    tear_down(machine);
}

fn wait<T>(what: &str, mut poll: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = poll() {
            return value;
        }
        assert!(start.elapsed() < Duration::from_secs(10), "waited 10 s for {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn an_edu_device_sends_its_msi_to_the_routed_vector() {
    let Some((_turn, assigned)) = devices() else { return };
    let machine = build(&assigned);
    for device in machine.devices.iter().filter(|device| device.id == EDU) {
        let guest = guest_of(device);
        let at = guest.capability(0x05).expect("edu has MSI");
        guest.write(0x04, 0x6);
        let wide = guest.read(at) & 1 << 23 != 0;
        guest.write(at + 4, 0x1234_5000);
        guest.write(at + if wide { 12 } else { 8 }, 0x55);
        guest.write(at, guest.read(at) | 1 << 16);
        let trigger = guest.router.0.lock().unwrap()[&0x55].0.try_clone().unwrap();
        // Raise an interrupt with status 1 (0x60), then acknowledge it (0x64).
        device.cdev.write(0, 0x60, &1u32.to_le_bytes()).unwrap();
        assert_eq!(wait("the edu device's interrupt", || trigger.read().ok()), 1);
        device.cdev.write(0, 0x64, &1u32.to_le_bytes()).unwrap();
        guest.function.shutdown();
        println!("an MSI of {} arrived", device.cdev.name());
    }
    tear_down(machine);
}

#[test]
fn a_dma_that_stage_1_refuses_arrives_as_an_event_with_the_virtual_stream_id() {
    let Some((_turn, assigned)) = devices() else { return };
    let machine = build(&assigned);
    for device in machine.devices.iter().filter(|device| device.id == EDU) {
        let smmu = &machine.smmus[&device.smmu];
        let stage1 = smmu.viommu.alloc_nested(device.cdev.dev_id(), stage1(RAM)).unwrap();
        device.cdev.attach_hwpt(stage1.id()).unwrap();
        device.cdev.write(7, 0x04, &6u16.to_le_bytes()).unwrap();
        // DMA of 4 bytes from an IOVA to the device's buffer at 0x40000.
        for (register, value) in [(0x80, 0xabc_d000u64), (0x88, 0x40000), (0x90, 4), (0x98, 1)] {
            device.cdev.write(0, register, &value.to_le_bytes()).unwrap();
        }
        let mut events = [Vevent::default(); 4];
        wait("an event", || (smmu.queue.read(&mut events).unwrap() > 0).then_some(()));
        let record = events[0].record.expect("a record");
        println!("event {record:#018x?}");
        assert_eq!(record[0] as u8, 0x0a, "C_BAD_CD: the context descriptor is all zeroes");
        assert_eq!((record[0] >> 32) as u32, device.stream);
        device.cdev.write(7, 0x04, &0u16.to_le_bytes()).unwrap();
        device.cdev.attach_hwpt(smmu.parent.id()).unwrap();
        stage1.destroy().unwrap();
    }
    tear_down(machine);
}
