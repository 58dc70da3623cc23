//! IHI 0070, section 4.4: what each command takes out of the IOTLB, and what it leaves there.

use super::*;

const IOVA: u64 = 0x10_0000;
const PAGES: u64 = 8;

/// Pages from [`IOVA`] on are cached, global in every second, and then moved by 1 MiB: what is not invalidated is seen
/// at its old place.
fn cached(page: u8) -> (Guest, Tables) {
    let guest = Guest::new();
    let mut tables = super::tables(&guest, page, 40);
    let attributes = |i| if i % 2 == 0 { RW } else { RW & !NG };
    for i in 0..PAGES {
        tables.map(IOVA + (i << page), DATA + (i << page), attributes(i));
        guest.poke(DATA + (i << page), &[i]);
    }
    guest.use_cd(cd0(&tables), tables.root, 0);
    assert_eq!(seen(&guest, page), [0, 1, 2, 3, 4, 5, 6, 7]);
    for i in 0..PAGES {
        tables.map(IOVA + (i << page), DATA + 0x10_0000 + (i << page), attributes(i));
        guest.poke(DATA + 0x10_0000 + (i << page), &[i + 100]);
    }
    assert_eq!(seen(&guest, page), [0, 1, 2, 3, 4, 5, 6, 7], "all are cached");
    (guest, tables)
}

fn seen(guest: &Guest, page: u8) -> Vec<u64> {
    (0..PAGES).map(|i| guest.read(IOVA + (i << page)).unwrap()).collect()
}

/// What is seen after a command: the numbers of the pages that are new.
fn gone(page: u8, command: u128) -> Vec<u64> {
    let (guest, _) = cached(page);
    guest.invalidate(command);
    seen(&guest, page).into_iter().filter_map(|number| number.checked_sub(100)).collect()
}

const ALL: [u64; 8] = [0, 1, 2, 3, 4, 5, 6, 7];
const NONE: [u64; 0] = [];

#[test]
fn all_of_them_go_with_nh_all_and_nsnh_all() {
    for page in [12, 14, 16] {
        assert_eq!(gone(page, opcode::TLBI_NH_ALL.into()), ALL);
        assert_eq!(gone(page, opcode::TLBI_NSNH_ALL.into()), ALL);
    }
}

#[test]
fn an_asid_loses_what_is_its_own() {
    assert_eq!(gone(12, tlbi_asid(ASID)), [0, 2, 4, 6], "global ones stay");
    assert_eq!(gone(12, tlbi_asid(ASID + 1)), NONE);
}

#[test]
fn an_address_goes_with_its_asid_or_if_it_is_global() {
    for page in [12, 14, 16] {
        let at = |i: u64| IOVA + (i << page);
        assert_eq!(gone(page, tlbi_va(ASID, at(2))), [2]);
        assert_eq!(gone(page, tlbi_va(ASID + 1, at(2))), NONE);
        assert_eq!(gone(page, tlbi_va(ASID + 1, at(3))), [3], "global");
        assert_eq!(gone(page, tlbi_va(ASID, at(3))), [3]);
        assert_eq!(gone(page, tlbi_vaa(at(4))), [4]);
        assert_eq!(gone(page, tlbi_vaa(at(5))), [5]);
        assert_eq!(gone(page, tlbi_vaa(IOVA - 0x1000)), NONE);
        assert_eq!(gone(page, tlbi_vaa(at(PAGES))), NONE);
    }
    // Any address of a page will do.
    assert_eq!(gone(16, tlbi_va(ASID, IOVA + 0x2_5000)), [2]);
}

#[test]
fn a_range_counts_pages_of_its_granule() {
    for (page, tg) in [(12, 1), (14, 2), (16, 3)] {
        let range = |first: u64, num: u8, scale: u8| {
            let command = Tlbi::from_bits(tlbi_va(ASID, IOVA + (first << page)));
            command.with_tg(tg).with_num(num).with_scale(scale).with_ttl(3).into_bits()
        };
        assert_eq!(gone(page, range(2, 0, 0)), [2]);
        assert_eq!(gone(page, range(2, 2, 0)), [2, 3, 4]);
        assert_eq!(gone(page, range(0, 1, 1)), [0, 1, 2, 3]);
        assert_eq!(gone(page, range(3, 31, 31)), [3, 4, 5, 6, 7], "to the end of all addresses");
        assert_eq!(gone(page, Tlbi::from_bits(range(1, 31, 63)).with_asid(9).into_bits()), [1, 3, 5, 7]);
    }
}

#[test]
fn a_block_goes_with_any_address_in_it() {
    let guest = Guest::new();
    let mut tables = super::tables(&guest, 12, 48);
    let block = DATA & !0x1f_ffff;
    tables.put(0x4020_0000, 2, block | RW | BLOCK);
    guest.use_cd(cd0(&tables), tables.root, 0);
    guest.poke(block + 0x8000, &[1]);
    guest.poke(block + 0x20_8000, &[2]);
    assert_eq!(guest.read(0x4020_8000), Ok(1));
    tables.put(0x4020_0000, 2, (block + 0x20_0000) | RW | BLOCK);
    guest.invalidate(tlbi_va(ASID, 0x401f_f000));
    guest.invalidate(tlbi_va(ASID, 0x4040_0000));
    assert_eq!(guest.read(0x4020_8000), Ok(1));
    guest.invalidate(tlbi_va(ASID, 0x403f_f000));
    assert_eq!(guest.read(0x4020_8000), Ok(2));
}

