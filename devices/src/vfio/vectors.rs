//! The message vectors of one kind: host interrupts, the eventfds they signal, and routes to the guest's ITS.
//!
//! A vector that the guest masks keeps its host interrupt and loses only its route: what comes meanwhile stays in the
//! eventfd, which is its pending bit, and the next route delivers it.

#![forbid(unsafe_code)]

use std::io;
use std::sync::Arc;

use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::host::{HostFunction, Irqs, region};
use crate::interrupt::{MsiRoute, MsiRouter};
use crate::pci::spec::{Command, header};

#[derive(Default)]
struct Vector {
    trigger: Option<EventFd>,
    /// The event that it is to raise, while it is not masked.
    data: Option<u32>,
    route: Option<(MsiRoute, u32)>,
}

/// The vectors of an interrupt index.
pub(super) struct Vectors {
    host: Arc<dyn HostFunction>,
    router: Arc<dyn MsiRouter>,
    index: u32,
    irqs: Irqs,
    /// Guest requester ID: what the guest's ITS knows the function by. Without one nothing is delivered.
    device_id: Option<u32>,
    vectors: Vec<Vector>,
    /// Whether the host has the index enabled.
    enabled: bool,
}

impl Vectors {
    pub(super) fn new(
        host: Arc<dyn HostFunction>,
        router: Arc<dyn MsiRouter>,
        index: u32,
        count: u16,
        device_id: u32,
    ) -> Self {
        let irqs = host.irqs(index);
        let vectors = (0..count).map(|_| Vector::default()).collect();
        Self { host, router, index, irqs, device_id: Some(device_id), vectors, enabled: false }
    }

    /// Enables the first `count` host interrupts at once, as MSI needs it.
    pub(super) fn enable_block(&mut self, count: usize) -> io::Result<()> {
        for vector in self.vectors.iter_mut().take(count) {
            vector.trigger()?;
        }
        self.set(0, count)
    }

    /// Enables the host interrupt of a vector, unless it is.
    pub(super) fn enable(&mut self, vector: usize) -> io::Result<()> {
        let Some(entry) = self.vectors.get_mut(vector).filter(|entry| entry.trigger.is_none()) else {
            return Ok(());
        };
        entry.trigger()?;
        let enabled = self.enabled;
        let result = if self.irqs.dynamic { self.set(vector, vector + 1) } else { self.grow() };
        if result.is_err() {
            if let Some(entry) = self.vectors.get_mut(vector) {
                entry.trigger = None;
            }
            if enabled && !self.enabled {
                // Those that were there before come back.
                self.set_all()?;
            }
        }
        result
    }

    /// For a host that can only change the number of vectors by starting over.
    fn grow(&mut self) -> io::Result<()> {
        if self.enabled {
            self.disable()?;
        }
        self.set_all()
    }

    /// Enables the vectors up to the last that has a trigger.
    fn set_all(&mut self) -> io::Result<()> {
        let last = self.vectors.iter().rposition(|entry| entry.trigger.is_some());
        self.set(0, last.map_or(0, |last| last + 1))
    }

    /// Lets the host signal the triggers of vectors `start..end`.
    fn set(&mut self, start: usize, end: usize) -> io::Result<()> {
        let vectors = self.vectors.get(start..end).unwrap_or_default();
        let triggers: Vec<_> = vectors.iter().map(|entry| entry.trigger.as_ref()).collect();
        let result = self.host.set_irqs(self.index, start as u32, &triggers);
        if result.is_ok() {
            self.enabled = true;
        } else if !self.enabled {
            // The host may have gone half of the way and back.
            self.silence_intx()?;
        }
        result
    }

    /// Frees all host interrupts of the index.
    fn disable(&mut self) -> io::Result<()> {
        self.enabled = false;
        let result = self.host.disable_irqs(self.index);
        result.and(self.silence_intx())
    }

    /// VFIO enables the device's INTx when it frees messages (`vfio_msi_disable`, through `pci_free_irq_vectors`), and
    /// nobody handles it. The device's bit follows the register of VFIO only when that changes, so it must change.
    fn silence_intx(&self) -> io::Result<()> {
        let at = u64::from(header::COMMAND) + 1;
        let disable = (Command::INTERRUPT_DISABLE.bits() >> 8) as u8;
        let mut high = [0];
        self.host.read(region::CONFIG, at, &mut high)?;
        self.host.write(region::CONFIG, at, &[high[0] & !disable])?;
        self.host.write(region::CONFIG, at, &[high[0] | disable])
    }

    /// Routes an enabled vector to event `data` of the guest's ITS, or ends its route.
    pub(super) fn route(&mut self, vector: usize, data: Option<u32>) -> io::Result<()> {
        let Some(entry) = self.vectors.get_mut(vector) else { return Ok(()) };
        entry.data = data;
        let Some(trigger) = &entry.trigger else { return Ok(()) };
        let wanted = self.device_id.and(data);
        if entry.route.as_ref().map(|(_, data)| *data) == wanted {
            return Ok(());
        }
        if let Some((route, _)) = entry.route.take() {
            self.router.disconnect(trigger, route);
        }
        if let (Some(device_id), Some(data)) = (self.device_id, wanted) {
            entry.route = Some((self.router.connect(trigger, device_id, data)?, data));
        }
        Ok(())
    }

    /// Changes the requester ID; routes follow at once, and end without one.
    pub(super) fn set_device_id(&mut self, device_id: Option<u32>) -> io::Result<()> {
        if self.device_id == device_id {
            return Ok(());
        }
        let mut result = Ok(());
        self.device_id = None;
        for vector in 0..self.vectors.len() {
            result = result.and(self.route(vector, self.data(vector)));
        }
        self.device_id = device_id;
        for vector in 0..self.vectors.len() {
            result = result.and(self.route(vector, self.data(vector)));
        }
        result
    }

    fn data(&self, vector: usize) -> Option<u32> {
        self.vectors.get(vector).and_then(|entry| entry.data)
    }

    /// Whether an interrupt waits in a vector without a route.
    pub(super) fn pending(&self, vector: usize) -> bool {
        let Some(Vector { trigger: Some(trigger), route: None, .. }) = self.vectors.get(vector) else { return false };
        // Look by taking it out and putting it back: nobody else reads an eventfd without a route.
        trigger.read().is_ok_and(|count| trigger.write(count).is_ok())
    }

    /// Number of vectors with a route now.
    pub(super) fn routed(&self) -> usize {
        self.vectors.iter().filter(|vector| vector.route.is_some()).count()
    }

    /// Ends all routes, frees all host interrupts, and forgets what was pending.
    pub(super) fn release(&mut self) -> io::Result<()> {
        for vector in &mut self.vectors {
            let Vector { trigger, route, .. } = std::mem::take(vector);
            if let (Some(trigger), Some((route, _))) = (trigger, route) {
                self.router.disconnect(&trigger, route);
            }
        }
        if self.enabled { self.disable() } else { Ok(()) }
    }
}

impl Vector {
    fn trigger(&mut self) -> io::Result<()> {
        if self.trigger.is_none() {
            self.trigger = Some(EventFd::new(EFD_NONBLOCK)?);
        }
        Ok(())
    }
}
