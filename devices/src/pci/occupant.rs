//! Functions at their places on one bus, and the requester ID that each has captured.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, RwLock};

use super::{Bdf, PciFunction};

/// A function at its place.
pub(super) struct Occupant {
    function: Arc<dyn PciFunction>,
    number: Mutex<Number>,
}

/// Nothing at first, and behind a port not before the function is put there or written to.
#[derive(Clone, Copy, Default)]
struct Number {
    /// From the last configuration write (2.2.6.2), or the Plan's.
    captured: Option<Bdf>,
    /// What the function was told: the captured number, or none while that does not lead to it.
    told: Option<Bdf>,
}

/// What tells the function something is called with the segment's lock of numbers, or before the guest runs.
impl Occupant {
    pub fn new(function: Arc<dyn PciFunction>) -> Self {
        Self { function, number: Mutex::default() }
    }

    pub fn function(&self) -> &Arc<dyn PciFunction> {
        &self.function
    }

    /// Whether the function's requester ID is `id`.
    pub fn has(&self, id: Bdf) -> bool {
        self.lock().told == Some(id)
    }

    /// The number that the function has captured, whether it leads to it or not.
    pub fn captured(&self) -> Option<Bdf> {
        self.lock().captured
    }

    /// The function captures a number that leads to it.
    pub fn capture(&self, id: Bdf) {
        self.lock().captured = Some(id);
        self.settle(true);
    }

    /// The function captures a number; who it leads to is looked at later.
    pub fn assign(&self, id: Bdf) {
        if self.lock().told != Some(id) {
            self.settle(false);
        }
        self.lock().captured = Some(id);
    }

    /// Tells the function its number, or that this does not lead to it, if that is news.
    pub fn settle(&self, leads_here: bool) {
        let mut number = self.lock();
        let now = number.captured.filter(|_| leads_here);
        if std::mem::replace(&mut number.told, now) == now {
            return;
        }
        drop(number);
        match now {
            Some(id) => self.function.on_requester_id(id),
            None => self.function.on_unreachable(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Number> {
        self.number.lock().unwrap_or_else(|e| e.into_inner())
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
