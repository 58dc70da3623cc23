//! One PCI segment: root buses, the functions and root ports on them, and the routing of configuration requests.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::sync::{Arc, RwLock};

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
#[derive(Default)]
pub struct Segment {
    roots: RwLock<BTreeMap<u8, Arc<Root>>>,
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
        occupant.announce(id);
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
                if !ports.iter().any(|port| std::ptr::addr_eq(Arc::as_ptr(port), Arc::as_ptr(function))) {
                    function.reset();
                }
            });
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
        if let Some(occupant) = self.find(target) {
            occupant.write(target, offset, data);
        }
    }

    /// Routes by bus number (7.3.3): on a root bus by device and function, otherwise to the port in whose range,
    /// as the guest programmed it, the bus lies.
    fn find(&self, target: Bdf) -> Option<Arc<Occupant>> {
        let (bus, root) = {
            let roots = self.roots.read().unwrap_or_else(|e| e.into_inner());
            let (&bus, root) = roots.range(..=target.bus()).next_back()?;
            (bus, root.clone())
        };
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

#[cfg(test)]
mod tests;
