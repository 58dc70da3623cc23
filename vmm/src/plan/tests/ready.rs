//! Whether a host can run a Plan now.

use std::error::Error;
use std::path::Path;

use super::host::*;
use crate::config::Request;
use crate::host::{Access, Cdev, Inventory};
use crate::plan::spec::Plan;
use crate::plan::{plan, ready};

/// A Plan for one device, with a kernel that is an Image.
fn planned(inventory: &Inventory, folder: &Path) -> Plan {
    std::fs::write(folder.join("Image"), image()).unwrap();
    let mut plan = plan(&request(1), inventory).unwrap();
    plan.boot.kernel = folder.join("Image");
    plan
}

/// What is said once the host is what `change` makes of it.
fn refusal(change: impl FnOnce(&mut Inventory, &mut Plan)) -> String {
    let folder = tempfile::tempdir().unwrap();
    let mut inventory = host(&[(0, vec![low(0, 16 * KIB)])]);
    let mut plan = planned(&inventory, folder.path());
    change(&mut inventory, &mut plan);
    ready(plan, &inventory).unwrap_err().to_string()
}

#[test]
fn a_device_may_have_another_cdev_number_than_when_it_was_planned() {
    let folder = tempfile::tempdir().unwrap();
    let mut inventory = host(&[(0, vec![low(0, 16 * KIB)])]);
    let plan = planned(&inventory, folder.path());
    let cdev = Cdev { path: "/dev/vfio/devices/vfio7".into(), access: Access::Ok };
    inventory.devices[0].cdev = Some(cdev);
    let plan = ready(plan, &inventory).unwrap();
    assert!(plan.functions().all(|(_, _, function)| function.cdev == Path::new("/dev/vfio/devices/vfio7")));
}

#[test]
fn kvm_must_be_there() {
    assert!(refusal(|host, _| host.dev_kvm = Access::Missing).starts_with("/dev/kvm does not exist; "));
    assert!(refusal(|host, _| host.dev_kvm = Access::Denied).starts_with("no permission to open /dev/kvm; "));
    let refused = refusal(|host, plan| {
        plan.cpus = 9;
        host.kvm.as_mut().unwrap().max_cpus = 8;
    });
    assert!(refused.contains("give --cpus 8 or less"), "{refused}");
    assert!(refusal(|host, _| host.kvm.as_mut().unwrap().ipa_bits = 36).contains("gives a guest 36"));
}

#[test]
fn iommufd_must_be_there_if_a_device_is_assigned() {
    assert!(refusal(|host, _| host.dev_iommu = Access::Missing).contains("CONFIG_IOMMUFD"));
    assert!(refusal(|host, _| host.dev_iommu = Access::Denied).starts_with("no permission to open /dev/iommu; "));
    let folder = tempfile::tempdir().unwrap();
    let mut inventory = host(&[(0, vec![])]);
    let mut plan = planned(&inventory, folder.path());
    plan.pci.expanders.clear();
    (inventory.dev_iommu, inventory.memlock.exempt) = (Access::Missing, false);
    assert!(ready(plan, &inventory).is_ok());
}

#[test]
fn a_memlock_limit_that_is_too_small_says_what_is_needed() {
    assert_eq!(
        refusal(|host, _| host.memlock.exempt = false),
        "RLIMIT_MEMLOCK is 8388608 bytes, but the guest's 1073741824 bytes of memory are pinned for its devices; \
         raise it to at least 1073741824 (ulimit -l 1048576), or give the process CAP_IPC_LOCK"
    );
}

#[test]
fn memory_is_at_most_what_the_host_has() {
    assert_eq!(
        refusal(|host, _| host.memory.total = 512 * MIB),
        "guest memory of 1G is more than the 512M that this host has; give --memory less"
    );
}

