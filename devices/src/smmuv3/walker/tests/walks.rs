//! Arm ARM DDI 0487, chapter D8, as far as IHI 0070 takes it over.

use super::*;

const IOVA: u64 = 0x12_3456_7000;

fn guest_with(page: u8, bits: u8) -> (Guest, Tables) {
    let guest = Guest::new();
    let tables = super::tables(&guest, page, bits);
    (guest, tables)
}

#[test]
fn a_page_is_found_with_every_granule_and_every_width_of_addresses() {
    for page in [12, 14, 16] {
        for bits in 25..=48 {
            let (guest, mut tables) = guest_with(page, bits);
            // The last page but one of the region.
            let iova = (1u64 << bits) - (2 << page);
            tables.map(iova, DATA, RW);
            guest.use_cd(cd0(&tables), tables.root, 0);
            assert!(guest.reaches(iova + 0x128, DATA + 0x128), "granule {page}, {bits} bits");
            assert!(guest.read(iova + (1 << page)).is_err(), "the next page is not mapped");
        }
    }
}

#[test]
fn a_block_translates_all_of_itself() {
    // Levels where blocks are, and their sizes (table D8-17).
    for (page, level, size) in [(12, 1, 30), (12, 2, 21), (14, 2, 25), (16, 2, 29)] {
        let (guest, mut tables) = guest_with(page, 48);
        tables.put(0, level, DATA & !((1 << size) - 1) | RW | BLOCK);
        guest.use_cd(cd0(&tables), tables.root, 0);
        let offset = DATA & ((1 << size) - 1);
        assert!(guest.reaches(offset, DATA), "granule {page}, level {level}");
        guest.read((1 << size) - 8).ok();
        assert_eq!(guest.stats().walks, 1, "one translation is enough");
    }
}

#[test]
fn a_block_at_a_level_that_has_none_is_a_translation_fault() {
    for (page, bits, level) in
        [(12, 48, 0), (14, 48, 1), (14, 48, 0), (16, 48, 1), (12, 48, 3), (14, 48, 3), (16, 48, 3)]
    {
        let (guest, mut tables) = guest_with(page, bits);
        tables.put(0, level, RW | BLOCK);
        guest.use_cd(cd0(&tables), tables.root, 0);
        assert!(guest.read(0).is_err());
        assert_eq!(guest.event_number(), number::F_TRANSLATION, "granule {page}, level {level}");
    }
}

#[test]
fn the_upper_region_is_walked_from_ttb1() {
    let (guest, mut tables) = guest_with(14, 40);
    let iova = !0 << 40 | 0x12_3456_8000;
    tables.map(iova, DATA, RW);
    let both = cd0(&tables).with_epd0(true).with_epd1(false).with_t1sz(24).with_tg1(1);
    guest.use_cd(both, 0, tables.root);
    assert!(guest.reaches(iova + 0x2008, DATA + 0x2008));
    assert!(guest.read(iova & !(1 << 40)).is_err(), "outside of 40 bits");
    assert!(guest.read(0x12_3456_8000).is_err(), "TTB0 is not walked");
    let records = guest.events();
    assert_eq!(records.len(), 2);
}

#[test]
fn the_top_byte_is_ignored_where_tbi_says_so() {
    let (guest, mut tables) = guest_with(12, 48);
    tables.map(IOVA, DATA, RW);
    guest.use_cd(cd0(&tables), tables.root, 0);
    assert!(guest.read(IOVA | 0xab << 56).is_err());
    assert_eq!(guest.event()[2], IOVA | 0xab << 56, "as the device gave it");
    guest.write_cd(CD, cd0(&tables).with_tbi0(true), tables.root, 0);
    guest.invalidate(cfgi_cd_all());
    assert!(guest.reaches(IOVA | 0xab << 56, DATA));
    assert!(guest.read(IOVA | 1 << 55).is_err(), "bit 55 selects the region");
    assert!(guest.read(IOVA | 1 << 50).is_err(), "outside of 48 bits");
}

