//! What only the kernel knows of a host SMMU: `IOMMU_GET_HW_INFO`, which needs a device that is bound for a moment.

use std::error::Error;

use nestling_devices::smmuv3::physical::HostCapabilities;
use nestling_devices::vfio::{VfioCdev, VfioHost};
use nestling_iommufd::{AttachHwpt, HwInfo, Iommufd};

use super::spec::SmmuAnswer;
use super::{Access, HostDevice, Inventory, assignable};
use crate::config::{HostAddress, Request};

/// Devices that work with ATS only, by vendor and device ID (`pci_dev_specific_ats_required`, drivers/pci/quirks.c). Linux
/// counts CXL.cache devices as well, but no guest sees what makes them such.
const NVIDIA: u16 = 0x10de;
const MELLANOX: u16 = 0x15b3;

/// Opens /dev/iommu and binds devices for a moment, which resets them: of each list one after the other until one
/// answers. Whatever goes wrong is the answer.
pub fn ask(inventory: &mut Inventory, devices: &[Vec<HostAddress>]) {
    if devices.is_empty() {
        return;
    }
    let opened = open(inventory);
    ask_each(inventory, devices, |inventory, address| {
        let (iommufd, vfio) = opened.as_ref().map_err(Clone::clone)?;
        ask_one(inventory, address, iommufd, vfio)
    });
}

fn ask_each(
    inventory: &mut Inventory,
    devices: &[Vec<HostAddress>],
    ask: impl Fn(&Inventory, HostAddress) -> Result<HostCapabilities, String>,
) {
    for one_of in devices {
        for &address in one_of {
            let answer = ask(inventory, address);
            let Some(device) = inventory.devices.iter_mut().find(|device| device.address == address) else { continue };
            device.smmu = match answer {
                Ok(known) => SmmuAnswer::Known(known),
                Err(why) => SmmuAnswer::Unknown(why),
            };
            if matches!(device.smmu, SmmuAnswer::Known(_)) {
                break;
            }
        }
    }
}

fn open(inventory: &Inventory) -> Result<(Iommufd, VfioHost), String> {
    match inventory.dev_iommu {
        Access::Missing => return Err("/dev/iommu does not exist".into()),
        Access::Denied => return Err("no permission to open /dev/iommu".into()),
        Access::Ok => {}
    }
    let iommufd = Iommufd::open().map_err(chain)?;
    let vfio = VfioHost::new(&iommufd).map_err(chain)?;
    Ok((iommufd, vfio))
}

fn ask_one(
    inventory: &Inventory,
    address: HostAddress,
    iommufd: &Iommufd,
    vfio: &VfioHost,
) -> Result<HostCapabilities, String> {
    let found = assignable(inventory, address).map_err(chain)?;
    let cdev = vfio.open(&address.to_string(), found.cdev).map_err(chain)?;
    let info = iommufd.hw_info(VfioCdev::dev_id(&cdev)).map_err(chain)?;
    capabilities(inventory, found.device, &info).ok_or_else(|| format!("the IOMMU of {address} is no SMMUv3"))
}

/// Who has no ATS here does not require it either (drivers/pci/ats.c, `pci_ats_required`).
fn capabilities(inventory: &Inventory, device: &HostDevice, info: &HwInfo) -> Option<HostCapabilities> {
    let known = HostCapabilities::of(info)?;
    Some(HostCapabilities { ats_required: known.ats && requires_ats(inventory, device), ..known })
}

