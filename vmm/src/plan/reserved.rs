//! Addresses that the host kernel keeps out of its devices' IOVAs: none of the guest's memory may be there, and one range
//! of them is where it maps the doorbell of its ITS.

use nestling_arch::layout;

use super::error::Error;
use super::spec::Window;
use super::topology::Group;
use crate::host::{HostDevice, Inventory};

/// Kind of the window that MSIs go through (`iommu_group_resv_type_string`, drivers/iommu/iommu.c).
const MSI: &str = "msi";
/// Kind of what the kernel gives up when a device is assigned.
const RELAXABLE: &str = "direct-relaxable";

/// Checks that the guest's memory is where the devices of all groups may have IOVAs: the kernel refuses to map it at
/// others (`iopt_table_enforce_dev_resv_regions`).
pub fn check(groups: &[Group<'_>], inventory: &Inventory, memory: Window) -> Result<(), Error> {
    for device in devices(groups) {
        for region in inventory.group_of(device).into_iter().flat_map(|group| &group.reserved) {
            if region.kind != RELAXABLE && region.start < memory.end() && memory.base <= region.last {
                return Err(Error::Reserved {
                    address: device.address,
                    start: region.start,
                    last: region.last,
                    memory: memory.to_string(),
                });
            }
        }
    }
    Ok(())
}

/// The window that MSIs of the devices go through. The kernel has one for all SMMUs; without a device to ask, it is where
/// Linux has it.
pub fn msi_window(groups: &[Group<'_>], inventory: &Inventory) -> Window {
    let linux = Window { base: layout::MSI_WINDOW.base, size: layout::MSI_WINDOW.size };
    devices(groups).find_map(|device| msi_window_of(device, inventory)).unwrap_or(linux)
}

/// The window that MSIs of `device` go through, if the host tells.
pub fn msi_window_of(device: &HostDevice, inventory: &Inventory) -> Option<Window> {
    let region = inventory.group_of(device)?.reserved.iter().find(|region| region.kind == MSI)?;
    Some(Window { base: region.start, size: region.last.checked_sub(region.start)?.checked_add(1)? })
}

fn devices<'a>(groups: &[Group<'a>]) -> impl Iterator<Item = &'a HostDevice> {
    groups.iter().flat_map(|group| &group.ports).filter_map(|port| Some(port.function?.device))
}
