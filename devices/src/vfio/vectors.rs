//! The message vectors of one kind: host interrupts, the eventfds they signal, and routes to the guest's ITS.
//!
//! A vector that the guest masks keeps its host interrupt and loses only its route: what comes meanwhile stays in the
//! eventfd, which is its pending bit, and the next route delivers it.

#![forbid(unsafe_code)]

use std::io;
use std::sync::Arc;

use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::host::{HostFunction, Irqs};
use crate::interrupt::{MsiRoute, MsiRouter};

#[derive(Default)]
struct Vector {
    trigger: Option<EventFd>,
    route: Option<(MsiRoute, u32)>,
}

/// The vectors of an interrupt index.
pub(super) struct Vectors {
    host: Arc<dyn HostFunction>,
    router: Arc<dyn MsiRouter>,
    index: u32,
    irqs: Irqs,
    /// Guest requester ID: what the guest's ITS knows the function by.
    device_id: u32,
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
        Self { host, router, index, irqs, device_id, vectors, enabled: false }
    }

    /// Enables the first `count` host interrupts at once, as MSI needs it.
    pub(super) fn enable_block(&mut self, count: usize) -> io::Result<()> {
        for vector in self.vectors.iter_mut().take(count) {
            vector.trigger()?;
        }
        self.set_from_zero(count)
    }

    /// Enables the host interrupt of a vector, unless it is.
    pub(super) fn enable(&mut self, vector: usize) -> io::Result<()> {
        let Some(entry) = self.vectors.get_mut(vector).filter(|entry| entry.trigger.is_none()) else {
            return Ok(());
        };
        entry.trigger()?;
        let result = if self.irqs.dynamic {
            let trigger = self.vectors.get(vector).and_then(|entry| entry.trigger.as_ref());
            let result = self.host.set_irqs(self.index, vector as u32, &[trigger]);
            self.enabled |= result.is_ok();
            result
        } else {
            // The host can only change the number of vectors by starting over.
            let result = if self.enabled { self.host.disable_irqs(self.index) } else { Ok(()) };
            let last = self.vectors.iter().rposition(|entry| entry.trigger.is_some());
            result.and_then(|()| self.set_from_zero(last.map_or(0, |last| last + 1)))
        };
        if result.is_err()
            && let Some(entry) = self.vectors.get_mut(vector)
        {
            entry.trigger = None;
        }
        result
    }

    fn set_from_zero(&mut self, count: usize) -> io::Result<()> {
        let triggers: Vec<_> = self.vectors.iter().take(count).map(|entry| entry.trigger.as_ref()).collect();
        self.host.set_irqs(self.index, 0, &triggers)?;
        self.enabled = true;
        Ok(())
    }

    /// Routes an enabled vector to event `data` of the guest's ITS, or ends its route.
    pub(super) fn route(&mut self, vector: usize, data: Option<u32>) -> io::Result<()> {
        let Some(entry) = self.vectors.get_mut(vector) else { return Ok(()) };
        let Some(trigger) = &entry.trigger else { return Ok(()) };
        if entry.route.as_ref().map(|(_, data)| *data) == data {
            return Ok(());
        }
        if let Some((route, _)) = entry.route.take() {
            self.router.disconnect(trigger, route);
        }
        if let Some(data) = data {
            entry.route = Some((self.router.connect(trigger, self.device_id, data)?, data));
        }
        Ok(())
    }

    /// Changes the requester ID; routes follow at once.
    pub(super) fn set_device_id(&mut self, device_id: u32) -> io::Result<()> {
        if std::mem::replace(&mut self.device_id, device_id) == device_id {
            return Ok(());
        }
        let mut result = Ok(());
        for vector in 0..self.vectors.len() {
            let data = self.vectors.get(vector).and_then(|entry| entry.route.as_ref()).map(|(_, data)| *data);
            if data.is_some() {
                result = result.and(self.route(vector, None)).and(self.route(vector, data));
            }
        }
        result
    }

    /// Whether an interrupt waits in a vector without a route.
    pub(super) fn pending(&self, vector: usize) -> bool {
        let Some(Vector { trigger: Some(trigger), route: None }) = self.vectors.get(vector) else { return false };
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
            let Vector { trigger, route } = std::mem::take(vector);
            if let (Some(trigger), Some((route, _))) = (trigger, route) {
                self.router.disconnect(&trigger, route);
            }
        }
        if std::mem::take(&mut self.enabled) { self.host.disable_irqs(self.index) } else { Ok(()) }
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
