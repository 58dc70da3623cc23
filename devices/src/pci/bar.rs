//! Base Address Registers (PCIe 7.5.1.2.1): their bits, and where the guest currently sees the memory behind one.

#![forbid(unsafe_code)]

use std::sync::{Arc, Weak};

use crate::bus::{self, MmioBus, MmioDevice};

/// A memory BAR.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BarShape {
    /// Register number: 0 to 5, 0 to 1 in a Type 1 header.
    pub index: u8,
    /// Bytes, a power of two from 16.
    pub size: u64,
    /// Whether it is 64 bits wide and takes the next register, too.
    pub wide: bool,
    /// Whether it is prefetchable.
    pub prefetchable: bool,
}

impl BarShape {
    /// Offset of its (first) register in configuration space.
    pub const fn offset(&self) -> u16 {
        super::spec::header::BAR0 + 4 * self.index as u16
    }

    /// The read-only bits 3:0: memory, 32 or 64 bits wide, prefetchable or not.
    pub const fn type_bits(&self) -> u32 {
        (self.wide as u32) << 2 | (self.prefetchable as u32) << 3
    }

    /// The address bits that the guest can write; all others read 0, from which it learns the size.
    pub const fn address_mask(&self) -> u64 {
        let mask = !self.size.wrapping_sub(1);
        if self.wide { mask } else { mask & 0xffff_ffff }
    }

    /// The address in the raw register values; `high` counts only for a wide BAR.
    pub const fn decode(&self, low: u32, high: u32) -> u64 {
        let high = if self.wide { high } else { 0 };
        ((high as u64) << 32 | low as u64) & self.address_mask()
    }
}

/// A device model behind a BAR: on the [`MmioBus`] where and while the guest has memory space enabled.
///
/// It must not keep the bus alive: the bus reaches the segment's functions through ECAM, and they have BARs.
pub struct MmioBar {
    bus: Weak<MmioBus>,
    device: Arc<dyn MmioDevice>,
    size: u64,
    at: Option<u64>,
}

impl MmioBar {
    /// A BAR of `size` bytes that is nowhere yet; `bus` is not kept alive.
    pub fn new(bus: Arc<MmioBus>, device: Arc<dyn MmioDevice>, size: u64) -> Self {
        Self { bus: Arc::downgrade(&bus), device, size, at: None }
    }

    /// Where the guest sees it.
    pub fn address(&self) -> Option<u64> {
        self.at
    }

    /// Moves it to `address`, or takes it off the bus. If the place is taken or beyond the address space the BAR
    /// answers nowhere, and the error is for the log only.
    pub fn place(&mut self, address: Option<u64>) -> Result<(), bus::Error> {
        if self.at == address {
            return Ok(());
        }
        let Some(bus) = self.bus.upgrade() else { return Ok(()) };
        if let Some(old) = self.at.take() {
            bus.remove(old);
        }
        if let Some(start) = address {
            bus.insert(start..start.saturating_add(self.size), self.device.clone())?;
            self.at = Some(start);
        }
        Ok(())
    }
}

impl Drop for MmioBar {
    fn drop(&mut self) {
        if let (Some(bus), Some(old)) = (self.bus.upgrade(), self.at.take()) {
            bus.remove(old);
        }
    }
}
