//! Configuration space as the guest sees it: the device's own registers with virtual bits laid over them.
//!
//! Every bit is either *virtual* (kept here, writable or not) or *passed through* (read and written on the device by
//! VFIO, which guards and virtualises in its turn). Virtual are the Command register, BARs and ROM, the interrupt pin,
//! MSI and MSI-X, the control of ATS and PASIDs, the links of both capability lists, and all of the capabilities that are
//! hidden.

#![forbid(unsafe_code)]

mod translation;

use super::capabilities::{self, ADVANCED_FEATURES, ATS, dword, word};
use super::host::{HostFunction, irq, region};
use super::msi::MsiLayout;
use super::msix::MsixLayout;
use crate::pci::bar::BarShape;
use crate::pci::spec::{Command, capability, express, header};

pub use translation::{Pasid, Translation};

/// Command bits that the guest controls; I/O space is not offered, so its enable bit is hardwired to 0.
const COMMAND_WRITABLE: Command = Command::MEMORY
    .union(Command::BUS_MASTER)
    .union(Command::PARITY)
    .union(Command::SERR)
    .union(Command::INTERRUPT_DISABLE);

/// Where the registers are that do more than hold a value.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Layout {
    /// Power Management Control/Status, whose bits 1:0 are the power state (PCIe 7.5.2.2).
    pub(super) power_state: Option<u16>,
    /// Byte and bit whose setting starts a function-level reset, for PCI Express and Advanced Features.
    pub(super) resets: [Option<(u16, u8)>; 2],
    pub(super) msi: Option<MsiLayout>,
    pub(super) msix: Option<MsixLayout>,
    /// The PASID capability that was made.
    pub(super) pasid: Option<u16>,
}

/// The virtual configuration space of one function.
pub(super) struct Config {
    shadow: Box<[u8]>,
    /// Bits that are virtual.
    emulated: Box<[u8]>,
    /// Virtual bits that the guest can write.
    writable: Box<[u8]>,
    power_on: Box<[u8]>,
    layout: Layout,
    bars: Vec<BarShape>,
}

impl Config {
    /// Works out the guest's view of a function; `None` if it is no endpoint. BARs have no address yet.
    pub(super) fn new(host: &dyn HostFunction, translation: Translation) -> Option<Self> {
        let size = if host.region(region::CONFIG).size >= 4096 { 4096 } else { 256 };
        let mut device = vec![0; size];
        host.read(region::CONFIG, 0, &mut device).ok()?;
        if device[usize::from(header::HEADER_TYPE)] & 0x7f != 0 || word(&device, header::VENDOR_ID) == 0xffff {
            return None;
        }
        let zeroes = || vec![0; size].into_boxed_slice();
        let mut config = Self {
            shadow: zeroes(),
            emulated: zeroes(),
            writable: zeroes(),
            power_on: zeroes(),
            layout: Layout::default(),
            bars: bar_shapes(host, &device),
        };
        config.lay_out_header();
        config.lay_out_capabilities(host, &device);
        config.lay_out_extended(&device, translation);
        config.power_on = config.shadow.clone();
        Some(config)
    }

    fn lay_out_header(&mut self) {
        self.emulate(header::COMMAND, &[0; 2], &COMMAND_WRITABLE.bits().to_le_bytes());
        // Status: no Interrupt Status, and a Capabilities List that is filled in later.
        self.emulated[usize::from(header::STATUS)] = 1 << 3 | 1 << 4;
        self.emulate(header::CACHE_LINE_SIZE, &[0], &[0xff]);
        // Latency timer 0; a single function with a Type 0 header; no self-test.
        self.emulate(header::CACHE_LINE_SIZE + 1, &[0; 3], &[0; 3]);
        // BARs and the CardBus pointer, then ROM, capabilities pointer, and everything to the end but Interrupt Line:
        // Interrupt Pin 0 says that the function has no INTx.
        self.emulate(header::BAR0, &[0; 28], &[0; 28]);
        self.emulate(header::SUBSYSTEM_ID + 2, &[0; 16], &[0; 16]);
        self.emulate(header::INTERRUPT_LINE, &[0], &[0xff]);
        for shape in self.bars.clone() {
            let mask = shape.address_mask();
            self.emulate(shape.offset(), &shape.type_bits().to_le_bytes(), &(mask as u32).to_le_bytes());
            if shape.wide {
                self.emulate(shape.offset() + 4, &[0; 4], &((mask >> 32) as u32).to_le_bytes());
            }
        }
    }

