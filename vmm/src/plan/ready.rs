//! Whether this host can run a Plan now: everything that can be known before anything is opened or started.

use std::path::Path;

use super::error::{Error, HostChange};
use super::spec::{AssignedFunction, Plan, Window};
use super::{boot_files, features, reserved};
use crate::config::{HostAddress, Size};
use crate::host::spec::Memory;
use crate::host::{Access, Assignable, HostBar, Inventory, assignable};

/// Checks the Plan against the host. Gives it back with the character devices that its functions have now: their
/// numbers change whenever a device is bound anew.
pub fn ready(mut plan: Plan, inventory: &Inventory) -> Result<Plan, Error> {
    check_memory(&plan, inventory)?;
    boot_files::check(&plan.boot, plan.memory)?;
    let msi_window = plan.pci.msi_window;
    let expanders = plan.pci.expanders.iter_mut();
    let functions = expanders.flat_map(|expander| {
        let smmu = &expander.smmu.host;
        expander.ports.iter_mut().filter_map(move |port| Some((port.function.as_mut()?, smmu)))
    });
    for (function, smmu) in functions {
        let cdev = check_function(function, smmu, msi_window, inventory)?;
        function.cdev = cdev.into();
    }
    check_features(&plan, inventory)?;
    check_kvm(&plan, inventory)?;
    if !plan.pci.expanders.is_empty() {
        check_iommufd(&plan, inventory)?;
    }
    Ok(plan)
}

fn check_memory(plan: &Plan, inventory: &Inventory) -> Result<(), Error> {
    let Memory { total, available, page_size } = inventory.memory;
    if plan.memory.size > total {
        return Err(Error::MemoryTooLarge { size: Size(plan.memory.size), total: Size(total) });
    }
    // Without devices, now or later, the host may swap it, or never need it all.
    if !plan.pci.expanders.is_empty() && plan.memory.size > available {
        let whole_mib = Size(available >> 20 << 20);
        return Err(Error::MemoryNotFree { size: Size(plan.memory.size), available: whole_mib, total: Size(total) });
    }
    let page = page_size.max(1);
    if !plan.memory.size.is_multiple_of(page) {
        return Err(Error::MemoryNotAligned { size: plan.memory.size, page });
    }
    Ok(())
}

fn check_function<'a>(
    function: &AssignedFunction,
    smmu: &str,
    msi_window: Window,
    inventory: &'a Inventory,
) -> Result<&'a Path, Error> {
    let address: HostAddress = function.host.parse().map_err(Error::NotAnAddress)?;
    let Assignable { device, smmu: now, cdev } = assignable(inventory, address)?;
    let changed = |change| Err(Error::HostChanged { address, change });
    if device.id() != function.id {
        return changed(HostChange::Id { was: function.id.clone(), is: device.id() });
    }
    if now != smmu {
        return changed(HostChange::Smmu { was: smmu.into(), is: now.into() });
    }
    let planned = function.bars.iter().map(|bar| HostBar {
        index: bar.index,
        size: bar.window.size,
        wide: bar.wide,
        prefetchable: bar.prefetchable,
    });
    if !planned.eq(device.bars.iter().copied()) {
        return changed(HostChange::Bars);
    }
    match reserved::msi_window_of(device, inventory) {
        Some(is) if is != msi_window => changed(HostChange::MsiWindow { was: msi_window, is }),
        _ => Ok(cdev),
    }
}

/// What is frozen must be what the host has, as far as it was asked, and the host SMMUs must be there.
fn check_features(plan: &Plan, inventory: &Inventory) -> Result<(), Error> {
    for expander in &plan.pci.expanders {
        let (name, smmu) = (expander.name.clone(), expander.smmu.host.clone());
        let functions = expander.ports.iter().filter_map(|port| port.function.as_ref());
        let devices: Vec<_> = functions.filter_map(|function| inventory.device(function.host.parse().ok()?)).collect();
        if devices.is_empty() && !inventory.smmus.contains(&smmu) {
            return Err(Error::NoSmmu { name: smmu, smmus: inventory.smmus.join(", ") });
        }
        features::hold(&expander.smmu, &devices).map_err(|mismatch| Error::FeaturesChanged { name, smmu, mismatch })?;
    }
    Ok(())
}

fn check_kvm(plan: &Plan, inventory: &Inventory) -> Result<(), Error> {
    match inventory.dev_kvm {
        Access::Missing => return Err(Error::NoKvm),
        Access::Denied => return Err(Error::KvmDenied),
        Access::Ok => {}
    }
    // Not known: making the VM will tell.
    let Some(kvm) = inventory.kvm else { return Ok(()) };
    if plan.cpus > kvm.max_cpus {
        return Err(Error::TooManyCpus { cpus: plan.cpus, by: "KVM on this host", most: kvm.max_cpus });
    }
    if plan.ipa_bits > kvm.ipa_bits {
        return Err(Error::IpaTooNarrow { needed: plan.ipa_bits, most: kvm.ipa_bits });
    }
    Ok(())
}

fn check_iommufd(plan: &Plan, inventory: &Inventory) -> Result<(), Error> {
    match inventory.dev_iommu {
        Access::Missing => return Err(Error::NoIommufd),
        Access::Denied => return Err(Error::IommufdDenied),
        Access::Ok => {}
    }
    let needed = plan.memory.size;
    match inventory.memlock.limit.filter(|limit| !inventory.memlock.exempt && *limit < needed) {
        Some(limit) => Err(Error::Memlock { limit, needed, kib: needed / 1024 }),
        None => Ok(()),
    }
}
