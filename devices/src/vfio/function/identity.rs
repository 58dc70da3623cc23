//! The requester ID of a passed-through function: StreamID at its vSMMU, DeviceID of its messages.

#![forbid(unsafe_code)]

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};

use super::VfioFunction;
use crate::pci::Bdf;

/// What is between a function and memory: the vSMMU that it is behind.
///
/// Called on the thread that caused it, with no lock of the function but that of its number.
pub trait Upstream: Send + Sync {
    /// The function's StreamID is `to` from now on. Without one nothing of the function may pass, nor after a failure.
    ///
    /// Comes after each reset of the function, too, with the StreamID that it has: while a device is in reset the kernel
    /// attaches no page table to it, so that there may be one to attach now.
    fn renumber(&self, to: Option<Bdf>) -> Result<(), Box<dyn std::error::Error + Send + Sync>>;

    /// The bus of the function, whose StreamID is `at`, is going to be reset. Until [`release`](Self::release) nothing of
    /// the function may pass, and the host must not be asked for anything of its page tables: the kernel would answer
    /// when the reset is over, which takes a minute if the device does not come back.
    fn hold(&self, at: Option<Bdf>) {
        let _ = at;
    }

    /// A reset is over, whether it was announced or not. [`renumber`](Self::renumber) is next.
    fn release(&self) {}
}

pub(super) struct Identity {
    /// None while the guest cannot reach the function.
    number: Mutex<Option<Bdf>>,
    upstream: OnceLock<Arc<dyn Upstream>>,
    moves: AtomicU64,
}

impl Identity {
    pub(super) fn new(number: Bdf) -> Self {
        Self { number: Mutex::new(Some(number)), upstream: OnceLock::new(), moves: AtomicU64::new(0) }
    }

    pub(super) fn moves(&self) -> u64 {
        self.moves.load(Ordering::Relaxed)
    }

    fn number(&self) -> MutexGuard<'_, Option<Bdf>> {
        self.number.lock().unwrap_or_else(|e| e.into_inner())
    }
}

impl VfioFunction {
    /// The function's requester ID in the guest; none while the guest cannot reach it.
    pub fn requester_id(&self) -> Option<Bdf> {
        *self.identity.number()
    }

    /// Names the vSMMU that the function is behind. Only the first counts.
    pub fn set_upstream(&self, upstream: Arc<dyn Upstream>) {
        let _ = self.identity.upstream.set(upstream);
    }

    /// DMA first, then interrupts: a vector of who has no number is pending until it has one again.
    pub(super) fn renumber(&self, to: Option<Bdf>) {
        let mut number = self.identity.number();
        let from = std::mem::replace(&mut *number, to);
        if from == to {
            return;
        }
        // The guest can do this at will: messages come at a falling rate.
        if self.identity.moves.fetch_add(1, Ordering::Relaxed).wrapping_add(1).is_power_of_two() {
            let said = |id: Option<Bdf>| id.map_or("nowhere".to_owned(), |id| id.to_string());
            log::info!("{}: the guest moves it from {} to {}", self.name, said(from), said(to));
        }
        self.tell_upstream(to);
        drop(number);
        let id = to.map(|id| id.requester_id().into());
        if let Some(msi) = &mut self.lock().msi {
            self.note("route msi", msi.set_device_id(id));
        }
        if let Some(mut msix) = self.msix() {
            self.note("route msi-x", msix.set_device_id(id));
        }
    }

    /// The function comes out of a reset.
    pub(super) fn renumber_again(&self) {
        let number = self.identity.number();
        if let Some(upstream) = self.identity.upstream.get() {
            upstream.release();
        }
        self.tell_upstream(*number);
    }

    /// The bus of the function is going to be reset.
    pub(super) fn hold(&self) {
        let number = self.identity.number();
        if let Some(upstream) = self.identity.upstream.get() {
            upstream.hold(*number);
        }
    }

    /// With the number locked: the last that is told is the one that it has.
    fn tell_upstream(&self, at: Option<Bdf>) {
        let Some(upstream) = self.identity.upstream.get() else { return };
        if let Err(error) = upstream.renumber(at) {
            self.counters.error("have its stream id", &refusal(&*error));
        }
    }
}

/// The error with all that caused it, and what it means for the device.
fn refusal(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    let said: Vec<_> = causes.map(ToString::to_string).collect();
    format!("{}; its dma aborts until it is reset", said.join(": "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{0}")]
    struct Link(&'static str, #[source] Option<Box<Link>>);

    #[test]
    fn a_stream_that_cannot_follow_is_told_with_what_the_kernel_said() {
        let kernel = Link("No space left on device", None);
        let call = Link("IOMMU_VDEVICE_ALLOC failed", Some(Box::new(kernel)));
        let error = Link("device 3 cannot have stream 0x900", Some(Box::new(call)));
        let said = "device 3 cannot have stream 0x900: IOMMU_VDEVICE_ALLOC failed: No space left on device; its dma \
                    aborts until it is reset";
        assert_eq!(refusal(&error), said);
    }
}
