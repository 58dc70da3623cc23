//! A walker of IORT that is written from DEN0049 and the kernel's rules alone.

use nestling_acpi::Description;

use super::{table, u8_at, u16_at, u32_at};

pub const ITS_GROUP: u8 = 0;
pub const ROOT_COMPLEX: u8 = 2;
pub const SMMU_V3: u8 = 4;
pub const RMR: u8 = 6;

/// A table and where its nodes are.
pub struct Iort {
    pub bytes: Vec<u8>,
    pub nodes: Vec<usize>,
}

#[derive(Clone, Copy, Debug)]
pub struct Mapping {
    pub input: u32,
    /// Last ID of the range.
    pub last: u32,
    pub output: u32,
    pub reference: usize,
    pub flags: u32,
}

impl Iort {
    pub fn of(description: &Description) -> Self {
        Self::new(table(description, "IORT"))
    }

    pub fn new(bytes: Vec<u8>) -> Self {
        let (count, mut offset) = (u32_at(&bytes, 36), u32_at(&bytes, 40) as usize);
        let mut nodes = Vec::new();
        for _ in 0..count {
            nodes.push(offset);
            offset += usize::from(u16_at(&bytes, offset + 1));
        }
        assert_eq!(offset, bytes.len(), "the nodes fill the table");
        Self { bytes, nodes }
    }

    pub fn kind(&self, node: usize) -> u8 {
        u8_at(&self.bytes, node)
    }

    pub fn revision(&self, node: usize) -> u8 {
        u8_at(&self.bytes, node + 3)
    }

    pub fn identifier(&self, node: usize) -> u32 {
        u32_at(&self.bytes, node + 4)
    }

    pub fn all(&self, kind: u8) -> Vec<usize> {
        self.nodes.iter().copied().filter(|node| self.kind(*node) == kind).collect()
    }

    pub fn one(&self, kind: u8) -> usize {
        let nodes = self.all(kind);
        assert_eq!(nodes.len(), 1);
        nodes[0]
    }

    pub fn mappings(&self, node: usize) -> Vec<Mapping> {
        let (count, first) = (u32_at(&self.bytes, node + 8) as usize, u32_at(&self.bytes, node + 12) as usize);
        let length = usize::from(u16_at(&self.bytes, node + 1));
        assert!(first + count * 20 <= length, "the mappings lie in their node");
        let mapping = |at: usize| Mapping {
            input: u32_at(&self.bytes, at),
            last: u32_at(&self.bytes, at) + u32_at(&self.bytes, at + 4),
            output: u32_at(&self.bytes, at + 8),
            reference: u32_at(&self.bytes, at + 12) as usize,
            flags: u32_at(&self.bytes, at + 16),
        };
        (0..count).map(|index| mapping(node + first + index * 20)).collect()
    }

    /// One step of an ID: where it goes and what it becomes.
    pub fn step(&self, node: usize, id: u32) -> (usize, u32) {
        let hits: Vec<_> = self.mappings(node).into_iter().filter(|m| (m.input..=m.last).contains(&id)).collect();
        assert_eq!(hits.len(), 1, "exactly one mapping takes {id:#x}");
        (hits[0].reference, hits[0].output + (id - hits[0].input))
    }
}
