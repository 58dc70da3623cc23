//! What Linux 7.3 makes: context descriptors (`arm_smmu_make_s1_cd`), tables (drivers/iommu/io-pgtable-arm.c, stage 1, and
//! the contiguous hints of drivers/iommu/generic_pt), and invalidations of a range (`arm_smmu_cmdq_batch_add_range`).

use super::*;

/// AttrIndx write-back, inner shareable, AF, nG, for devices; no execution.
const PROT: u64 = 1 << 2 | 0b11 << 8 | AF | NG | USER | UXN | PXN;
/// Somewhere in a 48-bit DMA domain, at the boundary of all block sizes.
const IOVA: u64 = 0xffc0_0000_0000;

/// A DMA domain of a device with PASIDs: descriptor 0 of a 2-level table, used without a substream.
fn domain(page: u8) -> (Guest, Tables) {
    let guest = Guest::new();
    let tables = super::tables(&guest, page, 48);
    let leaf = MEMORY + 0x1_0000;
    guest.poke(CD, &[leaf | 1]);
    let cacheable = cd0(&tables).with_ir0(1).with_or0(1).with_sh0(3).with_aset(true);
    guest.write_cd(leaf, cacheable, tables.root, 0);
    guest.install(
        Ste0::new().with_s1cdmax(20).with_s1fmt(2),
        Ste1::new().with_s1dss(2).with_s1cir(1).with_s1cor(1).with_s1csh(3),
    );
    (guest, tables)
}

/// Maps `address..address + size` with the largest blocks that fit, and with groups where there are some.
fn map(tables: &mut Tables, iova: u64, address: u64, size: u64, prot: u64) {
    let mut done = 0;
    while done < size {
        let fits = |bits: u8| {
            let mask = (1u64 << bits) - 1;
            (iova + done) & mask == 0 && (address + done) & mask == 0 && size - done > mask
        };
        let (block, page) = (tables.shift(2), tables.page);
        let group = match page {
            12 => page + 4,
            14 => page + 7,
            _ => page + 5,
        };
        let (level, bits, count) = if fits(block) {
            (2, block, 1)
        } else if fits(group) {
            (3, page, 1u64 << (group - page))
        } else {
            (3, page, 1)
        };
        for _ in 0..count {
            let kind = if level == 3 { PAGE } else { BLOCK };
            let hint = if count > 1 { CONTIGUOUS } else { 0 };
            tables.put(iova + done, level, (address + done) | prot | hint | kind);
            done += 1 << bits;
        }
    }
}

/// Clears what [`map`] has written.
fn unmap(tables: &mut Tables, iova: u64, size: u64) {
    let mut done = 0;
    while done < size {
        let slot = tables.slot(iova + done, 2);
        if tables.read(slot) & 3 == BLOCK {
            tables.write(slot, 0);
            done += 1 << tables.shift(2);
        } else {
            tables.put(iova + done, 3, 0);
            done += 1 << tables.page;
        }
    }
}

/// CMD_TLBI_NH_VA with ranges: as many as the pages have chunks of at most 31 in a power of two.
fn invalidate_range(guest: &Guest, page: u8, iova: u64, size: u64) {
    let (mut at, mut pages) = (iova, size >> page);
    while pages > 0 {
        let scale = pages.trailing_zeros();
        let num = pages >> scale & 31;
        let command = Tlbi::from_bits(tlbi_va(ASID, at)).with_tg((page - 10) / 2).with_ttl(0);
        guest.invalidate(command.with_scale(scale as u8).with_num(num as u8 - 1).into_bits());
        at += num << scale << page;
        pages -= num << scale;
    }
}

#[test]
fn a_buffer_is_mapped_used_and_unmapped_with_every_page_size() {
    for page in [12u8, 14, 16] {
        let (guest, mut tables) = domain(page);
        // From the middle of a group over some blocks to the middle of another, where guest memory is.
        let (offset, size) = (3u64 << page, 0x48_0000 + (5 << page));
        let address = (DATA & !0x1f_ffff) + offset;
        map(&mut tables, IOVA + offset, address, size, PROT);
        let data: Vec<u8> = (0..size).map(|i| (i.wrapping_mul(0x9e37_79b9) >> 13) as u8).collect();
        guest.port.dma_write(IOVA + offset, &data).unwrap();
        let mut found = vec![0; data.len()];
        guest.memory.read_slice(&mut found, GuestAddress(address)).unwrap();
        assert!(found == data, "page size {page}");
        guest.port.dma_read(IOVA + offset, &mut found).unwrap();
        assert!(found == data);
        let walks = guest.stats().walks;
        assert!(walks < 200, "blocks and groups are few translations: {walks}");
        assert!(guest.port.dma_write(IOVA + offset - 8, &data).is_err());
        assert!(guest.port.dma_write(IOVA + offset + 8, &data).is_err());
        assert_eq!(guest.events().len(), 2);

        unmap(&mut tables, IOVA + offset, size);
        invalidate_range(&guest, page, IOVA + offset, size);
        for at in (0..size).step_by(1 << page) {
            assert!(guest.read(IOVA + offset + at).is_err(), "page size {page}, at {at:#x}");
        }
    }
}

#[test]
fn a_read_only_buffer_is_read_only() {
    let (guest, mut tables) = domain(12);
    map(&mut tables, IOVA, DATA, 0x20_0000, PROT | READ_ONLY);
    assert!(guest.reaches(IOVA + 0x1_2340, DATA + 0x1_2340));
    assert!(guest.port.dma_write(IOVA + 0x1_2340, &[1]).is_err());
    assert_eq!(guest.event_number(), number::F_PERMISSION);
    assert!(read(&guest.port.with_execution(true), IOVA).is_err(), "never executed");
}

#[test]
fn part_of_a_block_is_unmapped_after_the_block_is_split() {
    // BBML 2: a table of pages takes the place of a block without a break, then one of the pages goes.
    let (guest, mut tables) = domain(12);
    let block = DATA & !0x1f_ffff;
    tables.put(IOVA, 2, block | PROT | BLOCK);
    assert!(guest.reaches(IOVA + 0x3000, block + 0x3000));
    let table = tables.next;
    tables.next += 0x1_0000;
    for i in 0..512 {
        tables.write(table + 8 * i, (block + (i << 12)) | PROT | PAGE);
    }
    tables.put(IOVA, 2, table | TABLE);
    assert!(guest.reaches(IOVA + 0x3000, block + 0x3000) && guest.reaches(IOVA + 0x5000, block + 0x5000));
    tables.put(IOVA + 0x3000, 3, 0);
    invalidate_range(&guest, 12, IOVA, 0x20_0000);
    assert!(guest.read(IOVA + 0x3000).is_err());
    assert!(guest.reaches(IOVA + 0x5000, block + 0x5000));
}

#[test]
fn a_block_in_place_of_a_table_is_the_only_translation_once_it_is_used() {
    let (guest, mut tables) = domain(12);
    let block = DATA & !0x1f_ffff;
    tables.map(IOVA + 0x3000, block + 0x8000, PROT);
    assert!(guest.reaches(IOVA + 0x3000, block + 0x8000));
    tables.put(IOVA, 2, block | PROT | BLOCK);
    assert!(guest.reaches(IOVA + 0x5000, block + 0x5000));
    assert!(guest.reaches(IOVA + 0x3000, block + 0x3000), "two sizes of one address never meet");
}
