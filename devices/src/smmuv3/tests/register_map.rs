//! Section 6.2: every 32-bit word of both register pages, its reset value (6.3) and which bits of it can be written.

use super::*;

const GBPA: u64 = super::super::spec::registers::GBPA;

/// A register: its offset, its size in bytes, the section, its reset value, and the bits that keep what is written while
/// everything is disabled.
type Row = (&'static str, u64, u64, &'static str, u64, u64);

/// The map of a vSMMU with all that [`host`] has: 48-bit addresses, ATS, 2-level tables, MSIs. The indices that the SMMU
/// writes show only the wrap bit of a queue with one entry, which is what LOG2SIZE is after reset.
fn map(features: &Features) -> Vec<Row> {
    let base = 0x4000_ffff_ffff_ffff;
    let message = 0x0000_ffff_ffff_fffc;
    vec![
        ("IDR0", IDR0, 4, "6.3.1", features.idr0.into_bits().into(), 0),
        ("IDR1", IDR1, 4, "6.3.2", features.idr1.into_bits().into(), 0),
        ("IDR2", IDR2, 4, "6.3.3", 0, 0),
        ("IDR3", IDR3, 4, "6.3.4", features.idr3.into_bits().into(), 0),
        ("IDR4", IDR4, 4, "6.3.5", 0, 0),
        ("IDR5", IDR5, 4, "6.3.6", features.idr5.into_bits().into(), 0),
        ("IIDR", IIDR, 4, "6.3.7", 0, 0),
        ("AIDR", AIDR, 4, "6.3.8", 2, 0),
        ("CR0", CR0, 4, "6.3.9", 0, 0x1d),
        ("CR0ACK", CR0ACK, 4, "6.3.10", 0, 0),
        ("CR1", CR1, 4, "6.3.11", 0, 0xfff),
        ("CR2", CR2, 4, "6.3.12", 0, 0x2),
        ("STATUSR", STATUSR, 4, "6.3.13", 0, 0),
        ("GBPA", GBPA, 4, "6.3.14", 0, 1 << 20),
        ("AGBPA", AGBPA, 4, "6.3.15", 0, 0),
        ("IRQ_CTRL", IRQ_CTRL, 4, "6.3.16", 0, 0x5),
        ("IRQ_CTRLACK", IRQ_CTRLACK, 4, "6.3.18", 0, 0),
        ("GERROR", GERROR, 4, "6.3.19", 0, 0),
        ("GERRORN", GERRORN, 4, "6.3.20", 0, 0x1b5),
        ("GERROR_IRQ_CFG0", GERROR_IRQ_CFG0, 8, "6.3.21", 0, message),
        ("GERROR_IRQ_CFG1", GERROR_IRQ_CFG1, 4, "6.3.22", 0, 0xffff_ffff),
        ("GERROR_IRQ_CFG2", GERROR_IRQ_CFG2, 4, "6.3.23", 0, 0x3f),
        ("STRTAB_BASE", STRTAB_BASE, 8, "6.3.24", 0, base & !0x3f),
        ("STRTAB_BASE_CFG", STRTAB_BASE_CFG, 4, "6.3.25", 0, 0x3_07ff),
        ("CMDQ_BASE", CMDQ_BASE, 8, "6.3.26", 0, base),
        ("CMDQ_PROD", CMDQ_PROD, 4, "6.3.27", 0, 0xf_ffff),
        ("CMDQ_CONS", CMDQ_CONS, 4, "6.3.28", 0, 0x7f00_0001),
        ("EVENTQ_BASE", EVENTQ_BASE, 8, "6.3.29", 0, base),
        ("EVENTQ_PROD, page 0", EVENTQ_PROD_ALIAS, 4, "6.2", 0, 0x8000_0001),
        ("EVENTQ_CONS, page 0", EVENTQ_CONS_ALIAS, 4, "6.2", 0, 0x800f_ffff),
        ("EVENTQ_IRQ_CFG0", EVENTQ_IRQ_CFG0, 8, "6.3.30", 0, message),
        ("EVENTQ_IRQ_CFG1", EVENTQ_IRQ_CFG1, 4, "6.3.31", 0, 0xffff_ffff),
        ("EVENTQ_IRQ_CFG2", EVENTQ_IRQ_CFG2, 4, "6.3.32", 0, 0x3f),
        ("CIDR0", CIDR0, 4, "6.3, ID_REGS", 0x0d, 0),
        ("CIDR1", CIDR0 + 4, 4, "6.3, ID_REGS", 0xf0, 0),
        ("CIDR2", CIDR0 + 8, 4, "6.3, ID_REGS", 0x05, 0),
        ("CIDR3", CIDR0 + 12, 4, "6.3, ID_REGS", 0xb1, 0),
        ("EVENTQ_PROD", EVENTQ_PROD, 4, "6.2.2", 0, 0x8000_0001),
        ("EVENTQ_CONS", EVENTQ_CONS, 4, "6.2.2", 0, 0x800f_ffff),
    ]
}

