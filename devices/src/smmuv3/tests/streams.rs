//! Sections 3.3.1, 5.1 and 5.2: the stream table, and 3.11: SMMUEN and GBPA.

use super::*;
use crate::smmuv3::physical::Stage1;

const STREAM: u32 = STREAMS[0];
const OTHER: u32 = STREAMS[1];
const GBPA: u64 = super::super::spec::registers::GBPA;

fn event(number: u64, stream_id: u32, address: u64) -> [u64; 4] {
    [number | u64::from(stream_id) << 32, 0, 0, address]
}

#[test]
fn abort_bypass_and_stage_1_reach_the_device() {
    let mut guest = Guest::running();
    guest.set_ste(STREAM, BYPASS_STE);
    assert_eq!(guest.fake.config(STREAM), StreamConfig::Bypass);
    guest.set_ste(STREAM, stage1_ste(SCRATCH));
    assert!(is_stage1(guest.fake.config(STREAM), SCRATCH));
    guest.set_ste(STREAM, ABORT_STE);
    assert_eq!(guest.fake.config(STREAM), StreamConfig::Abort);
    assert_eq!(guest.fake.config(OTHER), StreamConfig::Abort, "without an entry of its own");
    assert_eq!(guest.take_events(), Vec::<[u64; 4]>::new());
    let stats = guest.smmu.stats();
    assert_eq!((stats.installs.stage1, stats.installs.bypass), (1, 1));
    assert_eq!(stats.installs.abort, 3, "both streams at SMMUEN, and the last");
}

#[test]
fn one_stage_1_follows_another_without_anything_in_between() {
    let mut guest = Guest::running();
    guest.set_ste(STREAM, stage1_ste(SCRATCH));
    guest.fake.take_calls();
    guest.set_ste(STREAM, stage1_ste(SCRATCH + 0x1000));
    let calls = guest.fake.take_calls();
    assert!(matches!(calls[..], [Call::Install(STREAM, config)] if is_stage1(config, SCRATCH + 0x1000)));
}

#[test]
fn an_unchanged_entry_only_drops_its_cached_context_descriptors() {
    let mut guest = Guest::running();
    guest.set_ste(STREAM, stage1_ste(SCRATCH));
    guest.fake.take_calls();
    guest.run(&[cfgi_ste(STREAM), tlbi_va(1, 0), sync()]);
    let expected = vec![words(cfgi_cd_all(STREAM)), words(tlbi_va(1, 0))];
    assert_eq!(guest.fake.take_calls(), [Call::Invalidate(expected)], "in the order of the guest, in one call");
}

#[test]
fn an_entry_reaches_the_host_without_what_cannot_be_nested() {
    let mut guest = Guest::running();
    let [word0, word1] = stage1_ste(SCRATCH);
    // MEV, SHCFG, CONT, PPAR, S2FWB, STRW and all that is reserved or means nothing without substreams in use.
    let noise1 = !(0xff | 0x7 << 27);
    guest.set_ste(STREAM, [word0 | 0x07f0_0000_0000_0030, word1 | noise1]);
    let expected = [word0, word1 & 0xfc | 1 << 27];
    assert_eq!(guest.fake.config(STREAM), StreamConfig::Stage1(Stage1(expected)), "with S1STALLD");
}

#[test]
fn stalls_are_left_alone_if_the_host_has_none() {
    let mut features = everything();
    features.disable_stall = false;
    let mut guest = Guest::running_with(features);
    let [word0, word1] = stage1_ste(SCRATCH);
    guest.set_ste(STREAM, [word0, word1]);
    assert_eq!(guest.fake.config(STREAM), StreamConfig::Stage1(Stage1([word0, word1 & 0xfc])));
}

