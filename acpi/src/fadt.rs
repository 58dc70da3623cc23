//! FADT (ACPI 6.5, 5.2.9): hardware-reduced, PSCI by HVC, nothing of the PC's fixed hardware.

use acpi_tables::fadt::{FADTBuilder, Flags};

use crate::sdt;

/// ARM Boot Architecture Flags (ACPI 6.5, 5.2.9.4).
const PSCI_COMPLIANT: u16 = 1 << 0;
const PSCI_USE_HVC: u16 = 1 << 1;

/// The table, pointing to the DSDT at `dsdt`.
pub(crate) fn build(dsdt: u64) -> Vec<u8> {
    // Both button flags say "no fixed-hardware button"; the power button is a device in the DSDT.
    let mut fadt = FADTBuilder::new(sdt::OEM_ID, sdt::OEM_TABLE_ID, sdt::OEM_REVISION)
        .flag(Flags::HwReducedAcpi)
        .flag(Flags::PwrButton)
        .flag(Flags::SlpButton)
        .dsdt_64(dsdt);
    fadt.arm_boot_arch = (PSCI_COMPLIANT | PSCI_USE_HVC).into();
    fadt.hypervisor_vendor_identity = u64::from_le_bytes(*b"NESTLING").into();
    sdt::bytes(&fadt.finalize())
}
