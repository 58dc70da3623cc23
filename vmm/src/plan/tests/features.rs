//! What vSMMUs show, from the request and the answers of the host.

use std::error::Error;

use nestling_devices::smmuv3::capabilities::{Value, Values};
use nestling_devices::smmuv3::physical::HostCapabilities;

use super::host::*;
use crate::config::{Request, Size};
use crate::host::{Inventory, SmmuAnswer};
use crate::plan::spec::{FeatureRow, Plan};
use crate::plan::{Format, plan, read, ready, tree, validate, write};

/// A host SMMU with 2-level tables, 16-bit ASIDs, ATS, RIL, BBML 2, 20 bits of SubstreamIDs, all granules, 48 bits.
pub fn grace_smmu() -> HostCapabilities {
    HostCapabilities {
        idr: [1 << 27 | 1 << 24 | 2 << 21 | 1 << 19 | 1 << 12 | 1 << 10 | 2 << 2 | 3, 20 << 6 | 32, 0, 0x1400, 0, 0x75],
        ats: true,
        pasid_bits: 20,
        ..HostCapabilities::default()
    }
}

/// Two devices behind one SMMU and one behind another, all asked.
fn asked() -> Inventory {
    let mut host = host(&[(0, vec![]), (0, vec![]), (1, vec![])]);
    for device in &mut host.devices {
        device.smmu = SmmuAnswer::Known(grace_smmu());
    }
    host
}

fn known(inventory: &mut Inventory, device: usize) -> &mut HostCapabilities {
    match &mut inventory.devices[device].smmu {
        SmmuAnswer::Known(known) => known,
        other => panic!("{other:?}"),
    }
}

fn with(count: usize, vsmmu: &[&str]) -> Request {
    Request { vsmmu: vsmmu.iter().map(|text| text.parse().unwrap()).collect(), ..request(count) }
}

fn features(plan: &Plan, expander: usize) -> Values {
    plan.pci.expanders[expander].smmu.features.unwrap()
}

fn row(plan: &Plan, field: &str) -> FeatureRow {
    plan.pci.expanders[0].smmu.report.iter().find(|row| row.field == field).unwrap().clone()
}

/// The error with its cause, as the command says it.
fn refusal(request: &Request, inventory: &Inventory) -> String {
    let error = plan(request, inventory).unwrap_err();
    error.source().map_or_else(|| error.to_string(), |source| format!("{error}: {source}"))
}

#[test]
fn auto_is_what_the_smmu_and_every_device_behind_it_have() {
    let mut inventory = asked();
    (known(&mut inventory, 1).ats, known(&mut inventory, 1).pasid_bits) = (false, 16);
    let plan = plan(&request(3), &inventory).unwrap();
    assert_eq!((features(&plan, 0).ats, features(&plan, 0).ssidsize), (false, 16));
    assert_eq!((features(&plan, 1).ats, features(&plan, 1).ssidsize), (true, 20));
    assert_eq!(row(&plan, "ats").reason, "not every device, or the way to it, can");
    assert_eq!(row(&plan, "ssidsize").host, Some(Value::Number(16)));
}

#[test]
fn wishes_hold_for_all_vsmmus_or_for_one() {
    let plan = plan(&with(3, &["smmu3.0xc020000,ril=auto,oas=40", "ril=off,ats=off", "ats=on"]), &asked()).unwrap();
    assert_eq!((features(&plan, 0).ril, features(&plan, 0).ats, features(&plan, 0).oas), (false, true, 48));
    assert_eq!((features(&plan, 1).ril, features(&plan, 1).ats, features(&plan, 1).oas), (true, true, 40));
    assert_eq!(row(&plan, "ril").reason, "asked for");
}

#[test]
fn what_is_asked_for_and_not_had_names_field_host_value_and_remedy() {
    let mut inventory = asked();
    known(&mut inventory, 0).idr[0] &= !(1 << 10);
    assert_eq!(
        refusal(&with(1, &["ats=on"]), &inventory),
        "vSMMU of host SMMU smmu3.0x000000000c000000: ats=on cannot be had: the host smmu has off; use ats=auto"
    );
    let refused = refusal(&with(1, &["host=smmu3.0xdead0000,ats=on"]), &inventory);
    assert!(
        refused
            .starts_with("there is no host SMMU 'smmu3.0x00000000dead0000'; this host has: smmu3.0x000000000c000000, "),
        "{refused}"
    );
    inventory.smmus.clear();
    assert!(refusal(&with(0, &["host=smmu3.0x1"]), &inventory).ends_with("this host has: none"));
}

#[test]
fn wishes_for_all_vsmmus_need_one() {
    let refused = "--vsmmu is given without host=, but there is no vSMMU; give --device, or --vsmmu host=NAME";
    assert_eq!(refusal(&with(0, &["ats=off"]), &asked()), refused);
    assert!(plan(&with(0, &["ats=off", "host=smmu3.0xc020000"]), &asked()).is_ok());
    assert!(plan(&with(1, &["ats=off"]), &asked()).is_ok());
}

