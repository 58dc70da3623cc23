//! MSI of a passed-through function (PCIe 7.7.1): the capability is virtual, the vectors are real.

#![forbid(unsafe_code)]

use std::io;

use super::capabilities::{msi_length, word};
use super::config::Config;
use super::vectors::Vectors;

const ENABLE: u16 = 1 << 0;
const WIDE: u16 = 1 << 7;
const MASKABLE: u16 = 1 << 8;

/// Shape and place of the capability.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct MsiLayout {
    offset: u16,
    /// Message Control at power-on.
    control: u16,
}

impl MsiLayout {
    /// From the device's capability at `offset`; `None` if VFIO gives no vector.
    pub(super) fn new(device: &[u8], offset: u16, irqs: u32) -> Option<Self> {
        let control = word(device, offset + 2);
        let capable = (control >> 1 & 0b111).min(5);
        let capable = capable.min(u16::try_from(irqs.checked_ilog2()?).unwrap_or(u16::MAX));
        // No extended message data: bits 10:9 are left out.
        Some(Self { offset, control: control & (WIDE | MASKABLE) | capable << 1 })
    }

    /// Number of vectors that the guest can enable: 1 to 32.
    pub(super) fn vectors(&self) -> u16 {
        1 << (self.control >> 1 & 0b111)
    }

    /// Values and writable bits of the whole capability. The link to the next one is filled in by the caller.
    pub(super) fn registers(&self) -> (Vec<u8>, Vec<u8>) {
        let length = usize::from(msi_length(self.control));
        let (mut values, mut writable) = (vec![0; length], vec![0; length]);
        values[0] = crate::pci::spec::capability::MSI;
        values[2..4].copy_from_slice(&self.control.to_le_bytes());
        writable[2] = 0b111 << 4 | ENABLE as u8;
        writable[4..8].copy_from_slice(&[0xfc, 0xff, 0xff, 0xff]);
        if self.wide() {
            writable[8..12].fill(0xff);
        }
        let data = usize::from(self.data() - self.offset);
        writable[data..data + 2].fill(0xff);
        if let Some(mask) = self.mask() {
            let mask = usize::from(mask - self.offset);
            writable[mask..mask + 4].copy_from_slice(&self.vector_bits().to_le_bytes());
        }
        (values, writable)
    }

    fn vector_bits(&self) -> u32 {
        (u64::MAX >> (64 - self.vectors())) as u32
    }

    fn wide(&self) -> bool {
        self.control & WIDE != 0
    }

    fn data(&self) -> u16 {
        self.offset + if self.wide() { 12 } else { 8 }
    }

    fn mask(&self) -> Option<u16> {
        (self.control & MASKABLE != 0).then(|| self.data() + 4)
    }

    /// Offset of the pending bits, if the function has them.
    pub(super) fn pending(&self) -> Option<u16> {
        self.mask().map(|mask| mask + 4)
    }
}

/// MSI at run time.
pub(super) struct Msi {
    layout: MsiLayout,
    vectors: Vectors,
    enabled: usize,
}

impl Msi {
    pub(super) fn new(layout: MsiLayout, vectors: Vectors) -> Self {
        Self { layout, vectors, enabled: 0 }
    }

    /// Takes over what the guest wrote to the capability.
    pub(super) fn follow(&mut self, config: &Config) -> io::Result<()> {
        let control = config.u16(self.layout.offset + 2);
        let granted = self.layout.vectors().ilog2() as u16;
        let wanted = if control & ENABLE != 0 { 1 << (control >> 4 & 0b111).min(granted) } else { 0 };
        if wanted != self.enabled {
            self.release()?;
            if wanted > 0 {
                self.vectors.enable_block(wanted)?;
            }
            self.enabled = wanted;
        }
        let masked = self.layout.mask().map_or(0, |mask| config.u32(mask));
        let data = u32::from(config.u16(self.layout.data()));
        let mut result = Ok(());
        for vector in 0..wanted {
            // The function puts the number of the vector into the low bits of the data.
            let message = data & !(wanted as u32 - 1) | vector as u32;
            let open = masked >> vector & 1 == 0;
            result = result.and(self.vectors.route(vector, open.then_some(message)));
        }
        result
    }

    /// The pending bits.
    pub(super) fn pending(&self) -> u32 {
        (0..self.enabled).fold(0, |bits, vector| bits | u32::from(self.vectors.pending(vector)) << vector)
    }

    pub(super) fn set_device_id(&mut self, device_id: Option<u32>) -> io::Result<()> {
        self.vectors.set_device_id(device_id)
    }

    pub(super) fn routed(&self) -> usize {
        self.vectors.routed()
    }

    /// As at power-on.
    pub(super) fn release(&mut self) -> io::Result<()> {
        self.enabled = 0;
        self.vectors.release()
    }
}
