//! Section 6.3.1 and on: what the identification registers show, and why.

use super::*;
use crate::smmuv3::capabilities::{Error, Mismatch, Negotiation, Row, Value, Values, check, negotiate_vacant};
use crate::smmuv3::physical::HostCapabilities;

fn row(rows: &[Row], field: &str) -> (String, String, &'static str) {
    let row = rows.iter().find(|row| row.field == field).unwrap();
    (row.guest.to_string(), row.host.map_or("-".into(), |host| host.to_string()), row.reason)
}

fn shown(guest: &str, host: &str, reason: &'static str) -> (String, String, &'static str) {
    (guest.into(), host.into(), reason)
}

/// A host SMMU that has nothing that it could be without.
fn bare() -> HostCapabilities {
    let idr0 = Idr0::new().with_ttf(2).into_bits();
    HostCapabilities {
        idr: [idr0, 0, 0, 0, 0, Idr5::new().with_gran4k(true).into_bits()],
        ats: true,
        pasid_bits: 20,
        ..Default::default()
    }
}

fn with_idr0(change: impl FnOnce(Idr0) -> Idr0) -> HostCapabilities {
    let mut host = host();
    host.idr[0] = change(Idr0::from_bits(host.idr[0])).into_bits();
    host
}

#[test]
fn auto_takes_what_the_host_has_and_says_so() {
    let result = negotiate(&Wishes::default(), &host()).unwrap();
    for (field, value) in [("ats", "on"), ("ril", "on"), ("oas", "48"), ("ssidsize", "20"), ("bbml", "2")] {
        assert_eq!(row(&result.rows, field), shown(value, value, "as the host has it"), "{field}");
    }
    assert_eq!(row(&result.rows, "sidsize"), shown("16", "-", "done by nestling"));
    assert_eq!(row(&result.rows, "stall-model"), shown("1", "0", "no stalls: the kernel forwards none"));
    assert_eq!(result.features.oas_bits(), 48);
    let text = result.rows.iter().find(|row| row.field == "ats").unwrap().to_string();
    assert_eq!(text, "ats: guest on host on (as the host has it)");
}

#[test]
fn every_field_that_a_user_can_wish_for_has_a_row_and_there_is_one_for_each_value() {
    let rows = negotiate(&Wishes::default(), &host()).unwrap().rows;
    let mut names: Vec<_> = rows.iter().map(|row| row.field).collect();
    names.sort_unstable();
    let all = [
        "asid16",
        "ats",
        "bbml",
        "ds",
        "gran16k",
        "gran4k",
        "gran64k",
        "msi",
        "oas",
        "ril",
        "sidsize",
        "ssidsize",
        "stall-model",
        "term-model",
        "ttendian",
        "two-level-contexts",
        "two-level-streams",
        "vax",
    ];
    assert_eq!(names, all);
}

#[test]
fn auto_never_shows_more_than_the_host_has() {
    let idr0 = Idr0::new().with_ttf(2).with_stall_model(0).with_term_model(true);
    let idr5 = Idr5::new().with_gran64k(true).with_oas(2);
    let little = HostCapabilities { idr: [idr0.into_bits(), 0, 0, 0, 0, idr5.into_bits()], ..Default::default() };
    let Features { idr0, idr1, idr3, idr5, disable_stall } = negotiate(&Wishes::default(), &little).unwrap().features;
    assert!(!idr0.ats() && !idr0.asid16() && !idr0.cd2l() && idr0.ttendian() == 0 && idr0.term_model());
    assert_eq!((idr0.stall_model(), disable_stall), (1, true));
    assert_eq!((idr1.ssidsize(), idr3.into_bits()), (0, 0));
    assert_eq!(idr5, Idr5::new().with_gran64k(true).with_oas(2));
}

#[test]
fn a_host_without_stalls_needs_no_s1stalld() {
    let host = with_idr0(|idr0| idr0.with_stall_model(1));
    assert!(!negotiate(&Wishes::default(), &host).unwrap().features.disable_stall);
}

#[test]
fn the_registers_say_what_the_values_say() {
    for host in [host(), bare()] {
        let Negotiation { values, features, .. } = negotiate(&Wishes::default(), &host).unwrap();
        assert_eq!(features.values(), values);
        assert_eq!(Features::new(&values, features.disable_stall), features);
        assert_eq!(values.validate(), Ok(()));
        assert_eq!(check(&values, &host), Ok(()));
    }
}

