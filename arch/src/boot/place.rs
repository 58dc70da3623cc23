//! Gives out guest RAM from its start upwards.
#![forbid(unsafe_code)]

use super::image::Header;
use super::{BootError, GRANULE};
use crate::layout::Region;

/// Alignment that booting.rst asks for.
const KERNEL_ALIGNMENT: u64 = 2 << 20;
const PAGE: u64 = 4 << 10;

/// What of RAM is taken.
pub(super) struct Placer {
    ram: Region,
    next: u64,
}

impl Placer {
    pub(super) fn new(ram: Region) -> Result<Self, BootError> {
        let whole = ram.base.is_multiple_of(PAGE) && ram.size.is_multiple_of(PAGE);
        match ram.base.checked_add(ram.size) {
            Some(_) if whole => Ok(Self { ram, next: ram.base }),
            _ => Err(BootError::Unaligned(ram)),
        }
    }

    /// A place for the kernel: `text_offset` behind a 2 MiB boundary, as large as the header or the file says.
    pub(super) fn kernel(&mut self, header: &Header, file: u64) -> Result<Region, BootError> {
        let size = header.image_size.max(file);
        let base =
            self.next.checked_next_multiple_of(KERNEL_ALIGNMENT).and_then(|at| at.checked_add(header.text_offset));
        self.take("kernel", base, size)
    }

    /// The address that the next [`place`](Self::place) gives.
    pub(super) fn next(&self) -> u64 {
        self.next
    }

    /// A place for `size` bytes, rounded up to whole granules.
    pub(super) fn place(&mut self, what: &'static str, size: u64) -> Result<Region, BootError> {
        let size = size.checked_next_multiple_of(GRANULE).unwrap_or(u64::MAX);
        self.take(what, Some(self.next), size)
    }

    fn take(&mut self, what: &'static str, base: Option<u64>, size: u64) -> Result<Region, BootError> {
        let end = base.and_then(|base| base.checked_add(size)).and_then(|end| end.checked_next_multiple_of(GRANULE));
        match (base, end) {
            (Some(base), Some(end)) if end <= self.ram.end() => {
                self.next = end;
                Ok(Region::new(base, size))
            }
            _ => {
                let needed = end.unwrap_or(u64::MAX) - self.ram.base;
                Err(BootError::NoRoom { what, ram: self.ram.size, needed })
            }
        }
    }
}
