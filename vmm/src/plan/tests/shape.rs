//! What a Plan looks like.

use super::host::*;
use crate::config::Size;
use crate::host::HostBar;
use crate::plan::spec::{Plan, Window};
use crate::plan::{plan, tree};

fn two_nvme() -> Plan {
    let mut request = request(2);
    request.cpus = Some(2);
    request.initrd = Some("initrd.img".into());
    request.cmdline = Some("console=ttyAMA0".into());
    plan(&request, &host(&[(0, vec![low(0, 16 * KIB)]), (1, vec![low(0, 16 * KIB)])])).unwrap()
}

#[test]
fn a_guest_without_devices_has_no_expander_and_all_buses() {
    let plan = plan(&request(0), &host(&[])).unwrap();
    assert_eq!(plan.pci.expanders, []);
    assert_eq!((plan.pci.root.bus, plan.pci.root.last_bus), (0, 255));
    assert_eq!(plan.ipa_bits, 40);
    assert_eq!(plan.memory, Window { base: 0x4000_0000, size: GIB });
    assert_eq!(plan.cpus, 1);
}

#[test]
fn each_host_smmu_has_an_expander_from_the_top_of_the_bus_numbers() {
    let plan = two_nvme();
    let expanders = &plan.pci.expanders;
    let shown: Vec<_> = expanders
        .iter()
        .map(|e| (e.name.as_str(), e.device, e.root.bus, e.root.last_bus, e.smmu.host.clone()))
        .collect();
    assert_eq!(shown, [("vsmmu0", 30, 0xfa, 0xfc, smmu(0)), ("vsmmu1", 31, 0xfd, 0xff, smmu(1))]);
    assert_eq!(plan.pci.root.last_bus, 0xf9);
    assert_eq!(expanders[1].smmu.window, Window { base: 0x0c02_0000, size: 0x2_0000 });
    assert_eq!((expanders[0].smmu.event_gsiv, expanders[1].smmu.event_gsiv), (144, 148));
}

#[test]
fn the_stream_id_is_the_requester_id_behind_the_port() {
    let plan = two_nvme();
    let ids: Vec<_> = plan.functions().map(|(_, port, function)| (port.secondary_bus, function.stream_id)).collect();
    assert_eq!(ids, [(0xfb, 0xfb00), (0xfe, 0xfe00)]);
}

#[test]
fn devices_of_one_smmu_share_an_expander_and_keep_their_order() {
    let bars = || vec![low(0, 4 * KIB)];
    let mut request = request(3);
    request.device.reverse();
    let plan = plan(&request, &host(&[(0, bars()), (1, bars()), (0, bars())])).unwrap();
    let hosts = |i: usize| -> Vec<_> {
        let ports = plan.pci.expanders[i].ports.iter();
        ports.map(|port| port.function.as_ref().map(|function| function.host.clone())).collect()
    };
    assert_eq!(hosts(0), [Some(address(2)), Some(address(0)), None], "and a free port");
    assert_eq!(hosts(1), [Some(address(1)), None]);
    assert_eq!(plan.pci.expanders[0].smmu.host, smmu(0));
}

#[test]
fn slots_are_the_users_or_the_lowest_free() {
    let mut request = request(2);
    request.device[1].slot = Some(1);
    let plan = plan(&request, &host(&[(0, vec![]), (0, vec![])])).unwrap();
    let slots: Vec<_> = plan.pci.expanders[0].ports.iter().map(|port| port.slot).collect();
    assert_eq!(slots, [2, 1, 3]);
}

#[test]
fn a_device_like_a_grace_gpu_has_its_bars_above_4g() {
    let gpu = vec![high(0, 16 * MIB), high(2, 256 * GIB), high(4, 16 * GIB)];
    let plan = plan(&request(1), &host(&[(0, gpu)])).unwrap();
    let port = &plan.pci.expanders[0].ports[0];
    let bars = &port.function.as_ref().unwrap().bars;
    assert_eq!(bars[1].window, Window { base: 0x80_0000_0000, size: 256 * GIB });
    assert_eq!(bars[2].window, Window { base: 0xc0_0000_0000, size: 16 * GIB });
    assert_eq!(plan.ipa_bits, 40);
}

