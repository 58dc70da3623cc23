//! The capability lists of the physical function, and which of them the guest gets to see.
//!
//! Shown are those whose registers are this function's own and that VFIO or this room handles, and ATS if the vSMMU has
//! it. Hidden are those that reach beyond it (PRI is the host's, SR-IOV and ARI belong to other functions, link
//! capabilities to a port that is emulated) and those that would move what is virtual here (Enhanced Allocation,
//! Resizable BAR).

#![forbid(unsafe_code)]

use crate::pci::spec::{capability, header};

/// Vital Product Data (PCIe 7.9.18).
const VPD: u8 = 0x03;
/// Vendor-Specific (PCIe 7.9.4).
const VENDOR: u8 = 0x09;
/// Advanced Features (PCI ECN "Advanced Capabilities for Conventional PCI").
pub(super) const ADVANCED_FEATURES: u8 = 0x13;

const AER: u16 = 0x01;
/// Address Translation Services (PCIe 10.5.1).
pub(super) const ATS: u16 = 0x0f;
/// Process Address Space ID (PCIe 7.8.9).
pub(super) const PASID: u16 = 0x1b;
const SERIAL_NUMBER: u16 = 0x03;
const POWER_BUDGETING: u16 = 0x04;
const EXTENDED_VENDOR: u16 = 0x0b;
const DVSEC: u16 = 0x23;
/// DVSEC Vendor ID of the CXL consortium.
const CXL: u16 = 0x1e98;

/// A capability in the legacy list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Capability {
    pub(super) id: u8,
    pub(super) offset: u16,
    /// First byte behind it, as far as known; never beyond the next capability.
    pub(super) end: u16,
}

/// A capability in the extended list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Extended {
    pub(super) id: u16,
    pub(super) version: u8,
    pub(super) offset: u16,
    pub(super) end: u16,
}

impl Capability {
    /// Whether the guest may see it; MSI and MSI-X only if VFIO gives vectors.
    pub(super) fn visible(&self) -> bool {
        matches!(
            self.id,
            capability::POWER_MANAGEMENT
                | VPD
                | VENDOR
                | capability::MSI
                | capability::PCI_EXPRESS
                | capability::MSIX
                | ADVANCED_FEATURES
        )
    }
}

impl Extended {
    /// Whether the guest may see it; `ats` is whether its vSMMU offers ATS.
    pub(super) fn visible(&self, config: &[u8], ats: bool) -> bool {
        match self.id {
            ATS => ats,
            AER | SERIAL_NUMBER | POWER_BUDGETING | EXTENDED_VENDOR => true,
            DVSEC => word(config, self.offset + 4) != CXL,
            _ => false,
        }
    }
}

/// The 16-bit value at `offset`; zero beyond the end.
pub(super) fn word(config: &[u8], offset: u16) -> u16 {
    let at = usize::from(offset);
    config.get(at..at + 2).map_or(0, |bytes| u16::from_le_bytes([bytes[0], bytes[1]]))
}

/// The 32-bit value at `offset`; zero beyond the end.
pub(super) fn dword(config: &[u8], offset: u16) -> u32 {
    u32::from(word(config, offset)) | u32::from(word(config, offset.saturating_add(2))) << 16
}

/// Walks the legacy list in its order. A list that loops or leaves its space ends there.
pub(super) fn legacy(config: &[u8]) -> Vec<Capability> {
    let mut found: Vec<Capability> = Vec::new();
    if word(config, header::STATUS) & 1 << 4 == 0 {
        return found;
    }
    let mut next = word(config, header::CAPABILITIES) & 0xfc;
    while next >= header::END && !found.iter().any(|known| known.offset == next) {
        let head = word(config, next);
        let id = head as u8;
        if id == 0xff {
            break;
        }
        let length = match id {
            capability::POWER_MANAGEMENT | VPD => 8,
            VENDOR => (word(config, next + 2) & 0xff).max(3),
            capability::MSI => msi_length(word(config, next + 2)),
            // Version 1 ends behind the slot registers of an endpoint.
            capability::PCI_EXPRESS if word(config, next + 2) & 0xf < 2 => 0x14,
            capability::PCI_EXPRESS => 0x3c,
            capability::MSIX => 12,
            ADVANCED_FEATURES => 6,
            _ => header::EXTENDED,
        };
        found.push(Capability { id, offset: next, end: (next + length).min(header::EXTENDED) });
        next = head >> 8 & 0xfc;
    }
    let starts: Vec<u16> = found.iter().map(|known| known.offset).collect();
    for known in &mut found {
        known.end = before_next(&starts, known.offset, known.end);
    }
    found
}

/// Walks the extended list in its order, from 0x100 on.
pub(super) fn extended(config: &[u8]) -> Vec<Extended> {
    let mut found: Vec<Extended> = Vec::new();
    let size = u16::try_from(config.len()).unwrap_or(u16::MAX);
    let mut next = header::EXTENDED;
    while next >= header::EXTENDED && next < size && !found.iter().any(|known| known.offset == next) {
        let head = dword(config, next);
        if matches!(head, 0 | u32::MAX) {
            break;
        }
        let id = head as u16;
        let length = match id {
            AER => 0x48,
            SERIAL_NUMBER => 12,
            ATS => 8,
            POWER_BUDGETING => 16,
            EXTENDED_VENDOR | DVSEC => (dword(config, next + 4) >> 20) as u16,
            _ => size,
        };
        let end = next.saturating_add(length.max(4)).min(size);
        found.push(Extended { id, version: (head >> 16) as u8 & 0xf, offset: next, end });
        next = (head >> 20) as u16 & 0xffc;
    }
    let starts: Vec<u16> = found.iter().map(|known| known.offset).collect();
    for known in &mut found {
        known.end = before_next(&starts, known.offset, known.end);
    }
    found
}

fn before_next(starts: &[u16], offset: u16, end: u16) -> u16 {
    starts.iter().copied().filter(|&start| start > offset).min().map_or(end, |start| end.min(start))
}

/// Length of an MSI capability with that Message Control (PCIe 7.7.1): 10, 14, 20 or 24 bytes.
pub(super) fn msi_length(control: u16) -> u16 {
    let wide = control & 1 << 7 != 0;
    let maskable = control & 1 << 8 != 0;
    10 + if wide { 4 } else { 0 } + if maskable { 10 } else { 0 }
}
