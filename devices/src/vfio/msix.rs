//! MSI-X of a passed-through function (PCIe 7.7.2): capability, table and pending bits are virtual, the vectors real.
//!
//! The guest's message address is an IOVA behind its vSMMU and is kept only to be read back: the data alone names the
//! event of the guest's ITS, and the host programs the device with an address of its own.

#![forbid(unsafe_code)]

use std::io;
use std::ops::Range;

use super::capabilities::{dword, word};
use super::vectors::Vectors;
use crate::pci::spec::MsixControl;

/// Bytes of a table entry: address, upper address, data, vector control (7.7.2.6 to 7.7.2.9).
const ENTRY: u64 = 16;
/// Mask Bit of Vector Control.
const MASKED: u32 = 1;

/// Where capability, table and pending bits are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct MsixLayout {
    /// Message Control in configuration space.
    pub(super) control: u16,
    /// Entries of the table, from 1 to 2048.
    pub(super) vectors: u16,
    table: (u8, u64),
    pba: (u8, u64),
}

impl MsixLayout {
    /// From the device's capability at `offset`; `None` if VFIO gives no vector.
    pub(super) fn new(device: &[u8], offset: u16, irqs: u32) -> Option<Self> {
        let place = |at| {
            let register = dword(device, offset + at);
            (register as u8 & 0b111, u64::from(register & !0b111))
        };
        let vectors = (word(device, offset + 2) & 0x7ff) + 1;
        let vectors = vectors.min(u16::try_from(irqs).unwrap_or(u16::MAX));
        (vectors > 0).then(|| Self { control: offset + 2, vectors, table: place(4), pba: place(8) })
    }

    /// Bytes of a BAR that the table takes.
    pub(super) fn table(&self, bar: u8) -> Range<u64> {
        if bar == self.table.0 { self.table.1..self.table.1 + u64::from(self.vectors) * ENTRY } else { 0..0 }
    }

    /// Bytes of a BAR that the pending bits take, in whole QWORDs.
    pub(super) fn pba(&self, bar: u8) -> Range<u64> {
        if bar == self.pba.0 { self.pba.1..self.pba.1 + u64::from(self.vectors.div_ceil(64)) * 8 } else { 0..0 }
    }
}

struct Entry {
    /// Message Address, Message Upper Address, Message Data, Vector Control.
    words: [u32; 4],
}

/// MSI-X at run time.
pub(super) struct Msix {
    layout: MsixLayout,
    entries: Vec<Entry>,
    vectors: Vectors,
    control: MsixControl,
}

impl Msix {
    pub(super) fn new(layout: MsixLayout, vectors: Vectors) -> Self {
        let mut msix = Self { layout, entries: Vec::new(), vectors, control: MsixControl::empty() };
        msix.clear();
        msix
    }

    fn clear(&mut self) {
        self.control = MsixControl::empty();
        self.entries.clear();
        self.entries.resize_with(self.layout.vectors.into(), || Entry { words: [0, 0, 0, MASKED] });
    }

    /// Takes over Message Control as the guest wrote it.
    pub(super) fn follow(&mut self, control: u16) -> io::Result<()> {
        let control = MsixControl::from_bits_truncate(control);
        let before = std::mem::replace(&mut self.control, control);
        if before == control {
            return Ok(());
        }
        if !control.contains(MsixControl::ENABLE) {
            return self.vectors.release();
        }
        let mut result = Ok(());
        if !before.contains(MsixControl::ENABLE) {
            // With one vector on the host the device is in MSI-X mode, whatever the guest has masked.
            result = self.vectors.enable(0);
        }
        // One vector that fails must not take those after it along.
        for vector in 0..self.entries.len() {
            result = result.and(self.refresh(vector));
        }
        result
    }

    /// Routes a vector as its entry and the control bits say.
    fn refresh(&mut self, vector: usize) -> io::Result<()> {
        let Some(entry) = self.entries.get(vector) else { return Ok(()) };
        let open = entry.words[3] & MASKED == 0
            && self.control.contains(MsixControl::ENABLE)
            && !self.control.contains(MsixControl::FUNCTION_MASK);
        let data = open.then_some(entry.words[2]);
        if open {
            self.vectors.enable(vector)?;
        }
        self.vectors.route(vector, data)
    }

    /// The guest reads the table at `offset` from its start. Whole, aligned DWORDs and QWORDs only; else zero (7.7.2).
    pub(super) fn read_table(&self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        if !offset.is_multiple_of(4) {
            return;
        }
        for (at, bytes) in (offset..).step_by(4).zip(data.chunks_exact_mut(4)) {
            if let Some(entry) = self.entries.get((at / ENTRY) as usize) {
                bytes.copy_from_slice(&entry.words[(at % ENTRY / 4) as usize].to_le_bytes());
            }
        }
    }

    /// The guest writes the table.
    pub(super) fn write_table(&mut self, offset: u64, data: &[u8]) -> io::Result<()> {
        if !offset.is_multiple_of(4) {
            return Ok(());
        }
        let mut result = Ok(());
        for (at, bytes) in (offset..).step_by(4).zip(data.chunks_exact(4)) {
            let vector = (at / ENTRY) as usize;
            let Some(entry) = self.entries.get_mut(vector) else { break };
            let field = (at % ENTRY / 4) as usize;
            let value = bytes.iter().rev().fold(0, |value, &byte| value << 8 | u32::from(byte));
            entry.words[field] = if field == 3 { value & MASKED } else { value };
            // Software changes address and data of a masked entry only (7.7.2), so its unmasking is what counts; an
            // open one follows at once all the same.
            result = result.and(self.refresh(vector));
        }
        result
    }

    /// The guest reads the pending bits at `offset` from their start.
    pub(super) fn read_pba(&self, offset: u64, data: &mut [u8]) {
        for (at, byte) in (offset..).zip(data) {
            let first = at.saturating_mul(8) as usize;
            *byte = (0..8).fold(0, |bits, bit| bits | u8::from(self.vectors.pending(first + bit)) << bit);
        }
    }

    pub(super) fn set_device_id(&mut self, device_id: Option<u32>) -> io::Result<()> {
        self.vectors.set_device_id(device_id)
    }

    pub(super) fn routed(&self) -> usize {
        self.vectors.routed()
    }

    /// As at power-on.
    pub(super) fn release(&mut self) -> io::Result<()> {
        self.clear();
        self.vectors.release()
    }
}