#[test]
fn substreams_and_ats_of_an_entry_are_kept_if_the_guest_has_them() {
    let substreams = |word: u64| word | 20 << 59 | 2 << 4;
    let mut guest = Guest::running();
    let [word0, word1] = stage1_ste(SCRATCH);
    let kept = StreamConfig::Stage1(Stage1([substreams(word0), word1 & 0xff | 1 << 27 | 1 << 28]));
    guest.set_ste(STREAM, [substreams(word0), word1 | 1 << 28]);
    assert_eq!(guest.fake.config(STREAM), kept);

    let mut guest = Guest::running_with(plain());
    guest.set_ste(STREAM, [substreams(word0), word1 | 1 << 28]);
    assert_eq!(guest.fake.config(STREAM), StreamConfig::Stage1(Stage1([word0, word1 & 0xfc | 1 << 27])));
}

#[test]
fn an_illegal_entry_aborts_and_is_recorded() {
    let [word0, word1] = stage1_ste(SCRATCH);
    let one_level = {
        let mut features = everything();
        features.idr0.set_cd2l(false);
        features
    };
    let few = {
        let mut features = everything();
        features.idr1.set_ssidsize(4);
        features
    };
    let illegal = [
        ("stage 2", everything(), [0b1101, 0]),
        ("both stages", everything(), [0b1111, 0]),
        ("EATS split-stage", everything(), [word0, word1 | 2 << 28]),
        ("S1STALLD with STALL_MODEL 1", everything(), [word0, word1 | 1 << 27]),
        ("S1ContextPtr above OAS", everything(), [word0 | 1 << 48, word1]),
        ("S1Fmt without CD2L", one_level, [word0 | 2 << 4 | 4 << 59, word1]),
        ("S1CDMax above SSIDSIZE", few, [word0 | 5 << 59, word1]),
    ];
    for (name, features, ste) in illegal {
        let mut guest = Guest::running_with(features);
        guest.set_ste(STREAM, stage1_ste(SCRATCH));
        guest.set_ste(STREAM, ste);
        assert_eq!(guest.fake.config(STREAM), StreamConfig::Abort, "{name}");
        assert_eq!(guest.take_events(), [event(4, STREAM, 0)], "{name}: C_BAD_STE");
        assert_eq!(guest.event.take(), 1, "{name}");
    }
}

#[test]
fn reserved_values_count_as_0() {
    // Section 5.2: S1Fmt, S1DSS and EATS 0b11 behave as 0b00; STRW is RES0 without IDR0.HYP.
    let [word0, word1] = stage1_ste(SCRATCH);
    let ssids = 4u64 << 59;
    for (name, ste, counts_as) in [
        ("S1Fmt", [word0 | ssids | 3 << 4, word1], [word0 | ssids, word1 & 0xff]),
        ("S1DSS", [word0 | ssids, word1 | 3], [word0 | ssids, word1 & 0xfc]),
        ("EATS", [word0, word1 | 3 << 28], [word0, word1 & 0xfc]),
        ("STRW", [word0, word1 | 2 << 30], [word0, word1 & 0xfc]),
    ] {
        let mut guest = Guest::running();
        guest.set_ste(STREAM, ste);
        let expected = StreamConfig::Stage1(Stage1([counts_as[0], counts_as[1] | 1 << 27]));
        assert_eq!(guest.fake.config(STREAM), expected, "{name}");
        assert_eq!(guest.take_events(), Vec::<[u64; 4]>::new(), "{name}");
    }
}

#[test]
fn reserved_configurations_below_4_abort_silently() {
    for config in 1..4 {
        let mut guest = Guest::running();
        guest.set_ste(STREAM, [1 | config << 1, 0]);
        assert_eq!(guest.fake.config(STREAM), StreamConfig::Abort);
        assert_eq!(guest.take_events(), Vec::<[u64; 4]>::new());
    }
}

#[test]
fn nobody_hears_of_an_illegal_entry_without_a_device() {
    let mut guest = Guest::running();
    guest.set_ste(ROOT_PORT, [0b1111, 0]);
    assert_eq!(guest.take_events(), Vec::<[u64; 4]>::new());
}

