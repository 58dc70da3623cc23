//! The Enhanced Configuration Access Mechanism (PCIe 7.2.2): a segment's configuration spaces as MMIO.

#![forbid(unsafe_code)]

use std::sync::Arc;

use super::{Bdf, Segment};
use crate::bus::MmioDevice;

/// Bytes of the window: 256 buses of 1 MiB.
pub const ECAM_SIZE: u64 = 256 << 20;

/// A window of [`ECAM_SIZE`] bytes: bus in bits 27:20, device in 19:15, function in 14:12, register in 11:0.
pub struct Ecam {
    segment: Arc<Segment>,
}

impl Ecam {
    /// The window to `segment`.
    pub fn new(segment: Arc<Segment>) -> Self {
        Self { segment }
    }

    fn split(offset: u64) -> Option<(Bdf, u16)> {
        let id = u16::try_from(offset >> 12).ok()?;
        Some((Bdf::from_requester_id(id), offset as u16 & 0xfff))
    }
}

/// The naturally aligned pieces of at most 4 bytes that an access consists of; a root complex need not carry out
/// others as one (7.2.2). Unaligned accesses get none.
fn pieces(offset: u64, length: usize) -> usize {
    match length {
        1 | 2 | 4 | 8 if offset.is_multiple_of(length as u64) => length.min(4),
        _ => 0,
    }
}

impl MmioDevice for Ecam {
    fn read(&self, offset: u64, data: &mut [u8]) {
        data.fill(0xff);
        let piece = pieces(offset, data.len());
        if piece == 0 {
            return;
        }
        for (at, chunk) in (offset..ECAM_SIZE).step_by(piece).zip(data.chunks_exact_mut(piece)) {
            if let Some((target, register)) = Self::split(at) {
                self.segment.config_read(target, register, chunk);
            }
        }
    }

    fn write(&self, offset: u64, data: &[u8]) {
        let piece = pieces(offset, data.len());
        if piece == 0 {
            return;
        }
        for (at, chunk) in (offset..ECAM_SIZE).step_by(piece).zip(data.chunks_exact(piece)) {
            if let Some((target, register)) = Self::split(at) {
                self.segment.config_write(target, register, chunk);
            }
        }
    }
}