#[test]
fn what_is_asked_for_and_not_had_is_an_error_that_names_it() {
    let yes = Wish::Exactly(true);
    let wishes = [
        ("ats", Wishes { ats: yes, ..Wishes::default() }),
        ("ril", Wishes { ril: yes, ..Wishes::default() }),
        ("gran16k", Wishes { gran16k: yes, ..Wishes::default() }),
        ("gran64k", Wishes { gran64k: yes, ..Wishes::default() }),
        ("asid16", Wishes { asid16: yes, ..Wishes::default() }),
        ("two-level-contexts", Wishes { two_level_contexts: yes, ..Wishes::default() }),
        ("bbml", Wishes { bbml: Wish::Exactly(1), ..Wishes::default() }),
        ("ssidsize", Wishes { ssidsize: Wish::Exactly(1), ..Wishes::default() }),
        ("oas", Wishes { oas: Wish::Exactly(48), ..Wishes::default() }),
    ];
    for (name, wishes) in &wishes {
        match negotiate(wishes, &bare()) {
            Err(Error::Missing { field, .. }) => assert_eq!(field, *name),
            other => panic!("{name}: {other:?}"),
        }
    }
    let said = |wishes: &Wishes, host| negotiate(wishes, &host).unwrap_err().to_string();
    assert_eq!(said(&wishes[8].1, bare()), "oas=48 cannot be had: the host smmu has 32; use oas=auto");
    assert_eq!(said(&wishes[0].1, bare()), "ats=on cannot be had: the host smmu has off; use ats=auto");
    let odd = Wishes { oas: Wish::Exactly(47), ..Wishes::default() };
    assert_eq!(said(&odd, bare()), "oas=47 is not one of 32, 36, 40, 42, 44, 48, 52");
    let no_ats = HostCapabilities { ats: false, ..host() };
    assert_eq!(
        said(&wishes[0].1, no_ats),
        "ats=on cannot be had: the host smmu's devices, or the ways to them, have off; use ats=auto"
    );
}

#[test]
fn a_stall_model_is_none_and_a_termination_model_may_promise_less() {
    let with = |stall_model, term_model, host: HostCapabilities| {
        let wishes = Wishes { stall_model, term_model, ..Wishes::default() };
        negotiate(&wishes, &host).map(|result| result.values).map_err(|error| error.to_string())
    };
    assert_eq!(with(Wish::Exactly(1), Wish::Auto, host()).unwrap().stall_model, 1);
    assert_eq!(
        with(Wish::Exactly(0), Wish::Auto, host()).unwrap_err(),
        "stall-model=0 is not one of 1: the kernel forwards no stalls, so that a guest can have none"
    );
    assert_eq!(with(Wish::Auto, Wish::Exactly(1), host()).unwrap().term_model, 1, "the host has 0");
    let aborts = with_idr0(|idr0| idr0.with_term_model(true));
    assert_eq!(with(Wish::Auto, Wish::Auto, aborts).unwrap().term_model, 1);
    assert_eq!(
        with(Wish::Auto, Wish::Exactly(0), aborts).unwrap_err(),
        "term-model=0 cannot be had: the host smmu has 1; use term-model=auto"
    );
    assert_eq!(with(Wish::Auto, Wish::Exactly(2), host()).unwrap_err(), "term-model=2 is not one of 0, 1");
}

#[test]
fn ats_and_pasids_are_the_least_of_the_smmu_and_all_devices() {
    let with = |ats, pasid_bits| {
        let device = HostCapabilities { ats, pasid_bits, ..host() };
        negotiate(&Wishes::default(), &host().and(&device)).unwrap()
    };
    let all = with(true, 16);
    assert_eq!((all.values.ats, all.values.ssidsize), (true, 16));
    let none = with(false, 0);
    assert_eq!((none.values.ats, none.values.ssidsize), (false, 0));
    assert_eq!(row(&none.rows, "ats"), shown("off", "off", "not every device, or the way to it, can"));
    assert_eq!(row(&none.rows, "ssidsize"), shown("0", "0", "not every device, or the way to it, can"));
    assert_eq!(row(&negotiate(&Wishes::default(), &bare()).unwrap().rows, "ats").2, "as the host has it");
}

