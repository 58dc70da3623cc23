//! The one thing that QEMU's firmware tables lack for nesting: the CANWBS flag of the IORT.
//!
//! The kernel nests only below a root complex whose memory access flags say CANWBS (or an SMMU with S2FWB); QEMU says
//! neither. [`with_canwbs`] mends a dumped table, and the kernel takes the mended one in place of the firmware's from an
//! archive in front of its initramfs (CONFIG_ACPI_TABLE_UPGRADE), if it has a newer OEM revision.
//!
//! Layout: Arm DEN0049, IO Remapping Table.

use thiserror::Error;

/// Where the kernel looks for tables in the initramfs.
pub const PATH: &str = "kernel/firmware/acpi/iort.aml";

const HEADER: usize = 48;
const LENGTH: usize = 4;
const CHECKSUM: usize = 9;
const OEM_REVISION: usize = 24;
const NODE_COUNT: usize = 36;
const FIRST_NODE: usize = 40;
/// A node's type (u8) and length (u16) are its first three bytes.
const NODE_HEADER: usize = 16;
const ROOT_COMPLEX: u8 = 2;
/// Memory access flags of a root complex: the last byte of its memory access properties, which follow the node header.
const MEMORY_ACCESS_FLAGS: usize = NODE_HEADER + 7;
const CANWBS: u8 = 1 << 2;

/// Why a table is not an IORT that can be mended.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum BadIort {
    /// Shorter than its own header or length field, or another table.
    #[error("the table is no complete IORT")]
    NotIort,
    /// A node lies outside the table or has no length.
    #[error("the IORT's node at {0:#x} is broken")]
    Node(usize),
    /// There is no PCI in this host.
    #[error("the IORT has no root complex")]
    NoRootComplex,
}

/// The same table with CANWBS set in every root complex, its OEM revision raised by one and its checksum right.
///
/// # Errors
/// If `table` is not a well-formed IORT with a root complex.
pub fn with_canwbs(table: &[u8]) -> Result<Vec<u8>, BadIort> {
    let length = u32_at(table, LENGTH).ok_or(BadIort::NotIort)? as usize;
    if !table.starts_with(b"IORT") || length < HEADER {
        return Err(BadIort::NotIort);
    }
    let mut table = table.get(..length).ok_or(BadIort::NotIort)?.to_vec();
    let nodes = u32_at(&table, NODE_COUNT).ok_or(BadIort::NotIort)?;
    let mut at = u32_at(&table, FIRST_NODE).ok_or(BadIort::NotIort)? as usize;
    let mut found = false;
    for _ in 0..nodes {
        let node = table.get_mut(at..).ok_or(BadIort::Node(at))?;
        let &mut [kind, low, high, ..] = node else { return Err(BadIort::Node(at)) };
        let size = usize::from(u16::from_le_bytes([low, high]));
        let node = node.get_mut(..size).filter(|node| node.len() >= NODE_HEADER).ok_or(BadIort::Node(at))?;
        if kind == ROOT_COMPLEX {
            *node.get_mut(MEMORY_ACCESS_FLAGS).ok_or(BadIort::Node(at))? |= CANWBS;
            found = true;
        }
        at += size;
    }
    if !found {
        return Err(BadIort::NoRootComplex);
    }
    let revision = u32_at(&table, OEM_REVISION).ok_or(BadIort::NotIort)?.wrapping_add(1);
    table[OEM_REVISION..OEM_REVISION + 4].copy_from_slice(&revision.to_le_bytes());
    table[CHECKSUM] = 0;
    table[CHECKSUM] = sum(&table).wrapping_neg();
    Ok(table)
}

fn u32_at(table: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(table.get(at..at + 4)?.try_into().ok()?))
}

fn sum(table: &[u8]) -> u8 {
    table.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An IORT with these nodes, each given as type and size.
    fn iort(nodes: &[(u8, u16)]) -> Vec<u8> {
        let mut table = b"IORT".to_vec();
        table.resize(HEADER, 0);
        table[NODE_COUNT..NODE_COUNT + 4].copy_from_slice(&(nodes.len() as u32).to_le_bytes());
        table[FIRST_NODE..FIRST_NODE + 4].copy_from_slice(&(HEADER as u32).to_le_bytes());
        table[OEM_REVISION] = 1;
        for (kind, size) in nodes {
            let mut node = vec![0; usize::from(*size)];
            node[0] = *kind;
            node[1..3].copy_from_slice(&size.to_le_bytes());
            if *kind == ROOT_COMPLEX {
                node[MEMORY_ACCESS_FLAGS] = 0x03;
            }
            table.extend(node);
        }
        let length = table.len() as u32;
        table[LENGTH..LENGTH + 4].copy_from_slice(&length.to_le_bytes());
        table[CHECKSUM] = sum(&table).wrapping_neg();
        table
    }

    #[test]
    fn the_flag_is_set_wherever_the_root_complex_lies() {
        for (nodes, flag_at) in [
            (&[(ROOT_COMPLEX, 36)][..], 0x30 + 0x17),
            (&[(0, 24), (4, 68), (4, 68), (ROOT_COMPLEX, 136)], 0x30 + 24 + 2 * 68 + 0x17),
        ] {
            let before = iort(nodes);
            let after = with_canwbs(&before).expect("it is well-formed");
            assert_eq!((before[flag_at], after[flag_at]), (0x03, 0x07));
        }
    }

    #[test]
    fn every_root_complex_gets_it() {
        let after = with_canwbs(&iort(&[(ROOT_COMPLEX, 40), (ROOT_COMPLEX, 40)])).expect("it is well-formed");
        assert_eq!((after[0x30 + 0x17], after[0x30 + 40 + 0x17]), (0x07, 0x07));
    }

    #[test]
    fn the_kernel_takes_it_for_a_newer_and_valid_table() {
        let after = with_canwbs(&iort(&[(ROOT_COMPLEX, 36)])).expect("it is well-formed");
        assert_eq!(after[OEM_REVISION], 2);
        assert_eq!(sum(&after), 0);
    }

    #[test]
    fn nothing_else_changes() {
        let before = iort(&[(0, 24), (ROOT_COMPLEX, 36)]);
        let after = with_canwbs(&before).expect("it is well-formed");
        let changed: Vec<_> = (0..before.len()).filter(|at| before[*at] != after[*at]).collect();
        assert_eq!(changed, [CHECKSUM, OEM_REVISION, 0x30 + 24 + 0x17]);
    }

    #[test]
    fn broken_tables_are_refused() {
        assert_eq!(with_canwbs(b""), Err(BadIort::NotIort));
        assert_eq!(with_canwbs(&[0; 64]), Err(BadIort::NotIort));
        assert_eq!(with_canwbs(&iort(&[(0, 24)])), Err(BadIort::NoRootComplex));
        let whole = iort(&[(ROOT_COMPLEX, 36)]);
        assert_eq!(with_canwbs(&whole[..whole.len() - 1]), Err(BadIort::NotIort));
        let mut endless = whole.clone();
        endless[HEADER + 1] = 0;
        assert_eq!(with_canwbs(&endless), Err(BadIort::Node(HEADER)));
        let mut outside = whole;
        outside[FIRST_NODE + 1] = 0x40;
        assert!(matches!(with_canwbs(&outside), Err(BadIort::Node(_))));
    }
}
