//! PCI functions and IOMMU groups as sysfs shows them (Documentation/ABI/testing/sysfs-bus-pci and
//! sysfs-kernel-iommu_groups of the kernel).

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use super::process;
use super::spec::{Cdev, HostBar, HostDevice, IommuGroup, ReservedRegion, SmmuAnswer};
use crate::config::HostAddress;

/// `flags` of a line of `resource` (include/linux/ioport.h).
const IORESOURCE_MEM: u64 = 0x200;
const IORESOURCE_PREFETCH: u64 = 0x2000;
const IORESOURCE_MEM_64: u64 = 0x10_0000;

/// Offset of the header type in configuration space, and its bit for a device of more than one function (PCIe 6.0,
/// 7.5.1.1.9).
const HEADER_TYPE: usize = 0x0e;
const MULTI_FUNCTION: u8 = 0x80;

/// A PCI function has at most this many BARs.
const BARS: usize = 6;

/// All PCI functions, by address.
pub fn devices(root: &Path) -> Vec<HostDevice> {
    let folder = root.join("sys/bus/pci/devices");
    let mut devices: Vec<_> =
        names(&folder).into_iter().filter_map(|name| device(root, &folder.join(&name), name.parse().ok()?)).collect();
    devices.sort_by_key(|device| device.address);
    devices
}

fn device(root: &Path, folder: &Path, address: HostAddress) -> Option<HostDevice> {
    let text = |name: &str| fs::read_to_string(folder.join(name)).ok();
    let hex = |name: &str| u32::from_str_radix(text(name)?.trim().trim_start_matches("0x"), 16).ok();
    let link = |name: &str| Some(fs::read_link(folder.join(name)).ok()?.file_name()?.to_str()?.to_owned());
    let class = hex("class")?;
    Some(HostDevice {
        address,
        vendor: hex("vendor")? as u16,
        device: hex("device")? as u16,
        class,
        bridge: is_bridge(class, header_type(&folder.join("config"))),
        driver: link("driver"),
        iommu: link("iommu"),
        iommu_group: link("iommu_group").and_then(|name| name.parse().ok()),
        cdev: names(&folder.join("vfio-dev")).into_iter().next().map(|name| {
            let path = PathBuf::from("/dev/vfio/devices").join(name);
            Cdev { access: process::access(root, &path), path }
        }),
        bars: bars(&text("resource")?),
        // -1 where the host has no NUMA, or does not say.
        numa_node: text("numa_node").and_then(|node| node.trim().parse().ok()),
        physical_function: link("physfn").and_then(|name| name.parse().ok()),
        smmu: SmmuAnswer::NotAsked,
    })
}

/// The header type of a function; none where it does not answer, which reads as all ones.
fn header_type(config: &Path) -> Option<u8> {
    let mut header = [0; HEADER_TYPE + 1];
    File::open(config).ok()?.read_exact(&mut header).ok()?;
    Some(header[HEADER_TYPE]).filter(|&header_type| header_type != 0xff)
}

/// VFIO takes functions of header type 0 only (`vfio_pci_core_register_device`, drivers/vfio/pci/vfio_pci_core.c): that
/// leaves out PCI-to-PCI bridges, but not what has a class of bridges and is none (an NVSwitch: 0680h). Where the header
/// cannot be read, host bridges and PCI-to-PCI bridges are known by their class.
fn is_bridge(class: u32, header_type: Option<u8>) -> bool {
    match header_type {
        Some(header_type) => header_type & !MULTI_FUNCTION != 0,
        None => matches!(class >> 8, 0x0600 | 0x0604),
    }
}

/// The memory BARs of a `resource` file: a line of start, last and flags for each BAR register; the second register
/// of a wide BAR has a line of zeros.
fn bars(resource: &str) -> Vec<HostBar> {
    let mut bars = Vec::new();
    for (index, line) in resource.lines().take(BARS).enumerate() {
        let mut fields = line.split_whitespace().map(|field| u64::from_str_radix(field.trim_start_matches("0x"), 16));
        let (Some(Ok(start)), Some(Ok(last)), Some(Ok(flags))) = (fields.next(), fields.next(), fields.next()) else {
            continue;
        };
        let size = last.checked_sub(start).and_then(|rest| rest.checked_add(1)?.checked_next_power_of_two());
        if let Some(size) = size.filter(|_| flags & IORESOURCE_MEM != 0) {
            bars.push(HostBar {
                index: index as u8,
                size,
                wide: flags & IORESOURCE_MEM_64 != 0,
                prefetchable: flags & IORESOURCE_PREFETCH != 0,
            });
        }
    }
    bars
}

/// The IOMMU groups of `devices`, by number.
pub fn groups(root: &Path, devices: &[HostDevice]) -> Vec<IommuGroup> {
    let mut members: BTreeMap<u32, Vec<HostAddress>> = BTreeMap::new();
    for device in devices {
        if let Some(group) = device.iommu_group {
            members.entry(group).or_default().push(device.address);
        }
    }
    let group = |(number, members)| {
        let path = root.join(format!("sys/kernel/iommu_groups/{number}/reserved_regions"));
        let reserved = fs::read_to_string(path).unwrap_or_default().lines().filter_map(reserved_region).collect();
        IommuGroup { number, members, reserved }
    };
    members.into_iter().map(group).collect()
}

