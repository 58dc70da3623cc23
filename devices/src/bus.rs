//! The MMIO bus: which device answers at a guest physical address.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, RwLock};

/// A device that answers MMIO accesses of 1, 2, 4 or 8 bytes.
///
/// `offset` counts from the start of the range the device was inserted at. Data is little-endian, as KVM delivers it.
/// Both functions are called from any vCPU thread at any time; a device keeps its own lock.
pub trait MmioDevice: Send + Sync {
    /// Fills `data` with what the guest reads at `offset`.
    fn read(&self, offset: u64, data: &mut [u8]);
    /// Takes what the guest writes at `offset`.
    fn write(&self, offset: u64, data: &[u8]);
}

/// Why a range cannot be put on the bus.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    /// Another device already answers in the range.
    #[error("mmio range {:#x}..{:#x} overlaps a device at {:#x}", .range.start, .range.end, .other)]
    Overlap {
        /// The range that was to be inserted.
        range: Range<u64>,
        /// Start of the device that is in the way.
        other: u64,
    },
    /// The range is empty.
    #[error("mmio range at {0:#x} is empty")]
    Empty(u64),
}

struct Entry {
    end: u64,
    device: Arc<dyn MmioDevice>,
}

/// Devices by guest physical address. Ranges never overlap; they come and go while the guest runs.
#[derive(Default)]
pub struct MmioBus {
    entries: RwLock<BTreeMap<u64, Entry>>,
}

impl MmioBus {
    /// An empty bus.
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets `device` answer in `range`.
    pub fn insert(&self, range: Range<u64>, device: Arc<dyn MmioDevice>) -> Result<(), Error> {
        if range.is_empty() {
            return Err(Error::Empty(range.start));
        }
        let mut entries = self.entries.write().unwrap_or_else(|e| e.into_inner());
        if let Some((&start, _)) = entries.range(..range.end).next_back().filter(|(_, e)| e.end > range.start) {
            return Err(Error::Overlap { range, other: start });
        }
        entries.insert(range.start, Entry { end: range.end, device });
        Ok(())
    }

    /// Takes the device that starts at `start` off the bus; `false` if there is none.
    pub fn remove(&self, start: u64) -> bool {
        self.entries.write().unwrap_or_else(|e| e.into_inner()).remove(&start).is_some()
    }

    /// Takes every device off the bus, and with them what they own.
    pub fn clear(&self) {
        // Dropped outside the lock: a device may take its own entries off the bus when it goes.
        let entries = std::mem::take(&mut *self.entries.write().unwrap_or_else(|e| e.into_inner()));
        drop(entries);
    }

    fn find(&self, address: u64, length: usize) -> Option<(u64, Arc<dyn MmioDevice>)> {
        let entries = self.entries.read().unwrap_or_else(|e| e.into_inner());
        let (&start, entry) = entries.range(..=address).next_back()?;
        let last = address.checked_add(length as u64)?;
        (last <= entry.end).then(|| (address - start, entry.device.clone()))
    }

    /// Reads at a guest physical address. Where nobody answers the guest reads all ones, as on PCIe; returns whether
    /// somebody answered.
    pub fn read(&self, address: u64, data: &mut [u8]) -> bool {
        match self.find(address, data.len()) {
            Some((offset, device)) => {
                device.read(offset, data);
                true
            }
            None => {
                data.fill(0xff);
                false
            }
        }
    }

    /// Writes at a guest physical address; returns whether somebody answered.
    pub fn write(&self, address: u64, data: &[u8]) -> bool {
        match self.find(address, data.len()) {
            Some((offset, device)) => {
                device.write(offset, data);
                true
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    #[derive(Default)]
    struct Scratch(Mutex<Vec<(u64, Vec<u8>)>>);

    impl MmioDevice for Scratch {
        fn read(&self, offset: u64, data: &mut [u8]) {
            data.fill(offset as u8);
        }
        fn write(&self, offset: u64, data: &[u8]) {
            self.0.lock().unwrap().push((offset, data.to_vec()));
        }
    }

    #[test]
    fn an_access_reaches_the_device_with_its_offset() {
        let bus = MmioBus::new();
        let scratch = Arc::new(Scratch::default());
        bus.insert(0x1000..0x2000, scratch.clone()).unwrap();
        let mut data = [0; 4];
        assert!(bus.read(0x1010, &mut data));
        assert_eq!(data, [0x10; 4]);
        assert!(bus.write(0x1ffc, &[1, 2, 3, 4]));
        assert_eq!(*scratch.0.lock().unwrap(), [(0xffc, vec![1, 2, 3, 4])]);
    }

    #[test]
    fn an_access_that_nobody_answers_reads_all_ones() {
        let bus = MmioBus::new();
        bus.insert(0x1000..0x2000, Arc::new(Scratch::default())).unwrap();
        let mut data = [0; 4];
        assert!(!bus.read(0x1ffe, &mut data), "it would cross the end of the device");
        assert_eq!(data, [0xff; 4]);
        assert!(!bus.write(0x2000, &[0]));
        assert!(!bus.read(u64::MAX, &mut data));
    }

    #[test]
    fn a_cleared_bus_holds_no_device() {
        let bus = MmioBus::new();
        let scratch = Arc::new(Scratch::default());
        bus.insert(0x1000..0x2000, scratch.clone()).unwrap();
        bus.clear();
        assert_eq!(Arc::strong_count(&scratch), 1);
        assert!(!bus.write(0x1000, &[0]));
    }

    #[test]
    fn ranges_never_overlap() {
        let bus = MmioBus::new();
        bus.insert(0x1000..0x2000, Arc::new(Scratch::default())).unwrap();
        for range in [0x1800..0x1900, 0x0..0x1001, 0x1fff..0x3000] {
            let refused = bus.insert(range.clone(), Arc::new(Scratch::default()));
            assert_eq!(refused, Err(Error::Overlap { range, other: 0x1000 }));
        }
        assert!(bus.remove(0x1000));
        bus.insert(0x1800..0x1900, Arc::new(Scratch::default())).unwrap();
    }
}
