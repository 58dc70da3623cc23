//! How an emulated device reaches guest memory: by StreamID, SubstreamID and I/O virtual address.

use std::fmt;
use std::sync::Arc;

use vm_memory::{Bytes, GuestAddress};

use super::WalkerSmmu;
use super::access::{Access, Source};
use super::streams::Name;
use super::transfer::Transfer;

/// Why an access did not take place. The guest has its event record already, if there is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DmaError {
    /// The stream aborts, or the address has no translation for this access.
    #[error("the vsmmu aborts the access to {iova:#x}")]
    Aborted {
        /// Where the access, or the part of it that failed, begins.
        iova: u64,
    },
    /// The SMMU lets it pass, but there is no memory.
    #[error("the access to {iova:#x} goes to {address:#x}, where no memory is")]
    NoMemory {
        /// Where the part of it that failed begins.
        iova: u64,
        /// Guest physical address.
        address: u64,
    },
}

/// What an access without effect is to the device (CD.A).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// It fails.
    Error(DmaError),
    /// It reads zeroes and writes nothing.
    Ignored { iova: u64 },
}

/// A device's way into guest memory. A transaction without a SubstreamID and without privilege unless told otherwise;
/// clones speak for the same device, also when it gets another StreamID.
///
/// An access is checked as a whole before it touches memory: if one page of it cannot be reached, nothing is read or
/// written, and the guest gets one event record.
///
/// It is a [`vm_memory::GuestMemory`] too, whose addresses are I/O virtual addresses, for rust-vmm's virtio-queue.
#[derive(Clone)]
pub struct DmaPort {
    smmu: Arc<WalkerSmmu>,
    name: Name,
    substream_id: Option<u32>,
    privileged: bool,
    instruction: bool,
}

impl DmaPort {
    pub(super) fn new(smmu: Arc<WalkerSmmu>, name: Name) -> Self {
        Self { smmu, name, substream_id: None, privileged: false, instruction: false }
    }

    /// The same device's port for transactions with this SubstreamID (PASID, 20 bits), or with none.
    pub fn with_substream(&self, substream_id: Option<u32>) -> Self {
        Self { substream_id, ..self.clone() }
    }

    /// The same device's port for transactions with or without privilege (PCIe: Privileged Mode Requested).
    pub fn with_privilege(&self, privileged: bool) -> Self {
        Self { privileged, ..self.clone() }
    }

    /// The same device's port for reads that fetch instructions, or do not (PCIe: Execute Requested).
    pub fn with_execution(&self, instruction: bool) -> Self {
        Self { instruction, ..self.clone() }
    }

    /// The StreamID that the device has now; none if it is no longer behind the vSMMU.
    pub fn stream_id(&self) -> Option<u32> {
        self.name.get()
    }

    /// Fills `data` from `iova` on.
    pub fn dma_read(&self, iova: u64, data: &mut [u8]) -> Result<(), DmaError> {
        let result = self.transfer(iova, data.len() as u64, false).and_then(|mut transfer| {
            let mut rest = &mut *data;
            while let Some((iova, extent)) = transfer.next_extent()? {
                let (now, later) = std::mem::take(&mut rest).split_at_mut(extent.length as usize);
                let memory = self.smmu.memory();
                let address = extent.address;
                memory.read_slice(now, GuestAddress(address)).map_err(|_| no_memory(iova, address))?;
                rest = later;
            }
            Ok(())
        });
        match result {
            Err(Failure::Ignored { .. }) => data.fill(0),
            Err(Failure::Error(error)) => return Err(error),
            Ok(()) => {}
        }
        Ok(())
    }

    /// Writes `data` from `iova` on.
    pub fn dma_write(&self, iova: u64, data: &[u8]) -> Result<(), DmaError> {
        let result = self.transfer(iova, data.len() as u64, true).and_then(|mut transfer| {
            let mut rest = data;
            while let Some((iova, extent)) = transfer.next_extent()? {
                let (now, later) = rest.split_at(extent.length as usize);
                let memory = self.smmu.memory();
                let address = extent.address;
                memory.write_slice(now, GuestAddress(address)).map_err(|_| no_memory(iova, address))?;
                rest = later;
            }
            Ok(())
        });
        match result {
            Err(Failure::Error(error)) => Err(error),
            Err(Failure::Ignored { .. }) | Ok(()) => Ok(()),
        }
    }

    /// Starts an access after a look at all of it.
    pub(super) fn transfer(&self, iova: u64, length: u64, write: bool) -> Result<Transfer<'_>, Failure> {
        Transfer::start(self, self.access(write), iova, length)
    }

    pub(super) fn access(&self, write: bool) -> Access {
        Access { write, privileged: self.privileged, instruction: self.instruction }
    }

    /// Who it speaks for; none if the device is gone.
    pub(super) fn source(&self) -> Option<Source> {
        Some(Source { stream_id: self.name.get()?, substream_id: self.substream_id })
    }

    pub(super) fn name(&self) -> &Name {
        &self.name
    }

    pub(super) fn smmu(&self) -> &WalkerSmmu {
        &self.smmu
    }
}

pub(super) fn no_memory(iova: u64, address: u64) -> Failure {
    Failure::Error(DmaError::NoMemory { iova, address })
}

impl fmt::Debug for DmaPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, substream_id, privileged, instruction, .. } = self;
        f.debug_struct("DmaPort")
            .field("stream_id", &name.get())
            .field("substream_id", substream_id)
            .field("privileged", privileged)
            .field("instruction", instruction)
            .finish_non_exhaustive()
    }
}
