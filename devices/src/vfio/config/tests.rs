use super::super::testing::{Entry, FakeHost};
use super::*;

/// Behind a vSMMU without ATS and PASIDs.
fn plain(host: &FakeHost) -> Option<Config> {
    Config::new(host, Translation::default())
}

fn read<const N: usize>(config: &Config, host: &FakeHost, offset: u16) -> [u8; N] {
    let mut data = [0; N];
    config.read(host, offset, &mut data);
    data
}

fn read32(config: &Config, host: &FakeHost, offset: u16) -> u32 {
    u32::from_le_bytes(read(config, host, offset))
}

fn legacy_ids(config: &Config, host: &FakeHost) -> Vec<u8> {
    let mut ids = Vec::new();
    let [mut at] = read(config, host, 0x34);
    while at != 0 {
        let [id, next] = read(config, host, at.into());
        ids.push(id);
        at = next;
    }
    ids
}

fn extended_ids(config: &Config, host: &FakeHost) -> Vec<(u16, u16)> {
    let mut ids = Vec::new();
    let mut at = 0x100;
    while at != 0 {
        let head = read32(config, host, at);
        ids.push((at, head as u16));
        at = (head >> 20) as u16;
    }
    ids
}

#[test]
fn identity_is_the_devices_own() {
    let host = FakeHost::new(256);
    let config = plain(&host).unwrap();
    assert_eq!(read32(&config, &host, 0), 0x0010_1b36);
    assert_eq!(read32(&config, &host, 8), 0x0108_0202);
}

#[test]
fn a_bridge_or_a_dead_function_is_no_endpoint() {
    let host = FakeHost::new(256);
    host.put(0x0e, &[1]);
    assert!(plain(&host).is_none());
    let host = FakeHost::new(256);
    host.put(0, &[0xff; 4]);
    assert!(plain(&host).is_none());
}

#[test]
fn a_function_is_alone_and_has_neither_rom_nor_intx() {
    let host = FakeHost::new(256);
    host.put(0x0e, &[0x80]);
    host.put(0x30, &[1, 0, 0xf0, 0xff]);
    host.put(0x3d, &[1]);
    let mut config = plain(&host).unwrap();
    assert_eq!(read(&config, &host, 0x0e), [0]);
    config.write(0x30, &[0xff; 4]);
    assert_eq!(read32(&config, &host, 0x30), 0);
    config.write(0x3c, &[0x2a, 0xff, 0xff, 0xff]);
    assert_eq!(read(&config, &host, 0x3c), [0x2a, 0, 0, 0]);
}

#[test]
fn beyond_256_bytes_a_conventional_function_reads_all_ones() {
    let host = FakeHost::new(256);
    let mut config = plain(&host).unwrap();
    assert_eq!(read32(&config, &host, 0x100), u32::MAX);
    config.write(0x100, &[0; 4]);
    config.pass(&host, 0x100, &[0; 4]).unwrap();
    assert_eq!(host.diary.take(), []);
}

#[test]
fn bars_size_as_their_region_and_keep_their_type() {
    let mut host = FakeHost::new(256);
    host.bar(0, 0x4000, 0b0100, &[]);
    host.bar(2, 0x20, 1, &[]);
    host.bar(3, 0x1000, 0, &[]);
    host.bar(4, 16 << 30, 0b1100, &[]);
    let mut config = plain(&host).unwrap();
    assert_eq!(config.bars().iter().map(|bar| bar.index).collect::<Vec<_>>(), [0, 3, 4]);
    config.write(0x10, &[0xff; 24]);
    let registers: Vec<u32> = (0..6).map(|bar| read32(&config, &host, 0x10 + 4 * bar)).collect();
    // The I/O BAR 2 is not offered.
    assert_eq!(registers, [0xffff_c004, 0xffff_ffff, 0, 0xffff_f000, 0x0000_000c, 0xffff_fffc]);
}

#[test]
fn a_bar_is_at_its_planned_address_after_every_reset() {
    let mut host = FakeHost::new(256);
    host.bar(0, 0x4000, 0b1100, &[]);
    let mut config = plain(&host).unwrap();
    let shape = config.bars()[0];
    config.set_power_on_address(&shape, 0x80_1234_4000);
    for _ in 0..2 {
        assert_eq!(config.bar(&shape), 0x80_1234_4000);
        assert_eq!(read32(&config, &host, 0x10), 0x1234_400c);
        config.write(0x10, &[0; 8]);
        assert_eq!(config.bar(&shape), 0);
        config.reset();
    }
}

#[test]
fn capabilities_that_belong_to_others_disappear_from_the_list() {
    let mut host = FakeHost::new(4096);
    host.vectors(irq::MSIX, 65, true);
    host.capability(0xc0, 0x14, &[0xaa; 14]); // Enhanced Allocation
    host.capability(0x40, 0x11, &[64, 0, 0, 0x20, 0, 0, 0, 0x30, 0, 0]);
    host.capability(0x60, 0x05, &[0x80, 0, 1, 2, 3, 4]); // MSI, for which VFIO gives no vector
    host.capability(0x80, 0x10, &[2, 0]);
    host.capability(0x70, 0x07, &[0xbb; 6]); // PCI-X
    let config = plain(&host).unwrap();
    assert_eq!(legacy_ids(&config, &host), [0x11, 0x10]);
    assert_eq!(read(&config, &host, 0xc0), [0; 16]);
    assert_eq!(read32(&config, &host, 0x60), 0);
    assert_eq!(read::<1>(&config, &host, 0x06)[0] & 1 << 4, 1 << 4);
}

