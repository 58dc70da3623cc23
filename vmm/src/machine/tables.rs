//! From the Plan to what the ACPI tables describe.
#![forbid(unsafe_code)]

use nestling_acpi::description as acpi;
use nestling_arch::cpu::mpidr;
use nestling_arch::layout::PMU_INTID;

use crate::plan::Plan;
use crate::plan::spec::{Expander, RootBus, Window, WiredDevice};

/// What the tables of a machine say; `pmu` is whether its vCPUs have performance counters.
pub fn describe(plan: &Plan, pmu: bool) -> acpi::Description {
    // What is not decided yet shows neither.
    let features = || plan.pci.expanders.iter().filter_map(|expander| expander.smmu.features);
    let root = std::iter::once(bridge(0, &plan.pci.root));
    let expanders = (1..).zip(&plan.pci.expanders).map(|(uid, expander)| bridge(uid, &expander.root));
    acpi::Description {
        cpus: (0..plan.cpus).map(mpidr).collect(),
        pmu_gsiv: pmu.then_some(PMU_INTID),
        gic: acpi::Gic {
            distributor: plan.gic.distributor.base,
            redistributors: window(plan.gic.redistributors),
            its: plan.gic.its.base,
            its_identifier: 0,
        },
        serial: wired(plan.serial),
        rtc: wired(plan.rtc),
        ged: wired(plan.ged),
        pci: acpi::Pci {
            ecam: window(plan.pci.ecam),
            msi_window: window(plan.pci.msi_window),
            bridges: root.chain(expanders).collect(),
            smmus: plan.pci.expanders.iter().map(smmu).collect(),
            ats: features().any(|features| features.ats),
            pasid_bits: features().map(|features| features.ssidsize).max().unwrap_or_default(),
            canwbs: true,
        },
    }
}

fn window(window: Window) -> acpi::Window {
    acpi::Window { base: window.base, size: window.size }
}

fn wired(device: WiredDevice) -> acpi::WiredDevice {
    acpi::WiredDevice { window: window(device.window), gsiv: device.gsiv }
}

fn bridge(uid: u32, root: &RootBus) -> acpi::HostBridge {
    acpi::HostBridge {
        uid,
        buses: acpi::BusRange { first: root.bus, last: root.last_bus },
        mmio32: window(root.mmio32),
        mmio64: window(root.mmio64),
    }
}

fn smmu(expander: &Expander) -> acpi::Smmu {
    let root = std::iter::once(acpi::BusRange { first: expander.root.bus, last: expander.root.bus });
    // Also behind the free ports: a device may come there, and a guest may give a bus another number.
    let behind =
        expander.ports.iter().map(|port| acpi::BusRange { first: port.secondary_bus, last: port.subordinate_bus });
    acpi::Smmu {
        identifier: expander.smmu.iort_identifier,
        base: expander.smmu.window.base,
        event_gsiv: expander.smmu.event_gsiv,
        gerror_gsiv: expander.smmu.gerror_gsiv,
        sync_gsiv: expander.smmu.sync_gsiv,
        buses: acpi::BusRange { first: expander.root.bus, last: expander.root.last_bus },
        buses_in_use: root.chain(behind).collect(),
    }
}