    fn lay_out_capabilities(&mut self, host: &dyn HostFunction, device: &[u8]) {
        let mut link = header::CAPABILITIES;
        for cap in capabilities::legacy(device) {
            let shown = match cap.id {
                capability::MSI => MsiLayout::new(device, cap.offset, host.irqs(irq::MSI).count).map(|msi| {
                    let (values, writable) = msi.registers();
                    self.emulate(cap.offset, &values, &writable);
                    self.layout.msi = Some(msi);
                }),
                capability::MSIX => MsixLayout::new(device, cap.offset, host.irqs(irq::MSIX).count).map(|msix| {
                    let at = usize::from(cap.offset);
                    let mut values = [0; 12];
                    values.copy_from_slice(&device[at..at + 12]);
                    values[2..4].copy_from_slice(&(msix.vectors - 1).to_le_bytes());
                    self.emulate(cap.offset, &values, &[0, 0, 0, 0xc0, 0, 0, 0, 0, 0, 0, 0, 0]);
                    self.layout.msix = Some(msix);
                }),
                _ => cap.visible().then_some(()),
            };
            if shown.is_none() {
                let length = usize::from(cap.end - cap.offset);
                self.emulate(cap.offset, &vec![0; length], &vec![0; length]);
                continue;
            }
            match cap.id {
                capability::POWER_MANAGEMENT => self.layout.power_state = Some(cap.offset + 4),
                capability::PCI_EXPRESS => {
                    // Initiate Function Level Reset is bit 15 of Device Control, where bit 28 of the capabilities says so.
                    if dword(device, cap.offset + express::DEVICE_CAPABILITIES) & 1 << 28 != 0 {
                        self.layout.resets[0] = Some((cap.offset + express::DEVICE_CONTROL + 1, 1 << 7));
                    }
                    self.lay_out_express(cap.offset, device);
                }
                // Bit 1 of AF Capabilities, and bit 0 of AF Control.
                ADVANCED_FEATURES if word(device, cap.offset + 2) & 1 << 9 != 0 => {
                    self.layout.resets[1] = Some((cap.offset + 4, 1));
                }
                _ => {}
            }
            self.emulate(link, &[cap.offset as u8], &[0]);
            self.shadow[usize::from(header::STATUS)] |= 1 << 4;
            // The link of the last one that is shown ends the list.
            link = cap.offset + 1;
            self.emulate(link, &[0], &[0]);
        }
    }

    /// A function of the host's root complex is an ordinary endpoint in the guest, where it has a root port above it.
    fn lay_out_express(&mut self, at: u16, device: &[u8]) {
        const INTEGRATED_ENDPOINT: u16 = 9;
        let flags = word(device, at + express::CAPABILITIES);
        if flags >> 4 & 0xf == INTEGRATED_ENDPOINT {
            self.emulate(at + express::CAPABILITIES, &(flags & !0xf0).to_le_bytes(), &[0; 2]);
            // One lane of 2.5 GT/s, the least a link can be.
            self.emulate(at + express::LINK_CAPABILITIES, &0x11u32.to_le_bytes(), &[0; 4]);
            self.emulate(at + express::LINK_STATUS, &0x11u16.to_le_bytes(), &[0; 2]);
        }
    }

    fn lay_out_extended(&mut self, device: &[u8], translation: Translation) {
        let found = capabilities::extended(device);
        // The list always starts at 0x100, with a null capability if what is there is hidden (PCIe 7.9.28).
        let mut last: Option<(u16, u32)> = None;
        for cap in &found {
            if !cap.visible(device, translation.ats) {
                let length = usize::from(cap.end - cap.offset);
                self.emulate(cap.offset, &vec![0; length], &vec![0; length]);
                if cap.offset == header::EXTENDED {
                    last = Some((cap.offset, 0));
                }
                continue;
            }
            if let Some((at, head)) = last {
                self.emulate(at, &(head | u32::from(cap.offset) << 20).to_le_bytes(), &[0; 4]);
            }
            let head = u32::from(cap.id) | u32::from(cap.version) << 16;
            self.emulate(cap.offset, &head.to_le_bytes(), &[0; 4]);
            last = Some((cap.offset, head));
            if cap.id == ATS {
                self.lay_out_ats(cap);
            }
        }
        if let Some(pasid) = translation.pasid {
            self.lay_out_pasid(device, &found, last, pasid);
        }
    }

    /// Makes bytes virtual: their value, and the bits that the guest can write.
    fn emulate(&mut self, offset: u16, values: &[u8], writable: &[u8]) {
        for (at, (&value, &writable)) in (usize::from(offset)..self.shadow.len()).zip(values.iter().zip(writable)) {
            self.emulated[at] = 0xff;
            self.shadow[at] = value;
            self.writable[at] = writable;
        }
    }

    /// Where the special registers are.
    pub(super) fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The memory BARs, ascending.
    pub(super) fn bars(&self) -> &[BarShape] {
        &self.bars
    }

