//! Accesses to a BAR that are not direct: the MSI-X table and pending bits, and what cannot be mapped.

#![forbid(unsafe_code)]

use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use super::host::HostFunction;
use super::msix::{Msix, MsixLayout};
use crate::bus::MmioDevice;

/// What a passed-through function did so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VfioCounters {
    /// Accesses to BARs that left the guest.
    pub trapped: u64,
    /// Calls to the host that failed; the guest saw all-ones, or no interrupt.
    pub errors: u64,
    /// Bytes of BARs that the guest accesses directly now.
    pub mapped_bytes: u64,
    /// Vectors routed to the guest's ITS now.
    pub routed_vectors: usize,
    /// Resets of the device that have ended.
    pub resets: u64,
    /// Changes of its requester ID, to none and back counted too.
    pub moves: u64,
}

/// Counts, and logs at a falling rate: the guest can cause any number of errors.
pub(super) struct Counters {
    name: String,
    trapped: AtomicU64,
    errors: AtomicU64,
    resets: AtomicU64,
}

impl Counters {
    pub(super) fn new(name: &str) -> Self {
        Self { name: name.to_owned(), trapped: AtomicU64::new(0), errors: AtomicU64::new(0), resets: AtomicU64::new(0) }
    }

    /// Counts an error that is logged elsewhere; returns how many there are.
    pub(super) fn count_error(&self) -> u64 {
        self.errors.fetch_add(1, Ordering::Relaxed).wrapping_add(1)
    }

    pub(super) fn error(&self, what: &str, error: &dyn fmt::Display) {
        let count = self.count_error();
        if count.is_power_of_two() {
            log::warn!("{}: cannot {what}: {error} ({count} errors so far)", self.name);
        }
    }

    pub(super) fn count_reset(&self) {
        self.resets.fetch_add(1, Ordering::Relaxed);
    }

    /// What is counted here; the rest is 0.
    pub(super) fn read(&self) -> VfioCounters {
        VfioCounters {
            trapped: self.trapped.load(Ordering::Relaxed),
            errors: self.errors.load(Ordering::Relaxed),
            resets: self.resets.load(Ordering::Relaxed),
            ..VfioCounters::default()
        }
    }
}

/// The trapped side of one BAR.
pub(super) struct BarTrap {
    host: Arc<dyn HostFunction>,
    region: u32,
    /// Bytes of this BAR that belong to MSI-X: table, pending bits.
    table: Range<u64>,
    pba: Range<u64>,
    msix: Option<Arc<Mutex<Msix>>>,
    counters: Arc<Counters>,
}

impl BarTrap {
    pub(super) fn new(
        host: Arc<dyn HostFunction>,
        bar: u8,
        layout: Option<MsixLayout>,
        msix: Option<Arc<Mutex<Msix>>>,
        counters: Arc<Counters>,
    ) -> Self {
        let (table, pba) = layout.map_or((0..0, 0..0), |layout| (layout.table(bar), layout.pba(bar)));
        Self { host, region: bar.into(), table, pba, msix, counters }
    }

    /// What of the BAR must never be mapped.
    pub(super) fn holes(&self) -> [Range<u64>; 2] {
        [self.table.clone(), self.pba.clone()]
    }

    fn with_msix<T>(&self, then: impl FnOnce(&mut Msix) -> T) -> Option<T> {
        self.msix.as_ref().map(|msix| then(&mut msix.lock().unwrap_or_else(|e| e.into_inner())))
    }
}

impl MmioDevice for BarTrap {
    fn read(&self, offset: u64, data: &mut [u8]) {
        self.counters.trapped.fetch_add(1, Ordering::Relaxed);
        if self.table.contains(&offset) {
            self.with_msix(|msix| msix.read_table(offset - self.table.start, data));
        } else if self.pba.contains(&offset) {
            self.with_msix(|msix| msix.read_pba(offset - self.pba.start, data));
        } else if let Err(e) = self.host.read(self.region, offset, data) {
            data.fill(0xff);
            self.counters.error("read a bar", &e);
        }
    }

    fn write(&self, offset: u64, data: &[u8]) {
        self.counters.trapped.fetch_add(1, Ordering::Relaxed);
        let result = if self.table.contains(&offset) {
            self.with_msix(|msix| msix.write_table(offset - self.table.start, data)).unwrap_or(Ok(()))
        } else if self.pba.contains(&offset) {
            Ok(()) // read-only
        } else {
            self.host.write(self.region, offset, data)
        };
        if let Err(e) = result {
            self.counters.error("write a bar", &e);
        }
    }
}
