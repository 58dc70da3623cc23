//! PPTT (ACPI 6.5, 5.2.30): one package of cores, each a leaf without threads.
//!
//! Caches are left out: the vCPUs run anywhere on the host, and Linux asks CLIDR_EL1 where PPTT says nothing.

use acpi_tables::pptt::{PPTT, ProcessorNode};

use crate::sdt;

/// `_UID` of the processor container in the DSDT that stands for the package.
pub(crate) const PACKAGE_UID: u32 = 0;

/// The table, for processors with the `_UID`s 0 to `cpus` - 1.
pub(crate) fn build(cpus: usize) -> Vec<u8> {
    let mut pptt = PPTT::new(sdt::OEM_ID, sdt::OEM_TABLE_ID, sdt::OEM_REVISION);
    let package = pptt.add_processor(ProcessorNode::new(None, PACKAGE_UID).physical().valid());
    for (uid, _) in (0u32..).zip(0..cpus) {
        pptt.add_processor(ProcessorNode::new(Some(&package), uid).valid().leaf());
    }
    sdt::bytes(&pptt)
}
