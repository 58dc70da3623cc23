//! Whether a Plan agrees with itself. A Plan made here does; one that comes from a file may have been edited.

use std::collections::BTreeSet;
use std::fmt;

use nestling_arch::layout;
use nestling_devices::pci::Bdf;

use super::spec::{Expander, Plan, RootBus, RootPort, Window};

/// What does not agree.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Invalid {
    /// Two ranges have an address in common.
    #[error("{first} and {second} overlap")]
    Overlap {
        /// The one that begins first.
        first: Place,
        /// The other.
        second: Place,
    },
    /// A range ends behind the guest's physical addresses.
    #[error("{place} does not fit {ipa_bits} address bits")]
    Address {
        /// The range.
        place: Place,
        /// Guest physical address bits.
        ipa_bits: u8,
    },
    /// A range is not inside the one that it must be inside of.
    #[error("{inner} is not inside {outer}")]
    Outside {
        /// The inner one.
        inner: Place,
        /// The outer one.
        outer: Place,
    },
    /// A range does not begin where it must.
    #[error("{place} is not aligned to {align:#x}")]
    Misaligned {
        /// The range.
        place: Place,
        /// The alignment it needs.
        align: u64,
    },
    /// A number or name that must be there once is there twice.
    #[error("{what} {value} is there twice")]
    Twice {
        /// What it is.
        what: &'static str,
        /// Its value.
        value: String,
    },
    /// A number that cannot be.
    #[error("{what} is {value}, but must be {must}")]
    Value {
        /// What it is.
        what: String,
        /// Its value.
        value: u64,
        /// What it must be.
        must: String,
    },
}

/// A range with its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// What is there.
    pub name: String,
    /// Where.
    pub window: Window,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name, self.window)
    }
}

/// Bridge windows are whole MiB (PCIe 6.0, 7.5.1.3.8).
const MIB: u64 = 1 << 20;

/// Checks everything that the machine relies on.
pub fn validate(plan: &Plan) -> Result<(), Invalid> {
    check_numbers(plan)?;
    check_windows(plan)?;
    check_buses(plan)?;
    plan.pci.expanders.iter().try_for_each(check_expander)
}

fn place(name: impl Into<String>, window: Window) -> Place {
    Place { name: name.into(), window }
}

fn value(what: impl Into<String>, value: impl Into<u64>, must: impl Into<String>) -> Invalid {
    Invalid::Value { what: what.into(), value: value.into(), must: must.into() }
}

fn check_numbers(plan: &Plan) -> Result<(), Invalid> {
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
    let functions = || ports().filter_map(|port| port.function.as_ref());
    once("gsiv", gsivs.iter())?;
    once("vSMMU name", expanders.iter().map(|expander| &expander.name))?;
    once("pcie.0 device", expanders.iter().map(|expander| expander.device))?;
    once("host SMMU", smmus.clone().map(|smmu| &smmu.host))?;
    once("iort-identifier", smmus.map(|smmu| smmu.iort_identifier))?;
    once("slot", ports().map(|port| port.slot))?;
    once("device", functions().map(|function| &function.host))?;
    match expanders.iter().find(|expander| !(1..32).contains(&expander.device)) {
        Some(expander) => Err(value(format!("device of {}", expander.name), expander.device, "1 to 31")),
        None => Ok(()),
    }
}

fn once<T: Ord + fmt::Display>(what: &'static str, values: impl Iterator<Item = T>) -> Result<(), Invalid> {
    let mut seen = BTreeSet::new();
    for value in values {
        if seen.contains(&value) {
            return Err(Invalid::Twice { what, value: value.to_string() });
        }
        seen.insert(value);
    }
    Ok(())
}

/// What lies side by side in the guest's physical addresses: everything that is not inside something else.
fn check_windows(plan: &Plan) -> Result<(), Invalid> {
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
    let top = 1_u64 << plan.ipa_bits;
    if let Some(place) = places.iter().find(|place| place.window.checked_end().is_none_or(|end| end > top)) {
        return Err(Invalid::Address { place: place.clone(), ipa_bits: plan.ipa_bits });
    }
    apart(places)?;
    let msi = Window { base: layout::MSI_WINDOW.base, size: layout::MSI_WINDOW.size };
    // The GIC may be there (it is not mapped for DMA), memory may not.
    apart(vec![place("memory", plan.memory), place("the host kernel's MSI window", msi)])?;
    [&pci.root].into_iter().chain(pci.expanders.iter().map(|expander| &expander.root)).try_for_each(below_4g)
}

fn below_4g(root: &RootBus) -> Result<(), Invalid> {
    let name = |space| place(format!("{space} of bus {:02x}", root.bus), root.mmio32);
    let low = place("the first 4 GiB", Window { base: 0, size: 1 << 32 });
    inside(&name("mmio32"), &low)
}

fn apart(mut places: Vec<Place>) -> Result<(), Invalid> {
    places.retain(|place| place.window.size != 0);
    places.sort_by_key(|place| place.window.base);
    match places.windows(2).find(|pair| pair[0].window.end() > pair[1].window.base) {
        Some(pair) => Err(Invalid::Overlap { first: pair[0].clone(), second: pair[1].clone() }),
        None => Ok(()),
    }
}

fn inside(inner: &Place, outer: &Place) -> Result<(), Invalid> {
    let fits = inner.window.size == 0 || outer.window.contains(&inner.window);
    if fits { Ok(()) } else { Err(Invalid::Outside { inner: inner.clone(), outer: outer.clone() }) }
}

fn aligned(place: &Place, align: u64) -> Result<(), Invalid> {
    let fits = place.window.base.is_multiple_of(align) && place.window.size.is_multiple_of(align);
    if fits { Ok(()) } else { Err(Invalid::Misaligned { place: place.clone(), align }) }
}

/// pcie.0 has bus 0; the expanders follow in ascending order, each with the buses behind its ports.
fn check_buses(plan: &Plan) -> Result<(), Invalid> {
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

fn check_expander(expander: &Expander) -> Result<(), Invalid> {
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
        natural(&bar0)?;
        aligned(&mmio32, MIB)?;
        aligned(&mmio64, MIB)?;
        check_function(port, &mmio32, &mmio64)?;
        side_by_side.extend([mmio32, mmio64, bar0]);
    }
    apart(side_by_side)
}

fn natural(bar: &Place) -> Result<(), Invalid> {
    let size = bar.window.size;
    if !size.is_power_of_two() {
        return Err(value(format!("size of {}", bar.name), size, "a power of two"));
    }
    aligned(bar, size)
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
