//! Functions at their places on one bus, and the requester ID that each has captured.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, RwLock};

use super::{Bdf, PciFunction};

/// A function at its place.
pub(super) struct Occupant {
    function: Arc<dyn PciFunction>,
    /// The requester ID that the function was told last.
    captured: Mutex<Option<Bdf>>,
}

impl Occupant {
    pub fn new(function: Arc<dyn PciFunction>) -> Self {
        Self { function, captured: Mutex::new(None) }
    }

    pub fn function(&self) -> &Arc<dyn PciFunction> {
        &self.function
    }

    /// Tells the function its requester ID if that is news. The lock is held meanwhile, so that two vCPUs that write
    /// by different numbers leave the function with the number of the last.
    pub fn announce(&self, id: Bdf) {
        let mut captured = self.captured.lock().unwrap_or_else(|e| e.into_inner());
        if captured.replace(id) != Some(id) {
            self.function.on_requester_id(id);
        }
    }

    /// A Type 0 configuration write, from which the function captures its number (2.2.6.2).
    pub fn write(&self, target: Bdf, offset: u16, data: &[u8]) {
        self.announce(target);
        self.function.config_write(offset, data);
    }
}

/// The functions of one bus by device (bits 7:3) and function (2:0).
#[derive(Default)]
pub(super) struct Bus {
    functions: RwLock<BTreeMap<u8, Arc<Occupant>>>,
}

impl Bus {
    /// `false` if the place is taken.
    pub fn insert(&self, devfn: u8, occupant: Arc<Occupant>) -> bool {
        let mut functions = self.functions.write().unwrap_or_else(|e| e.into_inner());
        if functions.contains_key(&devfn) {
            return false;
        }
        functions.insert(devfn, occupant);
        true
    }

    pub fn remove(&self, devfn: u8) -> Option<Arc<Occupant>> {
        self.functions.write().unwrap_or_else(|e| e.into_inner()).remove(&devfn)
    }

    pub fn get(&self, devfn: u8) -> Option<Arc<Occupant>> {
        self.functions.read().unwrap_or_else(|e| e.into_inner()).get(&devfn).cloned()
    }

    /// Calls `visit` for each function in ascending order, without the lock: a function may take its time.
    pub fn for_each(&self, mut visit: impl FnMut(u8, &Occupant)) {
        let functions = self.functions.read().unwrap_or_else(|e| e.into_inner()).clone();
        for (devfn, occupant) in functions {
            visit(devfn, &occupant);
        }
    }
}