/// The error with all that caused it.
fn chain(error: impl Error + 'static) -> String {
    let causes = std::iter::successors(Some(&error as &dyn Error), |&error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// The devices to ask for a machine: all of its own if `all` is wanted, and one of those behind it for each vSMMU that has
/// none.
pub fn to_ask(request: &Request, inventory: &Inventory, all: bool) -> Vec<Vec<HostAddress>> {
    let own: Vec<_> = request.device.iter().map(|device| device.host).collect();
    let behind =
        |smmu: &str| own.iter().any(|own| inventory.device(*own).is_some_and(|d| d.iommu.as_deref() == Some(smmu)));
    let vacant = request.vsmmu.iter().filter_map(|vsmmu| vsmmu.host_smmu()).filter(|smmu| !behind(smmu));
    let others = vacant.map(|smmu| {
        let behind = inventory.devices.iter().filter(|device| device.iommu.as_deref() == Some(&*smmu));
        behind.map(|device| device.address).filter(|address| assignable(inventory, *address).is_ok()).collect()
    });
    let others = others.filter(|one_of: &Vec<_>| !one_of.is_empty());
    own.iter().filter(|_| all).map(|&address| vec![address]).chain(others).collect()
}

/// Whether a device, or the physical function that it is part of, works with ATS only where it has it.
pub fn requires_ats(inventory: &Inventory, device: &HostDevice) -> bool {
    let physical = device.physical_function.and_then(|physical| inventory.device(physical));
    let HostDevice { vendor, device, .. } = physical.unwrap_or(device);
    matches!((*vendor, *device), (NVIDIA, 0x2e00..=0x2e3f) | (MELLANOX, 0x2101))
}

#[cfg(test)]
mod tests {
    use nestling_iommufd::{Capabilities, SmmuV3Info};

    use super::*;
    use crate::host::testing::{Fixture, GRACE_NVME, Pci};

    fn inventory(devices: &[Pci]) -> Inventory {
        let host = Fixture::new();
        devices.iter().for_each(|device| host.device(*device));
        Inventory::read(host.root(), None).unwrap()
    }

    fn answer(mut inventory: Inventory) -> String {
        let address = GRACE_NVME.address.parse().unwrap();
        ask(&mut inventory, &[vec![address]]);
        match &inventory.device(address).unwrap().smmu {
            SmmuAnswer::Unknown(why) => why.clone(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn who_may_not_ask_is_told_why() {
        let with = |access| {
            let mut inventory = inventory(&[GRACE_NVME]);
            inventory.dev_iommu = access;
            answer(inventory)
        };
        assert_eq!(with(Access::Missing), "/dev/iommu does not exist");
        assert_eq!(with(Access::Denied), "no permission to open /dev/iommu");
    }

    #[test]
    fn an_answer_has_all_that_caused_it() {
        #[derive(Debug, thiserror::Error)]
        #[error("{0}")]
        struct Link(&'static str, #[source] Option<Box<Link>>);
        let link = |text, source| Link(text, Some(Box::new(source)));
        let error = link("11:00.0: bind failed", link("VFIO_DEVICE_BIND_IOMMUFD", Link("out of memory", None)));
        assert_eq!(chain(error), "11:00.0: bind failed: VFIO_DEVICE_BIND_IOMMUFD: out of memory");
    }

    #[test]
    fn nobody_is_asked_for_a_machine_without_devices() {
        let mut before = inventory(&[GRACE_NVME]);
        before.dev_iommu = Access::Ok;
        let mut after = before.clone();
        ask(&mut after, &to_ask(&Request::default(), &before, true));
        assert_eq!(before, after);
    }

    #[test]
    fn own_devices_are_asked_and_others_where_a_vsmmu_has_none() {
        let smmu = Some("smmu3.0x000000000c020000");
        let free = Pci { address: "0000:22:00.0", group: 6, iommu: smmu, vfio: Some("vfio2"), ..GRACE_NVME };
        let taken =
            Pci { address: "0000:21:00.0", group: 5, iommu: smmu, driver: Some("nvme"), vfio: None, ..GRACE_NVME };
        let other = Pci { address: "0000:23:00.0", group: 7, vfio: Some("vfio3"), ..free };
        let inventory = inventory(&[GRACE_NVME, taken, free, other]);
        let request = |device: &[&str], vsmmu: &[&str]| Request {
            device: device.iter().map(|text| text.parse().unwrap()).collect(),
            vsmmu: vsmmu.iter().map(|text| text.parse().unwrap()).collect(),
            ..Request::default()
        };
        let asked = |request: &Request, all| {
            let addresses = to_ask(request, &inventory, all);
            let words =
                |one_of: &Vec<HostAddress>| one_of.iter().map(ToString::to_string).collect::<Vec<_>>().join(" or ");
            addresses.iter().map(words).collect::<Vec<_>>()
        };
        let both = request(&["0000:11:00.0"], &["ats=off", "smmu3.0xc020000", "smmu3.0xc000000"]);
        assert_eq!(asked(&both, true), ["0000:11:00.0", "0000:22:00.0 or 0000:23:00.0"]);
        assert_eq!(asked(&both, false), ["0000:22:00.0 or 0000:23:00.0"]);
        assert_eq!(asked(&request(&[], &["smmu3.0xc060000"]), true), Vec::<String>::new());
    }

    #[test]
    fn the_next_device_is_asked_if_one_does_not_answer_and_no_more_if_it_does() {
        let at = |address, group, vfio| Pci { address, group, vfio: Some(vfio), ..GRACE_NVME };
        let devices = [GRACE_NVME, at("0000:12:00.0", 5, "vfio1"), at("0000:13:00.0", 6, "vfio2")];
        let mut inventory = inventory(&devices);
        let addresses = devices.map(|device| device.address.parse().unwrap());
        ask_each(&mut inventory, &[addresses.to_vec()], |_, address| match address == addresses[0] {
            true => Err("in use".into()),
            false => Ok(HostCapabilities::default()),
        });
        let answers = addresses.map(|address| inventory.device(address).unwrap().smmu.clone());
        let known = SmmuAnswer::Known(HostCapabilities::default());
        assert_eq!(answers, [SmmuAnswer::Unknown("in use".into()), known, SmmuAnswer::NotAsked]);
    }

    #[test]
    fn devices_that_require_ats_are_known_and_so_are_their_virtual_functions() {
        let requires = |devices: &[Pci]| {
            let inventory = inventory(devices);
            requires_ats(&inventory, inventory.device(GRACE_NVME.address.parse().unwrap()).unwrap())
        };
        assert!(!requires(&[GRACE_NVME]));
        for (id, required) in [((0x10de, 0x2e12), true), ((0x10de, 0x2342), false), ((0x15b3, 0x2101), true)] {
            assert_eq!(requires(&[Pci { id, ..GRACE_NVME }]), required, "{id:x?}");
        }
        let physical = Pci { address: "0000:11:00.1", id: (0x15b3, 0x2101), vfio: None, ..GRACE_NVME };
        assert!(requires(&[Pci { physical_function: Some(physical.address), ..GRACE_NVME }, physical]));
    }

    #[test]
    fn a_device_that_has_no_ats_here_does_not_require_it() {
        let inventory = inventory(&[Pci { id: (0x15b3, 0x2101), ..GRACE_NVME }]);
        let device = inventory.device(GRACE_NVME.address.parse().unwrap()).unwrap();
        let required = |lacks: Capabilities| {
            let info = HwInfo { capabilities: lacks, smmu: Some(SmmuV3Info::default()), ..HwInfo::default() };
            capabilities(&inventory, device, &info).unwrap().ats_required
        };
        assert!(required(Capabilities::empty()));
        assert!(!required(Capabilities::PCI_ATS_NOT_SUPPORTED));
    }
}
