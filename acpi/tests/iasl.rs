//! Every table through Intel's ACPI compiler.

#[allow(dead_code)]
mod common;

use common::{BASE, grace, iasl, plain};
use nestling_acpi::build;

#[test]
fn iasl_decodes_every_table_and_recompiles_the_dsdt_without_a_word() {
    if let Some(reason) = iasl::is_missing() {
        println!("skipped: {reason}");
        return;
    }
    iasl::check(&build(&grace(), BASE));
    iasl::check(&build(&plain(), BASE));
    let mut translating = grace();
    (translating.pci.ats, translating.pci.pasid_bits) = (true, 20);
    iasl::check(&build(&translating, BASE));
}
