//! One PCI segment: root buses, the functions and root ports on them, and the routing of configuration requests.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, RwLock};

use super::occupant::{Bus, Occupant};
use super::root_port::RootPort;
use super::{Bdf, PciFunction};

/// Why something cannot be put into a segment.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    /// The bus range is upside down or shares buses with another root bus.
    #[error("root bus {bus:#04x}: buses up to {last_bus:#04x} are not free")]
    Buses {
        /// The root bus.
        bus: u8,
        /// Its last bus.
        last_bus: u8,
    },
    /// There is no such root bus.
    #[error("pci function {0}: no root bus has this number")]
    NoRootBus(Bdf),
    /// Something is there already.
    #[error("pci function {0}: the place is taken")]
    Occupied(Bdf),
}

/// A root bus: pcie.0 or that of an expander.
struct Root {
    last_bus: u8,
    functions: Bus,
    /// The root ports among the functions.
    ports: RwLock<Vec<Arc<RootPort>>>,
}

/// A PCI segment. Devices are put in before the guest runs; behind a root port they may come and go later.
///
/// A function behind a port has the requester ID that it captured as long as a configuration request with that number
/// comes to it, and none otherwise: so no two ever have the same, whatever the guest writes to the ports on its way from
/// one numbering to another.
#[derive(Default)]
pub struct Segment {
    roots: RwLock<BTreeMap<u8, Arc<Root>>>,
    /// Held while functions are told their numbers. Whoever holds it may wait for the locks of ports and functions, and of
    /// the vSMMU behind a function; nobody waits for it with one of these.
    numbers: Mutex<()>,
}

impl Segment {
    /// A segment without buses.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the root bus number `bus`, whose root ports may lead to buses up to `last_bus`.
    pub fn add_root_bus(&self, bus: u8, last_bus: u8) -> Result<(), Error> {
        let mut roots = self.roots.write().unwrap_or_else(|e| e.into_inner());
        let before = roots.range(..=last_bus).next_back();
        if last_bus < bus || before.is_some_and(|(_, root)| root.last_bus >= bus) {
            return Err(Error::Buses { bus, last_bus });
        }
        roots.insert(bus, Arc::new(Root { last_bus, functions: Bus::default(), ports: RwLock::default() }));
        Ok(())
    }

    /// Puts an endpoint (or anything that leads nowhere) on root bus `bus`.
    pub fn add_function(&self, bus: u8, device: u8, function: u8, endpoint: Arc<dyn PciFunction>) -> Result<(), Error> {
        self.add(Bdf::new(bus, device, function), endpoint).map(drop)
    }

    /// Puts a root port on root bus `bus`, function 0 of `device`.
    pub fn add_port(&self, bus: u8, device: u8, port: Arc<RootPort>) -> Result<(), Error> {
        let root = self.add(Bdf::new(bus, device, 0), port.clone())?;
        root.ports.write().unwrap_or_else(|e| e.into_inner()).push(port);
        Ok(())
    }

    fn add(&self, id: Bdf, function: Arc<dyn PciFunction>) -> Result<Arc<Root>, Error> {
        let roots = self.roots.read().unwrap_or_else(|e| e.into_inner());
        let root = roots.get(&id.bus()).ok_or(Error::NoRootBus(id))?;
        let occupant = Arc::new(Occupant::new(function));
        if !root.functions.insert(id.devfn(), occupant.clone()) {
            return Err(Error::Occupied(id));
        }
        occupant.capture(id);
        Ok(root.clone())
    }

    /// Resets every function: by ascending root bus, what is behind a port before the port, the rest after the
    /// ports. Bus numbers are the Plan's again afterwards, and the functions are told.
    pub fn reset(&self) {
        let roots = self.roots.read().unwrap_or_else(|e| e.into_inner()).clone();
        for root in roots.values() {
            let ports = root.ports.read().unwrap_or_else(|e| e.into_inner()).clone();
            for port in &ports {
                port.reset_all();
            }
            root.functions.for_each(|_, occupant| {
                let function = occupant.function();
                if !ports.iter().any(|port| is(port, function)) {
                    function.reset();
                }
            });
            let _numbers = self.numbers.lock().unwrap_or_else(|e| e.into_inner());
            ports.iter().for_each(|port| port.assign_numbers());
            self.settle(&ports);
        }
    }