#[test]
fn every_register_has_its_reset_value_and_keeps_its_fields() {
    for (name, offset, size, section, reset, writable) in map(&everything()) {
        let guest = Guest::new();
        let read = || if size == 8 { guest.read64(offset) } else { guest.read(offset).into() };
        assert_eq!(read(), reset, "{name} after reset ({section})");
        if size == 8 {
            guest.write64(offset, !0);
        } else {
            guest.write(offset, !0);
        }
        assert_eq!(read(), reset | writable, "{name} written with ones ({section})");
        if size == 8 {
            guest.write64(offset, 0);
        } else {
            // GBPA changes only together with UPDATE, which reads as 0.
            guest.write(offset, if offset == GBPA { 1 << 31 } else { 0 });
        }
        assert_eq!(read(), reset, "{name} written with zeroes ({section})");
    }
}

#[test]
fn a_64_bit_register_is_two_halves_in_any_order() {
    for (name, offset, _, section, _, writable) in map(&everything()).into_iter().filter(|row| row.2 == 8) {
        for (first, second) in [(0, 4), (4, 0)] {
            let guest = Guest::new();
            guest.write(offset + first, !0);
            let half = writable >> (8 * first) & 0xffff_ffff;
            assert_eq!(guest.read64(offset), half << (8 * first), "{name}, one half ({section})");
            guest.write(offset + second, !0);
            assert_eq!(guest.read64(offset), writable, "{name}, both halves ({section})");
            assert_eq!(guest.read(offset), writable as u32, "{name}, low half ({section})");
            assert_eq!(guest.read(offset + 4), (writable >> 32) as u32, "{name}, high half ({section})");
        }
    }
}

#[test]
fn all_other_words_read_zero_and_ignore_writes() {
    let guest = Guest::new();
    let map = map(&everything());
    let is_register = |word: u64| map.iter().any(|&(_, offset, size, ..)| (offset..offset + size).contains(&word));
    // Reserved; PRI queue, ATOS, MPAM, VATOS, ECMDQ and DPT, which are not shown; the secure registers; page 1 (6.2).
    for word in (0..REGISTER_SPACE).step_by(4).filter(|&word| !is_register(word)) {
        guest.write(word, !0);
        assert_eq!(guest.read(word), 0, "{word:#x}");
    }
    for (name, offset, size, _, reset, _) in map {
        let now = if size == 8 { guest.read64(offset) } else { guest.read(offset).into() };
        assert_eq!(now, reset, "{name} is as it was");
    }
}

#[test]
fn fields_of_features_that_are_not_shown_are_reserved() {
    let mut features = everything();
    features.idr0.set_msi(false);
    features.idr0.set_ats(false);
    features.idr0.set_st_level(0);
    for (offset, writable) in [
        (GERROR_IRQ_CFG0, 0),
        (GERROR_IRQ_CFG0 + 4, 0),
        (GERROR_IRQ_CFG1, 0),
        (GERROR_IRQ_CFG2, 0),
        (EVENTQ_IRQ_CFG0, 0),
        (EVENTQ_IRQ_CFG0 + 4, 0),
        (EVENTQ_IRQ_CFG1, 0),
        (EVENTQ_IRQ_CFG2, 0),
        (GERRORN, 0x105),
        (STRTAB_BASE_CFG, 0x3f),
        (CR0, 0x0d),
    ] {
        let guest = Guest::with_features(features);
        guest.write(offset, !0);
        assert_eq!(guest.read(offset), writable, "{offset:#x}");
    }
}

#[test]
fn addresses_have_no_bits_above_the_output_address_size() {
    // Sections 3.4.3 and 6.3: such bits are not stored.
    for (oas, bits) in [(0, 32), (2, 40), (6, 52)] {
        let mut features = everything();
        features.idr5.set_oas(oas);
        let guest = Guest::with_features(features);
        for base in [STRTAB_BASE, CMDQ_BASE, EVENTQ_BASE, GERROR_IRQ_CFG0, EVENTQ_IRQ_CFG0] {
            guest.write64(base, !0);
            assert_eq!(64 - (guest.read64(base) & !(1 << 62)).leading_zeros(), bits, "{base:#x}");
        }
    }
}

#[test]
fn an_smmu_without_the_features_of_version_3_2_is_of_version_3_1() {
    let mut features = everything();
    features.idr3.set_ril(false);
    assert_eq!(Guest::with_features(features).read(AIDR), 1);
    let mut features = everything();
    features.idr3.set_bbml(0);
    assert_eq!(Guest::with_features(features).read(AIDR), 1);
}
