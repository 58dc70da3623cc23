//! Host memory that appears in the guest's physical address space without a trap (KVM memory slots).
#![forbid(unsafe_code)]

use std::sync::Arc;

/// A piece of host memory that can back guest physical addresses; the owner keeps it mapped as long as it lives.
pub trait HostMemory: Send + Sync {
    /// Host virtual address, page-aligned.
    fn host_address(&self) -> u64;
    /// Length in bytes, a multiple of the page size.
    fn length(&self) -> u64;
    /// Whether the guest may only read it.
    fn read_only(&self) -> bool {
        false
    }
}

/// Why memory could not be put into the guest.
#[derive(Debug, thiserror::Error)]
#[error("guest mapping at {guest_address:#x}, {length:#x} bytes")]
pub struct Error {
    /// Guest physical address asked for.
    pub guest_address: u64,
    /// Length in bytes.
    pub length: u64,
    /// What the kernel answered.
    #[source]
    pub source: std::io::Error,
}

/// Puts host memory into the guest and takes it out again.
pub trait GuestMapper: Send + Sync {
    /// Maps all of `memory` at `guest_address`; the mapper keeps the `Arc` until [`GuestMapper::unmap`].
    fn map(&self, guest_address: u64, memory: Arc<dyn HostMemory>) -> Result<(), Error>;
    /// Removes the mapping that starts at `guest_address`; nothing happens if there is none.
    fn unmap(&self, guest_address: u64);
}