/// The names of all SMMUv3s (Documentation/ABI/testing/sysfs-class-iommu).
pub fn smmus(root: &Path) -> Vec<String> {
    names(&root.join("sys/class/iommu")).into_iter().filter(|name| name.starts_with("smmu3.")).collect()
}

/// A line such as `0x0000000008000000 0x00000000080fffff msi`.
fn reserved_region(line: &str) -> Option<ReservedRegion> {
    let mut fields = line.split_whitespace();
    let mut address = || u64::from_str_radix(fields.next()?.strip_prefix("0x")?, 16).ok();
    Some(ReservedRegion { start: address()?, last: address()?, kind: fields.next()?.to_owned() })
}

/// The names in a folder, in order; none if there is no such folder.
fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(folder)
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .collect();
    names.sort();
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::testing::{Fixture, GRACE_NVME, Pci};
    use crate::host::{Access, Inventory};

    #[test]
    fn a_device_is_read_with_its_smmu_group_driver_cdev_and_bars() {
        let host = Fixture::new();
        host.device(GRACE_NVME);
        let inventory = Inventory::read(host.root(), None).unwrap();
        let device = inventory.device(GRACE_NVME.address.parse().unwrap()).unwrap();
        assert_eq!(device.id(), "1b36:0010");
        assert_eq!(device.class, 0x010802);
        assert_eq!(device.iommu.as_deref(), Some("smmu3.0x000000000c000000"));
        assert_eq!(device.iommu_group, Some(4));
        assert_eq!(device.driver.as_deref(), Some("vfio-pci"));
        assert_eq!(device.cdev, Some(Cdev { path: "/dev/vfio/devices/vfio0".into(), access: Access::Ok }));
        assert_eq!(device.numa_node, None);
        assert_eq!(device.physical_function, None);
        assert_eq!(device.bars, [HostBar { index: 0, size: 0x4000, wide: true, prefetchable: false }]);
        let group = inventory.group(4).unwrap();
        assert_eq!(group.members, [device.address]);
        assert_eq!(group.reserved, [ReservedRegion { start: 0x800_0000, last: 0x80f_ffff, kind: "msi".into() }]);
    }

    #[test]
    fn a_host_without_pci_has_no_devices() {
        let host = Fixture::new();
        let inventory = Inventory::read(host.root(), None).unwrap();
        assert_eq!((inventory.devices, inventory.groups), (vec![], vec![]));
    }

    #[test]
    fn io_bars_and_empty_bars_are_left_out() {
        let resource = "\
0x0000000010000000 0x0000000010003fff 0x0000000000140204
0x0000000000000000 0x0000000000000000 0x0000000000000000
0x000000000000d000 0x000000000000d01f 0x0000000000040101
0x0000000010040000 0x0000000010040fff 0x0000000000040200
0x0000008000000000 0x00000083ffffffff 0x000000000014220c
0x0000000000000000 0x0000000000000000 0x0000000000000000
0x0000000010080000 0x00000000100fffff 0x000000000004e200
";
        let bar = |index, size, wide, prefetchable| HostBar { index, size, wide, prefetchable };
        assert_eq!(
            bars(resource),
            [bar(0, 0x4000, true, false), bar(3, 0x1000, false, false), bar(4, 16 << 30, true, true)],
            "the last line is the ROM"
        );
    }

    #[test]
    fn a_bridge_is_what_has_the_header_of_one() {
        let bridge = |class, header| {
            let host = Fixture::new();
            host.device(Pci { class, header, ..GRACE_NVME });
            Inventory::read(host.root(), None).unwrap().devices[0].bridge
        };
        assert!(bridge(0x060400, Some(0x01)));
        assert!(bridge(0x060400, Some(0x81)), "of several functions");
        assert!(!bridge(0x068000, Some(0x00)), "an NVSwitch");
        assert!(!bridge(0x010802, Some(0x80)));
        for unreadable in [None, Some(0xff)] {
            assert!(bridge(0x060400, unreadable));
            assert!(bridge(0x060000, unreadable));
            assert!(!bridge(0x068000, unreadable));
        }
    }

    #[test]
    fn a_virtual_function_knows_its_node_and_its_physical_function() {
        let host = Fixture::new();
        host.device(Pci { numa_node: 1, physical_function: Some("0000:07:00.0"), ..GRACE_NVME });
        let device = &Inventory::read(host.root(), None).unwrap().devices[0];
        assert_eq!(device.numa_node, Some(1));
        assert_eq!(device.physical_function, Some("0000:07:00.0".parse().unwrap()));
    }

    #[test]
    fn what_is_no_device_is_left_out() {
        let host = Fixture::new();
        host.device(GRACE_NVME);
        std::fs::create_dir_all(host.root().join("sys/bus/pci/devices/0000:12:00.0")).unwrap();
        assert_eq!(Inventory::read(host.root(), None).unwrap().devices.len(), 1);
    }
}
