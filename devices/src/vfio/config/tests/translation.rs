//! ATS and PASID (PCIe 6.0, 10.5.1 and 7.8.9).

use super::*;

const ATS: Translation = Translation { ats: true, pasid: None };

fn with_pasid(bits: u8) -> Translation {
    Translation { ats: true, pasid: Some(Pasid { bits, execute: true, privileged: false }) }
}

/// Like a NIC with ATS: AER, ATS, SR-IOV, serial number, PRI.
fn nic() -> FakeHost {
    let host = FakeHost::new(4096);
    host.extended(0x100, 0x01, 0x148, &[0; 0x44]);
    host.extended(0x148, 0x0f, 0x150, &[0x65, 0, 0x0c, 0x80]);
    host.extended(0x150, 0x10, 0x1a0, &[0x22; 0x40]);
    host.extended(0x1a0, 0x03, 0x1b0, &[0x33; 8]);
    host.extended(0x1b0, 0x13, 0, &[0x44; 8]);
    host
}

#[test]
fn ats_is_shown_where_the_vsmmu_offers_it() {
    let host = nic();
    let config = Config::new(&host, ATS).unwrap();
    assert_eq!(extended_ids(&config, &host), [(0x100, 1), (0x148, 0x0f), (0x1a0, 3)]);
    assert_eq!(read(&config, &host, 0x14c), [0x65, 0], "queue depth, page alignment, global invalidation");
    assert_eq!(extended_ids(&plain(&host).unwrap(), &host), [(0x100, 1), (0x1a0, 3)]);
}

#[test]
fn enable_and_stu_are_the_guests_and_never_reach_the_device() {
    let host = nic();
    let mut config = Config::new(&host, ATS).unwrap();
    assert_eq!(read(&config, &host, 0x14e), [0, 0], "the device's own ATS is on");
    config.write(0x14e, &[0xff; 2]);
    config.pass(&host, 0x14e, &[0xff; 2]).unwrap();
    assert_eq!(read(&config, &host, 0x14e), [0x1f, 0x80]);
    assert_eq!(host.diary.take(), []);
    config.reset();
    assert_eq!(read(&config, &host, 0x14e), [0, 0], "a function-level reset clears Enable (10.5.1.3)");
}

#[test]
fn a_device_without_ats_has_none_behind_any_vsmmu() {
    let host = FakeHost::new(4096);
    host.extended(0x100, 0x03, 0, &[0x33; 8]);
    let config = Config::new(&host, ATS).unwrap();
    assert_eq!(extended_ids(&config, &host), [(0x100, 3)]);
}

#[test]
fn a_pasid_capability_ends_the_list_at_the_top_of_the_space() {
    let host = nic();
    let mut config = Config::new(&host, with_pasid(16)).unwrap();
    assert_eq!(extended_ids(&config, &host), [(0x100, 1), (0x148, 0x0f), (0x1a0, 3), (0xff8, 0x1b)]);
    assert_eq!(read32(&config, &host, 0xff8), 0x0001_001b, "version 1, last");
    assert_eq!(read(&config, &host, 0xffc), [0b010, 16]);
    config.write(0xff8, &[0xff; 8]);
    config.pass(&host, 0xff8, &[0xff; 8]).unwrap();
    assert_eq!(read(&config, &host, 0xffc), [0b010, 16, 0b011, 0], "no Privileged Mode to enable");
    assert_eq!(host.diary.take(), []);
    config.reset();
    assert_eq!(read(&config, &host, 0xffe), [0, 0]);
}

#[test]
fn a_pasid_capability_hides_no_register_of_the_device_and_no_capability() {
    let host = FakeHost::new(4096);
    host.extended(0x100, 0x03, 0, &[0x33; 8]);
    host.put(0xff0, &[0xee; 16]);
    let config = Config::new(&host, with_pasid(20)).unwrap();
    assert_eq!(config.layout().pasid, Some(0xfe8), "undescribed registers are at the top");
    assert_eq!(read(&config, &host, 0xff0), [0xee; 16]);

    let host = FakeHost::new(4096);
    // A vendor's capability takes all but the first bytes.
    host.extended(0x100, 0x03, 0x110, &[0x33; 8]);
    host.extended(0x110, 0x0b, 0, &[1, 0, 0x00, 0xef]);
    let config = Config::new(&host, with_pasid(20)).unwrap();
    assert_eq!(config.layout().pasid, None, "0xef0 bytes of a vendor's from 0x110 on");
}

#[test]
fn a_pasid_capability_is_first_where_there_is_no_other() {
    let host = FakeHost::new(4096);
    let config = Config::new(&host, with_pasid(8)).unwrap();
    assert_eq!(extended_ids(&config, &host), [(0x100, 0x1b)]);
    let host = FakeHost::new(4096);
    host.extended(0x100, 0x10, 0, &[0x22; 0x40]);
    let config = Config::new(&host, with_pasid(8)).unwrap();
    assert_eq!(extended_ids(&config, &host), [(0x100, 0), (0xff8, 0x1b)], "a hidden one stays as the null capability");
}

#[test]
fn a_space_full_of_registers_gives_up_some_that_nobody_describes() {
    let host = FakeHost::new(4096);
    host.put(0x100, &[0xee; 0xf00]);
    host.extended(0x100, 0x03, 0, &[0x33; 8]);
    let config = Config::new(&host, with_pasid(8)).unwrap();
    assert_eq!(config.layout().pasid, Some(0xff8));
}

#[test]
fn a_null_capability_of_the_device_takes_no_room() {
    let host = FakeHost::new(4096);
    host.extended(0x100, 0x03, 0x110, &[0x33; 8]);
    host.extended(0x110, 0x00, 0, &[]);
    let config = Config::new(&host, with_pasid(8)).unwrap();
    assert_eq!(config.layout().pasid, Some(0xff8), "it is only a header (7.9.28)");
}

#[test]
fn a_conventional_function_has_no_room_for_pasids() {
    let host = FakeHost::new(256);
    let config = Config::new(&host, with_pasid(8)).unwrap();
    assert_eq!(config.layout().pasid, None);
}

#[test]
fn a_function_with_pasids_says_that_it_sends_prefixes() {
    // drivers/pci/ats.c, pci_enable_pasid
    const PREFIXES: u32 = 1 << 21;
    let device = |version: u8, capabilities_2: u32| {
        let host = FakeHost::new(4096);
        host.capability(0x40, 0x10, &[version, 0]);
        host.put(0x64, &capabilities_2.to_le_bytes());
        host
    };
    let seen = |host: &FakeHost, translation| read32(&Config::new(host, translation).unwrap(), host, 0x64);
    // A virtual function, say, whose host looks at the physical one.
    let silent = device(2, 0x1f);
    assert_eq!(seen(&silent, with_pasid(8)), PREFIXES | 0x1f, "all else is the device's own");
    assert_eq!(seen(&silent, ATS), 0x1f, "not without PASIDs");
    assert_eq!(seen(&device(2, PREFIXES | 2 << 22), with_pasid(8)), PREFIXES | 2 << 22, "two prefixes at most");
    assert_eq!(seen(&device(1, 0), with_pasid(8)), 0, "version 1 has no such register");
}
