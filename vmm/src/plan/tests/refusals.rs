//! What is refused, and in which words.

use super::host::*;
use crate::config::{Request, Size};
use crate::host::Inventory;
use crate::host::spec::ReservedRegion;
use crate::plan::plan;

fn refusal(request: &Request, inventory: &Inventory) -> String {
    plan(request, inventory).unwrap_err().to_string()
}

#[test]
fn a_guest_needs_a_kernel() {
    let request = Request { kernel: None, ..request(0) };
    assert_eq!(
        refusal(&request, &host(&[])),
        "no kernel is given; add --kernel IMAGE, or 'kernel' in the configuration file"
    );
}

#[test]
fn cpus_are_at_least_one_and_at_most_what_kvm_gives() {
    let with = |cpus| Request { cpus: Some(cpus), ..request(0) };
    let mut inventory = host(&[]);
    assert_eq!(refusal(&with(0), &inventory), "0 vCPUs cannot run anything; give --cpus 1 or more");
    inventory.kvm.as_mut().unwrap().max_cpus = 8;
    assert_eq!(
        refusal(&with(9), &inventory),
        "9 vCPUs are more than KVM on this host gives to one guest; give --cpus 8 or less"
    );
    inventory.kvm = None;
    assert!(refusal(&with(513), &inventory).contains("more than nestling gives to one guest; give --cpus 512"));
}

#[test]
fn memory_is_whole_pages() {
    let with = |bytes| Request { memory: Some(Size(bytes)), ..request(0) };
    assert_eq!(
        refusal(&with(0), &host(&[])),
        "a guest cannot run in 0 bytes of memory; give --memory a size such as 1G"
    );
    assert!(refusal(&with(GIB + 1), &host(&[])).contains("no multiple of the host's page size of 4096"));
    let mut large_pages = host(&[]);
    large_pages.memory.page_size = 64 * KIB;
    assert!(refusal(&with(GIB + 4 * KIB), &large_pages).contains("no multiple of the host's page size of 65536"));
    for bytes in [u64::MAX - 4095, 1 << 52] {
        assert!(refusal(&with(bytes), &host(&[])).contains("do not fit 52 address bits"), "{bytes:#x}");
    }
}

#[test]
fn a_device_is_given_once() {
    let mut request = request(1);
    request.device.push(request.device[0].clone());
    assert_eq!(
        refusal(&request, &host(&[(0, vec![])])),
        "0000:10:00.0 is given twice; remove one --device 0000:10:00.0"
    );
}

#[test]
fn a_device_that_the_host_cannot_give_is_named() {
    let refused = refusal(&request(1), &host(&[]));
    assert_eq!(refused, "there is no PCI device 0000:10:00.0 on this host; 'lspci -D' lists them");
}

#[test]
fn slots_are_unique_and_in_range() {
    let inventory = host(&[(0, vec![]), (1, vec![])]);
    let with = |first, second| {
        let mut request = request(2);
        (request.device[0].slot, request.device[1].slot) = (first, second);
        refusal(&request, &inventory)
    };
    assert_eq!(
        with(Some(7), Some(7)),
        "0000:10:00.0 and 0000:11:00.0 are both in slot 7; give one of them another slot=N"
    );
    assert!(with(Some(0), None).contains("slot 0 of 0000:10:00.0 is out of range; give slot=1 to slot=8191"));
    assert!(with(None, Some(8192)).contains("out of range"));
}

#[test]
fn an_expander_has_32_ports_and_the_guest_256_buses() {
    let many = |count: usize, smmus: usize| {
        let mut inventory = host(&vec![(0, vec![]); 256]);
        for (i, device) in inventory.devices.iter_mut().enumerate() {
            device.iommu = Some(smmu(i % smmus));
        }
        plan(&request(count), &inventory).map_err(|error| error.to_string())
    };
    assert_eq!(many(31, 1).unwrap().pci.expanders[0].ports.len(), 32);
    assert_eq!(many(32, 1).unwrap().pci.expanders[0].ports.len(), 32, "no free port");
    assert!(many(33, 1).unwrap_err().contains("33 devices are behind host SMMU smmu3.0x000000000c000000"));
    let full = many(247, 8).unwrap();
    assert_eq!((full.pci.root.last_bus, full.pci.expanders[7].root.last_bus), (0, 255));
    assert_eq!(many(248, 8).unwrap_err(), "the devices need 257 PCI buses, but a guest has 256; assign fewer devices");
    assert_eq!(many(31, 31).unwrap().pci.expanders[0].device, 1);
    assert!(many(32, 32).unwrap_err().contains("a guest has at most 31 vSMMUs"));
}

#[test]
fn bars_that_must_be_below_4g_name_the_largest_of_them() {
    let refused = refusal(&request(2), &host(&[(0, vec![low(0, 512 * MIB)]), (0, vec![low(2, 256 * MIB)])]));
    assert!(refused.contains("the largest is BAR 0 of 0000:10:00.0 (512M)"), "{refused}");
    let wide = crate::host::HostBar { wide: true, ..low(0, 256 * GIB) };
    assert!(refusal(&request(1), &host(&[(0, vec![wide])])).contains("BAR 0 of 0000:10:00.0 (256G)"));
}

#[test]
fn bars_that_no_guest_address_reaches_are_refused() {
    let mut inventory = host(&[(0, vec![high(0, 512 * GIB)])]);
    inventory.kvm.as_mut().unwrap().ipa_bits = 40;
    let refused = refusal(&request(1), &inventory);
    assert!(refused.contains("need 41 address bits, but KVM on this host gives a guest 40"), "{refused}");
    let refused = refusal(&request(1), &host(&[(0, vec![high(0, 1 << 52)])]));
    assert!(refused.contains("do not fit 52 address bits"), "{refused}");
}

#[test]
fn memory_where_the_host_reserves_addresses_is_refused() {
    let with = |kind: &str| {
        let mut inventory = host(&[(0, vec![])]);
        let region = ReservedRegion { start: 0x5000_0000, last: 0x5000_ffff, kind: kind.into() };
        inventory.groups[0].reserved.push(region);
        plan(&request(1), &inventory).map(|_| ()).map_err(|error| error.to_string())
    };
    assert!(
        with("direct").unwrap_err().starts_with("the host reserves 0x50000000..=0x5000ffff for DMA of 0000:10:00.0")
    );
    assert_eq!(with("direct-relaxable"), Ok(()));
}
