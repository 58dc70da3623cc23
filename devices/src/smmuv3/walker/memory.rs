//! A port as rust-vmm's devices see it: `vm_memory::GuestMemory` with I/O virtual addresses.
//!
//! `vm_memory::Iommu` is not what we implement: its IOTLB is an unbounded map of one address space, without ASIDs and
//! global translations. What its users need is [`GuestMemory`], which `vm_memory::IommuMemory` makes of it.

use std::iter::FusedIterator;

use vm_memory::guest_memory::{GuestMemoryBackendSliceIterator, GuestMemorySliceIterator};
use vm_memory::{
    GuestAddress, GuestMemory, GuestMemoryBackend, GuestMemoryError, GuestMemoryMmap, GuestMemoryResult, Permissions,
    VolatileSlice,
};

use super::port::{DmaError, DmaPort, Failure};
use super::transfer::Transfer;

/// Slices are good until the iterator that gave them is dropped: an invalidation waits that long, but not longer. A
/// device that keeps one beyond that writes to a page which the guest has unmapped.
impl GuestMemory for DmaPort {
    type PhysicalMemory = GuestMemoryMmap;
    type Bitmap = ();

    /// Without an event record: nothing is accessed.
    fn check_range(&self, address: GuestAddress, count: usize, access: Permissions) -> bool {
        let passes = |write: bool| {
            let (mut iova, mut left) = (address.0, count as u64);
            while left > 0 {
                let extent =
                    self.source().and_then(|source| self.smmu().translate(source, self.access(write), iova).ok());
                let Some(extent) = extent else { return false };
                let length = extent.length.min(left);
                if !GuestMemoryBackend::check_range(self.smmu().memory(), GuestAddress(extent.address), length as usize)
                {
                    return false;
                }
                (iova, left) = (iova.wrapping_add(length), left - length);
            }
            true
        };
        (access == Permissions::Write || passes(false)) && (!access.has_write() || passes(true))
    }

    fn get_slices<'a>(
        &'a self,
        address: GuestAddress,
        count: usize,
        access: Permissions,
    ) -> GuestMemoryResult<impl GuestMemorySliceIterator<'a, ()>> {
        if access == Permissions::ReadWrite {
            self.transfer(address.0, count as u64, false).map_err(error)?;
        }
        let transfer = self.transfer(address.0, count as u64, access.has_write()).map_err(error)?;
        Ok(Slices { memory: self.smmu().memory(), transfer: Some(transfer), current: None })
    }
}

/// Slices of guest memory that together are a range of I/O virtual addresses.
struct Slices<'a> {
    memory: &'a GuestMemoryMmap,
    /// None after the end or an error.
    transfer: Option<Transfer<'a>>,
    current: Option<GuestMemoryBackendSliceIterator<'a, GuestMemoryMmap>>,
}

impl<'a> Iterator for Slices<'a> {
    type Item = GuestMemoryResult<VolatileSlice<'a, ()>>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let transfer = self.transfer.as_mut()?;
            match self.current.as_mut().and_then(Iterator::next) {
                Some(Ok(slice)) => return Some(Ok(slice)),
                Some(Err(error)) => {
                    self.transfer = None;
                    return Some(Err(error));
                }
                None => {}
            }
            match transfer.next_extent() {
                Ok(Some((_, extent))) => {
                    let slices = GuestMemoryBackend::get_slices(
                        self.memory,
                        GuestAddress(extent.address),
                        extent.length as usize,
                    );
                    self.current = Some(slices);
                }
                // The transfer stays: the last slice may be in use.
                Ok(None) => return None,
                Err(failure) => {
                    self.transfer = None;
                    return Some(Err(error(failure)));
                }
            }
        }
    }
}

impl FusedIterator for Slices<'_> {}

impl<'a> GuestMemorySliceIterator<'a, ()> for Slices<'a> {}

fn error(failure: Failure) -> GuestMemoryError {
    GuestMemoryError::InvalidGuestAddress(GuestAddress(match failure {
        // A slice cannot read zeroes, so what is to be ignored fails, too.
        Failure::Error(DmaError::Aborted { iova } | DmaError::NoMemory { iova, .. }) | Failure::Ignored { iova } => {
            iova
        }
    }))
}