#[test]
fn a_table_outside_of_memory_is_a_fetch_fault() {
    let mut guest = Guest::running();
    guest.write(CR0, 0b1100);
    guest.write64(STRTAB_BASE, NOWHERE);
    guest.write(CR0, 0b1101);
    assert_eq!(guest.fake.config(STREAM), StreamConfig::Abort);
    let at = |stream: u32| event(3, stream, NOWHERE + 64 * u64::from(stream));
    assert_eq!(guest.take_events(), [at(STREAM), at(OTHER)]);
    guest.run(&[cfgi_ste(STREAM), sync()]);
    assert_eq!(guest.take_events(), [at(STREAM)]);
}

#[test]
fn a_stream_outside_of_the_table_is_recorded_if_the_guest_wants_so() {
    for recinvsid in [0, 2] {
        let mut guest = Guest::running();
        guest.write(CR0, 0b1100);
        guest.write(CR2, recinvsid);
        guest.write(STRTAB_BASE_CFG, 8);
        guest.write(CR0, 0b1101);
        assert_eq!(guest.fake.config(STREAM), StreamConfig::Abort);
        assert_eq!(guest.take_events(), Vec::<[u64; 4]>::new(), "the guest does not use it");
        guest.run(&[cfgi_ste(STREAM), sync()]);
        let recorded = if recinvsid == 0 { vec![] } else { vec![event(2, STREAM, 0)] };
        assert_eq!(guest.take_events(), recorded);
    }
}

#[test]
fn a_linear_table_is_aligned_to_its_size() {
    let mut guest = Guest::running();
    guest.write(CR0, 0b1100);
    guest.write64(STRTAB_BASE, STRTAB + 0x1_0040);
    guest.write(CR0, 0b1101);
    guest.set_ste(STREAM, BYPASS_STE);
    assert_eq!(guest.fake.config(STREAM), StreamConfig::Bypass);
}

#[test]
fn a_table_that_is_written_as_larger_than_stream_ids_are_is_aligned_to_what_is_written() {
    // Section 6.3.24: the alignment is not limited by SIDSIZE, what can be reached is (6.3.25).
    for (log2size, base) in [(16, STRTAB + 0x40_0000), (18, STRTAB), (24, STRTAB), (26, 0), (63, 0)] {
        let mut guest = Guest::running();
        guest.write(CR0, 0b1100);
        guest.write64(STRTAB_BASE, STRTAB + 0x40_0000);
        guest.write(STRTAB_BASE_CFG, log2size);
        guest.write(CR0, 0b1101);
        guest.take_events();
        if base != 0 {
            guest.poke(base + 64 * u64::from(STREAM), &BYPASS_STE);
        }
        guest.run(&[cfgi_ste(STREAM), sync()]);
        let at_zero = [event(3, STREAM, 64 * u64::from(STREAM))];
        if base == 0 {
            assert_eq!(guest.take_events(), at_zero);
        } else {
            assert_eq!(guest.fake.config(STREAM), StreamConfig::Bypass, "LOG2SIZE {log2size}");
        }
        assert_eq!(guest.read(STRTAB_BASE_CFG), log2size, "reads as written");
    }
}

/// A guest with a 2-level table whose level 1 is empty.
fn two_levels(split: u32) -> Guest {
    let guest = Guest::running();
    guest.write(CR0, 0b1100);
    guest.write(CR2, 2);
    guest.write(STRTAB_BASE_CFG, 1 << 16 | split << 6 | 16);
    guest.write(CR0, 0b1101);
    guest
}

