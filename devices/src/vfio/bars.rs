//! A BAR in the guest: the parts of it that the guest accesses directly, and the parts that are trapped.

#![forbid(unsafe_code)]

use std::io;
use std::ops::Range;
use std::sync::Arc;

use super::host::HostFunction;
use crate::bus::{MmioBus, MmioDevice};
use crate::mapping::{GuestMapper, HostMemory};
use crate::pci::bar::{BarShape, MmioBar};

/// One memory BAR of a passed-through function.
///
/// The whole BAR is on the MMIO bus; over it lie memory slots for the parts that can be mapped, so only what is left
/// between them ever traps. Neither is there while the guest has memory space disabled: an access to a mapped BAR
/// whose device does not decode it would end the vCPU's run with EFAULT.
pub(super) struct Bar {
    shape: BarShape,
    trapped: MmioBar,
    /// Offset in the BAR, and the mapped piece of the device.
    direct: Vec<(u64, Arc<dyn HostMemory>)>,
    mapper: Arc<dyn GuestMapper>,
    /// Guest addresses of the slots that are there now.
    slots: Vec<u64>,
}

impl Bar {
    /// Maps what can be mapped of the region, without the pages that `trap` touches.
    pub(super) fn new(
        host: &dyn HostFunction,
        shape: BarShape,
        trap: &[Range<u64>],
        device: Arc<dyn MmioDevice>,
        bus: Arc<MmioBus>,
        mapper: Arc<dyn GuestMapper>,
    ) -> io::Result<Self> {
        let page = host.page_size();
        let region = u32::from(shape.index);
        let mut direct = Vec::new();
        for part in direct_parts(&host.region(region).mappable, trap, page) {
            direct.push((part.start, host.map(region, part)?));
        }
        Ok(Self { shape, trapped: MmioBar::new(bus, device, shape.size), direct, mapper, slots: Vec::new() })
    }

    /// The BAR's registers.
    pub(super) fn shape(&self) -> &BarShape {
        &self.shape
    }

    /// Where the guest sees it.
    pub(super) fn address(&self) -> Option<u64> {
        self.trapped.address()
    }

    /// Moves it to `address`, or takes it out of the guest. Errors are for the log: where a piece cannot be mapped it
    /// is trapped, and where the BAR lies on something else it answers nowhere.
    pub(super) fn place(&mut self, address: Option<u64>) -> Result<(), Box<dyn std::error::Error>> {
        if self.address() == address {
            return Ok(());
        }
        for slot in self.slots.drain(..) {
            self.mapper.unmap(slot);
        }
        // Nothing could stand behind the last address, and addresses there are what sizing a BAR leaves.
        let address = address.filter(|start| start.checked_add(self.shape.size).is_some());
        self.trapped.place(address)?;
        let mut result = Ok(());
        for (offset, memory) in &self.direct {
            let Some(slot) = address.and_then(|start| start.checked_add(*offset)) else { continue };
            match self.mapper.map(slot, memory.clone()) {
                Ok(()) => self.slots.push(slot),
                Err(e) => result = Err(e.into()),
            }
        }
        result
    }

    /// Bytes that the guest accesses directly now.
    pub(super) fn mapped_bytes(&self) -> u64 {
        if self.slots.is_empty() { 0 } else { self.direct.iter().map(|(_, memory)| memory.length()).sum() }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        for slot in self.slots.drain(..) {
            self.mapper.unmap(slot);
        }
    }
}

/// What of `mappable` is left without the pages that `trap` touches.
fn direct_parts(mappable: &[Range<u64>], trap: &[Range<u64>], page: u64) -> Vec<Range<u64>> {
    let mut parts = mappable.to_vec();
    for hole in trap.iter().filter(|hole| !hole.is_empty()) {
        let start = hole.start - hole.start % page;
        let end = hole.end.checked_next_multiple_of(page).unwrap_or(u64::MAX);
        parts = parts
            .into_iter()
            .flat_map(|part| [part.start..part.end.min(start), part.start.max(end)..part.end])
            .filter(|part| !part.is_empty())
            .collect();
    }
    parts
}

#[cfg(test)]
#[allow(clippy::single_range_in_vec_init)] // lists of ranges that happen to have one
mod tests {
    use super::*;

    #[test]
    fn a_table_in_the_middle_leaves_the_pages_around_it() {
        assert_eq!(direct_parts(&[0..0x4000], &[0x2010..0x2030], 0x1000), [0..0x2000, 0x3000..0x4000]);
    }

    #[test]
    fn table_and_pending_bits_at_the_ends_leave_the_middle() {
        assert_eq!(direct_parts(&[0..0x4000], &[0..0x10, 0x3ff8..0x4000], 0x1000), [0x1000..0x3000]);
    }

    #[test]
    fn a_bar_without_a_table_is_direct_as_far_as_it_can_be_mapped() {
        assert_eq!(direct_parts(&[0..0x1000, 0x3000..0x4000], &[0..0], 0x1000), [0..0x1000, 0x3000..0x4000]);
    }

    #[test]
    fn a_table_across_two_pages_traps_both() {
        assert_eq!(direct_parts(&[0..0x8000], &[0xff0..0x1010], 0x1000), [0x2000..0x8000]);
        assert_eq!(direct_parts(&[0..0x1000], &[0..0x10], 0x1000), []);
    }
}