#[test]
fn memory_that_is_pinned_must_be_free_and_other_memory_need_not() {
    let busy = |host: &mut Inventory| host.memory.available = 700 * MIB + 1;
    assert_eq!(
        refusal(|host, _| busy(host)),
        "the guest's 1G of memory are pinned for its devices, but only 700M of this host's 64G are free; give --memory \
         less, or end something on the host (free huge pages count as used)"
    );
    let folder = tempfile::tempdir().unwrap();
    let mut inventory = host(&[(0, vec![])]);
    let mut plan = planned(&inventory, folder.path());
    plan.pci.expanders.clear();
    busy(&mut inventory);
    assert!(ready(plan, &inventory).is_ok());
}

#[test]
fn the_command_line_is_as_linux_takes_it() {
    let folder = tempfile::tempdir().unwrap();
    let inventory = host(&[]);
    let with = |cmdline: String| {
        std::fs::write(folder.path().join("Image"), image()).unwrap();
        let kernel = Some(folder.path().join("Image"));
        let plan = plan(&Request { kernel, cmdline: Some(cmdline), ..request(0) }, &inventory).unwrap();
        ready(plan, &inventory).map(|_| ()).map_err(|error| format!("{error}: {}", error.source().unwrap()))
    };
    assert_eq!(with("x".repeat(2047)), Ok(()));
    assert_eq!(
        with("x".repeat(2048)).unwrap_err(),
        "the command line cannot be passed to a kernel whose COMMAND_LINE_SIZE is 2048: the kernel command line has 2048 \
         bytes, and Linux on arm64 takes 2047: shorten it"
    );
    for odd in ["a\0b", "a\nb"] {
        assert!(with(odd.into()).unwrap_err().contains("printable"));
    }
}

#[test]
fn a_host_that_changed_since_the_plan_is_named() {
    let other_id = refusal(|host, _| host.devices[0].device = 0x1234);
    assert_eq!(other_id, "plan: 0000:10:00.0 was 1b36:0010 and is 1b36:1234 now; make it again with 'nestling plan'");
    assert!(refusal(|host, _| host.devices[0].iommu = Some(smmu(3))).contains("was behind smmu3.0x000000000c000000"));
    assert!(refusal(|host, _| host.devices[0].bars.clear()).contains("has other BARs now"));
    let msi = |base| move |host: &mut Inventory, _: &mut Plan| host.groups[0].reserved.push(msi_region(base));
    assert_eq!(
        refusal(msi(0x900_0000)),
        "plan: 0000:10:00.0 had its MSI window at 0x8000000..=0x80fffff and has it at 0x9000000..=0x90fffff now; \
         make it again with 'nestling plan'"
    );
    assert!(refusal(|host, _| host.devices.clear()).contains("there is no PCI device 0000:10:00.0"));
    assert!(refusal(|host, _| host.devices[0].cdev = None).contains("0000:10:00.0 is bound to 'vfio-pci' but has no"));
}

#[test]
fn boot_files_are_looked_at() {
    let missing = refusal(|_, plan| plan.boot.kernel = "/nonexistent".into());
    assert_eq!(missing, "kernel '/nonexistent' cannot be opened");
    let missing = refusal(|_, plan| plan.boot.initrd = Some("/nonexistent".into()));
    assert_eq!(missing, "initrd '/nonexistent' cannot be opened");
    let folder = tempfile::tempdir().unwrap();
    let other = folder.path().join("other");
    std::fs::write(&other, [b'x'; 4096]).unwrap();
    let refused = refusal(|_, plan| plan.boot.kernel = other.clone());
    assert_eq!(refused, format!("kernel '{}' cannot be booted", other.display()));
    let refused = refusal(|_, plan| plan.boot.kernel = folder.path().into());
    assert!(refused.ends_with("cannot be booted"), "{refused}");
    let tight = refusal(|_, plan| {
        plan.boot.initrd = Some(plan.boot.kernel.clone());
        plan.memory.size = MIB;
    });
    assert!(tight.contains("Image' with initrd '"), "{tight}");
}
