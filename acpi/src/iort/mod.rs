//! IORT (Arm DEN0049E.e): which vSMMU each PCI function is behind, and which ITS takes its MSIs.
//!
//! The nodes are one ITS group, one SMMUv3 node for each vSMMU, one root complex for the segment and one reserved memory
//! range (RMR) for each vSMMU. Linux takes the first root complex node of a segment and no other (drivers/acpi/arm64/iort.c,
//! iort_match_node_callback), so pcie.0 and all expanders share the one node: ATS and CANWBS are the segment's.

mod ids;
mod spec;

use zerocopy::{Immutable, IntoBytes};

use self::{
    ids::IdRange,
    spec::{IdMapping, ItsGroup, MemoryRange, NodeHeader, Rmr, RootComplex, SmmuV3},
};
use crate::{
    description::{Gic, Pci, Smmu, Window},
    sdt,
};

/// E.d, the first revision whose RMR nodes Linux honours (iort_find_rmrs).
const REVISION: u8 = 5;

const ITS_GROUP_REVISION: u8 = 1;
/// From revision 5, `id_mapping_index` counts only with a flag of its own. Before, it would count for every vSMMU, as not
/// all four GSIVs are set, and Linux would skip the mapping it names (iort_get_id_mapping_index).
const SMMU_REVISION: u8 = 5;
/// Has the memory address limit and the PASID field, and no flags behind them.
const ROOT_COMPLEX_REVISION: u8 = 3;
const RMR_REVISION: u8 = 3;

/// No limit.
const MEMORY_ADDRESS_LIMIT: u8 = 64;

/// The table.
pub(crate) fn build(gic: &Gic, pci: &Pci) -> Vec<u8> {
    let mut unused = (0u32..).filter(|id| pci.smmus.iter().all(|smmu| smmu.identifier != *id));
    let mut identifier = || unused.next().unwrap_or(u32::MAX);
    let mut nodes = Nodes::default();
    let its = nodes.push(its_group(identifier(), gic), &[]);
    let mut smmus = Vec::with_capacity(pci.smmus.len());
    for smmu in &pci.smmus {
        let node = nodes.push(smmu_v3(smmu), &[Mapping { ids: IdRange::SEGMENT, to: its }]);
        smmus.push((smmu, node));
    }
    let pieces = ids::partition(smmus.iter().map(|(smmu, node)| (smmu.buses, *node)));
    let mappings: Vec<_> = pieces.into_iter().map(|(ids, smmu)| Mapping { ids, to: smmu.unwrap_or(its) }).collect();
    nodes.push(root_complex(identifier(), pci), &mappings);
    for (smmu, node) in smmus {
        let mappings: Vec<_> =
            ids::union(&smmu.buses_in_use).into_iter().map(|ids| Mapping { ids, to: node }).collect();
        // Linux calls an RMR node that maps nothing a firmware bug.
        if !mappings.is_empty() {
            nodes.push(msi_window(identifier(), pci.msi_window), &mappings);
        }
    }
    nodes.finish()
}

/// A node without its ID mappings.
struct Node {
    node_type: u8,
    revision: u8,
    identifier: u32,
    /// What is between the node header and the ID mappings.
    data: Vec<u8>,
}

/// Offset of a node in the table.
#[derive(Clone, Copy)]
struct Reference(u32);

/// IDs that leave a node as they came in.
struct Mapping {
    ids: IdRange,
    to: Reference,
}

/// Nodes one behind the other.
#[derive(Default)]
struct Nodes {
    count: u32,
    bytes: Vec<u8>,
}

impl Nodes {
    const OFFSET: usize = 36 + size_of::<spec::Header>();

