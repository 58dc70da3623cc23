//! Section 6.3.1 and on: what the identification registers show, and why.

use super::*;
use crate::smmuv3::capabilities::{Error, Row};
use crate::smmuv3::physical::HostCapabilities;

fn row(rows: &[Row], field: &str) -> (u64, Option<u64>, &'static str) {
    let row = rows.iter().find(|row| row.field == field).unwrap();
    (row.guest, row.host, row.reason)
}

#[test]
fn auto_takes_what_the_host_has_and_says_so() {
    let result = negotiate(&Wishes::default(), &host()).unwrap();
    assert_eq!(row(&result.rows, "ril"), (1, Some(1), "as the host has it"));
    assert_eq!(row(&result.rows, "oas"), (48, Some(48), "as the host has it"));
    assert_eq!(row(&result.rows, "ats"), (0, Some(1), "off unless asked for"));
    assert_eq!(row(&result.rows, "ssidsize"), (0, Some(20), "off unless asked for"));
    assert_eq!(row(&result.rows, "sidsize"), (16, None, "done by nestling"));
    assert_eq!(result.features.oas_bits(), 48);
    let text = result.rows.iter().find(|row| row.field == "ats").unwrap().to_string();
    assert_eq!(text, "ats: guest 0 host 1 (off unless asked for)");
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
    let mut host = host();
    host.idr[0] = Idr0::from_bits(host.idr[0]).with_stall_model(1).into_bits();
    assert!(!negotiate(&Wishes::default(), &host).unwrap().features.disable_stall);
}

#[test]
fn what_is_asked_for_and_not_had_is_an_error_that_names_it() {
    let bare = HostCapabilities {
        idr: [Idr0::new().with_ttf(2).into_bits(), 0, 0, 0, 0, Idr5::new().with_gran4k(true).into_bits()],
        ..Default::default()
    };
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
    for (name, wishes) in wishes {
        match negotiate(&wishes, &bare) {
            Err(Error::Missing { field, .. }) => assert_eq!(field, name),
            other => panic!("{name}: {other:?}"),
        }
    }
    let error = negotiate(&wishes[8].1, &bare).unwrap_err().to_string();
    assert_eq!(error, "oas=48 is more than the host smmu has (32); use oas=auto");
    let error = negotiate(&Wishes { oas: Wish::Exactly(47), ..Wishes::default() }, &bare).unwrap_err().to_string();
    assert_eq!(error, "oas=47 is not one of 32, 36, 40, 42, 44, 48, 52");
}

#[test]
fn ats_needs_the_devices_too() {
    let host = HostCapabilities { ats: false, ..host() };
    assert!(negotiate(&Wishes { ats: Wish::Exactly(true), ..Wishes::default() }, &host).is_err());
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
    };
    let result = negotiate(&wishes, &host()).unwrap();
    let Features { idr0, idr3, idr5, .. } = result.features;
    assert!(!idr0.asid16() && !idr0.cd2l() && idr0.st_level() == 0);
    assert_eq!((idr3.into_bits(), idr5), (0, Idr5::new().with_gran4k(true).with_oas(2)));
    assert_eq!(row(&result.rows, "gran64k"), (0, Some(1), "asked for"));
    assert_eq!(negotiate(&Wishes { gran4k: no, ..wishes }, &host()), Err(Error::NoGranule));
}

#[test]
fn a_host_that_a_guest_could_not_understand_cannot_be_used() {
    let mut host = host();
    host.idr[0] = Idr0::from_bits(host.idr[0]).with_ttendian(3).into_bits();
    assert!(matches!(negotiate(&Wishes::default(), &host), Err(Error::Unusable(_))));
    host.idr[0] = Idr0::from_bits(host.idr[0]).with_ttendian(2).with_stall_model(2).into_bits();
    assert!(matches!(negotiate(&Wishes::default(), &host), Err(Error::Unusable(_))));
    host.idr[0] = Idr0::from_bits(host.idr[0]).with_stall_model(0).with_ttf(1).into_bits();
    assert!(matches!(negotiate(&Wishes::default(), &host), Err(Error::Unusable(_))));
}
