//! Bus numbers, root ports and their functions.

use std::collections::BTreeSet;

use nestling_devices::pci::Bdf;
use nestling_devices::pci::msix::BAR_SIZE;

use super::{Invalid, Place, aligned, apart, inside, natural, place, sized, value};
use crate::plan::features;
use crate::plan::spec::{Expander, Plan, RootBus, RootPort, Window};

/// Bridge windows are whole MiB (PCIe 6.0, 7.5.1.3.8).
const MIB: u64 = 1 << 20;

/// pcie.0 has bus 0; the expanders follow in ascending order, each with the buses behind its ports.
pub fn check_buses(plan: &Plan) -> Result<(), Invalid> {
    let root = &plan.pci.root;
    if root.bus != 0 {
        return Err(value("bus of pcie.0", root.bus, "0"));
    }
    let mut last = root.last_bus;
    for expander in &plan.pci.expanders {
        let RootBus { bus, last_bus, .. } = expander.root;
        if bus <= last {
            return Err(value(format!("bus of {}", expander.name), bus, format!("above {last}")));
        }
        if last_bus < bus {
            return Err(value(format!("last-bus of {}", expander.name), last_bus, format!("at least {bus}")));
        }
        last = last_bus;
        let mut devices = BTreeSet::new();
        let mut ranges = Vec::new();
        for port in &expander.ports {
            let name = port_name(expander, port);
            if port.device > 31 || !devices.insert(port.device) {
                return Err(value(format!("device of {name}"), port.device, "0 to 31, each once"));
            }
            let (secondary, subordinate) = (port.secondary_bus, port.subordinate_bus);
            if secondary <= bus || secondary > last_bus {
                return Err(value(
                    format!("secondary-bus of {name}"),
                    secondary,
                    format!("{} to {last_bus}", u16::from(bus) + 1),
                ));
            }
            if !(secondary..=last_bus).contains(&subordinate) {
                return Err(value(
                    format!("subordinate-bus of {name}"),
                    subordinate,
                    format!("{secondary} to {last_bus}"),
                ));
            }
            let size = u64::from(subordinate - secondary) + 1;
            ranges.push(place(format!("buses of {name}"), Window { base: secondary.into(), size }));
        }
        apart(ranges)?;
    }
    Ok(())
}

fn port_name(expander: &Expander, port: &RootPort) -> String {
    format!("port {:02x} of {}", port.device, expander.name)
}

/// What is behind an expander: each BAR in its port's windows, those in the expander's.
pub fn check_expander(expander: &Expander, memory: Window) -> Result<(), Invalid> {
    if let Some(shown) = &expander.smmu.features {
        let name = || expander.name.clone();
        shown.validate().map_err(|why| Invalid::Features { name: name(), why })?;
        features::reaches(shown, memory).map_err(|narrow| Invalid::Narrow { name: name(), narrow })?;
    }
    let outer32 = place(format!("mmio32 of {}", expander.name), expander.root.mmio32);
    let outer64 = place(format!("mmio64 of {}", expander.name), expander.root.mmio64);
    let mut side_by_side = Vec::new();
    for port in &expander.ports {
        let name = port_name(expander, port);
        let mmio32 = place(format!("mmio32 of {name}"), port.mmio32);
        let mmio64 = place(format!("mmio64 of {name}"), port.mmio64);
        let bar0 = place(format!("bar0 of {name}"), port.bar0);
        inside(&mmio32, &outer32)?;
        inside(&mmio64, &outer64)?;
        inside(&bar0, &outer32)?;
        sized(&bar0, BAR_SIZE)?;
        natural(&bar0)?;
        aligned(&mmio32, MIB)?;
        aligned(&mmio64, MIB)?;
        check_function(port, &mmio32, &mmio64)?;
        side_by_side.extend([mmio32, mmio64, bar0]);
    }
    apart(side_by_side)
}

fn check_function(port: &RootPort, mmio32: &Place, mmio64: &Place) -> Result<(), Invalid> {
    let Some(function) = &port.function else { return Ok(()) };
    let stream_id = u64::from(Bdf::new(port.secondary_bus, 0, 0).requester_id());
    if function.stream_id != stream_id {
        let what = format!("stream-id of {}", function.host);
        return Err(value(what, function.stream_id, format!("{stream_id} ({stream_id:#x})")));
    }
    let mut bars = Vec::new();
    let mut next = 0;
    for bar in &function.bars {
        let this = place(format!("BAR {} of {}", bar.index, function.host), bar.window);
        let last = bar.index.saturating_add(bar.wide.into());
        if bar.index < next || last > 5 {
            return Err(value(format!("a BAR number of {}", function.host), bar.index, "ascending, 0 to 5"));
        }
        next = last + 1;
        natural(&this)?;
        inside(&this, if bar.wide && bar.prefetchable { mmio64 } else { mmio32 })?;
        bars.push(this);
    }
    apart(bars)
}