    /// The guest reads configuration space: `data` of 1, 2 or 4 bytes at `offset`, naturally aligned. Where no
    /// function is, it reads all ones (2.3.2).
    pub fn config_read(&self, target: Bdf, offset: u16, data: &mut [u8]) {
        match self.find(target) {
            Some(occupant) => occupant.function().config_read(offset, data),
            None => data.fill(0xff),
        }
    }

    /// The guest writes configuration space; where no function is, nothing happens.
    pub fn config_write(&self, target: Bdf, offset: u16, data: &[u8]) {
        let Some(occupant) = self.find(target).and_then(|found| self.capture(target, found)) else { return };
        let function = occupant.function();
        let Some((port, ports)) = self.port(target) else { return function.config_write(offset, data) };
        let before = port.routing();
        function.config_write(offset, data);
        if port.routing() != before {
            let _numbers = self.numbers.lock().unwrap_or_else(|e| e.into_inner());
            self.settle(&ports);
        }
    }

    /// Every Type 0 configuration write tells the function its number (2.2.6.2). Returns who `target` leads to.
    fn capture(&self, target: Bdf, found: Arc<Occupant>) -> Option<Arc<Occupant>> {
        if found.has(target) {
            return Some(found);
        }
        let _numbers = self.numbers.lock().unwrap_or_else(|e| e.into_inner());
        // Another processor may have changed the ports meanwhile, and not have come to tell who lost the number.
        let found = self.find(target)?;
        self.take_away(target, &found);
        found.capture(target);
        Some(found)
    }

    /// Whoever else has the number gives it up. (Numbers behind ports come from requests through one root bus.)
    fn take_away(&self, number: Bdf, from_all_but: &Occupant) {
        let Some((_, root)) = self.root_of(number) else { return };
        let ports = root.ports.read().unwrap_or_else(|e| e.into_inner()).clone();
        for port in &ports {
            port.for_each_behind(|other| {
                if other.has(number) && !std::ptr::eq(other, from_all_but) {
                    other.settle(false);
                }
            });
        }
    }

    /// The root port that `target` is, with all ports on its root bus.
    fn port(&self, target: Bdf) -> Option<(Arc<RootPort>, Vec<Arc<RootPort>>)> {
        let root = self.roots.read().unwrap_or_else(|e| e.into_inner()).get(&target.bus())?.clone();
        let ports = root.ports.read().unwrap_or_else(|e| e.into_inner()).clone();
        let function = root.functions.get(target.devfn())?;
        let port = ports.iter().find(|port| is(port, function.function()))?.clone();
        Some((port, ports))
    }

    /// Compares what the functions behind the ports of one root bus were told with where requests go now: first some lose
    /// their numbers, then others get theirs back.
    fn settle(&self, ports: &[Arc<RootPort>]) {
        for leads_here in [false, true] {
            for port in ports {
                port.for_each_behind(|occupant| {
                    let number = occupant.captured();
                    let found = number.and_then(|id| self.find(id));
                    if found.is_some_and(|found| std::ptr::eq(&*found, occupant)) == leads_here {
                        // The ports may have changed since those who lose their numbers were told.
                        if let Some(number) = number.filter(|&number| leads_here && !occupant.has(number)) {
                            self.take_away(number, occupant);
                        }
                        occupant.settle(leads_here);
                    }
                });
            }
        }
    }

    /// The root bus that `target` is on or behind, if any function is there, with its number.
    fn root_of(&self, target: Bdf) -> Option<(u8, Arc<Root>)> {
        let roots = self.roots.read().unwrap_or_else(|e| e.into_inner());
        roots.range(..=target.bus()).next_back().map(|(&bus, root)| (bus, root.clone()))
    }

    /// Routes by bus number (7.3.3): on a root bus by device and function, otherwise to the port in whose range,
    /// as the guest programmed it, the bus lies.
    fn find(&self, target: Bdf) -> Option<Arc<Occupant>> {
        let (bus, root) = self.root_of(target)?;
        if target.bus() == bus {
            return root.functions.get(target.devfn());
        }
        if target.bus() > root.last_bus {
            return None;
        }
        let ports = root.ports.read().unwrap_or_else(|e| e.into_inner());
        ports.iter().find(|port| port.forwards(target.bus()))?.find_behind(target)
    }
}

fn is(port: &Arc<RootPort>, function: &Arc<dyn PciFunction>) -> bool {
    std::ptr::addr_eq(Arc::as_ptr(port), Arc::as_ptr(function))
}

#[cfg(test)]
mod tests;
