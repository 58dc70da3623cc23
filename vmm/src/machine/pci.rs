//! The PCI segment of the Plan: host bridges, expanders and root ports. What is behind the ports comes from
//! [`super::assigned`].
#![forbid(unsafe_code)]

use std::ops::Range;
use std::sync::Arc;

use nestling_devices::bus::MmioBus;
use nestling_devices::interrupt::MsiTarget;
use nestling_devices::pci::root_port::Link;
use nestling_devices::pci::{Ecam, HostBridge, PciFunction, RootPort, RootPortConfig, Segment};

use super::error::Error;
use crate::plan::spec::{self, Expander, Pci, Window};

/// Builds the segment and puts its ECAM on the bus; `behind` gives the function of each port that has one.
pub fn build(
    plan: &Pci,
    bus: &Arc<MmioBus>,
    messages: &Arc<dyn MsiTarget>,
    behind: impl Fn(&str) -> Option<Arc<dyn PciFunction>>,
) -> Result<Arc<Segment>, Error> {
    let segment = Arc::new(Segment::new());
    segment.add_root_bus(plan.root.bus, plan.root.last_bus)?;
    segment.add_function(plan.root.bus, 0, 0, Arc::new(HostBridge::root_complex()))?;
    for expander in &plan.expanders {
        segment.add_function(plan.root.bus, expander.device, 0, Arc::new(HostBridge::expander()))?;
        segment.add_root_bus(expander.root.bus, expander.root.last_bus)?;
        for port in &expander.ports {
            let root_port = Arc::new(RootPort::new(config(expander, port), bus.clone(), messages.clone())?);
            if let Some(function) = port.function.as_ref().and_then(|function| behind(&function.host)) {
                root_port.plug(0, function)?;
            }
            segment.add_port(expander.root.bus, port.device, root_port)?;
        }
    }
    bus.insert(plan.ecam.base..plan.ecam.end(), Arc::new(Ecam::new(segment.clone())))?;
    Ok(segment)
}

fn config(expander: &Expander, port: &spec::RootPort) -> RootPortConfig {
    RootPortConfig {
        slot: port.slot,
        primary_bus: expander.root.bus,
        secondary_bus: port.secondary_bus,
        subordinate_bus: port.subordinate_bus,
        memory: range(port.mmio32),
        prefetchable: range(port.mmio64),
        bar0: port.bar0.base,
        link: Link::default(),
    }
}

fn range(window: Window) -> Range<u64> {
    window.base..window.end()
}