#[test]
fn a_2_level_table_is_walked_with_every_split() {
    for (split, effective) in [(6, 6), (8, 8), (10, 10), (7, 6), (0, 6)] {
        let mut guest = two_levels(split);
        let index = u64::from(STREAM) & ((1 << effective) - 1);
        guest.poke(L2TAB + 64 * index, &stage1_ste(SCRATCH));
        guest.poke(STRTAB + 8 * (u64::from(STREAM) >> effective), &[L2TAB | (effective + 1)]);
        guest.run(&[cfgi_ste(STREAM), sync()]);
        assert!(is_stage1(guest.fake.config(STREAM), SCRATCH), "SPLIT {split}");
    }
}

#[test]
fn a_level_1_descriptor_bounds_its_table() {
    let mut guest = two_levels(8);
    let descriptor = STRTAB + 8 * u64::from(0x1ffu32 >> 8);
    let stream = STREAM | 5;
    guest.fake.lock().streams.insert(stream, StreamConfig::Bypass);
    guest.poke(L2TAB + 64 * 5, &BYPASS_STE);
    // (Span, whether entry 5 is in the table)
    for (span, inside) in [(0, false), (1, false), (3, false), (4, true), (9, true), (10, false), (31, false)] {
        guest.poke(descriptor, &[L2TAB | span]);
        guest.run(&[cfgi_ste(stream), sync()]);
        let expected = if inside { StreamConfig::Bypass } else { StreamConfig::Abort };
        assert_eq!(guest.fake.config(stream), expected, "Span {span}");
        let events = if inside { vec![] } else { vec![event(2, stream, 0)] };
        assert_eq!(guest.take_events(), events, "Span {span}");
    }
}

#[test]
fn a_2_level_table_outside_of_memory_is_a_fetch_fault_with_the_address() {
    let mut guest = two_levels(8);
    guest.poke(STRTAB + 8, &[NOWHERE | 9]);
    guest.run(&[cfgi_ste(STREAM), sync()]);
    assert_eq!(guest.take_events(), [event(3, STREAM, NOWHERE)]);
    guest.write(CR0, 0b1100);
    guest.write64(STRTAB_BASE, NOWHERE);
    guest.write(CR0, 0b1101);
    assert_eq!(guest.take_events(), [event(3, STREAM, NOWHERE + 8), event(3, OTHER, NOWHERE + 16)]);
}

#[test]
fn the_table_is_linear_without_2_level_support() {
    let mut features = everything();
    features.idr0.set_st_level(0);
    let mut guest = Guest::running_with(features);
    guest.write(CR0, 0b1100);
    guest.write(STRTAB_BASE_CFG, 1 << 16 | 8 << 6 | 16);
    guest.write(CR0, 0b1101);
    guest.set_ste(STREAM, BYPASS_STE);
    assert_eq!(guest.fake.config(STREAM), StreamConfig::Bypass);
}

#[test]
fn smmuen_decides_between_gbpa_and_the_stream_table() {
    let mut guest = Guest::running();
    guest.set_ste(STREAM, stage1_ste(SCRATCH));
    guest.write_ste(OTHER, ABORT_STE);
    guest.write(CR0, 0b1100);
    assert_eq!(STREAMS.map(|stream| guest.fake.config(stream)), [StreamConfig::Bypass; 2]);
    guest.write(GBPA, 1 << 31 | 1 << 20);
    assert_eq!(STREAMS.map(|stream| guest.fake.config(stream)), [StreamConfig::Abort; 2]);
    // An entry that changes meanwhile counts only afterwards.
    guest.set_ste(STREAM, stage1_ste(SCRATCH + 0x1000));
    assert_eq!(guest.fake.config(STREAM), StreamConfig::Abort);
    guest.write(CR0, 0b1101);
    assert!(is_stage1(guest.fake.config(STREAM), SCRATCH + 0x1000));
}