#[test]
fn hosts_that_nobody_asked_or_could_ask_leave_it_open() {
    let mut inventory = asked();
    inventory.devices[0].smmu = SmmuAnswer::NotAsked;
    let open = plan(&with(3, &["ats=on"]), &inventory).unwrap();
    let smmu = &open.pci.expanders[0].smmu;
    assert_eq!((smmu.features, &smmu.unknown, smmu.report.len()), (None, &None, 0));
    assert!(open.pci.expanders[1].smmu.features.is_some());
    inventory.devices[0].smmu = SmmuAnswer::Unknown("no permission to open /dev/iommu".into());
    let unknown = plan(&with(1, &["ats=on"]), &inventory).unwrap();
    assert_eq!(unknown.pci.expanders[0].smmu.unknown.as_deref(), Some("no permission to open /dev/iommu"));
    let said = tree(&unknown);
    let line =
        "\nvsmmu0: features are decided when the guest starts; the host cannot be asked now: no permission to open ";
    assert!(said.contains(line), "{said}");
    // Who builds the machine asks, with the wishes that are in the Plan.
    let mut smmu = unknown.pci.expanders[0].smmu.clone();
    let refused = smmu.freeze(Some(&HostCapabilities { ats: false, ..grace_smmu() }), None).unwrap_err().to_string();
    assert!(
        refused.starts_with("ats=on cannot be had: the host smmu's devices, or the ways to them, have off"),
        "{refused}"
    );
    let features = smmu.freeze(Some(&grace_smmu()), None).unwrap();
    assert_eq!(smmu.features, Some(features.values()));
    assert!(smmu.table().contains("\nats                 on     on    asked for\n"), "{}", smmu.table());
}

#[test]
fn a_vsmmu_may_be_there_before_its_devices() {
    let mut inventory = asked();
    let plan = plan(&with(1, &["host=smmu3.0xc020000", "host=smmu3.0xc040000,ril=on"]), &inventory).unwrap();
    assert_eq!(validate(&plan), Ok(()));
    let shown: Vec<_> =
        plan.pci.expanders.iter().map(|e| (e.name.as_str(), e.smmu.host.clone(), e.ports.len())).collect();
    assert_eq!(shown, [("vsmmu0", smmu(0), 2), ("vsmmu1", smmu(1), 4), ("vsmmu2", smmu(2), 4)]);
    let (other_asked, cautious) = (features(&plan, 1), features(&plan, 2));
    assert_eq!(
        (other_asked.ats, other_asked.ssidsize, other_asked.oas),
        (false, 0, 48),
        "as a device of the host tells"
    );
    assert_eq!((cautious.ats, cautious.oas, cautious.ril, cautious.gran64k), (false, 44, true, false));
    for format in [Format::Json, Format::Toml] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("plan");
        std::fs::write(&path, write(&plan, format).unwrap()).unwrap();
        assert_eq!(read(&path).unwrap(), plan);
    }
    inventory.smmus.pop();
    inventory.smmus.retain(|name| *name != smmu(2));
    let gone = ready(plan, &inventory).unwrap_err().to_string();
    assert!(gone.starts_with("kernel 'Image'") || gone.contains(&smmu(2)), "{gone}");
}

#[test]
fn a_vsmmu_without_devices_says_why_nobody_answered() {
    let mut inventory = asked();
    inventory.devices[1].smmu = SmmuAnswer::Unknown("0000:11:00.0 is in use".into());
    let vacant = |inventory: &Inventory| plan(&with(0, &["host=smmu3.0xc000000"]), inventory).unwrap();
    assert_eq!(vacant(&inventory).pci.expanders[0].smmu.unknown, None, "another one did");
    inventory.devices[0].smmu = SmmuAnswer::Unknown("no".into());
    let plan = vacant(&inventory);
    assert_eq!(features(&plan, 0).oas, 44);
    let text = tree(&plan);
    let said =
        "\n\nvsmmu0: the host cannot be asked: 0000:11:00.0 is in use\n  feature             guest  host  reason\n";
    assert!(text.contains(said), "{text}");
}

#[test]
fn a_vsmmu_without_devices_knows_that_its_host_can_stall() {
    let mut inventory = asked();
    let shown = |inventory: &Inventory| {
        let plan = plan(&with(0, &["host=smmu3.0xc020000"]), inventory).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("plan");
        std::fs::write(&path, write(&plan, Format::Json).unwrap()).unwrap();
        read(&path).unwrap().pci.expanders[0].smmu.freeze(None, None).unwrap()
    };
    assert!(!shown(&inventory).disable_stall, "nothing stalls there");
    known(&mut inventory, 2).idr[0] &= !(3 << 24);
    assert!(shown(&inventory).disable_stall);
    inventory.devices[2].smmu = SmmuAnswer::NotAsked;
    assert!(!shown(&inventory).disable_stall, "nobody knows");
}

