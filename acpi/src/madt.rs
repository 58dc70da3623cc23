//! MADT (ACPI 6.5, 5.2.12): a GICC for each vCPU, the GICv3 distributor, the redistributors and the ITS.

use acpi_tables::madt::{EnabledStatus, GicIts, GicVersion, Gicc, Gicd, Gicr, LocalInterruptController, MADT, Trigger};

use crate::{description::Description, sdt};

/// Revision whose GICC has 82 bytes, as `acpi_tables` writes it (ACPI 6.5).
const REVISION: u8 = 6;

/// The table.
pub(crate) fn build(description: &Description) -> Vec<u8> {
    let gic = &description.gic;
    let mut madt = MADT::new(sdt::OEM_ID, sdt::OEM_TABLE_ID, sdt::OEM_REVISION, LocalInterruptController::Address(0));
    madt.add_structure(Gicd::new(0, gic.distributor, GicVersion::GICv3));
    for (uid, mpidr) in (0u32..).zip(&description.cpus) {
        let mut gicc =
            Gicc::new(EnabledStatus::Enabled).cpu_interface_number(uid).acpi_processor_uid(uid).mpidr(*mpidr);
        if let Some(gsiv) = description.pmu_gsiv {
            gicc = gicc.performance_interrupt(gsiv, Trigger::Level);
        }
        madt.add_structure(gicc);
    }
    // One region for all frames, so the GICC entries carry no address of their own.
    let length = gic.redistributors.size.try_into().unwrap_or(u32::MAX);
    madt.add_structure(Gicr::new(gic.redistributors.base, length));
    madt.add_structure(GicIts::new(gic.its_identifier, gic.its));
    let mut table = sdt::bytes(&madt);
    sdt::revise(&mut table, REVISION);
    table
}
