//! Numbers that are there once, and what lies side by side in the guest's physical addresses.

use nestling_arch::layout;
use nestling_devices::pci::ECAM_SIZE;

use super::{Invalid, Place, aligned, apart, inside, once, place, sized, value};
use crate::plan::spec::{Plan, RootBus, Window};

/// The largest page of arm64, and of KVM's interrupt controller.
const PAGE: u64 = 64 << 10;

pub fn check_numbers(plan: &Plan) -> Result<(), Invalid> {
    let gic = &plan.gic;
    if plan.cpus == 0 {
        return Err(value("cpus", plan.cpus, "at least 1"));
    }
    if !(32..=52).contains(&plan.ipa_bits) {
        return Err(value("ipa-bits", plan.ipa_bits, "32 to 52"));
    }
    let redistributors = u64::from(plan.cpus) * layout::REDISTRIBUTOR_SIZE;
    if gic.redistributors.size < redistributors {
        return Err(value("size of the redistributors", gic.redistributors.size, format!("at least {redistributors}")));
    }
    if !(64..=992).contains(&gic.interrupts) || !gic.interrupts.is_multiple_of(32) {
        return Err(value("interrupts", gic.interrupts, "a multiple of 32, 64 to 992"));
    }
    let smmus = plan.pci.expanders.iter().map(|expander| &expander.smmu);
    let mut gsivs = vec![plan.serial.gsiv, plan.rtc.gsiv, plan.ged.gsiv];
    gsivs.extend(smmus.clone().flat_map(|smmu| [smmu.event_gsiv, smmu.gerror_gsiv, smmu.sync_gsiv]));
    if let Some(&gsiv) = gsivs.iter().find(|gsiv| !(32..gic.interrupts).contains(gsiv)) {
        return Err(value("a gsiv", gsiv, format!("an SPI: 32 to {}", gic.interrupts - 1)));
    }
    let expanders = &plan.pci.expanders;
    let ports = || expanders.iter().flat_map(|expander| &expander.ports);
    once("gsiv", gsivs.iter())?;
    once("vSMMU name", expanders.iter().map(|expander| &expander.name))?;
    once("pcie.0 device", expanders.iter().map(|expander| expander.device))?;
    once("host SMMU", smmus.clone().map(|smmu| &smmu.host))?;
    once("iort-identifier", smmus.map(|smmu| smmu.iort_identifier))?;
    once("slot", ports().map(|port| port.slot))?;
    once("device", plan.functions().map(|(_, _, function)| &function.host))?;
    match expanders.iter().find(|expander| !(1..32).contains(&expander.device)) {
        Some(expander) => Err(value(format!("device of {}", expander.name), expander.device, "1 to 31")),
        None => Ok(()),
    }
}

/// What lies side by side in the guest's physical addresses: everything that is not inside something else.
pub fn check_windows(plan: &Plan) -> Result<(), Invalid> {
    let pci = &plan.pci;
    let mut places = vec![
        place("memory", plan.memory),
        place("GIC distributor", plan.gic.distributor),
        place("GIC redistributors", plan.gic.redistributors),
        place("GIC ITS", plan.gic.its),
        place("serial", plan.serial.window),
        place("rtc", plan.rtc.window),
        place("ged", plan.ged.window),
        place("ECAM", pci.ecam),
        place("mmio32 of pcie.0", pci.root.mmio32),
        place("mmio64 of pcie.0", pci.root.mmio64),
    ];
    for expander in &pci.expanders {
        places.push(place(&expander.name, expander.smmu.window));
        places.push(place(format!("mmio32 of {}", expander.name), expander.root.mmio32));
        places.push(place(format!("mmio64 of {}", expander.name), expander.root.mmio64));
    }
    let msi = place("the host kernel's MSI window", pci.msi_window);
    places.iter().chain([&msi]).try_for_each(|place| addressable(place, plan.ipa_bits))?;
    apart(places)?;
    check_sizes(plan)?;
    check_msi_window(&msi, plan.memory)?;
    [&pci.root].into_iter().chain(pci.expanders.iter().map(|expander| &expander.root)).try_for_each(below_4g)
}

fn addressable(place: &Place, ipa_bits: u8) -> Result<(), Invalid> {
    match place.window.checked_end() {
        Some(end) if end <= 1 << ipa_bits => Ok(()),
        _ => Err(Invalid::Address { place: place.clone(), ipa_bits }),
    }
}

/// What the models and KVM have registers for, at addresses that KVM takes (`vgic_check_iorange`,
/// arch/arm64/kvm/vgic/vgic-kvm-device.c) and that guests of any page size can map.
fn check_sizes(plan: &Plan) -> Result<(), Invalid> {
    let (gic, ecam) = (&plan.gic, place("ECAM", plan.pci.ecam));
    aligned(&place("GIC redistributors", gic.redistributors), PAGE)?;
    let mut exact = vec![
        (place("GIC distributor", gic.distributor), layout::GIC_DISTRIBUTOR.size, PAGE),
        (place("GIC ITS", gic.its), layout::GIC_ITS.size, PAGE),
        (place("serial", plan.serial.window), layout::SERIAL.size, layout::SERIAL.size),
        (place("rtc", plan.rtc.window), layout::RTC.size, layout::RTC.size),
        (place("ged", plan.ged.window), layout::GED.size, layout::GED.size),
        (ecam, ECAM_SIZE, ECAM_SIZE),
    ];
    for expander in &plan.pci.expanders {
        exact.push((place(&expander.name, expander.smmu.window), layout::SMMU_SIZE, PAGE));
    }
    exact.iter().try_for_each(|(place, size, align)| sized(place, *size).and_then(|()| aligned(place, *align)))
}

/// Linux takes reserved memory ranges of whole 64 KiB (drivers/acpi/arm64/iort.c, `iort_rmr_alloc`). The GIC may be in
/// this one (it is not mapped for DMA), memory may not.
fn check_msi_window(msi: &Place, memory: Window) -> Result<(), Invalid> {
    if msi.window.size == 0 {
        return Err(value("size of msi-window", 0_u32, "at least 65536"));
    }
    aligned(msi, PAGE)?;
    apart(vec![place("memory", memory), msi.clone()])
}

fn below_4g(root: &RootBus) -> Result<(), Invalid> {
    let name = |space| place(format!("{space} of bus {:02x}", root.bus), root.mmio32);
    let low = place("the first 4 GiB", Window { base: 0, size: 1 << 32 });
    inside(&name("mmio32"), &low)
}
