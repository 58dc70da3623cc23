//! An emulated configuration space: 4 KiB in which every bit is read-only, writable or cleared by writing 1.

#![forbid(unsafe_code)]

use super::bar::BarShape;
use super::spec::header;

const SIZE: usize = 4096;
type Bytes = Box<[u8]>;

/// Lays out a configuration space; bits are read-only unless said otherwise.
///
/// Offsets are those of the model, not of the guest: one outside the 4 KiB is a mistake in it and panics.
pub struct ConfigBuilder {
    initial: Bytes,
    writable: Bytes,
    clear_on_one: Bytes,
    next_capability: u16,
    last_capability: Option<u16>,
    next_extended: u16,
    last_extended: Option<u16>,
}

impl Default for ConfigBuilder {
    fn default() -> Self {
        Self::new()
    }
}

impl ConfigBuilder {
    /// All zeroes, all read-only.
    pub fn new() -> Self {
        let zeroes = || vec![0; SIZE].into_boxed_slice();
        Self {
            initial: zeroes(),
            writable: zeroes(),
            clear_on_one: zeroes(),
            next_capability: header::END,
            last_capability: None,
            next_extended: header::EXTENDED,
            last_extended: None,
        }
    }

    /// Sets the value at power-on, little-endian.
    pub fn value(&mut self, offset: u16, value: impl AsRef<[u8]>) -> &mut Self {
        put(&mut self.initial, offset, value.as_ref());
        self
    }

    /// An 8-bit value at power-on and the bits of it that the guest can write.
    pub fn u8(&mut self, offset: u16, value: u8, writable: u8) -> &mut Self {
        put(&mut self.writable, offset, &[writable]);
        self.value(offset, [value])
    }

    /// A 16-bit value at power-on and the bits of it that the guest can write.
    pub fn u16(&mut self, offset: u16, value: u16, writable: u16) -> &mut Self {
        put(&mut self.writable, offset, &writable.to_le_bytes());
        self.value(offset, value.to_le_bytes())
    }

    /// A 32-bit value at power-on and the bits of it that the guest can write.
    pub fn u32(&mut self, offset: u16, value: u32, writable: u32) -> &mut Self {
        put(&mut self.writable, offset, &writable.to_le_bytes());
        self.value(offset, value.to_le_bytes())
    }

    /// Bits of a 16-bit register that the guest clears by writing 1 (RW1C).
    pub fn clear_on_one_u16(&mut self, offset: u16, bits: u16) -> &mut Self {
        put(&mut self.clear_on_one, offset, &bits.to_le_bytes());
        self
    }

    /// Bits of a 32-bit register that the guest clears by writing 1 (RW1C).
    pub fn clear_on_one_u32(&mut self, offset: u16, bits: u32) -> &mut Self {
        put(&mut self.clear_on_one, offset, &bits.to_le_bytes());
        self
    }

    /// A memory BAR that holds `address` at power-on.
    pub fn bar(&mut self, shape: &BarShape, address: u64) -> &mut Self {
        let mask = shape.address_mask();
        let address = address & mask;
        self.u32(shape.offset(), address as u32 | shape.type_bits(), mask as u32);
        if shape.wide {
            self.u32(shape.offset() + 4, (address >> 32) as u32, (mask >> 32) as u32);
        }
        self
    }

    /// Appends a capability of `length` bytes (header included) to the list and returns its offset (7.5.1.1.11).
    pub fn capability(&mut self, id: u8, length: u16) -> u16 {
        let at = self.next_capability;
        self.next_capability = (at + length).next_multiple_of(4);
        assert!(self.next_capability <= header::EXTENDED, "capability {id:#x} does not fit");
        self.value(at, [id, 0]);
        match self.last_capability.replace(at) {
            Some(last) => self.value(last + 1, [at as u8]),
            None => self.value(header::CAPABILITIES, [at as u8]).value(header::STATUS, [1 << 4]),
        };
        at
    }

