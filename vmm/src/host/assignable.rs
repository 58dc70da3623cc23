//! Whether a device can be given to a guest, and if not, what to do about it.

use std::path::Path;

use super::{Access, Error, HostDevice, Inventory};
use crate::config::HostAddress;

/// A device that can be given to a guest.
#[derive(Clone, Copy, Debug)]
pub struct Assignable<'a> {
    /// The device.
    pub device: &'a HostDevice,
    /// Its host SMMU.
    pub smmu: &'a str,
    /// Its VFIO character device, which this process may open.
    pub cdev: &'a Path,
}

/// Finds the device and checks everything that sysfs tells about it.
pub fn assignable(inventory: &Inventory, address: HostAddress) -> Result<Assignable<'_>, Error> {
    let device = inventory.device(address).ok_or(Error::NoDevice(address))?;
    if device.bridge {
        return Err(Error::Bridge(address));
    }
    let smmu = device.iommu.as_deref().ok_or(Error::NoIommu(address))?;
    // arm-smmu-v3 registers itself as "smmu3." and its address (drivers/iommu/arm/arm-smmu-v3/arm-smmu-v3.c).
    if !smmu.starts_with("smmu3.") {
        return Err(Error::NotSmmu { address, iommu: smmu.into() });
    }
    let cdev = match (&device.cdev, &device.driver) {
        (Some(cdev), _) => cdev,
        (None, None) => return Err(Error::Unbound(address)),
        // Variant drivers are named so as well (nvgrace_gpu_vfio_pci, mlx5_vfio_pci); what counts is the cdev.
        (None, Some(driver)) if driver.contains("vfio") => {
            return Err(Error::NoCdev { address, driver: driver.clone() });
        }
        (None, Some(driver)) => return Err(Error::OtherDriver { address, driver: driver.clone() }),
    };
    alone_in_its_group(inventory, device)?;
    no_vf_token(inventory, device)?;
    match cdev.access {
        Access::Ok => Ok(Assignable { device, smmu, cdev: &cdev.path }),
        Access::Denied => Err(Error::CdevDenied { address, path: cdev.path.clone() }),
        Access::Missing => Err(Error::CdevMissing { address, path: cdev.path.clone() }),
    }
}

/// The device must be alone in its IOMMU group.
///
/// A driver of the host in the group keeps iommufd out (`iommu_device_claim_dma_owner`). And even a group without one
/// cannot be nested: a domain is attached to all of its devices (`__iommu_group_set_domain_internal`, bridges included),
/// which a stage-1 domain refuses for those without a vDEVICE (`arm_smmu_attach_prepare_vmaster`), and where all of them
/// have one, the stage 1 that is installed last is everybody's.
fn alone_in_its_group(inventory: &Inventory, device: &HostDevice) -> Result<(), Error> {
    let Some(group) = inventory.group_of(device) else { return Ok(()) };
    let (address, number) = (device.address, group.number);
    let others = || group.members.iter().copied().filter(|&member| member != address);
    let in_use = others().find_map(|other| {
        let neighbour = inventory.device(other).filter(|neighbour| neighbour.cdev.is_none() && !neighbour.bridge)?;
        Some((other, neighbour.driver.clone()?))
    });
    match (in_use, others().next()) {
        (Some((other, driver)), _) => Err(Error::GroupInUse { address, group: number, other, driver }),
        (None, Some(other)) => Err(Error::SharedGroup { address, group: number, other }),
        (None, None) => Ok(()),
    }
}