    /// Gives a BAR its address at power-on.
    pub(super) fn set_power_on_address(&mut self, shape: &BarShape, address: u64) {
        let address = address & shape.address_mask();
        let mut bytes = (address | u64::from(shape.type_bits())).to_le_bytes();
        let length = if shape.wide { 8 } else { 4 };
        bytes[length..].fill(0);
        let at = usize::from(shape.offset());
        for copy in [&mut self.power_on, &mut self.shadow] {
            copy[at..at + length].copy_from_slice(&bytes[..length]);
        }
    }

    /// All virtual registers as at power-on.
    pub(super) fn reset(&mut self) {
        self.shadow.copy_from_slice(&self.power_on);
    }

    /// The guest reads. A conventional function answers beyond its 256 bytes as nobody would: all ones.
    pub(super) fn read(&self, host: &dyn HostFunction, offset: u16, data: &mut [u8]) {
        let start = usize::from(offset);
        let end = start + data.len();
        let (Some(emulated), Some(shadow)) = (self.emulated.get(start..end), self.shadow.get(start..end)) else {
            data.fill(0xff);
            return;
        };
        if emulated.iter().any(|&mask| mask != 0xff) && host.read(region::CONFIG, offset.into(), data).is_err() {
            data.fill(0xff);
        }
        for ((byte, &mask), &value) in data.iter_mut().zip(emulated).zip(shadow) {
            *byte = *byte & !mask | value & mask;
        }
    }

    /// The guest writes virtual bits; what is passed through goes to the device with [`Config::pass`].
    pub(super) fn write(&mut self, offset: u16, data: &[u8]) {
        for (at, &byte) in (usize::from(offset)..self.shadow.len()).zip(data) {
            let writable = self.writable[at];
            self.shadow[at] = self.shadow[at] & !writable | byte & writable;
        }
    }

    /// Writes the passed-through bits of a guest's write to the device, in runs of whole bytes.
    pub(super) fn pass(&self, host: &dyn HostFunction, offset: u16, data: &[u8]) -> std::io::Result<()> {
        let start = usize::from(offset);
        let Some(emulated) = self.emulated.get(start..start + data.len()) else { return Ok(()) };
        let mut at = 0;
        while at < data.len() {
            let run = emulated[at..].iter().take_while(|&&mask| mask == 0).count();
            let position = (start + at) as u64;
            if run > 0 {
                host.write(region::CONFIG, position, &data[at..at + run])?;
            } else if emulated[at] != 0xff {
                let mut byte = [0];
                host.read(region::CONFIG, position, &mut byte)?;
                let merged = byte[0] & emulated[at] | data[at] & !emulated[at];
                host.write(region::CONFIG, position, &[merged])?;
            }
            at += run.max(1);
        }
        Ok(())
    }

    /// A virtual 16-bit register.
    pub(super) fn u16(&self, offset: u16) -> u16 {
        word(&self.shadow, offset)
    }

    /// A virtual 32-bit register.
    pub(super) fn u32(&self, offset: u16) -> u32 {
        dword(&self.shadow, offset)
    }

    /// Sets a virtual 32-bit register, read-only bits too.
    pub(super) fn set_u32(&mut self, offset: u16, value: u32) {
        let at = usize::from(offset);
        if let Some(bytes) = self.shadow.get_mut(at..at + 4) {
            bytes.copy_from_slice(&value.to_le_bytes());
        }
    }

    /// The Command register as the guest wrote it.
    pub(super) fn command(&self) -> Command {
        Command::from_bits_retain(self.u16(header::COMMAND))
    }

    /// The address that the guest gave a BAR.
    pub(super) fn bar(&self, shape: &BarShape) -> u64 {
        shape.decode(self.u32(shape.offset()), self.u32(shape.offset() + 4))
    }
}

/// The memory BARs that VFIO shows; I/O BARs are left out.
fn bar_shapes(host: &dyn HostFunction, device: &[u8]) -> Vec<BarShape> {
    const IO: u32 = 1;
    const WIDE: u32 = 0b10 << 1;
    const PREFETCHABLE: u32 = 1 << 3;
    let mut shapes = Vec::new();
    let mut index = 0;
    while index < 6 {
        let register = dword(device, header::BAR0 + 4 * index);
        let wide = register & (IO | 0b110) == WIDE && index < 5;
        let size = host.region(index.into()).size;
        if size >= 16 && register & IO == 0 {
            shapes.push(BarShape {
                index: index as u8,
                size: size.checked_next_power_of_two().unwrap_or(1 << 63),
                wide,
                prefetchable: register & PREFETCHABLE != 0,
            });
        }
        index += if wide { 2 } else { 1 };
    }
    shapes
}

#[cfg(test)]
mod tests;
