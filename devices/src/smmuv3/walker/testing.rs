//! What tests build for the walker: translation tables in guest memory.

use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

/// Bits of a descriptor.
pub(crate) const BLOCK: u64 = 0b01;
pub(crate) const PAGE: u64 = 0b11;
pub(crate) const TABLE: u64 = 0b11;
pub(crate) const USER: u64 = 1 << 6;
pub(crate) const READ_ONLY: u64 = 1 << 7;
pub(crate) const AF: u64 = 1 << 10;
pub(crate) const NG: u64 = 1 << 11;
pub(crate) const CONTIGUOUS: u64 = 1 << 52;
pub(crate) const PXN: u64 = 1 << 53;
pub(crate) const UXN: u64 = 1 << 54;
/// Readable and writable by devices, for one ASID.
pub(crate) const RW: u64 = AF | NG | USER;

/// Translation tables as a guest builds them.
#[derive(Clone)]
pub(crate) struct Tables {
    pub(crate) memory: GuestMemoryMmap,
    /// log2 of the granule.
    pub(crate) page: u8,
    /// Bits of addresses.
    pub(crate) bits: u8,
    pub(crate) root: u64,
    pub(crate) next: u64,
    pub(crate) big_endian: bool,
}

impl Tables {
    /// Empty ones, from `root` on: 64 KiB for each.
    pub(crate) fn new(memory: &GuestMemoryMmap, page: u8, bits: u8, root: u64) -> Self {
        Self { memory: memory.clone(), page, bits, root, next: root + 0x1_0000, big_endian: false }
    }

    pub(crate) fn stride(&self) -> u8 {
        self.page - 3
    }

    /// Level of the first table.
    pub(crate) fn start(&self) -> u8 {
        (0..4).rev().find(|&level| self.shift(level) + self.stride() >= self.bits).unwrap()
    }

    pub(crate) fn shift(&self, level: u8) -> u8 {
        self.page + self.stride() * (3 - level)
    }

    pub(crate) fn write(&self, at: u64, word: u64) {
        let word = if self.big_endian { word.swap_bytes() } else { word };
        self.memory.write_obj(word, GuestAddress(at)).unwrap();
    }

    pub(crate) fn read(&self, at: u64) -> u64 {
        let word: u64 = self.memory.read_obj(GuestAddress(at)).unwrap();
        if self.big_endian { word.swap_bytes() } else { word }
    }

    /// Where the descriptor of an address at a level is; tables on the way are made.
    pub(crate) fn slot(&mut self, iova: u64, level: u8) -> u64 {
        let address = iova & ((1 << self.bits) - 1);
        let (mut table, mut at) = (self.root, self.start());
        loop {
            let index = address >> self.shift(at);
            let index = if at == self.start() { index } else { index & ((1 << self.stride()) - 1) };
            let slot = table + 8 * index;
            if at == level {
                return slot;
            }
            if self.read(slot) & 3 != TABLE {
                self.write(slot, self.next | TABLE);
                self.next += 0x1_0000;
            }
            table = self.read(slot) & 0xffff_ffff_f000;
            at += 1;
        }
    }

    /// Writes the descriptor of an address at a level.
    pub(crate) fn put(&mut self, iova: u64, level: u8, descriptor: u64) {
        let slot = self.slot(iova, level);
        self.write(slot, descriptor);
    }

    /// Maps one page.
    pub(crate) fn map(&mut self, iova: u64, address: u64, attributes: u64) {
        self.put(iova, 3, address | attributes | PAGE);
    }
}
