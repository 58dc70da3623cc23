//! The ACPI tables of a Plan with five vSMMUs, judged by what judges the tables of the `acpi` room.

// The walker and the compiler's runner of that room's tests, which are no library.
#[allow(dead_code, missing_docs)]
#[path = "../../../../acpi/tests/common/mod.rs"]
mod common;

use nestling_acpi::{Tables, build};

use self::common::iort::{ITS_GROUP, Iort, RMR, ROOT_COMPLEX, SMMU_V3};
use self::common::{iasl, u16_at, u32_at, u64_at};
use super::features::grace_smmu;
use super::host::*;
use crate::machine::tables::describe;
use crate::plan::spec::Plan;
use crate::plan::{plan, validate};

/// Five SMMUs and seven devices, as on the lab's `grace` host.
fn grace() -> Plan {
    let nvme = || vec![low(0, 16 * KIB)];
    let host = host(&[
        (0, nvme()),
        (1, nvme()),
        (2, vec![high(0, 16 * KIB), high(3, 16 * KIB)]),
        (2, vec![high(0, 16 * KIB), high(3, 16 * KIB)]),
        (3, vec![low(0, MIB)]),
        (3, vec![low(0, 128 * KIB), low(1, 128 * KIB)]),
        (4, vec![high(0, 16 * GIB)]),
    ]);
    let mut request = request(7);
    request.cpus = Some(4);
    let plan = plan(&request, &host).unwrap();
    assert_eq!(validate(&plan), Ok(()));
    plan
}

fn tables(plan: &Plan) -> Tables {
    build(&describe(plan, true), plan.memory.base)
}

fn iort(plan: &Plan) -> Iort {
    let tables = tables(plan);
    let iort = tables.iter().find(|table| table.signature == "IORT").unwrap();
    Iort::new(iort.bytes.to_vec())
}

#[test]
fn every_function_is_behind_its_vsmmu_and_reaches_the_its_as_itself() {
    let plan = grace();
    let iort = iort(&plan);
    let (root, its) = (iort.one(ROOT_COMPLEX), iort.one(ITS_GROUP));
    assert_eq!(iort.all(SMMU_V3).len(), 5);
    for (expander, _, function) in plan.functions() {
        let id = function.stream_id as u32;
        let (node, stream_id) = iort.step(root, id);
        assert_eq!((iort.kind(node), stream_id), (SMMU_V3, id), "{}", function.host);
        assert_eq!(iort.identifier(node), expander.smmu.iort_identifier);
        assert_eq!(u64_at(&iort.bytes, node + 16), expander.smmu.window.base);
        assert_eq!(u32_at(&iort.bytes, node + 44), expander.smmu.event_gsiv);
        assert_eq!(iort.step(node, stream_id), (its, id));
    }
    assert_eq!(iort.step(root, 0x0008), (its, 0x0008), "pcie.0 is behind no vSMMU");
}

#[test]
fn every_function_has_the_msi_window_reserved_in_its_vsmmu() {
    let plan = grace();
    let iort = iort(&plan);
    for (_, _, function) in plan.functions() {
        let id = function.stream_id as u32;
        let (smmu, _) = iort.step(iort.one(ROOT_COMPLEX), id);
        let reserved = iort
            .all(RMR)
            .into_iter()
            .find(|node| iort.mappings(*node).iter().any(|m| m.reference == smmu && (m.output..=m.last).contains(&id)));
        let node = reserved.unwrap_or_else(|| panic!("{} has no RMR", function.host));
        let range = node + u32_at(&iort.bytes, node + 24) as usize;
        let window = plan.pci.msi_window;
        assert_eq!((u64_at(&iort.bytes, range), u64_at(&iort.bytes, range + 8)), (window.base, window.size));
    }
}

#[test]
fn the_root_complex_has_ats_and_pasids_if_any_vsmmu_has() {
    let told = |edit: &dyn Fn(&mut Plan)| {
        let mut plan = grace();
        edit(&mut plan);
        let iort = iort(&plan);
        let root = iort.one(ROOT_COMPLEX);
        (u32_at(&iort.bytes, root + 24), u16_at(&iort.bytes, root + 33))
    };
    assert_eq!(told(&|_| {}), (0, 0), "not decided yet");
    let wishes = |plan: &mut Plan, expander: usize, text: &str| {
        let smmu = &mut plan.pci.expanders[expander].smmu;
        smmu.wishes = text.parse().unwrap();
        smmu.freeze(Some(&grace_smmu()), None).unwrap();
    };
    let some = |plan: &mut Plan| {
        wishes(plan, 0, "ats=off,ssidsize=0");
        wishes(plan, 1, "ats=on,ssidsize=8");
        wishes(plan, 2, "ats=off,ssidsize=16");
    };
    assert_eq!(told(&some), (1, 16));
    assert_eq!(told(&|plan| wishes(plan, 0, "ats=off,ssidsize=0")), (0, 0));
    if iasl::is_missing().is_none() {
        let mut plan = grace();
        some(&mut plan);
        iasl::check(&tables(&plan));
    }
}

#[test]
fn iasl_has_nothing_to_say_about_the_tables_of_a_plan() {
    if let Some(reason) = iasl::is_missing() {
        println!("skipped: {reason}");
        return;
    }
    iasl::check(&tables(&grace()));
}