#[test]
fn every_port_has_the_windows_that_linux_reserves_for_hot_plug() {
    let plan = two_nvme();
    for port in plan.pci.expanders.iter().flat_map(|expander| &expander.ports) {
        assert!(port.mmio32.size >= 2 * MIB, "{port:?}");
        assert!(port.mmio64.size >= 2 * MIB, "{port:?}");
    }
}

#[test]
fn a_narrow_host_gets_a_small_window_above_4g() {
    let mut host = host(&[(0, vec![high(0, GIB)])]);
    host.kvm.as_mut().unwrap().ipa_bits = 39;
    let plan = plan(&request(1), &host).unwrap();
    assert_eq!(plan.ipa_bits, 39);
    assert!(plan.functions().all(|(_, _, function)| function.bars[0].window.end() <= 1 << 39));
}

#[test]
fn large_memory_moves_what_is_above_it() {
    let mut request = request(1);
    request.memory = Some(Size(480 * GIB));
    let plan = plan(&request, &host(&[(0, vec![high(0, GIB)])])).unwrap();
    assert!(plan.pci.ecam.base >= plan.memory.end());
    assert!(plan.functions().all(|(_, _, function)| function.bars[0].window.base >= plan.memory.end()));
    assert_eq!(plan.ipa_bits, 40);
}

#[test]
fn many_cpus_have_their_redistributors_above_memory() {
    let mut request = request(0);
    request.cpus = Some(200);
    let plan = plan(&request, &host(&[])).unwrap();
    assert_eq!(plan.gic.redistributors, Window { base: 0x40_0000_0000, size: 200 * 128 * KIB });
}

#[test]
fn the_msi_window_is_the_hosts() {
    let mut inventory = host(&[(0, vec![])]);
    assert_eq!(plan(&request(1), &inventory).unwrap().pci.msi_window, Window { base: 0x800_0000, size: MIB });
    inventory.groups[0].reserved.push(msi_region(0x900_0000));
    assert_eq!(plan(&request(1), &inventory).unwrap().pci.msi_window, Window { base: 0x900_0000, size: MIB });
}

#[test]
fn the_tree_says_what_a_bar_is_like_and_where_a_function_is() {
    let wide = |index, prefetchable| HostBar { wide: true, prefetchable, ..low(index, 64 * KIB) };
    let mut inventory =
        host(&[(0, vec![wide(0, true), wide(2, false), HostBar { prefetchable: true, ..low(4, MIB) }])]);
    inventory.devices[0].numa_node = Some(1);
    let drawn = tree(&plan(&request(1), &inventory).unwrap());
    let lines: Vec<_> = drawn.lines().filter(|line| line.contains("BAR") || line.contains("StreamID")).collect();
    assert_eq!(
        lines,
        [
            "   │  └─ fe:00.0 host 0000:10:00.0 [1b36:0010]  StreamID 0xfe00, host NUMA node 1",
            "   │        BAR 0 64 KiB at 0x8000000000, 64-bit, prefetchable",
            "   │        BAR 2 64 KiB at 0x12100000, 64-bit",
            "   │        BAR 4 1 MiB at 0x12000000, prefetchable",
        ]
    );
}

#[test]
fn the_tree_is_drawn_as_a_person_would() {
    assert_eq!(
        tree(&two_nvme()),
        "\
guest: 2 vCPUs, 1 GiB at 0x40000000, 40 address bits
boot:  Image, initrd initrd.img, \"console=ttyAMA0\"

pcie.0  buses 00-f9, behind no vSMMU
├─ 1e.0 vsmmu0  buses fa-fc  == host smmu3.0x000000000c000000
│  │  registers at 0xc000000, interrupts 144 event, 147 gerror, 146 sync
│  ├─ fa:00.0 root port, slot 1
│  │  └─ fb:00.0 host 0000:10:00.0 [1b36:0010]  StreamID 0xfb00
│  │        BAR 0 16 KiB at 0x12000000
│  └─ fa:01.0 root port, slot 2, free (bus fc)
└─ 1f.0 vsmmu1  buses fd-ff  == host smmu3.0x000000000c020000
   │  registers at 0xc020000, interrupts 148 event, 151 gerror, 150 sync
   ├─ fd:00.0 root port, slot 3
   │  └─ fe:00.0 host 0000:11:00.0 [1b36:0011]  StreamID 0xfe00
   │        BAR 0 16 KiB at 0x12500000
   └─ fd:01.0 root port, slot 4, free (bus ff)
"
    );
}