#[test]
fn pasids_fit_a_linear_table_where_there_are_no_others() {
    let result = negotiate(&Wishes::default(), &with_idr0(|idr0| idr0.with_cd2l(false))).unwrap();
    let linear = "what fits a linear table, as there are no 2-level ones";
    assert_eq!(row(&result.rows, "ssidsize"), shown("10", "20", linear));
    let linear_only = Wishes { two_level_contexts: Wish::Exactly(false), ..Wishes::default() };
    assert_eq!(negotiate(&linear_only, &host()).unwrap().values.ssidsize, 10);
    let wishes = Wishes { ssidsize: Wish::Exactly(20), ..Wishes::default() };
    assert_eq!(negotiate(&wishes, &with_idr0(|idr0| idr0.with_cd2l(false))).unwrap().values.ssidsize, 20);
}

#[test]
fn a_device_that_requires_ats_gets_all_of_it_or_is_refused() {
    // arm_smmu_master_prepare_ats: ATS, and S1DSS, which needs SubstreamIDs.
    let requires = |host: HostCapabilities| HostCapabilities { ats_required: true, ..host };
    let values = negotiate(&Wishes::default(), &requires(host())).unwrap().values;
    assert!(values.ats && values.ssidsize > 0);
    let said = |wishes: Wishes, host| negotiate(&wishes, &requires(host)).unwrap_err().to_string();
    let no_ats = said(Wishes { ats: Wish::Exactly(false), ..Wishes::default() }, host());
    assert!(no_ats.starts_with("a device behind it requires ats, ") && no_ats.contains("but ats is off;"), "{no_ats}");
    let no_ssid = said(Wishes { ssidsize: Wish::Exactly(0), ..Wishes::default() }, host());
    assert!(no_ssid.contains("but ssidsize is 0;"), "{no_ssid}");
    assert!(said(Wishes::default(), HostCapabilities { pasid_bits: 0, ..host() }).contains("but ssidsize is 0;"));
    let without = Values { ssidsize: 0, ..values };
    assert_eq!(check(&without, &host()), Ok(()));
    assert_eq!(check(&without, &requires(host())), Err(Mismatch::AtsRequired));
}

#[test]
fn everything_can_be_turned_off_but_the_last_granule() {
    let (no, off) = (Wish::Exactly(false), Wish::Exactly(0));
    let wishes = Wishes {
        ats: no,
        ril: no,
        oas: Wish::Exactly(40),
        ssidsize: off,
        gran4k: Wish::Auto,
        gran16k: no,
        gran64k: no,
        bbml: off,
        asid16: no,
        two_level_streams: no,
        two_level_contexts: no,
        ..Wishes::default()
    };
    let result = negotiate(&wishes, &host()).unwrap();
    let Features { idr0, idr1, idr3, idr5, .. } = result.features;
    assert!(!idr0.ats() && !idr0.asid16() && !idr0.cd2l() && idr0.st_level() == 0 && idr1.ssidsize() == 0);
    assert_eq!((idr3.into_bits(), idr5), (0, Idr5::new().with_gran4k(true).with_oas(2)));
    assert_eq!(row(&result.rows, "gran64k"), shown("off", "on", "asked for"));
    assert_eq!(negotiate(&Wishes { gran4k: no, ..wishes }, &host()), Err(Error::NoGranule));
}

#[test]
fn a_host_that_a_guest_could_not_understand_cannot_be_used() {
    for host in [
        with_idr0(|idr0| idr0.with_ttendian(3)),
        with_idr0(|idr0| idr0.with_stall_model(2)),
        with_idr0(|idr0| idr0.with_ttf(1)),
    ] {
        assert!(matches!(negotiate(&Wishes::default(), &host), Err(Error::Unusable(_))));
        assert!(matches!(negotiate_vacant(&Wishes::default(), Some(&host)), Err(Error::Unusable(_))));
        let values = negotiate(&Wishes::default(), &super::host()).unwrap().values;
        assert!(matches!(check(&values, &host), Err(Mismatch::Unusable(_))));
    }
}

