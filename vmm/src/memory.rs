//! Guest RAM: one memfd, mapped here for the device models and handed to the kernel for KVM and the IOAS.
#![forbid(unsafe_code)]

use std::fs::File;
use std::os::fd::AsFd;

use nestling_devices::mapping::HostMemory;
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
use vm_memory::{FileOffset, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion};

use crate::plan::spec::Window;

/// Why guest RAM cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The memfd could not be made or sized.
    #[error("guest memory of {size:#x} bytes")]
    Memfd {
        /// Bytes asked for.
        size: u64,
        /// What the kernel answered.
        #[source]
        source: rustix::io::Errno,
    },
    /// The memfd could not be mapped.
    #[error("guest memory of {size:#x} bytes cannot be mapped")]
    Map {
        /// Bytes asked for.
        size: u64,
        /// What vm-memory answered.
        #[source]
        source: vm_memory::mmap::FromRangesError,
    },
    /// The size does not fit this machine's address space.
    #[error("guest memory of {0:#x} bytes does not fit this host's address space")]
    TooLarge(u64),
}

/// Guest RAM.
pub struct GuestRam {
    file: File,
    window: Window,
    memory: GuestMemoryMmap,
}

impl GuestRam {
    /// Makes zeroed RAM for `window`. Nothing is allocated before somebody touches or pins it.
    pub fn new(window: Window) -> Result<Self, Error> {
        let size = window.size;
        let length = usize::try_from(size).map_err(|_| Error::TooLarge(size))?;
        let memfd = |source| Error::Memfd { size, source };
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let file = File::from(memfd_create("nestling-ram", flags).map_err(memfd)?);
        ftruncate(&file, size).map_err(memfd)?;
        fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW).map_err(memfd)?;
        let mapped = file
            .try_clone()
            .map_err(|e| memfd(rustix::io::Errno::from_io_error(&e).unwrap_or(rustix::io::Errno::IO)))?;
        let range = (GuestAddress(window.base), length, Some(FileOffset::new(mapped, 0)));
        let memory = GuestMemoryMmap::from_ranges_with_files([range]).map_err(|source| Error::Map { size, source })?;
        Ok(Self { file, window, memory })
    }

    /// The memfd; offset 0 is the first byte of [`GuestRam::window`].
    pub fn file(&self) -> impl AsFd + '_ {
        &self.file
    }

    /// Where it lies in the guest.
    pub fn window(&self) -> Window {
        self.window
    }

    /// The device models' view; clones share the mapping.
    pub fn memory(&self) -> &GuestMemoryMmap {
        &self.memory
    }

    /// What KVM maps.
    pub fn host_memory(&self) -> impl HostMemory + use<> {
        RamSlot(self.memory.clone())
    }
}

struct RamSlot(GuestMemoryMmap);

impl HostMemory for RamSlot {
    fn host_address(&self) -> u64 {
        self.0.iter().next().map_or(0, |region| region.as_ptr() as u64)
    }

    fn length(&self) -> u64 {
        self.0.iter().map(|region| region.len()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt;
    use vm_memory::Bytes;

    #[test]
    fn what_the_guest_memory_holds_is_in_the_memfd() {
        let ram = GuestRam::new(Window { base: 0x4000_0000, size: 0x20_0000 }).unwrap();
        ram.memory().write_slice(b"nested", GuestAddress(0x4000_1000)).unwrap();
        let mut read = [0; 6];
        ram.file.read_exact_at(&mut read, 0x1000).unwrap();
        assert_eq!(&read, b"nested");
        assert_eq!(ram.host_memory().length(), 0x20_0000);
    }

    #[test]
    fn its_size_is_sealed() {
        let ram = GuestRam::new(Window { base: 0x4000_0000, size: 0x20_0000 }).unwrap();
        assert!(ram.file.set_len(0x10_0000).is_err());
    }
}
