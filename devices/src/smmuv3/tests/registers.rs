//! Chapter 6: registers.

use super::*;

const GBPA: u64 = super::super::spec::registers::GBPA;

#[test]
fn a_64_bit_register_is_two_halves_and_a_pair_of_registers_is_one_access() {
    let guest = Guest::new();
    guest.write64(STRTAB_BASE, !0);
    assert_eq!(guest.read64(STRTAB_BASE), 0x4000_ffff_ffff_ffc0, "RES0 bits stay 0");
    guest.write(STRTAB_BASE + 4, 1);
    assert_eq!(guest.read64(STRTAB_BASE), 0x1_ffff_ffc0);
    guest.write(STRTAB_BASE, 0x40);
    assert_eq!(guest.read64(STRTAB_BASE), 0x1_0000_0040);
    assert_eq!(guest.read64(IDR0), u64::from(guest.read(IDR1)) << 32 | u64::from(guest.read(IDR0)));
}

#[test]
fn accesses_of_other_sizes_or_alignments_read_zero_and_write_nothing() {
    let guest = Guest::new();
    for (offset, length) in [(IDR0, 1), (IDR0, 2), (IDR0 + 2, 4), (IDR1, 8), (REGISTER_SPACE - 4, 8), (u64::MAX, 4)] {
        let mut data = vec![0xaa; length];
        guest.smmu.write(offset, &data);
        guest.smmu.read(offset, &mut data);
        assert_eq!(data, vec![0; length], "{offset:#x}");
    }
    guest.smmu.write(CR0, &[8]);
    guest.smmu.write(CR0, &[]);
    assert_eq!(guest.read(CR0), 0);
    assert_eq!(guest.smmu.stats().ignored_accesses, 14);
}

#[test]
fn a_change_of_cr0_is_acknowledged_at_once_and_reserved_bits_stay_0() {
    let guest = Guest::new();
    guest.write(CR0, !0);
    assert_eq!((guest.read(CR0), guest.read(CR0ACK)), (0x1d, 0x1d), "no PRIQEN, no VMW");
    let guest = Guest::with_features(plain());
    guest.write(CR0, !0);
    assert_eq!(guest.read(CR0ACK), 0x0d, "no ATSCHK without IDR0.ATS");
}

#[test]
fn tables_and_queues_cannot_be_moved_while_they_are_in_use() {
    let guest = Guest::running();
    let fixed = [STRTAB_BASE, STRTAB_BASE_CFG, CMDQ_BASE, CMDQ_CONS, EVENTQ_BASE, EVENTQ_PROD, EVENTQ_PROD_ALIAS, CR2];
    let before = fixed.map(|offset| guest.read(offset));
    for offset in fixed {
        guest.write(offset, 0x1234_5e66);
    }
    assert_eq!(fixed.map(|offset| guest.read(offset)), before);
    assert_eq!(guest.smmu.stats().ignored_accesses, fixed.len() as u64);
    guest.write(CR0, 0);
    for offset in fixed {
        guest.write(offset, 0x1234_5e66);
        assert_ne!(guest.read(offset), 0, "{offset:#x}");
    }
}

#[test]
fn cr1_keeps_what_belongs_to_something_enabled() {
    let guest = Guest::new();
    guest.write(CR1, 0xd75);
    guest.write(CR0, 8);
    guest.write(CR1, 0);
    assert_eq!(guest.read(CR1), 0x035, "QUEUE_* is in use");
    guest.write(CR0, 1);
    guest.write(CR1, 0xfff);
    assert_eq!(guest.read(CR1), 0x03f, "TABLE_* is in use");
}

#[test]
fn gbpa_changes_only_with_update() {
    let guest = Guest::new();
    guest.write(GBPA, 1 << 20);
    assert_eq!(guest.read(GBPA), 0);
    guest.write(GBPA, !0);
    assert_eq!(guest.read(GBPA), 1 << 20, "there are no attribute overrides");
    assert_eq!(guest.fake.config(STREAMS[0]), StreamConfig::Abort);
    guest.write(GBPA, 1 << 31);
    assert_eq!(guest.fake.config(STREAMS[0]), StreamConfig::Bypass);
}

