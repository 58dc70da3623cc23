//! ATS and PASID capabilities: of address translation the guest sees in a function what its vSMMU offers.
//!
//! Nothing the guest writes here reaches the device. The host kernel has enabled PASIDs at the device since it was probed
//! (`arm_smmu_enable_pasid`) and enables ATS when a stream table entry with EATS is attached (`arm_smmu_attach_prepare`),
//! with the STU of its own.

use super::Config;
use crate::pci::spec::{capability, express, header};
use crate::vfio::capabilities::{self, Extended, PASID, word};

/// What the guest finds in a function; the default is nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Translation {
    /// The function's ATS capability, if it has one.
    pub ats: bool,
    /// A PASID capability. VFIO hides the function's own (`vfio_pci_config.c`), so this one is made.
    pub pasid: Option<Pasid>,
}

/// A PASID capability (PCIe 6.0, 7.8.9).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pasid {
    /// Bits of a PASID: Max PASID Width, 1 to 20.
    pub bits: u8,
    /// Execute Permission Supported.
    pub execute: bool,
    /// Privileged Mode Supported.
    pub privileged: bool,
}

/// ATS Control (PCIe 6.0, 10.5.1.3), behind header and ATS Capability: STU in bits 4:0, Enable in bit 15.
const ATS_CONTROL: u16 = 6;
const ATS_CONTROL_WRITABLE: u16 = 0x801f;

/// Bytes of the PASID capability.
const PASID_SIZE: u16 = 8;

impl Config {
    /// Makes the control register of a visible ATS capability virtual: the guest reads back what it wrote.
    pub(super) fn lay_out_ats(&mut self, cap: &Extended) {
        self.emulate(cap.offset + ATS_CONTROL, &[0; 2], &ATS_CONTROL_WRITABLE.to_le_bytes());
    }

    /// Adds a PASID capability where nothing else is; `last` is the end of the list so far, with its header. Nothing
    /// happens in a conventional configuration space, which has no room for it.
    pub(super) fn lay_out_pasid(&mut self, device: &[u8], found: &[Extended], last: Option<(u16, u32)>, pasid: Pasid) {
        let at = match last {
            None => Some(header::EXTENDED).filter(|_| self.shadow.len() > usize::from(header::EXTENDED)),
            Some(_) => self.free_space(device, found),
        };
        let Some(at) = at else { return };
        if let Some((last, head)) = last {
            self.emulate(last, &(head | u32::from(at) << 20).to_le_bytes(), &[0; 4]);
        }
        let head = u32::from(PASID) | 1 << 16;
        let (execute, privileged) = (u16::from(pasid.execute) << 1, u16::from(pasid.privileged) << 2);
        let capability = execute | privileged | u16::from(pasid.bits & 0x1f) << 8;
        self.emulate(at, &head.to_le_bytes(), &[0; 4]);
        self.emulate(at + 4, &capability.to_le_bytes(), &[0; 2]);
        // Enable, and what is supported of Execute Permission Enable and Privileged Mode Enable.
        self.emulate(at + ATS_CONTROL, &[0; 2], &(1 | execute | privileged).to_le_bytes());
        self.layout.pasid = Some(at);
        self.show_prefixes(device);
    }

    /// Linux enables PASIDs where a function has End-End TLP Prefix Supported (`pci_enable_pasid`). A host whose device has
    /// PASIDs goes by something else where that is clear: a quirk, or the physical function of a virtual one.
    fn show_prefixes(&mut self, device: &[u8]) {
        let legacy = capabilities::legacy(device);
        let express = legacy.iter().find(|cap| cap.id == capability::PCI_EXPRESS);
        // Version 1 ends before it.
        let Some(express) = express.filter(|cap| word(device, cap.offset + express::CAPABILITIES) & 0xf >= 2) else {
            return;
        };
        let (at, bit) = (express.offset + express::DEVICE_CAPABILITIES_2, express::END_END_PREFIX.to_le_bytes());
        for (at, bit) in (usize::from(at)..self.shadow.len()).zip(bit) {
            self.emulated[at] |= bit;
            self.shadow[at] |= bit;
        }
    }

    /// The highest room for a PASID capability: between the capabilities that the guest sees, and where the device has
    /// nothing (it reads as zero) rather than registers that nobody describes.
    fn free_space(&self, device: &[u8], found: &[Extended]) -> Option<u16> {
        let size = u16::try_from(device.len()).ok()?;
        // Of a hidden capability all is virtual and zero, but its header may be in the list.
        let taken = |cap: &Extended| cap.offset..if self.shows(cap) { cap.end } else { cap.offset + 4 };
        let is_free =
            |at: &u16| found.iter().map(taken).all(|range| at + PASID_SIZE <= range.start || range.end <= *at);
        let places = || (header::EXTENDED..=size.saturating_sub(PASID_SIZE)).rev().step_by(4).filter(is_free);
        let is_empty = |at: &u16| {
            let (start, end) = (usize::from(*at), usize::from(at + PASID_SIZE));
            device.get(start..end).is_some_and(|bytes| bytes.iter().all(|byte| *byte == 0))
        };
        places().find(is_empty).or_else(|| places().next())
    }

    /// Whether the guest finds the capability in its list: its ID is there. Hidden ones read as 0, as a null capability
    /// of the device's own does, which is hidden as well.
    fn shows(&self, cap: &Extended) -> bool {
        cap.id != 0 && word(&self.shadow, cap.offset) == cap.id
    }
}
