//! IORT, read back.

#[allow(dead_code)]
mod common;

use common::iort::{ITS_GROUP, Iort, RMR, ROOT_COMPLEX, SMMU_V3};
use common::{EXPANDERS, buses, grace, plain, u8_at, u16_at, u32_at, u64_at, window};

fn rid(bus: u8, device: u8, function: u8) -> u32 {
    u32::from(bus) << 8 | u32::from(device) << 3 | u32::from(function)
}

#[test]
fn every_mapping_refers_to_a_node_of_the_right_kind() {
    let iort = Iort::of(&grace());
    for node in &iort.nodes {
        let allowed: &[u8] = match iort.kind(*node) {
            ITS_GROUP => &[],
            SMMU_V3 => &[ITS_GROUP],
            ROOT_COMPLEX => &[ITS_GROUP, SMMU_V3],
            RMR => &[SMMU_V3],
            other => panic!("node type {other}"),
        };
        for mapping in iort.mappings(*node) {
            assert!(iort.nodes.contains(&mapping.reference), "{mapping:x?} refers to the start of a node");
            assert!(allowed.contains(&iort.kind(mapping.reference)), "{mapping:x?}");
            assert_eq!(mapping.flags, 0, "no single mappings");
        }
    }
}

#[test]
fn no_mappings_of_a_node_overlap() {
    let iort = Iort::of(&grace());
    for node in &iort.nodes {
        let mut mappings = iort.mappings(*node);
        mappings.sort_by_key(|mapping| mapping.input);
        for pair in mappings.windows(2) {
            assert!(pair[0].last < pair[1].input, "{pair:x?}");
        }
    }
}

#[test]
fn every_requester_id_reaches_the_its_group_with_itself_as_device_id() {
    let iort = Iort::of(&grace());
    let (root, its) = (iort.one(ROOT_COMPLEX), iort.one(ITS_GROUP));
    for id in 0..=0xffff {
        let (mut node, mut out) = iort.step(root, id);
        if node != its {
            (node, out) = iort.step(node, out);
        }
        assert_eq!((node, out), (its, id));
    }
}

#[test]
fn functions_of_an_expander_are_behind_its_smmu_with_their_requester_id_as_stream_id() {
    let description = grace();
    let iort = Iort::of(&description);
    let root = iort.one(ROOT_COMPLEX);
    for (smmu, bus) in description.pci.smmus.iter().zip(EXPANDERS) {
        let functions = [rid(bus, 0, 0), rid(bus, 31, 7), rid(bus + 1, 0, 0), rid(bus + 2, 0, 3), rid(bus + 7, 31, 7)];
        for id in functions {
            let (node, stream_id) = iort.step(root, id);
            assert_eq!(stream_id, id);
            assert_eq!(iort.kind(node), SMMU_V3);
            assert_eq!(iort.identifier(node), smmu.identifier);
            assert_eq!(u64_at(&iort.bytes, node + 16), smmu.base);
        }
    }
}

#[test]
fn functions_of_pcie_0_are_behind_no_smmu() {
    let iort = Iort::of(&grace());
    let (root, its) = (iort.one(ROOT_COMPLEX), iort.one(ITS_GROUP));
    for id in [rid(0, 0, 0), rid(0, 31, 7), rid(1, 0, 0), rid(0xd7, 31, 7)] {
        assert_eq!(iort.step(root, id), (its, id));
    }
}

#[test]
fn a_machine_without_smmus_maps_the_whole_segment_to_the_its() {
    let iort = Iort::of(&plain());
    assert_eq!(iort.nodes.len(), 2);
    assert_eq!(iort.mappings(iort.one(ROOT_COMPLEX)).len(), 1);
    assert_eq!(iort.step(iort.one(ROOT_COMPLEX), 0xffff), (iort.one(ITS_GROUP), 0xffff));
}

#[test]
fn id_count_is_the_number_of_ids_minus_one() {
    // IORT:360: an ID matches in [base, base + id_count].
    let iort = Iort::of(&grace());
    for smmu in iort.all(SMMU_V3) {
        assert_eq!(u32_at(&iort.bytes, smmu + 68 + 4), 0xffff);
    }
}

#[test]
fn there_is_one_root_complex_node_for_segment_0() {
    // IORT:316: the first node of a segment is the only one that counts.
    let iort = Iort::of(&grace());
    assert_eq!(u32_at(&iort.bytes, iort.one(ROOT_COMPLEX) + 28), 0);
}

#[test]
fn the_root_complex_is_coherent_and_has_no_address_limit() {
    // IORT:1544: from revision 1 a limit of 0 is a firmware bug, 64 is no limit.
    let iort = Iort::of(&grace());
    let root = iort.one(ROOT_COMPLEX);
    assert_eq!(iort.revision(root), 3);
    assert_eq!(u32_at(&iort.bytes, root + 12), 36, "revision 3 has its mappings at 36");
    assert_eq!(u32_at(&iort.bytes, root + 16), 1, "CCA");
    assert_eq!(u8_at(&iort.bytes, root + 23), 0x7, "CPM, DACS, CANWBS");
    assert_eq!(u8_at(&iort.bytes, root + 32), 64);
}