    fn push(&mut self, node: Node, mappings: &[Mapping]) -> Reference {
        let reference = Reference((Self::OFFSET + self.bytes.len()) as u32);
        let mapping_offset = size_of::<NodeHeader>() + node.data.len();
        let length = mapping_offset + size_of::<IdMapping>() * mappings.len();
        let header = NodeHeader {
            node_type: node.node_type,
            length: (length as u16).into(),
            revision: node.revision,
            identifier: node.identifier.into(),
            mapping_count: (mappings.len() as u32).into(),
            mapping_offset: if mappings.is_empty() { 0 } else { mapping_offset as u32 }.into(),
        };
        self.append(&header);
        self.bytes.extend_from_slice(&node.data);
        for mapping in mappings {
            self.append(&IdMapping {
                input_base: mapping.ids.base.into(),
                id_count: (mapping.ids.count - 1).into(),
                output_base: mapping.ids.base.into(),
                output_reference: mapping.to.0.into(),
                flags: 0.into(),
            });
        }
        self.count += 1;
        reference
    }

    fn append(&mut self, structure: &(impl IntoBytes + Immutable)) {
        self.bytes.extend_from_slice(structure.as_bytes());
    }

    fn finish(self) -> Vec<u8> {
        let header = spec::Header {
            node_count: self.count.into(),
            node_offset: (Self::OFFSET as u32).into(),
            reserved: 0.into(),
        };
        sdt::table(*b"IORT", REVISION, &[header.as_bytes(), &self.bytes].concat())
    }
}

fn its_group(identifier: u32, gic: &Gic) -> Node {
    let data = ItsGroup { its_count: 1.into(), identifier: gic.its_identifier.into() };
    Node {
        node_type: spec::node_type::ITS_GROUP,
        revision: ITS_GROUP_REVISION,
        identifier,
        data: data.as_bytes().into(),
    }
}

fn smmu_v3(smmu: &Smmu) -> Node {
    let data = SmmuV3 {
        base: smmu.base.into(),
        flags: spec::smmu_flags::COHACC_OVERRIDE.into(),
        reserved: 0.into(),
        vatos: 0.into(),
        model: 0.into(),
        event_gsiv: smmu.event_gsiv.into(),
        // The vSMMU has no PRI queue.
        pri_gsiv: 0.into(),
        gerr_gsiv: smmu.gerror_gsiv.into(),
        sync_gsiv: smmu.sync_gsiv.into(),
        // Not valid without its flag. A domain that is not online in the guest would end Linux's loop over all nodes.
        proximity_domain: 0.into(),
        id_mapping_index: 0.into(),
    };
    Node {
        node_type: spec::node_type::SMMU_V3,
        revision: SMMU_REVISION,
        identifier: smmu.identifier,
        data: data.as_bytes().into(),
    }
}

fn root_complex(identifier: u32, pci: &Pci) -> Node {
    use spec::memory_flags::{CANWBS, CPM, DACS};
    let data = RootComplex {
        cache_coherency: 1.into(),
        allocation_hints: 0,
        reserved0: 0.into(),
        memory_flags: CPM | DACS | if pci.canwbs { CANWBS } else { 0 },
        ats_attribute: u32::from(pci.ats).into(),
        segment: 0.into(),
        memory_address_limit: MEMORY_ADDRESS_LIMIT,
        pasid_capabilities: (u16::from(pci.pasid_bits) & spec::PASID_MAX_WIDTH).into(),
        reserved1: 0,
    };
    Node {
        node_type: spec::node_type::ROOT_COMPLEX,
        revision: ROOT_COMPLEX_REVISION,
        identifier,
        data: data.as_bytes().into(),
    }
}

fn msi_window(identifier: u32, window: Window) -> Node {
    use spec::rmr_flags::{DEVICE_NGNRE, REMAP_PERMITTED};
    // REMAP_PERMITTED: without it the guest kernel refuses the device to its own VFIO.
    let rmr = Rmr {
        flags: (REMAP_PERMITTED | DEVICE_NGNRE).into(),
        descriptor_count: 1.into(),
        descriptor_offset: ((size_of::<NodeHeader>() + size_of::<Rmr>()) as u32).into(),
    };
    let range = MemoryRange { base: window.base.into(), length: window.size.into(), reserved: 0.into() };
    Node {
        node_type: spec::node_type::RMR,
        revision: RMR_REVISION,
        identifier,
        data: [rmr.as_bytes(), range.as_bytes()].concat(),
    }
}
