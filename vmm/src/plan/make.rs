//! Decides everything about a machine: a pure function of what is asked for and what the host has.

use nestling_arch::layout::{self, Region};
use nestling_devices::pci::Bdf;

use super::error::Error;
use super::features::{self, Decided};
use super::reserved;
use super::spec::{AssignedFunction, Boot, Expander, Gic, Pci, Plan, RootBus, RootPort, Smmu, Window, WiredDevice};
use super::topology::{self, Group};
use super::windows::{self, ExpanderWindows, Pair, Windows};
use crate::config::{Request, Size};
use crate::host::{Inventory, requires_ats};

/// Devices of pcie.0; expanders have the highest, so that emulated devices keep their numbers.
const ROOT_DEVICES: usize = 32;
/// What KVM makes when it is not told a size, and what most guests fit.
const USUAL_IPA_BITS: u8 = 40;

/// Makes the Plan for `request` on a host with `inventory`.
///
/// Looks at nothing else: neither at the boot files nor at what changes from one minute to the next (free memory,
/// limits, permissions); see [`super::ready`].
pub fn plan(request: &Request, inventory: &Inventory) -> Result<Plan, Error> {
    let boot = boot(request)?;
    let cpus = cpus(request, inventory)?;
    let memory = memory(request, inventory)?;
    let groups = topology::groups(request, inventory)?;
    reserved::check(&groups, inventory, memory)?;

    let limit = inventory.kvm.map(|kvm| kvm.ipa_bits);
    let windows = windows::windows(&groups, memory.size, limit)?;
    let needed = layout::ipa_bits(windows.high.mmio.end());
    let most = limit.unwrap_or(u8::MAX);
    if needed > most {
        return Err(Error::IpaTooNarrow { needed, most });
    }
    let redistributors = layout::redistributors(cpus, &windows.high).ok_or_else(|| too_many_cpus(cpus))?;
    let mut pci = pci(&groups, windows, reserved::msi_window(&groups, inventory))?;
    for (expander, group) in pci.expanders.iter_mut().zip(&groups) {
        let devices: Vec<_> = group.devices().collect();
        let Decided { features, disable_stall, unknown, report } =
            features::decide(group.smmu, &devices, &group.wishes, inventory)
                .map_err(|source| Error::Features { smmu: group.smmu.into(), source })?;
        if let Some(Err(narrow)) = features.map(|values| features::reaches(&values, memory)) {
            return Err(Error::Narrow { smmu: group.smmu.into(), narrow });
        }
        let smmu = &mut expander.smmu;
        (smmu.features, smmu.unknown, smmu.report) = (features, unknown, report);
        smmu.disable_stall = disable_stall;
        for function in expander.ports.iter_mut().filter_map(|port| port.function.as_mut()) {
            let device = devices.iter().find(|device| device.address.to_string() == function.host);
            function.requires_ats = device.is_some_and(|device| requires_ats(inventory, device));
        }
    }
    let wired = |region, gsiv| WiredDevice { window: window(region), gsiv };
    Ok(Plan {
        boot,
        cpus,
        memory,
        ipa_bits: needed.max(USUAL_IPA_BITS.min(most)),
        gic: Gic {
            distributor: window(layout::GIC_DISTRIBUTOR),
            redistributors: window(redistributors),
            its: window(layout::GIC_ITS),
            interrupts: layout::GIC_INTERRUPTS,
        },
        serial: wired(layout::SERIAL, layout::SERIAL_INTID),
        rtc: wired(layout::RTC, layout::RTC_INTID),
        ged: wired(layout::GED, layout::GED_INTID),
        pci,
    })
}

fn boot(request: &Request) -> Result<Boot, Error> {
    let kernel = request.kernel.clone().ok_or(Error::NoKernel)?;
    Ok(Boot { kernel, initrd: request.initrd.clone(), cmdline: request.cmdline.clone().unwrap_or_default() })
}

fn cpus(request: &Request, inventory: &Inventory) -> Result<u16, Error> {
    match (request.cpus.unwrap_or(1), inventory.kvm) {
        (0, _) => Err(Error::NoCpus),
        (cpus, Some(kvm)) if cpus > kvm.max_cpus => {
            Err(Error::TooManyCpus { cpus, by: "KVM on this host", most: kvm.max_cpus })
        }
        (cpus, _) => Ok(cpus),
    }
}

fn too_many_cpus(cpus: u16) -> Error {
    Error::TooManyCpus { cpus, by: "nestling", most: 512 }
}

fn memory(request: &Request, inventory: &Inventory) -> Result<Window, Error> {
    let Size(size) = request.memory.unwrap_or(Request::DEFAULT_MEMORY);
    let page = inventory.memory.page_size.max(4096);
    if size == 0 {
        return Err(Error::NoMemory);
    }
    if !size.is_multiple_of(page) {
        return Err(Error::MemoryNotAligned { size, page });
    }
    layout::RAM_BASE.checked_add(size).ok_or(Error::AddressSpace(Size(size)))?;
    Ok(Window { base: layout::RAM_BASE, size })
}

fn pci(groups: &[Group<'_>], windows: Windows, msi_window: Window) -> Result<Pci, Error> {
    let last_bus = groups.first().map_or(255, |group| group.bus - 1);
    let count = groups.len();
    let expanders = groups.iter().zip(windows.expanders).enumerate();
    let expanders: Option<Vec<_>> =
        expanders.map(|(i, (group, windows))| expander(i, ROOT_DEVICES - count + i, group, windows)).collect();
    Ok(Pci {
        ecam: window(windows.high.ecam),
        msi_window,
        root: root_bus(0, last_bus, windows.root),
        expanders: expanders.ok_or(Error::TooManySmmus { count, most: topology::MAX_EXPANDERS })?,
    })
}

fn expander(index: usize, device: usize, group: &Group<'_>, windows: ExpanderWindows) -> Option<Expander> {
    let number = index as u32;
    let interrupts = layout::smmu_interrupts(number)?;
    let ports = group.ports.iter().zip(windows.ports).enumerate().map(|(i, (port, windows))| {
        let bus = group.secondary_bus(i);
        RootPort {
            device: i as u8,
            slot: port.slot,
            secondary_bus: bus,
            subordinate_bus: bus,
            mmio32: windows.window.mmio32,
            mmio64: windows.window.mmio64,
            bar0: windows.bar0,
            function: port.function.map(|function| AssignedFunction {
                host: function.device.address.to_string(),
                cdev: function.cdev.into(),
                id: function.device.id(),
                stream_id: Bdf::new(bus, 0, 0).requester_id().into(),
                numa_node: function.device.numa_node,
                requires_ats: false,
                bars: windows.bars,
            }),
        }
    });
    Some(Expander {
        name: format!("vsmmu{index}"),
        device: device as u8,
        root: root_bus(group.bus, group.last_bus(), windows.window),
        smmu: Smmu {
            host: group.smmu.into(),
            window: window(layout::smmu(number)?),
            event_gsiv: interrupts.event,
            gerror_gsiv: interrupts.gerror,
            sync_gsiv: interrupts.sync,
            // The ITS group has 0, as in QEMU's IORT.
            iort_identifier: number + 1,
            wishes: group.wishes.clone(),
            features: None,
            disable_stall: false,
            unknown: None,
            report: Vec::new(),
        },
        ports: ports.collect(),
    })
}

fn root_bus(bus: u8, last_bus: u8, windows: Pair) -> RootBus {
    RootBus { bus, last_bus, mmio32: windows.mmio32, mmio64: windows.mmio64 }
}

const fn window(region: Region) -> Window {
    Window { base: region.base, size: region.size }
}
