//! What all tables have in common: who made them, the header of 36 bytes and its checksum (ACPI 6.5, 5.2.6).

use acpi_tables::{Aml, sdt::Sdt};

/// OEMID of every table.
pub(crate) const OEM_ID: [u8; 6] = *b"NESTLG";
/// OEM table ID of every table.
pub(crate) const OEM_TABLE_ID: [u8; 8] = *b"NESTLING";
/// OEM revision of every table.
pub(crate) const OEM_REVISION: u32 = 1;

const REVISION: usize = 8;
const CHECKSUM: usize = 9;

/// A table with its header, from what follows the header.
pub(crate) fn table(signature: [u8; 4], revision: u8, body: &[u8]) -> Vec<u8> {
    let mut sdt = Sdt::new(signature, 36, revision, OEM_ID, OEM_TABLE_ID, OEM_REVISION);
    sdt.append_slice(body);
    sdt.as_slice().to_vec()
}

/// The bytes of a table or AML object of `acpi_tables`.
pub(crate) fn bytes(object: &dyn Aml) -> Vec<u8> {
    let mut bytes = Vec::new();
    object.to_aml_bytes(&mut bytes);
    bytes
}

/// Gives a finished table another revision, where `acpi_tables` hard-wires an old one.
pub(crate) fn revise(table: &mut [u8], revision: u8) {
    if let Some(byte) = table.get_mut(REVISION) {
        *byte = revision;
    }
    if let Some(byte) = table.get_mut(CHECKSUM) {
        *byte = 0;
    }
    let sum = table.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
    if let Some(byte) = table.get_mut(CHECKSUM) {
        *byte = sum.wrapping_neg();
    }
}