#[test]
fn a_function_without_visible_capabilities_says_so() {
    let host = FakeHost::new(256);
    host.capability(0x40, 0x14, &[0; 14]);
    let config = plain(&host).unwrap();
    assert_eq!(legacy_ids(&config, &host), []);
    assert_eq!(read::<1>(&config, &host, 0x06)[0] & 1 << 4, 0);
}

#[test]
fn a_list_that_loops_ends() {
    let host = FakeHost::new(4096);
    host.capability(0x40, 0x01, &[0; 6]);
    host.put(0x41, &[0x40]);
    host.extended(0x100, 3, 0x100, &[0; 8]);
    let config = plain(&host).unwrap();
    assert_eq!(legacy_ids(&config, &host), [0x01]);
    assert_eq!(extended_ids(&config, &host), [(0x100, 3)]);
}

#[test]
fn extended_capabilities_are_linked_past_the_hidden_ones() {
    let host = FakeHost::new(4096);
    host.extended(0x100, 0x01, 0x148, &[0; 4]); // AER
    host.extended(0x148, 0x0f, 0x150, &[0x11; 4]); // ATS
    host.extended(0x150, 0x10, 0x1a0, &[0x22; 0x40]); // SR-IOV
    host.extended(0x1a0, 0x03, 0x1b0, &[0x33; 8]); // serial number
    host.extended(0x1b0, 0x13, 0, &[0x44; 8]); // PRI
    let config = plain(&host).unwrap();
    assert_eq!(extended_ids(&config, &host), [(0x100, 1), (0x1a0, 3)]);
    assert_eq!(read(&config, &host, 0x1a4), [0x33; 8]);
    for hidden in [0x148, 0x14c, 0x150, 0x154, 0x1b0, 0x1b4] {
        assert_eq!(read32(&config, &host, hidden), 0, "{hidden:#x}");
    }
}

#[test]
fn a_hidden_first_one_leaves_a_null_capability_that_links_on() {
    let host = FakeHost::new(4096);
    host.extended(0x100, 0x0e, 0x140, &[0x11; 4]); // ARI
    host.extended(0x140, 0x03, 0, &[0x33; 8]);
    let config = plain(&host).unwrap();
    assert_eq!(extended_ids(&config, &host), [(0x100, 0), (0x140, 3)]);
    assert_eq!(read32(&config, &host, 0x100), 0x140 << 20);

    let host = FakeHost::new(4096);
    host.extended(0x100, 0x0f, 0, &[0x11; 4]);
    let config = plain(&host).unwrap();
    assert_eq!(read32(&config, &host, 0x100), 0);
}

#[test]
fn vendor_capabilities_stay_but_cxl_does_not() {
    let host = FakeHost::new(4096);
    host.extended(0x100, 0x23, 0x120, &[0x98, 0x1e, 0, 1]);
    host.extended(0x120, 0x23, 0, &[0xde, 0x10, 0, 1]);
    let config = plain(&host).unwrap();
    assert_eq!(extended_ids(&config, &host), [(0x100, 0), (0x120, 0x23)]);
}

#[test]
fn an_integrated_endpoint_becomes_an_endpoint_with_a_link() {
    let host = FakeHost::new(4096);
    host.capability(0x80, 0x10, &[0x92, 0]);
    let config = plain(&host).unwrap();
    assert_eq!(read(&config, &host, 0x82), [0x02, 0]);
    assert_eq!(read32(&config, &host, 0x8c), 0x11);
}

#[test]
fn writes_reach_the_device_only_where_nothing_is_virtual() {
    let host = FakeHost::new(256);
    let mut config = plain(&host).unwrap();
    // Status is the device's (its upper byte clears on 1), Command is not.
    config.write(0x04, &[0x06, 0, 0, 0xff]);
    config.pass(&host, 0x04, &[0x06, 0, 0, 0xff]).unwrap();
    let written = host.diary.take();
    assert!(written.contains(&Entry::Config { offset: 7, data: vec![0xff] }), "{written:?}");
    assert!(written.iter().all(|entry| !matches!(entry, Entry::Config { offset: 4 | 5, .. })), "{written:?}");
    config.pass(&host, 0x40, &[1, 2, 3, 4]).unwrap();
    assert_eq!(host.diary.take(), [Entry::Config { offset: 0x40, data: vec![1, 2, 3, 4] }]);
}

#[test]
fn msi_offers_what_vfio_gives() {
    let mut host = FakeHost::new(256);
    host.vectors(irq::MSI, 4, false);
    host.capability(0x40, 0x05, &[0b1000_1010, 1]); // 32 vectors, 64 bits, masks
    let mut config = plain(&host).unwrap();
    assert_eq!(read(&config, &host, 0x42), [0b1000_0100, 1]);
    config.write(0x40, &[0xff; 24]);
    assert_eq!(read(&config, &host, 0x40), [5, 0, 0b1111_0101, 1]);
    assert_eq!(read32(&config, &host, 0x44), 0xffff_fffc);
    assert_eq!(read32(&config, &host, 0x4c), 0xffff);
    assert_eq!(read32(&config, &host, 0x50), 0xf, "mask bits of four vectors");
    assert_eq!(read32(&config, &host, 0x54), 0, "pending bits are read-only");
}

mod translation;