#[test]
fn a_contiguous_group_goes_with_any_page_of_it() {
    let guest = Guest::new();
    let mut tables = super::tables(&guest, 12, 48);
    for i in 0..16 {
        tables.map(0x2_0000 + (i << 12), DATA + (i << 12), RW | CONTIGUOUS);
    }
    guest.use_cd(cd0(&tables), tables.root, 0);
    assert!(guest.reaches(0x2_3000, DATA + 0x3000));
    tables.put(0x2_3000, 3, 0);
    guest.invalidate(tlbi_va(ASID, 0x2_3000));
    assert!(guest.read(0x2_3000).is_err());
    assert!(guest.reaches(0x2_4000, DATA + 0x4000));
}

#[test]
fn addresses_of_both_regions_are_told_apart() {
    let guest = Guest::new();
    let mut low = tables(&guest, 12, 48);
    let mut high = Tables { root: TABLES + 0x80_0000, next: TABLES + 0x81_0000, ..low.clone() };
    low.map(0x5000, DATA, RW);
    high.map(0x5000, DATA + 0x1000, RW);
    let both = cd0(&low).with_epd1(false).with_t1sz(16).with_tg1(2).with_tbi1(true);
    guest.use_cd(both, low.root, high.root);
    let top = 0xffff << 48 | 0x5000;
    assert!(guest.reaches(0x5000, DATA) && guest.reaches(top, DATA + 0x1000));
    high.map(0x5000, DATA + 0x2000, RW);
    low.map(0x5000, DATA + 0x3000, RW);
    guest.invalidate(tlbi_va(ASID, 0x5000));
    assert!(guest.reaches(0x5000, DATA + 0x3000) && guest.reaches(top, DATA + 0x1000));
    guest.invalidate(tlbi_va(ASID, top));
    assert!(guest.reaches(top, DATA + 0x2000));
    assert!(guest.reaches(top & !(0xff << 56), DATA + 0x2000), "TBI1: the same translation");
    assert_eq!(guest.stats().walks, 4);
}

#[test]
fn a_translation_belongs_to_its_asid_and_a_global_one_to_all() {
    let (guest, mut tables) = one_page(0x5000, RW);
    tables.map(0x6000, DATA + 0x1000, RW & !NG);
    assert!(guest.reaches(0x5000, DATA) && guest.reaches(0x6000, DATA + 0x1000));
    tables.map(0x5000, DATA + 0x2000, RW);
    tables.map(0x6000, DATA + 0x3000, RW & !NG);
    guest.write_cd(CD, cd0(&tables).with_asid(8), tables.root, 0);
    guest.invalidate(cfgi_cd_all());
    assert!(guest.reaches(0x5000, DATA + 0x2000), "of another ASID");
    assert!(guest.reaches(0x6000, DATA + 0x1000), "of any");
    guest.write_cd(CD, cd0(&tables), tables.root, 0);
    guest.invalidate(cfgi_cd_all());
    assert!(guest.reaches(0x5000, DATA), "still cached");
}

#[test]
fn more_permission_needs_no_invalidation() {
    let (guest, mut tables) = one_page(0x5000, RW | READ_ONLY);
    assert!(guest.reaches(0x5000, DATA));
    assert!(guest.port.dma_write(0x5000, &[1]).is_err());
    tables.map(0x5000, DATA, RW);
    assert_eq!(guest.port.dma_write(0x5000, &[1]), Ok(()), "a fault is only told after a look at the tables");
    // Less does.
    tables.map(0x5000, DATA, RW | READ_ONLY);
    assert_eq!(guest.port.dma_write(0x5000, &[1]), Ok(()));
    guest.invalidate(tlbi_va(ASID, 0x5000));
    assert!(guest.port.dma_write(0x5000, &[1]).is_err());
}

#[test]
fn faults_are_not_cached() {
    let (guest, mut tables) = one_page(0x5000, RW);
    assert!(guest.read(0x6000).is_err());
    tables.map(0x6000, DATA, NG | USER);
    assert!(guest.read(0x6000).is_err(), "no access flag");
    tables.map(0x6000, DATA, RW);
    assert!(guest.reaches(0x6000, DATA));
}

#[test]
fn the_iotlb_is_bounded() {
    let guest = Guest::new();
    let mut tables = super::tables(&guest, 12, 48);
    let count = super::super::iotlb::CAPACITY as u64 + 300;
    for i in 0..count {
        tables.map(i << 12, DATA, RW);
    }
    guest.use_cd(cd0(&tables), tables.root, 0);
    for i in 0..count {
        assert!(guest.read(i << 12).is_ok());
    }
    assert_eq!(guest.smmu.lock().iotlb.len(), super::super::iotlb::CAPACITY);
    assert_eq!(guest.stats().walks, count);
    // The most recent are there.
    for i in count - 300..count {
        assert!(guest.read(i << 12).is_ok());
    }
    assert_eq!(guest.stats().walks, count);
}

#[test]
fn an_atc_invalidation_has_nothing_to_do() {
    assert_eq!(gone(12, u128::from(opcode::ATC_INV) | u128::from(STREAM) << 32 | 52 << 64), NONE);
}
