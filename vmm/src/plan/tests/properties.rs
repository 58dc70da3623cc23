//! Whatever the host has, the addresses agree. The checks are written anew here: they share nothing with `validate`.

use proptest::prelude::*;

use super::host::{GIB, KIB, MIB, host, request};
use crate::config::Size;
use crate::host::HostBar;
use crate::plan::spec::{Plan, Window};
use crate::plan::{Error, plan, validate};

/// The BARs of a function: up to six registers, wide ones take two. `low_most` bounds those that go below 4 GiB.
fn bars(low_most: u32) -> impl Strategy<Value = Vec<HostBar>> {
    let bar = (any::<bool>(), any::<bool>(), 12..=38_u32, 0..3_u8);
    prop::collection::vec(bar, 0..6).prop_map(move |shapes| {
        let mut bars = Vec::new();
        let mut index = 0;
        for (wide, prefetchable, bits, skip) in shapes {
            index += skip;
            let bits =
                if wide && prefetchable { bits } else { bits.min(if wide { low_most } else { low_most.min(31) }) };
            let registers = if wide { 2 } else { 1 };
            if index + registers > 6 {
                break;
            }
            bars.push(HostBar { index, size: 1 << bits, wide, prefetchable });
            index += registers;
        }
        bars
    })
}

fn devices(low_most: u32) -> impl Strategy<Value = Vec<(usize, Vec<HostBar>)>> {
    prop::collection::vec((0..5_usize, bars(low_most)), 0..=16)
}

fn disjoint(windows: &[Window]) {
    for (i, a) in windows.iter().enumerate() {
        for b in &windows[..i] {
            let apart = a.size == 0 || b.size == 0 || a.base >= b.base + b.size || b.base >= a.base + a.size;
            assert!(apart, "{a} and {b} overlap");
        }
    }
}

fn within(inner: Window, outer: Window) {
    let fits = inner.size == 0 || (outer.base <= inner.base && inner.base + inner.size <= outer.base + outer.size);
    assert!(fits, "{inner} is not in {outer}");
}

fn check(plan: &Plan, devices: &[(usize, Vec<HostBar>)]) {
    let (gic, pci) = (&plan.gic, &plan.pci);
    let mut outermost = vec![
        plan.memory,
        gic.distributor,
        gic.redistributors,
        gic.its,
        plan.serial.window,
        plan.rtc.window,
        plan.ged.window,
        pci.ecam,
        pci.root.mmio32,
        pci.root.mmio64,
    ];
    let mut next_bus = usize::from(pci.root.last_bus) + 1;
    let mut assigned = 0;
    for expander in &pci.expanders {
        let root = &expander.root;
        outermost.extend([expander.smmu.window, root.mmio32, root.mmio64]);
        assert!(root.mmio32.base + root.mmio32.size <= 1 << 32);
        assert_eq!(usize::from(root.bus), next_bus);
        next_bus = usize::from(root.last_bus) + 1;
        let mut windows = Vec::new();
        for (i, port) in expander.ports.iter().enumerate() {
            assert_eq!(usize::from(port.secondary_bus), usize::from(root.bus) + 1 + i);
            assert_eq!(port.bar0.base % port.bar0.size, 0);
            within(port.bar0, root.mmio32);
            within(port.mmio32, root.mmio32);
            within(port.mmio64, root.mmio64);
            windows.extend([port.bar0, port.mmio32, port.mmio64]);
            for window in [port.mmio32, port.mmio64] {
                assert_eq!((window.base % MIB, window.size % MIB), (0, 0));
            }
            let Some(function) = &port.function else { continue };
            assigned += 1;
            assert_eq!(function.stream_id, u64::from(port.secondary_bus) << 8);
            let number = function.cdev.to_str().unwrap().trim_start_matches("/dev/vfio/devices/vfio");
            let bars = &devices[number.parse::<usize>().unwrap()].1;
            assert_eq!(function.bars.len(), bars.len());
            for (bar, host) in function.bars.iter().zip(bars) {
                assert_eq!((bar.index, bar.window.size), (host.index, host.size));
                assert_eq!(bar.window.base % bar.window.size.max(64 * KIB), 0);
                within(bar.window, if bar.wide && bar.prefetchable { port.mmio64 } else { port.mmio32 });
            }
            disjoint(&function.bars.iter().map(|bar| bar.window).collect::<Vec<_>>());
        }
        disjoint(&windows);
        assert_eq!(usize::from(root.bus) + expander.ports.len(), usize::from(root.last_bus));
    }
    disjoint(&outermost);
    assert_eq!(assigned, devices.len());
    assert_eq!(next_bus, 256);
    let end = outermost.iter().map(|window| window.base + window.size).max().unwrap();
    assert!(end <= 1 << plan.ipa_bits);
}

proptest! {
    #[test]
    fn bars_of_usual_sizes_always_have_a_place(devices in devices(22), gib in 1..700_u64) {
        let mut request = request(devices.len());
        request.memory = Some(Size(gib * GIB));
        let plan = plan(&request, &host(&devices)).unwrap();
        check(&plan, &devices);
        prop_assert_eq!(validate(&plan), Ok(()));
    }

    #[test]
    fn bars_of_any_size_have_a_place_or_are_refused_by_name(devices in devices(38)) {
        match plan(&request(devices.len()), &host(&devices)) {
            Ok(plan) => {
                check(&plan, &devices);
                prop_assert_eq!(validate(&plan), Ok(()));
            }
            Err(Error::NoRoomBelow4G { size, .. }) => {
                let low = devices.iter().flat_map(|(_, bars)| bars).filter(|bar| !(bar.wide && bar.prefetchable));
                prop_assert_eq!(Some(size.bytes()), low.map(|bar| bar.size).max());
            }
            Err(other) => prop_assert!(false, "{}", other),
        }
    }
}