#[test]
fn without_devices_the_smmu_is_shown_but_not_what_devices_must_have() {
    let smmu = HostCapabilities { ats: false, pasid_bits: 0, ..host() };
    let result = negotiate_vacant(&Wishes::default(), Some(&smmu)).unwrap();
    let Values { ats, ssidsize, oas, ril, .. } = result.values;
    assert_eq!((ats, ssidsize, oas, ril), (false, 0, 48, true));
    let reason = "off unless asked for: no device is there that could have it";
    assert_eq!(row(&result.rows, "ats"), shown("off", "on", reason));
    let wishes = Wishes { ats: Wish::Exactly(true), ssidsize: Wish::Exactly(8), ..Wishes::default() };
    let values = negotiate_vacant(&wishes, Some(&smmu)).unwrap().values;
    assert_eq!((values.ats, values.ssidsize), (true, 8));
    assert!(negotiate_vacant(&wishes, Some(&bare())).is_err(), "the smmu itself has no ats");
}

#[test]
fn where_nobody_can_be_asked_the_guest_is_shown_what_every_host_has() {
    let result = negotiate_vacant(&Wishes::default(), None).unwrap();
    let Values { ats, ssidsize, oas, ril, gran4k, gran64k, asid16, .. } = result.values;
    assert_eq!((ats, ssidsize, oas, ril, gran4k, gran64k, asid16), (false, 0, 44, false, true, false, false));
    assert_eq!(row(&result.rows, "oas"), shown("44", "-", "cautious: nobody is there to ask the host"));
    assert_eq!(check(&result.values, &host()), Ok(()));
    let wishes = Wishes { ril: Wish::Exactly(true), ..Wishes::default() };
    let asked = negotiate_vacant(&wishes, None).unwrap();
    assert_eq!(row(&asked.rows, "ril"), shown("on", "-", "asked for; devices that come later must have it"));
    assert_eq!(
        check(&asked.values, &bare()),
        Err(Mismatch::Field { field: "oas", guest: Value::Number(44), host: Value::Number(32) })
    );
}

#[test]
fn a_device_that_comes_later_is_held_against_what_the_guest_was_shown() {
    let frozen = negotiate(&Wishes::default(), &host()).unwrap().values;
    let (no_ats, few_pasids) =
        (HostCapabilities { ats: false, ..host() }, HostCapabilities { pasid_bits: 8, ..host() });
    let mut no_ril = host();
    no_ril.idr[3] = 0;
    let cases = [
        (no_ats, "the guest was shown ats=on, but the host has ats=off here"),
        (few_pasids, "the guest was shown ssidsize=20, but the host has ssidsize=8 here"),
        (no_ril, "the guest was shown ril=on, but the host has ril=off here"),
        (
            with_idr0(|idr0| idr0.with_term_model(true)),
            "the guest was shown term-model=0, but the host has term-model=1 here",
        ),
        (with_idr0(|idr0| idr0.with_asid16(false)), "the guest was shown asid16=on, but the host has asid16=off here"),
    ];
    for (host, message) in cases {
        assert_eq!(check(&frozen, &host).unwrap_err().to_string(), message);
    }
    let mixed = Values { ttendian: 0, ..frozen };
    assert!(check(&mixed, &host()).unwrap_err().to_string().contains("ttendian=0"));
    let little = Values { ats: false, ssidsize: 0, ril: false, bbml: 0, term_model: 1, ..frozen };
    assert_eq!(check(&little, &HostCapabilities { ats: false, pasid_bits: 0, ..no_ril }), Ok(()));
}

#[test]
fn values_from_a_file_are_looked_at() {
    let good = negotiate(&Wishes::default(), &host()).unwrap().values;
    for (values, field) in [
        (Values { oas: 47, ..good }, "oas=47"),
        (Values { ssidsize: 21, ..good }, "ssidsize=21"),
        (Values { bbml: 3, ..good }, "bbml=3"),
        (Values { stall_model: 0, ..good }, "stall-model=0"),
        (Values { term_model: 2, ..good }, "term-model=2"),
        (Values { ttendian: 1, ..good }, "ttendian=1"),
        (Values { vax: 2, ..good }, "vax=2"),
        (Values { gran4k: false, gran16k: false, gran64k: false, ..good }, "no granule"),
    ] {
        let said = values.validate().unwrap_err().to_string();
        assert!(said.starts_with(field), "{said}");
    }
}

#[test]
fn an_address_size_that_nobody_knows_counts_as_the_kernels() {
    let mut unknown = host();
    unknown.idr[5] |= 7;
    let result = negotiate(&Wishes::default(), &unknown).unwrap();
    assert_eq!((result.values.oas, result.features.idr5.oas()), (48, 5));
}
