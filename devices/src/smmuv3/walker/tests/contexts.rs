//! IHI 0070, sections 5.3 to 5.5: context descriptor tables and what makes a descriptor illegal.

use super::*;

const IOVA: u64 = 0x7000;

/// A guest that maps [`DATA`] plus one page per substream at [`IOVA`], in tables of its own for each.
struct Substreams {
    guest: Guest,
    tables: Tables,
}

impl Substreams {
    fn new() -> Self {
        let guest = Guest::new();
        let mut tables = super::tables(&guest, 12, 48);
        tables.map(IOVA, DATA, RW);
        Self { guest, tables }
    }

    /// Writes a descriptor whose [`IOVA`] is page `page` of [`DATA`].
    fn write(&self, at: u64, page: u64) {
        let root = TABLES + 0x40_0000 + page * 0x8_0000;
        let mut tables = Tables { root, next: root + 0x1_0000, ..self.tables.clone() };
        tables.map(IOVA, DATA + (page << 12), RW);
        self.guest.poke(DATA + (page << 12), &[page]);
        self.guest.write_cd(at, cd0(&tables).with_asid(page as u16), root, 0);
    }

    fn read(&self, substream_id: Option<u32>) -> Result<u64, DmaError> {
        read(&self.guest.port.with_substream(substream_id), IOVA)
    }
}

#[test]
fn without_substreams_one_descriptor_serves() {
    let test = Substreams::new();
    test.write(CD, 3);
    test.guest.install(Ste0::new(), Ste1::new());
    assert_eq!(test.read(None), Ok(3));
    assert!(test.read(Some(0)).is_err());
    let head = EventHead::from_bits(test.guest.event()[0]);
    assert_eq!((head.event(), head.ssv(), head.substream_id()), (number::C_BAD_SUBSTREAMID, true, 0));
}

#[test]
fn a_linear_table_is_indexed_by_the_substream() {
    let test = Substreams::new();
    test.write(CD + 64 * 5, 5);
    test.write(CD + 64 * 7, 7);
    test.guest.install(Ste0::new().with_s1cdmax(3), Ste1::new());
    assert_eq!((test.read(Some(5)), test.read(Some(7))), (Ok(5), Ok(7)));
    assert!(test.read(Some(8)).is_err());
    let head = EventHead::from_bits(test.guest.event()[0]);
    assert_eq!((head.event(), head.ssv(), head.substream_id()), (number::C_BAD_SUBSTREAMID, true, 8));
    assert_eq!(head.stream_id(), STREAM);
}

#[test]
fn two_level_tables_have_leaves_of_64_or_1024_descriptors() {
    for (format, bits) in [(1, 6), (2, 10)] {
        let test = Substreams::new();
        let leaf = MEMORY + 0x2_0000;
        test.guest.poke(CD + 8 * 2, &[L1Cd::new().with_v(true).with_l2ptr(leaf >> 12).into_bits()]);
        test.write(leaf + 64 * 33, 9);
        test.guest.install(Ste0::new().with_s1cdmax(20).with_s1fmt(format), Ste1::new());
        assert_eq!(test.read(Some(2 << bits | 33)), Ok(9), "format {format}");
        assert!(test.read(Some(1 << bits)).is_err());
        assert_eq!(test.guest.event_number(), number::C_BAD_SUBSTREAMID, "no leaf");
        test.guest.poke(CD + 8, &[L1Cd::new().with_v(true).with_l2ptr(NOWHERE >> 12).into_bits()]);
        assert!(test.read(Some(1 << bits | 1)).is_err());
        let record = test.guest.event();
        assert_eq!((record[0] as u8, record[3]), (number::F_CD_FETCH, NOWHERE + 64));
    }
}

#[test]
fn s1dss_decides_on_transactions_without_a_substream() {
    let test = Substreams::new();
    test.write(CD, 1);
    test.write(CD + 64, 2);
    test.guest.poke(DATA, &[77]);
    let install = |s1dss| test.guest.install(Ste0::new().with_s1cdmax(1), Ste1::new().with_s1dss(s1dss));
    install(0);
    assert!(test.read(None).is_err());
    assert_eq!(test.guest.event_number(), number::F_STREAM_DISABLED);
    assert_eq!((test.read(Some(0)), test.read(Some(1))), (Ok(1), Ok(2)));
    install(1);
    assert_eq!(read(&test.guest.port, DATA), Ok(77), "bypass");
    assert_eq!((test.read(Some(0)), test.read(Some(1))), (Ok(1), Ok(2)));
    install(2);
    assert_eq!((test.read(None), test.read(Some(1))), (Ok(1), Ok(2)));
    assert!(test.read(Some(0)).is_err());
    let head = EventHead::from_bits(test.guest.event()[0]);
    assert_eq!((head.event(), head.ssv(), head.substream_id()), (number::F_STREAM_DISABLED, true, 0));
}

#[test]
fn a_descriptor_outside_of_memory_is_a_cd_fetch_fault() {
    let guest = Guest::new();
    let ste0 = Ste0::new().with_v(true).with_config(0b101).with_s1contextptr(NOWHERE >> 6);
    guest.smmu.install(STREAM, StreamConfig::Stage1(Stage1([ste0.into_bits(), 0]))).unwrap();
    assert!(guest.read(IOVA).is_err());
    assert_eq!(guest.event(), [u64::from(STREAM) << 32 | u64::from(number::F_CD_FETCH), 0, 0, NOWHERE]);
}