#[test]
fn big_endian_tables_are_read_as_such() {
    let guest = Guest::new();
    let mut tables = Tables { big_endian: true, ..tables(&guest, 12, 39) };
    tables.map(IOVA, DATA, RW);
    guest.use_cd(cd0(&tables), tables.root, 0);
    assert!(guest.reaches(IOVA + 8, DATA + 8));
}

#[test]
fn a_table_takes_permissions_away_from_all_below_it() {
    // Bit of the level 1 table descriptor, and which of privileged read, write, fetch, unprivileged read, write, fetch
    // are left of a mapping that allows all but the fetch with privilege (writable without privilege).
    let cases = [
        (0, [true, true, false, true, true, true]),
        (1 << 61, [true, true, true, false, false, true]),
        (1 << 62, [true, false, true, true, false, true]),
        (1 << 59, [true, true, false, true, true, true]),
        (1 << 60, [true, true, false, true, true, false]),
    ];
    for hierarchical in [true, false] {
        for (bit, left) in cases {
            let mut features = everything();
            features.idr3.set_had(true);
            let guest = Guest::with_features(features);
            let mut tables = super::tables(&guest, 12, 48);
            tables.map(IOVA, DATA, RW);
            let slot = tables.slot(IOVA, 1);
            tables.write(slot, tables.read(slot) | bit);
            guest.use_cd(cd0(&tables), tables.root, 0);
            guest.poke(CD + 8, &[CdTable::new().with_ttb(tables.root >> 4).with_had(!hierarchical).into_bits()]);
            let (user, fetch) = (guest.port.clone(), guest.port.with_execution(true));
            let (supervisor, sfetch) = (user.with_privilege(true), fetch.with_privilege(true));
            let found = [
                read(&supervisor, IOVA).is_ok(),
                supervisor.dma_write(IOVA, &[0]).is_ok(),
                read(&sfetch, IOVA).is_ok(),
                read(&user, IOVA).is_ok(),
                user.dma_write(IOVA, &[0]).is_ok(),
                read(&fetch, IOVA).is_ok(),
            ];
            let expected = if hierarchical { left } else { cases[0].1 };
            assert_eq!(found, expected, "bit {bit:#x}, hierarchical {hierarchical}");
        }
    }
}

#[test]
fn execution_is_forbidden_by_pxn_uxn_wxn_and_by_being_writable() {
    // Attributes, CD.WXN, fetch with and without privilege.
    let cases = [
        (AF | NG, false, true, true),
        (AF | NG | PXN, false, false, true),
        (AF | NG | UXN, false, true, false),
        (AF | NG | USER, false, false, true),
        (AF | NG | USER | READ_ONLY, false, true, true),
        (AF | NG, true, false, true),
        (AF | NG | USER, true, false, false),
        (AF | NG | USER | READ_ONLY, true, true, true),
    ];
    for (attributes, wxn, privileged, unprivileged) in cases {
        let (guest, tables) = one_page(IOVA, attributes);
        guest.use_cd(cd0(&tables).with_wxn(wxn), tables.root, 0);
        let fetch = guest.port.with_execution(true);
        let found = (read(&fetch.with_privilege(true), IOVA).is_ok(), read(&fetch, IOVA).is_ok());
        assert_eq!(found, (privileged, unprivileged), "{attributes:#x} {wxn}");
    }
}

#[test]
fn privileged_access_never_keeps_privilege_from_what_users_can_reach() {
    let (guest, tables) = one_page(IOVA, RW);
    guest.use_cd(cd0(&tables).with_pan(true), tables.root, 0);
    assert!(guest.read(IOVA).is_ok());
    assert!(read(&guest.port.with_privilege(true), IOVA).is_err());
    assert_eq!(guest.event_number(), number::F_PERMISSION);
}

