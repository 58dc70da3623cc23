//! Which device is behind which expander, at which root port, in which slot; and the bus numbers.

use super::error::Error;
use crate::config::{DeviceRequest, Request, VsmmuRequest};
use crate::host::{Assignable, HostDevice, Inventory, assignable};

/// Devices of a PCI bus.
const DEVICES: usize = 32;
/// Expanders on pcie.0, whose device 0 is the host bridge.
pub const MAX_EXPANDERS: usize = DEVICES - 1;
/// Free ports of an expander without devices.
const VACANT_PORTS: usize = 4;
/// Physical Slot Number has 13 bits (PCIe 6.0, 7.5.3.9).
const MAX_SLOT: u16 = (1 << 13) - 1;

/// The devices of one host SMMU.
pub struct Group<'a> {
    /// Its name.
    pub smmu: &'a str,
    /// Their root ports, by device number.
    pub ports: Vec<Port<'a>>,
    /// The expander's root bus; each port has the next bus behind it.
    pub bus: u8,
    /// What its vSMMU is to show.
    pub wishes: VsmmuRequest,
}

impl<'a> Group<'a> {
    fn new(smmu: &'a str) -> Self {
        Self { smmu, ports: Vec::new(), bus: 0, wishes: VsmmuRequest::default() }
    }

    /// Its devices.
    pub fn devices(&self) -> impl Iterator<Item = &'a HostDevice> {
        self.ports.iter().filter_map(|port| Some(port.function?.device))
    }

    /// The bus behind the port with this device number.
    pub fn secondary_bus(&self, port: usize) -> u8 {
        self.bus + 1 + port as u8
    }

    /// The expander's last bus.
    pub fn last_bus(&self) -> u8 {
        self.bus + self.ports.len() as u8
    }
}

/// A root port.
pub struct Port<'a> {
    /// What is behind it.
    pub function: Option<Assignable<'a>>,
    /// Physical slot number.
    pub slot: u16,
}

/// Groups the devices by host SMMU. SMMUs are in the order of their first device in the request, devices in the order
/// of the request, so that the guest finds them in that order; SMMUs without devices that are asked for by name come
/// last. Each expander has free ports where there is room for them: one behind its devices, or several without.
pub fn groups<'a>(request: &Request, inventory: &'a Inventory) -> Result<Vec<Group<'a>>, Error> {
    let requests = &request.device;
    let mut groups: Vec<Group<'a>> = Vec::new();
    for (i, request) in requests.iter().enumerate() {
        check_against(&requests[..i], request)?;
        let found = assignable(inventory, request.host)?;
        let port = Port { function: Some(found), slot: request.slot.unwrap_or(0) };
        match groups.iter_mut().find(|group| group.smmu == found.smmu) {
            Some(group) => group.ports.push(port),
            None => groups.push(Group { ports: vec![port], ..Group::new(found.smmu) }),
        }
    }
    add_wishes(&mut groups, &request.vsmmu, inventory)?;
    if groups.len() > MAX_EXPANDERS {
        return Err(Error::TooManySmmus { count: groups.len(), most: MAX_EXPANDERS });
    }
    if let Some(group) = groups.iter().find(|group| group.ports.len() > DEVICES) {
        let (smmu, count) = (group.smmu.to_owned(), group.ports.len());
        return Err(Error::TooManyPorts { smmu, count, most: DEVICES });
    }
    add_free_ports(&mut groups);
    number_slots(&mut groups);
    number_buses(&mut groups)?;
    Ok(groups)
}

fn check_against(others: &[DeviceRequest], new: &DeviceRequest) -> Result<(), Error> {
    let second = new.host;
    if let Some(slot) = new.slot.filter(|slot| !(1..=MAX_SLOT).contains(slot)) {
        return Err(Error::SlotRange { address: second, slot, most: MAX_SLOT });
    }
    for other in others {
        let first = other.host;
        if first == second {
            return Err(Error::DeviceTwice(first));
        }
        if let Some(slot) = new.slot.filter(|_| new.slot == other.slot) {
            return Err(Error::SlotTwice { first, second, slot });
        }
    }
    Ok(())
}

/// Bus 0, and for each expander its own and one for each port.
fn buses(groups: &[Group<'_>]) -> usize {
    1 + groups.iter().map(|group| 1 + group.ports.len()).sum::<usize>()
}

/// Gives each group what is wished for it, and makes the groups that are asked for by name.
fn add_wishes<'a>(
    groups: &mut Vec<Group<'a>>,
    requests: &[VsmmuRequest],
    inventory: &'a Inventory,
) -> Result<(), Error> {
    for request in requests {
        let Some(name) = request.host_smmu() else { continue };
        let known = |group: &Group<'_>| group.smmu == name;
        let at = match groups.iter().position(known) {
            Some(at) => at,
            None => {
                let smmu = inventory.smmus.iter().find(|smmu| **smmu == name);
                let smmu = smmu.ok_or_else(|| Error::NoSmmu { name, smmus: inventory.smmus.join(", ") })?;
                groups.push(Group::new(smmu));
                groups.len() - 1
            }
        };
        groups[at].wishes = request.over(&groups[at].wishes);
    }
    if groups.is_empty() && !requests.is_empty() {
        return Err(Error::NoVsmmu);
    }
    // What is said later overrides what was said before; what is said for one SMMU, what is said for all.
    let for_all = requests.iter().filter(|request| request.host.is_none());
    let all = for_all.fold(VsmmuRequest::default(), |before, request| request.over(&before));
    for group in groups {
        group.wishes = group.wishes.over(&all);
    }
    Ok(())
}

fn add_free_ports(groups: &mut [Group<'_>]) {
    let free = |group: &Group<'_>| match group.ports.len() {
        0 => VACANT_PORTS,
        DEVICES => 0,
        _ => 1,
    };
    let wanted: usize = groups.iter().map(free).sum();
    let fits = buses(groups) + wanted <= 256;
    for group in groups {
        // Without any port nothing could ever be behind it.
        let count = if fits { free(group) } else { usize::from(group.ports.is_empty()) };
        group.ports.extend((0..count).map(|_| Port { function: None, slot: 0 }));
    }
}

/// Gives the lowest free number to every port that has none.
fn number_slots(groups: &mut [Group<'_>]) {
    let mut free: Vec<u16> = (1..=MAX_SLOT).rev().collect();
    let ports = || groups.iter().flat_map(|group| &group.ports);
    free.retain(|slot| ports().all(|port| port.slot != *slot));
    for port in groups.iter_mut().flat_map(|group| &mut group.ports).filter(|port| port.slot == 0) {
        // 31 expanders of 32 ports are far fewer than there are slots.
        port.slot = free.pop().unwrap_or(0);
    }
}

/// From the top of the bus numbers, so that pcie.0 has the low ones to itself; ascending in the order of the groups.
fn number_buses(groups: &mut [Group<'_>]) -> Result<(), Error> {
    let buses = buses(groups);
    let mut next = 256_usize.checked_sub(buses - 1).filter(|&first| first > 0).ok_or(Error::TooManyBuses { buses })?;
    for group in groups {
        group.bus = next as u8;
        next += 1 + group.ports.len();
    }
    Ok(())
}