#[test]
fn an_illegal_descriptor_is_a_bad_cd() {
    let test = Substreams::new();
    let legal = cd0(&test.tables);
    let root = test.tables.root;
    let illegal = [
        ("V", legal.with_v(false), root),
        ("VMSAv8-32", legal.with_aa64(false), root),
        ("stall", legal.with_s(true), root),
        ("T0SZ too small", legal.with_t0sz(15), root),
        ("T0SZ too large", legal.with_t0sz(40), root),
        ("TG0 reserved", legal.with_tg0(3), root),
        ("TTB0 beyond IPS", legal.with_ips(0), 1 << 32),
        ("TTB0 beyond 48 bits", legal.with_ips(6), 1 << 48),
        ("TG1 reserved", legal.with_epd1(false).with_t1sz(16).with_tg1(0), root),
        ("T1SZ too small", legal.with_epd1(false).with_t1sz(0).with_tg1(2), root),
    ];
    for (what, cd0, ttb0) in illegal {
        test.guest.write_cd(CD, cd0, ttb0, 0);
        test.guest.install(Ste0::new(), Ste1::new());
        assert!(test.guest.read(IOVA).is_err(), "{what}");
        assert_eq!(test.guest.event(), [u64::from(STREAM) << 32 | u64::from(number::C_BAD_CD), 0, 0, 0], "{what}");
    }
    // What is not walked may hold anything.
    let unused = legal.with_epd0(true).with_t0sz(0).with_tg0(3).with_t1sz(63);
    test.guest.write_cd(CD, unused, 1 << 48, 1 << 48);
    assert!(test.guest.read(IOVA).is_err());
    assert_eq!(test.guest.event_number(), number::F_TRANSLATION);
}

#[test]
fn what_the_guest_was_not_shown_makes_a_descriptor_illegal() {
    let guest = Guest::new();
    let tables = super::tables(&guest, 14, 48);
    let legal = cd0(&tables).with_a(false);
    type Change = fn(&mut Features);
    let tests: [(&str, Change); 4] = [
        ("16 KiB granule", |features| features.idr5.set_gran16k(false)),
        ("little-endian tables only", |features| features.idr0.set_ttendian(2)),
        ("CD.A is always 1", |features| features.idr0.set_term_model(true)),
        ("nothing", |_| {}),
    ];
    for (what, change) in tests {
        let mut features = everything();
        change(&mut features);
        let guest = Guest::with_features(features);
        guest.use_cd(legal.with_endi(true), tables.root, 0);
        let bad = guest.read(IOVA).is_err();
        assert_eq!(bad, what != "nothing", "{what}");
        let expected = if bad { number::C_BAD_CD } else { number::F_TRANSLATION };
        assert_eq!(guest.event_number(), expected, "{what}");
    }
}

#[test]
fn an_asid_of_8_bits_has_no_more() {
    let mut features = everything();
    features.idr0.set_asid16(false);
    let guest = Guest::with_features(features);
    let mut tables = super::tables(&guest, 12, 48);
    tables.map(IOVA, DATA, RW);
    guest.use_cd(cd0(&tables).with_asid(0xab07), tables.root, 0);
    assert!(guest.reaches(IOVA, DATA));
    tables.map(IOVA, DATA + 0x1000, RW);
    guest.invalidate(tlbi_asid(7));
    assert!(guest.reaches(IOVA, DATA + 0x1000));
}

#[test]
fn descriptors_stay_cached_until_they_are_invalidated() {
    let test = Substreams::new();
    test.write(CD, 0);
    test.write(CD + 64, 1);
    test.guest.install(Ste0::new().with_s1cdmax(1), Ste1::new().with_s1dss(0));
    assert_eq!((test.read(Some(0)), test.read(Some(1))), (Ok(0), Ok(1)));
    // Both are to be others, with ASIDs of their own.
    test.write(CD, 2);
    test.write(CD + 64, 3);
    assert_eq!((test.read(Some(0)), test.read(Some(1))), (Ok(0), Ok(1)));
    test.guest.invalidate(cfgi_cd(1));
    assert_eq!((test.read(Some(0)), test.read(Some(1))), (Ok(0), Ok(3)));
    test.guest.invalidate(Cfgi::from_bits(cfgi_cd_all()).with_stream_id(STREAM + 1).into_bits());
    assert_eq!(test.read(Some(0)), Ok(0), "another stream");
    test.guest.invalidate(cfgi_cd_all());
    assert_eq!((test.read(Some(0)), test.read(Some(1))), (Ok(2), Ok(3)));
    assert_eq!(test.guest.stats().context_fetches, 5);
}

#[test]
fn a_new_configuration_forgets_the_descriptors_of_the_old() {
    let test = Substreams::new();
    test.write(CD, 1);
    test.guest.install(Ste0::new(), Ste1::new());
    assert_eq!(test.read(None), Ok(1));
    test.write(CD, 2);
    test.guest.install(Ste0::new(), Ste1::new());
    assert_eq!(test.read(None), Ok(1), "it is the same configuration");
    test.guest.install(Ste0::new(), Ste1::new().with_s1cir(1));
    assert_eq!(test.read(None), Ok(2));
}

#[test]
fn the_number_of_cached_descriptors_is_bounded() {
    let test = Substreams::new();
    let count = super::super::streams::CONTEXTS as u64 + 10;
    for i in 0..count {
        test.guest.write_cd(CD + 64 * i, cd0(&test.tables), test.tables.root, 0);
    }
    test.guest.install(Ste0::new().with_s1cdmax(16), Ste1::new());
    for i in (0..count).rev() {
        assert!(test.read(Some(i as u32)).is_ok());
    }
    assert_eq!(test.guest.stats().context_fetches, count);
    assert!(test.read(Some(count as u32 - 1)).is_ok());
    assert!(test.guest.stats().context_fetches <= count + 1);
}