#[test]
fn a_contiguous_group_is_one_translation() {
    // Granule, level, entries (table D8-19).
    for (page, level, entries) in [(12, 3, 16u64), (12, 2, 16), (14, 3, 128), (14, 2, 32), (16, 3, 32)] {
        let (guest, mut tables) = guest_with(page, 48);
        let size = 1u64 << tables.shift(level);
        let kind = if level == 3 { PAGE } else { BLOCK };
        let start = entries * size;
        for i in 0..entries {
            tables.put(start + i * size, level, (i * size) | RW | CONTIGUOUS | kind);
        }
        guest.use_cd(cd0(&tables), tables.root, 0);
        for i in [0, 1, entries / 2, entries - 1] {
            // Most of it is no memory; that it is translated is seen in the error.
            let expected = Err(DmaError::NoMemory { iova: start + i * size, address: i * size });
            let found = guest.read(start + i * size);
            assert!(found == expected || (MEMORY..MEMORY + MEMORY_SIZE as u64).contains(&(i * size)));
        }
        assert_eq!(guest.stats().walks, 1, "granule {page}, level {level}");
    }
}

#[test]
fn the_contiguous_bit_of_a_group_that_is_none_is_not_believed() {
    let (guest, mut tables) = guest_with(12, 48);
    for i in 0..16 {
        tables.map(IOVA & !0xffff | i << 12, DATA + (i << 12), RW | CONTIGUOUS);
    }
    // One is elsewhere, and one is not mapped.
    tables.map(IOVA & !0xffff | 3 << 12, DATA + 0x10_0000, RW | CONTIGUOUS);
    tables.put(IOVA & !0xffff | 4 << 12, 3, 0);
    guest.use_cd(cd0(&tables), tables.root, 0);
    let base = IOVA & !0xffff;
    assert!(guest.reaches(base, DATA));
    assert!(guest.reaches(base | 3 << 12, DATA + 0x10_0000));
    assert!(guest.read(base | 4 << 12).is_err());
    assert!(guest.reaches(base | 5 << 12, DATA + 0x5000));
    assert_eq!(guest.stats().walks, 4);
}

#[test]
fn a_first_table_smaller_than_a_group_has_no_groups() {
    // Two blocks of 1 GiB in a first table of two entries.
    let (guest, mut tables) = guest_with(12, 31);
    tables.put(0, 1, MEMORY & !0x3fff_ffff | RW | CONTIGUOUS | BLOCK);
    guest.use_cd(cd0(&tables), tables.root, 0);
    assert!(guest.reaches(DATA & 0x3fff_ffff, DATA));
    assert!(guest.read(0x4000_0000).is_err());
}

#[test]
fn reserved_bits_and_those_for_software_do_not_matter() {
    let (guest, _) = one_page(IOVA, RW | 0xf << 55 | 0xf << 48 | 1 << 51 | 0b11 << 8 | 1 << 5 | 0b111 << 2);
    assert!(guest.reaches(IOVA, DATA));
}

#[test]
fn an_address_wider_than_ips_is_an_address_size_fault() {
    // In a table, in a block, in a page; IPS says 32 bits.
    for level in [0, 1, 2, 3] {
        let (guest, mut tables) = guest_with(12, 48);
        tables.map(IOVA, DATA, RW);
        let kind = match level {
            0 => TABLE,
            1 | 2 => BLOCK,
            _ => PAGE,
        };
        tables.put(IOVA, level, 1 << 32 | RW | kind);
        guest.use_cd(cd0(&tables).with_ips(0), tables.root, 0);
        assert!(guest.read(IOVA).is_err());
        assert_eq!(guest.event_number(), number::F_ADDR_SIZE, "level {level}");
    }
    // IPS is not more than the SMMU has (48 bits); the descriptor has no more anyway.
    let (guest, tables) = one_page(IOVA, RW);
    guest.use_cd(cd0(&tables).with_ips(7), tables.root, 0);
    assert!(guest.reaches(IOVA, DATA));
}
