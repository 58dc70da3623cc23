//! Hosts that need no sysfs.

use crate::config::{DeviceRequest, Request};
use crate::host::spec::{Memlock, Memory, ReservedRegion};
use crate::host::{Access, Cdev, HostBar, HostDevice, Inventory, IommuGroup, KvmLimits, SmmuAnswer};

pub const KIB: u64 = 1 << 10;
pub const MIB: u64 = 1 << 20;
pub const GIB: u64 = 1 << 30;

/// A BAR below 4 GiB.
pub const fn low(index: u8, size: u64) -> HostBar {
    HostBar { index, size, wide: false, prefetchable: false }
}

/// A prefetchable BAR of 64 bits.
pub const fn high(index: u8, size: u64) -> HostBar {
    HostBar { index, size, wide: true, prefetchable: true }
}

/// The host SMMU with this number.
pub fn smmu(number: usize) -> String {
    format!("smmu3.0x{:016x}", 0x0c00_0000 + number * 0x2_0000)
}

/// A host with one device for each entry: the number of its SMMU and its BARs. Device `i` is at [`address`] `i`.
pub fn host(devices: &[(usize, Vec<HostBar>)]) -> Inventory {
    let devices: Vec<_> = devices
        .iter()
        .enumerate()
        .map(|(i, (number, bars))| HostDevice {
            address: address(i).parse().unwrap(),
            vendor: 0x1b36,
            device: 0x10 + i as u16,
            class: 0x010802,
            bridge: false,
            driver: Some("vfio-pci".into()),
            iommu: Some(smmu(*number)),
            iommu_group: Some(i as u32),
            cdev: Some(Cdev { path: format!("/dev/vfio/devices/vfio{i}").into(), access: Access::Ok }),
            bars: bars.clone(),
            numa_node: None,
            physical_function: None,
            smmu: SmmuAnswer::NotAsked,
        })
        .collect();
    let groups = devices.iter().enumerate().map(|(i, device)| IommuGroup {
        number: i as u32,
        members: vec![device.address],
        reserved: Vec::new(),
    });
    Inventory {
        memory: Memory { total: 64 * GIB, available: 60 * GIB, page_size: 4096 },
        memlock: Memlock { limit: Some(8 * MIB), exempt: true },
        kvm: Some(KvmLimits { max_cpus: 512, ipa_bits: 48 }),
        dev_kvm: Access::Ok,
        dev_iommu: Access::Ok,
        groups: groups.collect(),
        smmus: (0..5).map(smmu).collect(),
        devices,
    }
}

/// The MSI window of a group, as the host tells.
pub fn msi_region(start: u64) -> ReservedRegion {
    ReservedRegion { start, last: start + MIB - 1, kind: "msi".into() }
}

/// The address of device `i` of [`host`]: 0000:10:00.0, 0000:11:00.0, ...
pub fn address(i: usize) -> String {
    format!("{:04x}:{:02x}:00.0", i >> 7, 0x10 + (i & 0x7f))
}

/// A request for the first `count` devices of [`host`].
pub fn request(count: usize) -> Request {
    Request {
        kernel: Some("Image".into()),
        device: (0..count).map(|i| DeviceRequest::new(address(i).parse().unwrap())).collect(),
        ..Request::default()
    }
}

/// The header of an arm64 Image (Documentation/arch/arm64/booting.rst) of 1 MiB.
pub fn image() -> Vec<u8> {
    let mut image = vec![0; 4096];
    image[16..24].copy_from_slice(&MIB.to_le_bytes());
    image[56..60].copy_from_slice(b"ARM\x64");
    image
}