#[test]
fn a_range_of_streams_is_read_again_together() {
    let range = |stream, range| Cfgi::new().with_opcode(4).with_stream_id(stream).with_leaf_or_range(range).into_bits();
    for (command, changed) in [
        (range(0x17f, 6), [false, false]), // 0x100..=0x17f
        (range(0x1ff, 7), [true, false]),  // 0x100..=0x1ff
        (range(0x2ff, 8), [false, true]),
        (range(0x3ff, 9), [true, true]),
        (range(0, 31), [true, true]),
        (range(0, 30), [true, true]),
    ] {
        let mut guest = Guest::running();
        guest.fake.lock().streams = [(0x180, StreamConfig::Abort), (OTHER, StreamConfig::Abort)].into();
        guest.write_ste(0x180, BYPASS_STE);
        guest.write_ste(OTHER, BYPASS_STE);
        guest.run(&[command, sync()]);
        let config = [0x180, OTHER].map(|stream| guest.fake.config(stream) == StreamConfig::Bypass);
        assert_eq!(config, changed, "{command:#x}");
    }
}

#[test]
fn cfgi_all_drops_the_context_descriptors_of_every_stream() {
    let mut guest = Guest::running();
    for stream in STREAMS {
        guest.set_ste(stream, stage1_ste(SCRATCH));
    }
    guest.fake.take_calls();
    guest.run(&[cfgi_all(), sync()]);
    let expected = STREAMS.map(|stream| words(cfgi_cd_all(stream))).to_vec();
    assert_eq!(guest.fake.take_calls(), [Call::Invalidate(expected)]);
}

#[test]
fn a_stream_that_the_host_cannot_configure_aborts_and_the_queue_goes_on() {
    let mut guest = Guest::running();
    guest.set_ste(STREAM, BYPASS_STE);
    guest.fake.lock().fail_install = true;
    guest.set_ste(STREAM, stage1_ste(SCRATCH));
    assert_eq!(guest.fake.config(STREAM), StreamConfig::Abort);
    assert_eq!(guest.smmu.stats().installs.failed, 1);
}

#[test]
fn a_device_in_reset_gets_its_entry_at_the_next_sync_after_it() {
    let mut guest = Guest::running();
    guest.set_ste(STREAM, BYPASS_STE);
    guest.fake.lock().busy.insert(STREAM);
    guest.set_ste(STREAM, stage1_ste(SCRATCH));
    guest.run(&[sync()]);
    assert_eq!(guest.fake.config(STREAM), StreamConfig::Abort);
    guest.fake.lock().busy.clear();
    guest.run(&[sync()]);
    assert!(is_stage1(guest.fake.config(STREAM), SCRATCH));
    assert_eq!(guest.smmu.stats().installs.failed, 1, "once for all tries");
}

#[test]
fn a_device_that_comes_later_gets_what_its_entry_says() {
    let guest = Guest::running();
    let late = 0x300;
    guest.write_ste(late, stage1_ste(SCRATCH));
    guest.fake.lock().streams.insert(late, StreamConfig::Bypass);
    guest.smmu.stream_added(late);
    assert!(is_stage1(guest.fake.config(late), SCRATCH));
}

#[test]
fn a_device_that_stays_busy_is_tried_less_and_less_often() {
    let mut guest = Guest::running();
    guest.smmu.lock().first_wait = super::super::streams::FIRST_WAIT;
    guest.fake.lock().busy.insert(STREAM);
    guest.set_ste(STREAM, stage1_ste(SCRATCH));
    let before = guest.fake.lock().installs;
    let start = std::time::Instant::now();
    for _ in 0..2000 {
        guest.run(&[sync()]);
    }
    // After 5 ms, 10 ms more, 20 ms more, and so on.
    let most = (start.elapsed().as_millis() as u64 / 5 + 1).ilog2() + 1;
    let tries = guest.fake.lock().installs - before;
    assert!(tries <= u64::from(most), "{tries} tries in {:?}", start.elapsed());
    assert_eq!(guest.smmu.stats().installs.failed, 1, "once for all tries");
    // Who knows that the reset is over need not wait.
    guest.fake.lock().busy.clear();
    guest.smmu.stream_added(STREAM);
    assert!(is_stage1(guest.fake.config(STREAM), SCRATCH));
}