#[test]
fn ats_pasids_and_canwbs_are_the_descriptions() {
    let mut description = grace();
    description.pci.ats = true;
    description.pci.canwbs = false;
    description.pci.pasid_bits = 20;
    let iort = Iort::of(&description);
    let root = iort.one(ROOT_COMPLEX);
    assert_eq!(u8_at(&iort.bytes, root + 23), 0x3);
    assert_eq!(u32_at(&iort.bytes, root + 24), 1);
    assert_eq!(u16_at(&iort.bytes, root + 33), 20, "Max PASID Width");
    let iort = Iort::of(&grace());
    let root = iort.one(ROOT_COMPLEX);
    assert_eq!((u32_at(&iort.bytes, root + 24), u16_at(&iort.bytes, root + 33)), (0, 0));
}

#[test]
fn no_mapping_of_an_smmu_is_skipped_as_its_own_device_id() {
    // IORT:454: from node revision 5 the index counts only with flag bit 4.
    let iort = Iort::of(&grace());
    for smmu in iort.all(SMMU_V3) {
        assert_eq!(iort.revision(smmu), 5);
        let flags = u32_at(&iort.bytes, smmu + 24);
        assert_eq!(flags & 1 << 4, 0, "DEVICEID_VALID");
        assert_eq!(flags & 1 << 3, 0, "PXM_VALID, which would end the loop over all SMMUs (IORT:1719)");
        assert_eq!(flags & 1, 1, "COHACC");
    }
}

#[test]
fn smmu_interrupts_are_wired_and_there_is_no_pri() {
    let description = grace();
    let iort = Iort::of(&description);
    for (node, smmu) in iort.all(SMMU_V3).into_iter().zip(&description.pci.smmus) {
        assert_eq!(u32_at(&iort.bytes, node + 40), 0, "model");
        assert_eq!(u32_at(&iort.bytes, node + 44), smmu.event_gsiv);
        assert_eq!(u32_at(&iort.bytes, node + 48), 0, "PRI");
        assert_eq!(u32_at(&iort.bytes, node + 52), smmu.gerror_gsiv);
        assert_eq!(u32_at(&iort.bytes, node + 56), smmu.sync_gsiv);
    }
}

#[test]
fn the_table_is_new_enough_for_reserved_memory_ranges() {
    // IORT:1178.
    assert!(u8_at(&Iort::of(&grace()).bytes, 8) >= 5);
}

#[test]
fn each_smmu_reserves_the_msi_window_for_the_buses_in_use() {
    // IORT:1111: a mapping counts for the SMMU that it refers to; StreamIDs are its output range.
    let mut description = grace();
    description.pci.msi_window = window(0x0900_0000, 0x20_0000);
    let iort = Iort::of(&description);
    let nodes = iort.all(RMR);
    assert_eq!(nodes.len(), EXPANDERS.len());
    for ((node, smmu), bus) in nodes.into_iter().zip(iort.all(SMMU_V3)).zip(EXPANDERS) {
        assert_eq!(iort.revision(node), 3);
        assert_eq!(u32_at(&iort.bytes, node + 16), 1 | 1 << 2, "REMAP_PERMITTED, Device-nGnRE");
        assert_eq!(u32_at(&iort.bytes, node + 20), 1);
        let range = node + u32_at(&iort.bytes, node + 24) as usize;
        assert_eq!(u64_at(&iort.bytes, range), 0x0900_0000);
        assert_eq!(u64_at(&iort.bytes, range + 8), 0x0020_0000);
        let mappings = iort.mappings(node);
        assert_eq!(mappings.len(), 1, "adjacent buses are one mapping");
        assert_eq!(mappings[0].reference, smmu);
        assert_eq!((mappings[0].output, mappings[0].last), (rid(bus, 0, 0), rid(bus + 3, 31, 7)));
        assert_eq!(mappings[0].input, mappings[0].output);
    }
}

#[test]
fn an_smmu_without_buses_in_use_reserves_nothing() {
    // A node without mappings is a firmware bug (iort_node_get_rmr_info).
    let mut description = grace();
    description.pci.smmus[2].buses_in_use.clear();
    assert_eq!(Iort::of(&description).all(RMR).len(), EXPANDERS.len() - 1);
}

#[test]
fn buses_in_use_that_are_apart_are_mappings_of_their_own() {
    let mut description = grace();
    description.pci.smmus[0].buses_in_use = vec![buses(0xdc, 0xdc), buses(0xd8, 0xd9)];
    let iort = Iort::of(&description);
    let ranges: Vec<_> = iort.mappings(iort.all(RMR)[0]).iter().map(|m| (m.output, m.last)).collect();
    assert_eq!(ranges, [(0xd800, 0xd9ff), (0xdc00, 0xdcff)]);
}

#[test]
fn node_identifiers_are_unique_and_the_its_is_the_madts() {
    let description = grace();
    let iort = Iort::of(&description);
    let mut identifiers: Vec<_> = iort.nodes.iter().map(|node| iort.identifier(*node)).collect();
    identifiers.sort();
    identifiers.dedup();
    assert_eq!(identifiers.len(), iort.nodes.len());
    let its = iort.one(ITS_GROUP);
    assert_eq!((u32_at(&iort.bytes, its + 16), u32_at(&iort.bytes, its + 20)), (1, description.gic.its_identifier));
}

#[test]
fn expanders_in_any_order_and_up_to_bus_255_are_described() {
    let mut description = grace();
    description.pci.smmus.reverse();
    let iort = Iort::of(&description);
    let (node, _) = iort.step(iort.one(ROOT_COMPLEX), 0xffff);
    assert_eq!(iort.identifier(node), 4);
}