#[test]
fn oas_below_the_vcpus_addresses_is_said_to_end_sva() {
    let mut inventory = asked();
    assert_eq!(row(&plan(&request(1), &inventory).unwrap(), "oas").reason, "as the host has it");
    known(&mut inventory, 0).idr[5] = 0x74;
    assert_eq!(
        row(&plan(&request(1), &inventory).unwrap(), "oas").reason,
        "as the host has it; no SVA in the guest, whose vCPUs have 48"
    );
}

#[test]
fn every_vsmmu_reaches_all_of_the_guests_memory() {
    let mut inventory = asked();
    let large = |vsmmu: &[&str]| Request { memory: Some(Size(4 * GIB)), ..with(1, vsmmu) };
    let said = "vSMMU of host SMMU smmu3.0x000000000c000000: its oas is 32 bits, but the guest's memory ends at \
                0x140000000; give --memory less, or a wider oas if the host has it";
    assert_eq!(refusal(&large(&["oas=32"]), &inventory), said);
    let fits = Request { memory: Some(Size(3 * GIB)), ..with(1, &["oas=32"]) };
    assert!(plan(&fits, &inventory).is_ok(), "memory begins at 1 GiB");
    known(&mut inventory, 0).idr[5] = 0x70;
    assert_eq!(refusal(&large(&[]), &inventory), said, "the host has no more");

    let mut edited = plan(&large(&[]), &asked()).unwrap();
    assert_eq!(validate(&edited), Ok(()));
    edited.pci.expanders[0].smmu.features.as_mut().unwrap().oas = 32;
    let refused = validate(&edited).unwrap_err().to_string();
    assert!(refused.starts_with("vsmmu0: its oas is 32 bits, but the guest's memory ends at 0x1"), "{refused}");
}

#[test]
fn devices_that_require_ats_have_all_of_it_or_are_refused() {
    let mut inventory = asked();
    (inventory.devices[0].vendor, inventory.devices[0].device) = (0x10de, 0x2e12);
    known(&mut inventory, 0).ats_required = true;
    let good = plan(&request(2), &inventory).unwrap();
    let required: Vec<_> = good.functions().map(|(_, _, function)| function.requires_ats).collect();
    assert_eq!(required, [true, false]);
    assert!(refusal(&with(2, &["ssidsize=off"]), &inventory).contains("requires ats, for which a guest needs ats=on"));
}

#[test]
fn the_frozen_values_of_a_plan_are_held_against_the_host() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("Image"), image()).unwrap();
    let mut inventory = asked();
    let mut frozen = plan(&request(1), &inventory).unwrap();
    frozen.boot.kernel = folder.path().join("Image");
    assert!(ready(frozen.clone(), &inventory).is_ok());
    known(&mut inventory, 0).idr[3] = 0;
    let other =
        "vsmmu0 of host SMMU smmu3.0x000000000c000000: the guest was shown ril=on, but the host has ril=off here";
    assert_eq!(
        ready(frozen.clone(), &inventory).unwrap_err().to_string(),
        format!("plan: {other}; make it again with 'nestling plan'")
    );
    let smmu = &mut frozen.pci.expanders[0].smmu;
    let refused = smmu.freeze(Some(known(&mut inventory, 0)), None).unwrap_err().to_string();
    assert_eq!(
        refused,
        "plan: the guest was shown ril=on, but the host has ril=off here; make it again with 'nestling plan'"
    );
    inventory.devices[0].smmu = SmmuAnswer::NotAsked;
    assert!(ready(frozen.clone(), &inventory).is_ok(), "the machine will ask");
    frozen.pci.expanders[0].smmu.features.as_mut().unwrap().oas = 47;
    assert!(validate(&frozen).unwrap_err().to_string().starts_with("vsmmu0: oas=47 is not one of 32, 36,"));
}

#[test]
fn vsmmus_that_show_the_same_share_a_table() {
    let text = tree(&plan(&request(3), &asked()).unwrap());
    let (_, tables) = text.split_once("\n\nvsmmu0, vsmmu1:\n").expect("one table");
    assert!(
        tables.starts_with("  feature             guest  host  reason\n  ats                 on     on    as the host")
    );
    assert!(tables.contains("\n  sidsize             16     -     done by nestling\n"), "{tables}");
    let text = tree(&plan(&with(3, &["smmu3.0xc020000,ril=off"]), &asked()).unwrap());
    assert!(text.contains("\n\nvsmmu0:\n") && text.contains("\n\nvsmmu1:\n"), "{text}");
}