    /// Appends an extended capability of `length` bytes (header included) and returns its offset (7.6.3).
    pub fn extended_capability(&mut self, id: u16, version: u8, length: u16) -> u16 {
        let at = self.next_extended;
        self.next_extended = (at + length).next_multiple_of(4);
        assert!(usize::from(self.next_extended) <= SIZE, "extended capability {id:#x} does not fit");
        let head = u32::from(id) | u32::from(version & 0xf) << 16;
        self.value(at, head.to_le_bytes());
        if let Some(last) = self.last_extended.replace(at) {
            // The next pointer is bits 31:20; the version stays in 19:16.
            let mut high = [self.initial[usize::from(last) + 2], 0];
            high[0] = high[0] & 0xf | (at << 4) as u8;
            high[1] = (at >> 4) as u8;
            self.value(last + 2, high);
        }
        at
    }

    /// The finished space, as at power-on.
    pub fn build(self) -> ConfigSpace {
        ConfigSpace {
            now: self.initial.clone(),
            initial: self.initial,
            writable: self.writable,
            clear_on_one: self.clear_on_one,
        }
    }
}

fn put(bytes: &mut [u8], offset: u16, value: &[u8]) {
    let start = usize::from(offset);
    bytes[start..start + value.len()].copy_from_slice(value);
}

/// A configuration space at run time.
///
/// [`ConfigSpace::read`] and [`ConfigSpace::write`] are the guest's accesses; the others are the model's.
pub struct ConfigSpace {
    now: Bytes,
    initial: Bytes,
    writable: Bytes,
    clear_on_one: Bytes,
}

impl ConfigSpace {
    /// The guest reads; what lies beyond the 4 KiB reads all ones.
    pub fn read(&self, offset: u16, data: &mut [u8]) {
        let start = usize::from(offset);
        match self.now.get(start..start + data.len()) {
            Some(now) => data.copy_from_slice(now),
            None => data.fill(0xff),
        }
    }

    /// The guest writes.
    pub fn write(&mut self, offset: u16, data: &[u8]) {
        for (at, &byte) in (usize::from(offset)..SIZE).zip(data) {
            let writable = self.writable[at];
            let value = self.now[at] & !writable | byte & writable;
            self.now[at] = value & !(byte & self.clear_on_one[at]);
        }
    }

    /// Back to power-on.
    pub fn reset(&mut self) {
        self.now.copy_from_slice(&self.initial);
    }

    fn bytes<const N: usize>(&self, offset: u16) -> [u8; N] {
        let mut bytes = [0; N];
        self.read(offset, &mut bytes);
        bytes
    }

    /// The byte at `offset`.
    pub fn get_u8(&self, offset: u16) -> u8 {
        u8::from_le_bytes(self.bytes(offset))
    }

    /// The 16-bit register at `offset`.
    pub fn get_u16(&self, offset: u16) -> u16 {
        u16::from_le_bytes(self.bytes(offset))
    }

    /// The 32-bit register at `offset`.
    pub fn get_u32(&self, offset: u16) -> u32 {
        u32::from_le_bytes(self.bytes(offset))
    }

    /// Sets the 16-bit register at `offset`, read-only bits too.
    pub fn set_u16(&mut self, offset: u16, value: u16) {
        if let Some(now) = self.now.get_mut(usize::from(offset)..usize::from(offset) + 2) {
            now.copy_from_slice(&value.to_le_bytes());
        }
    }

    /// Sets the bits of `mask` in the 16-bit register at `offset` to those of `value`.
    pub fn update_u16(&mut self, offset: u16, mask: u16, value: u16) {
        self.set_u16(offset, self.get_u16(offset) & !mask | value & mask);
    }

    /// The address that the guest gave a BAR.
    pub fn bar(&self, shape: &BarShape) -> u64 {
        shape.decode(self.get_u32(shape.offset()), self.get_u32(shape.offset() + 4))
    }
}

#[cfg(test)]
mod tests;