#[test]
fn where_an_interrupt_goes_cannot_change_while_it_is_enabled() {
    let guest = Guest::new();
    for cfg0 in [GERROR_IRQ_CFG0, EVENTQ_IRQ_CFG0] {
        guest.write64(cfg0, !0);
        guest.write64(cfg0 + 8, !0);
        assert_eq!(guest.read64(cfg0), 0x0000_ffff_ffff_fffc);
        assert_eq!(guest.read64(cfg0 + 8), 0x3f_ffff_ffff);
    }
    guest.write(IRQ_CTRL, !0);
    assert_eq!(guest.read(IRQ_CTRLACK), 5, "there is no PRI queue");
    for cfg0 in [GERROR_IRQ_CFG0, EVENTQ_IRQ_CFG0] {
        guest.write64(cfg0, 0);
        guest.write64(cfg0 + 8, 0);
        assert_eq!(guest.read64(cfg0), 0x0000_ffff_ffff_fffc);
        assert_eq!(guest.read64(cfg0 + 8), 0x3f_ffff_ffff);
    }
}

#[test]
fn gerrorn_reads_as_written_and_an_error_is_active_while_it_differs_from_gerror() {
    // Sections 6.3.20 and 7.5: nothing else is said of a toggle of an inactive error, so it is no exception.
    let mut guest = Guest::running();
    guest.write(GERRORN, !0);
    assert_eq!((guest.read(GERROR), guest.read(GERRORN)), (0, 0x1b5));
    assert_eq!(guest.gerror.take(), 0, "the smmu has activated nothing");
    guest.push(tlbi_va(1, 0));
    guest.kick();
    assert_eq!(guest.read(CMDQ_CONS), 0, "commands are not consumed while CMDQ_ERR is active");
    guest.write(GERRORN, 0);
    assert_eq!(guest.read(CMDQ_CONS), 1);
}

#[test]
fn an_error_toggles_gerror_each_time_it_becomes_active() {
    // Section 7.5: not while it is active.
    let guest = Guest::running();
    for active in [1, 0, 1, 0] {
        guest.smmu.global_error(&mut guest.smmu.lock(), Gerror::new().with_cmdq_err(true));
        guest.smmu.global_error(&mut guest.smmu.lock(), Gerror::new().with_cmdq_err(true));
        assert_eq!((guest.read(GERROR), guest.gerror.take()), (active, 1));
        guest.acknowledge();
        assert_eq!(guest.errors().into_bits(), 0);
    }
}

#[test]
fn the_indices_that_the_smmu_writes_show_no_bits_above_the_wrap_bit() {
    // Sections 6.3.28 and 6.3.55: RAZ; a smaller queue truncates what is there.
    let guest = Guest::new();
    for (base, index) in [(CMDQ_BASE, CMDQ_CONS), (EVENTQ_BASE, EVENTQ_PROD)] {
        guest.write64(base, MEMORY | 12);
        guest.write(index, 0xf_ffff);
        assert_eq!(guest.read(index), 0x1fff);
        guest.write64(base, MEMORY | 4);
        assert_eq!(guest.read(index), 0x1f);
    }
}

#[test]
fn a_field_of_cr0_or_irq_ctrl_changes_alone() {
    // Section 6.3.9: each field is independent of the others.
    let guest = Guest::new();
    for bit in [0, 2, 3, 4] {
        guest.write(CR0, 1 << bit);
        assert_eq!((guest.read(CR0), guest.read(CR0ACK)), (1 << bit, 1 << bit));
    }
    for bit in [0, 2] {
        guest.write(IRQ_CTRL, 1 << bit);
        assert_eq!((guest.read(IRQ_CTRL), guest.read(IRQ_CTRLACK)), (1 << bit, 1 << bit));
    }
}

#[test]
fn the_event_queue_pointers_show_in_both_pages() {
    let guest = Guest::new();
    guest.write64(EVENTQ_BASE, EVENTQ | 4);
    guest.write(EVENTQ_PROD_ALIAS, 0x8000_0005);
    guest.write(EVENTQ_CONS, 0x8000_0003);
    assert_eq!((guest.read(EVENTQ_PROD), guest.read(EVENTQ_CONS_ALIAS)), (0x8000_0005, 0x8000_0003));
}

#[test]
fn a_reset_is_a_power_on() {
    let mut guest = Guest::running();
    guest.set_ste(STREAMS[0], stage1_ste(SCRATCH));
    guest.write(GBPA, 1 << 31 | 1 << 20);
    guest.push(0xee);
    guest.kick();
    guest.fake.take_calls();
    guest.smmu.reset();
    let fresh = Guest::new();
    for offset in (0..REGISTER_SPACE).step_by(4) {
        assert_eq!(guest.read(offset), fresh.read(offset), "{offset:#x}");
    }
    assert_eq!(guest.fake.config(STREAMS[0]), StreamConfig::Bypass);
    assert_eq!(guest.take_invalidations(), [vec![words(tlbi_nsnh_all())]]);
    assert_eq!(guest.smmu.stats().errors.command_queue(), 1, "counters go on");
}