/// A virtual function whose physical function has a VFIO driver cannot be opened without that one's VF token
/// (`vfio_pci_core_match_token_uuid`).
fn no_vf_token(inventory: &Inventory, device: &HostDevice) -> Result<(), Error> {
    let physical = device.physical_function.and_then(|physical| inventory.device(physical));
    match physical.filter(|physical| physical.cdev.is_some()) {
        Some(physical) => Err(Error::VfToken {
            address: device.address,
            physical: physical.address,
            driver: physical.driver.clone().unwrap_or_default(),
        }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::testing::{Fixture, GRACE_NVME, Pci};

    /// What is said about GRACE_NVME once it is what `change` makes of it.
    fn refusal(change: impl FnOnce(&mut Pci)) -> String {
        let host = Fixture::new();
        let mut device = GRACE_NVME;
        change(&mut device);
        host.device(device);
        let inventory = Inventory::read(host.root(), None).unwrap();
        assignable(&inventory, GRACE_NVME.address.parse().unwrap()).unwrap_err().to_string()
    }

    #[test]
    fn a_device_bound_to_vfio_behind_an_smmu_is_assignable() {
        let host = Fixture::new();
        host.device(GRACE_NVME);
        let inventory = Inventory::read(host.root(), None).unwrap();
        let found = assignable(&inventory, GRACE_NVME.address.parse().unwrap()).unwrap();
        assert_eq!((found.smmu, found.cdev), ("smmu3.0x000000000c000000", Path::new("/dev/vfio/devices/vfio0")));
    }

    #[test]
    fn a_variant_driver_is_as_good_as_vfio_pci() {
        let host = Fixture::new();
        host.device(Pci { driver: Some("nvgrace-gpu-vfio-pci"), ..GRACE_NVME });
        let inventory = Inventory::read(host.root(), None).unwrap();
        assert!(assignable(&inventory, GRACE_NVME.address.parse().unwrap()).is_ok());
    }

    #[test]
    fn no_such_device() {
        assert_eq!(
            refusal(|device| device.address = "0000:12:00.0"),
            "there is no PCI device 0000:11:00.0 on this host; 'lspci -D' lists them"
        );
    }

    #[test]
    fn a_device_of_the_host_is_refused_with_the_commands_that_free_it() {
        assert_eq!(
            refusal(|device| (device.driver, device.vfio) = (Some("nvme"), None)),
            "0000:11:00.0 is bound to 'nvme'; bind it to vfio-pci: \
             echo vfio-pci > /sys/bus/pci/devices/0000:11:00.0/driver_override; \
             echo 0000:11:00.0 > /sys/bus/pci/drivers/nvme/unbind; echo 0000:11:00.0 > /sys/bus/pci/drivers_probe"
        );
        let unbound = refusal(|device| (device.driver, device.vfio) = (None, None));
        assert!(unbound.starts_with("0000:11:00.0 is bound to no driver; bind it to vfio-pci: echo vfio-pci > "));
    }

    #[test]
    fn a_kernel_without_vfio_cdev_is_named() {
        let refused = refusal(|device| device.vfio = None);
        assert!(refused.contains("CONFIG_VFIO_DEVICE_CDEV"), "{refused}");
    }

    #[test]
    fn a_device_without_an_smmu_is_refused() {
        assert!(refusal(|device| device.iommu = None).contains("is behind no IOMMU"));
        assert!(refusal(|device| device.iommu = Some("dmar0")).contains("is behind 'dmar0', which is not an SMMUv3"));
    }

    #[test]
    fn a_bridge_is_refused() {
        assert!(refusal(|device| (device.class, device.header) = (0x060400, Some(1))).contains("is a bridge"));
    }

    #[test]
    fn a_function_with_a_class_of_bridges_and_the_header_of_a_device_is_assignable() {
        let host = Fixture::new();
        host.device(Pci { class: 0x068000, ..GRACE_NVME });
        let inventory = Inventory::read(host.root(), None).unwrap();
        assert!(assignable(&inventory, GRACE_NVME.address.parse().unwrap()).is_ok());
    }

    #[test]
    fn a_virtual_function_is_assignable_while_its_physical_function_is_the_hosts() {
        let with = |physical: Pci| {
            let host = Fixture::new();
            host.device(Pci { group: 3, address: "0000:10:00.0", ..physical });
            host.device(Pci { physical_function: Some("0000:10:00.0"), ..GRACE_NVME });
            let inventory = Inventory::read(host.root(), None).unwrap();
            assignable(&inventory, GRACE_NVME.address.parse().unwrap()).map(|_| ()).map_err(|error| error.to_string())
        };
        assert_eq!(with(Pci { driver: Some("nvme"), vfio: None, ..GRACE_NVME }), Ok(()));
        assert_eq!(
            with(Pci { vfio: Some("vfio1"), ..GRACE_NVME }).unwrap_err(),
            "0000:11:00.0 is a virtual function of 0000:10:00.0, which is bound to 'vfio-pci': VFIO asks for a VF token \
             then, and nestling has none; let the host's own driver of 0000:10:00.0 make the virtual functions, or \
             assign 0000:10:00.0 itself"
        );
    }

    #[test]
    fn a_cdev_that_cannot_be_opened_is_refused() {
        let host = Fixture::new();
        host.device(GRACE_NVME);
        let mut inventory = Inventory::read(host.root(), None).unwrap();
        let mut refusal = |access| {
            inventory.devices[0].cdev.as_mut().unwrap().access = access;
            assignable(&inventory, inventory.devices[0].address).unwrap_err().to_string()
        };
        assert_eq!(
            refusal(Access::Denied),
            "no permission to open /dev/vfio/devices/vfio0 of 0000:11:00.0; give it to your user (chown), or run as root"
        );
        assert!(refusal(Access::Missing).contains("/dev/vfio/devices/vfio0 of 0000:11:00.0 does not exist"));
    }

    #[test]
    fn a_device_is_alone_in_its_group() {
        let neighbour = Pci { address: "0000:11:00.1", vfio: None, ..GRACE_NVME };
        let refusal = |neighbour: Pci| {
            let host = Fixture::new();
            host.device(GRACE_NVME);
            host.device(neighbour);
            let inventory = Inventory::read(host.root(), None).unwrap();
            assignable(&inventory, GRACE_NVME.address.parse().unwrap()).unwrap_err().to_string()
        };
        assert_eq!(
            refusal(Pci { driver: Some("snd_hda_intel"), ..neighbour }),
            "0000:11:00.0 shares IOMMU group 4 with 0000:11:00.1, which is bound to 'snd_hda_intel'; \
             unbind that first: echo 0000:11:00.1 > /sys/bus/pci/drivers/snd_hda_intel/unbind"
        );
        for neighbour in [
            Pci { driver: None, ..neighbour },
            Pci { driver: Some("pcieport"), class: 0x060400, header: Some(1), ..neighbour },
            Pci { vfio: Some("vfio1"), ..neighbour },
        ] {
            let refused = refusal(neighbour);
            assert!(refused.starts_with("0000:11:00.0 shares IOMMU group 4 with 0000:11:00.1: the host "), "{refused}");
        }
    }
}
