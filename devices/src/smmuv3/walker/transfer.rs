//! One access of a device, from page to page.

use vm_memory::{GuestAddress, GuestMemoryBackend};

use super::access::{Access, Extent};
use super::flights::Generation;
use super::port::{DmaError, DmaPort, Failure, no_memory};

/// An access under way: invalidations wait until it is dropped.
pub(super) struct Transfer<'a> {
    port: &'a DmaPort,
    access: Access,
    generation: Generation,
    /// What is left.
    iova: u64,
    length: u64,
    /// The translation of `iova`, if it is known already.
    next: Option<Extent>,
}

impl<'a> Transfer<'a> {
    /// Looks at the whole access; on failure the guest gets one event record.
    pub(super) fn start(port: &'a DmaPort, access: Access, iova: u64, length: u64) -> Result<Self, Failure> {
        let generation = port.smmu().start_flight();
        let mut transfer = Self { port, access, generation, iova, length, next: None };
        let mut first = None;
        while let Some((iova, extent)) = transfer.next_extent()? {
            first = first.or(Some(extent));
            if !port.smmu().memory().check_range(GuestAddress(extent.address), extent.length as usize) {
                return Err(no_memory(iova, extent.address));
            }
        }
        (transfer.iova, transfer.length, transfer.next) = (iova, length, first);
        Ok(transfer)
    }

    /// The next part that is in one piece in guest memory, with its address and not longer than what is left. After the
    /// first look it can still fail, if the guest changes its tables meanwhile.
    pub(super) fn next_extent(&mut self) -> Result<Option<(u64, Extent)>, Failure> {
        if self.length == 0 {
            return Ok(None);
        }
        let iova = self.iova;
        let extent = match self.next.take() {
            Some(extent) => extent,
            None => self.translate(iova)?,
        };
        let length = extent.length.min(self.length);
        self.iova = iova.wrapping_add(length);
        self.length -= length;
        Ok(Some((iova, Extent { length, ..extent })))
    }

    fn translate(&self, iova: u64) -> Result<Extent, Failure> {
        let aborted = Failure::Error(DmaError::Aborted { iova });
        let source = self.port.source().ok_or(aborted)?;
        self.port.smmu().translate(source, self.access, iova).map_err(|fault| {
            self.port.smmu().record(fault.event(source, self.access, iova));
            if fault.aborts() { aborted } else { Failure::Ignored { iova } }
        })
    }
}

impl Drop for Transfer<'_> {
    fn drop(&mut self) {
        self.port.smmu().end_flight(self.generation);
    }
}
