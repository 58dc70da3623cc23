//! A second walker, slow and obvious, straight from the Arm ARM's and IHI 0070's text: the first must agree with it on
//! random tables, and its caches must never show when the guest invalidates as it has to.

use proptest::prelude::*;

use super::*;

/// What one 8-byte access comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// Guest physical address.
    Reaches(u64),
    /// Event number, CLASS, fetched address; reported or not.
    Fault(u8, u8, u64),
}
use Outcome::{Fault, Reaches};

/// One level of a walk: the address is resolved from the top bits down, each time by a table of `size` bytes.
struct Naive<'a> {
    guest: &'a Guest,
    cd: Cd0,
    bases: [u64; 2],
}

impl Naive<'_> {
    /// Bits of the words, by number.
    fn bit(word: u64, n: u32) -> bool {
        word >> n & 1 == 1
    }

    fn translate(&self, iova: u64, write: bool, privileged: bool, fetch: bool) -> Outcome {
        let upper = Self::bit(iova, 55);
        let cd = self.cd;
        let (tsz, off, ignore_top) =
            if upper { (cd.t1sz(), cd.epd1(), cd.tbi1()) } else { (cd.t0sz(), cd.epd0(), cd.tbi0()) };
        let page = match (upper, if upper { cd.tg1() } else { cd.tg0() }) {
            (false, 0) | (true, 2) => 12,
            (false, 2) | (true, 1) => 14,
            _ => 16,
        };
        let size = 64 - u32::from(tsz);
        let checked = if ignore_top { size..56 } else { size..64 };
        if off || checked.into_iter().any(|n| Self::bit(iova, n) != upper) {
            return Fault(number::F_TRANSLATION, 2, 0);
        }
        let low = iova & ((1u64 << size) - 1);
        let mut base = self.bases[usize::from(upper)];
        // A base has zeroes where the first table's size has bits.
        let mut level = 3;
        let mut resolved = page;
        while resolved + (page - 3) < size {
            resolved += page - 3;
            level -= 1;
        }
        let first = 8u64 << (size - resolved);
        base -= base % first;
        self.descend(base, level, resolved, page, low, [true, true, true, true], write, privileged, fetch)
    }

    /// `allowed`: unprivileged access, writes, privileged and unprivileged execution, as the tables above allow.
    #[allow(clippy::too_many_arguments)]
    fn descend(
        &self,
        base: u64,
        level: u32,
        resolved: u32,
        page: u32,
        low: u64,
        allowed: [bool; 4],
        write: bool,
        privileged: bool,
        fetch: bool,
    ) -> Outcome {
        let at = base + 8 * (low >> resolved);
        let mut bytes = [0; 8];
        if self.guest.memory.read_slice(&mut bytes, GuestAddress(at)).is_err() {
            return Fault(number::F_WALK_EABT, 1, at);
        }
        let word = if self.cd.endi() { u64::from_be_bytes(bytes) } else { u64::from_le_bytes(bytes) };
        if word % 2 == 0 {
            return Fault(number::F_TRANSLATION, 2, 0);
        }
        let limit = 1u64 << [32, 36, 40, 42, 44, 48][usize::from(self.cd.ips())];
        let address = word % (1 << 48);
        let rest = low % (1 << resolved);
        if Self::bit(word, 1) && level < 3 {
            let next = address - address % (1 << page);
            if next >= limit {
                return Fault(number::F_ADDR_SIZE, 2, 0);
            }
            let below = [!Self::bit(word, 61), !Self::bit(word, 62), !Self::bit(word, 59), !Self::bit(word, 60)];
            let allowed = std::array::from_fn(|i| allowed[i] && below[i]);
            return self.descend(next, level + 1, resolved - (page - 3), page, rest, allowed, write, privileged, fetch);
        }
        let block = matches!((page, level), (12, 1) | (12, 2) | (14, 2) | (16, 2));
        if level == 3 && !Self::bit(word, 1) || level < 3 && !block {
            return Fault(number::F_TRANSLATION, 2, 0);
        }
        let output = address - address % (1 << resolved);
        if output >= limit {
            return Fault(number::F_ADDR_SIZE, 2, 0);
        }
        if !Self::bit(word, 10) && !self.cd.affd() {
            return Fault(number::F_ACCESS, 2, 0);
        }
        let el0 = allowed[0] && Self::bit(word, 6);
        let writable = allowed[1] && !Self::bit(word, 7);
        let permitted = match (fetch && !write, privileged) {
            (true, true) => {
                let writable_by_any = writable && (el0 || self.cd.wxn());
                allowed[2] && !Self::bit(word, 53) && !writable_by_any
            }
            (true, false) => allowed[3] && !Self::bit(word, 54) && !(self.cd.wxn() && writable && el0),
            (false, true) => (!write || writable) && !(self.cd.pan() && el0),
            (false, false) => el0 && (!write || writable),
        };
        if permitted { Reaches(output + rest) } else { Fault(number::F_PERMISSION, 2, 0) }
    }
}

/// What the walker makes of the same access.
fn observed(guest: &Guest, iova: u64, write: bool, privileged: bool, fetch: bool) -> Outcome {
    let port = guest.port.with_privilege(privileged).with_execution(fetch);
    let source = port.source().unwrap();
    match guest.smmu.translate(source, port.access(write), iova) {
        Ok(extent) => Reaches(extent.address),
        Err(fault) => {
            let record = fault.event(source, port.access(write), iova).unwrap();
            let syndrome = FaultSyndrome::from_bits(record[1]);
            assert_eq!((syndrome.rnw(), syndrome.pnu(), syndrome.ind()), (!write, privileged, fetch && !write));
            assert_eq!(record[2], iova);
            Fault(record[0] as u8, syndrome.class(), record[3])
        }
    }
}

/// Descriptors that are mostly near to what a guest writes: tables that point to tables of the test, attributes at
/// random, and some noise.
fn descriptor() -> impl Strategy<Value = u64> {
    let place = prop_oneof![
        12 => (0u64..4).prop_map(|table| TABLES + (table << 16)),
        3 => (0u64..512).prop_map(|page| DATA + (page << 12)),
        1 => Just(NOWHERE),
        1 => any::<u64>().prop_map(|word| word & 0xffff_ffff_f000),
        1 => Just(1 << 32),
    ];
    let kind = prop_oneof![8 => Just(0b11u64), 3 => Just(0b01), 1 => Just(0b00), 1 => Just(0b10)];
    let bits = prop_oneof![
        4 => Just(RW),
        1 => (0u64..16).prop_map(|bits| (bits & 3) << 6 | (bits >> 2) << 10),
        1 => (0u64..256).prop_map(|bits| AF | (bits & 15) << 59 | (bits >> 4 & 3) << 53 | (bits >> 6) << 6),
        1 => Just(RW | CONTIGUOUS),
    ];
    (place, kind, bits).prop_map(|(place, kind, bits)| place | kind | bits)
}

fn context() -> impl Strategy<Value = Cd0> {
    let sizes = (16u8..=39, 16u8..=39, 0u8..3, 1u8..4, 0u8..6);
    let bits = any::<[bool; 9]>();
    (sizes, bits).prop_map(|((t0sz, t1sz, tg0, tg1, ips), [endi, affd, wxn, pan, tbi0, tbi1, uwxn, epd0, epd1])| {
        let cd = Cd0::new().with_v(true).with_aa64(true).with_r(true).with_a(true).with_asid(ASID);
        let cd = cd.with_t0sz(t0sz).with_t1sz(t1sz).with_tg0(tg0).with_tg1(tg1).with_ips(ips);
        let cd = cd.with_endi(endi).with_affd(affd).with_wxn(wxn).with_pan(pan).with_tbi0(tbi0).with_tbi1(tbi1);
        cd.with_uwxn(uwxn).with_epd0(epd0 && tbi0 && wxn && pan).with_epd1(epd1 && tbi1 && wxn && pan)
    })
}

/// Addresses in the lower region, in the upper one, and some in none.
fn address(cd: Cd0, bits: u64, where_: u8) -> u64 {
    let bits = bits & !7;
    let (lower, upper) = (!0 >> cd.t0sz(), !0 >> cd.t1sz());
    match where_ {
        0..7 => bits & lower,
        7..14 => bits | !upper,
        14 => bits & lower | 0xa5 << 56,
        15 => (bits | !upper) & !(0x5a << 56),
        _ => bits,
    }
}

/// Four tables filled with the descriptors in turn, the second region's first table being the second of them.
fn build(cd: Cd0, descriptors: &[u64]) -> (Guest, [u64; 2]) {
    let guest = Guest::new();
    let bases = [TABLES, TABLES + 0x1_0000];
    let words = descriptors.iter().cycle().zip(0..0x8000u64).flat_map(|(&word, i)| {
        // Neighbours continue each other, so that some groups are contiguous.
        let word = if word & CONTIGUOUS != 0 { word + ((i & 15) << 12) } else { word };
        if cd.endi() { word.to_be_bytes() } else { word.to_le_bytes() }
    });
    guest.memory.write_slice(&words.collect::<Vec<u8>>(), GuestAddress(TABLES)).unwrap();
    guest.use_cd(cd, bases[0], bases[1]);
    (guest, bases)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn both_walkers_agree_on_any_tables(
        cd in context(),
        descriptors in prop::collection::vec(descriptor(), 1..96),
        accesses in prop::collection::vec((any::<u64>(), 0u8..18, any::<[bool; 3]>()), 1..48),
    ) {
        let (guest, bases) = build(cd, &descriptors);
        let naive = Naive { guest: &guest, cd, bases };
        for (bits, where_, [write, privileged, fetch]) in accesses {
            let iova = address(cd, bits, where_);
            let expected = naive.translate(iova, write, privileged, fetch);
            prop_assert_eq!(observed(&guest, iova, write, privileged, fetch), expected, "at {:#x}, cd {:?}", iova, cd);
            // From the IOTLB now, if there is anything to cache.
            prop_assert_eq!(observed(&guest, iova, write, privileged, fetch), expected);
        }
    }
}

/// What a guest does to one of a few pages.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// Maps it where nothing was, or changes the mapping and invalidates as it must.
    Map { page: u64, to: u64, attributes: u64 },
    /// Clears its descriptor and invalidates.
    Unmap { page: u64 },
    /// Maps or unmaps 16 pages as a group.
    Group { group: u64, to: Option<u64> },
    /// Accesses it.
    Access { page: u64, write: bool },
    /// Invalidates something that it need not.
    Noise { command: u8, page: u64 },
}

fn step() -> impl Strategy<Value = Step> {
    let page = 0u64..64;
    let attributes = prop_oneof![Just(RW), Just(RW & !NG), Just(RW | READ_ONLY), Just(NG | USER)];
    prop_oneof![
        3 => (page.clone(), 0u64..64, attributes).prop_map(|(page, to, attributes)| Step::Map { page, to, attributes }),
        2 => page.clone().prop_map(|page| Step::Unmap { page }),
        1 => (0u64..4, prop::option::of(0u64..4)).prop_map(|(group, to)| Step::Group { group, to }),
        8 => (page.clone(), any::<bool>()).prop_map(|(page, write)| Step::Access { page, write }),
        1 => (0u8..6, page).prop_map(|(command, page)| Step::Noise { command, page }),
    ]
}

/// How the guest invalidates what it changed.
#[derive(Clone, Copy, Debug)]
enum Style {
    Va,
    Vaa,
    Range,
    Asid,
    All,
}

fn invalidate(guest: &Guest, style: Style, page_bits: u8, first: u64, count: u64, global: bool) {
    let at = |i: u64| (first + i) << page_bits;
    match style {
        Style::Va => (0..count).for_each(|i| guest.invalidate(tlbi_va(ASID, at(i)))),
        Style::Vaa => (0..count).for_each(|i| guest.invalidate(tlbi_vaa(at(i)))),
        Style::Range => {
            let command = Tlbi::from_bits(tlbi_va(ASID, at(0))).with_tg((page_bits - 10) / 2).with_ttl(3);
            guest.invalidate(command.with_num(count as u8 - 1).into_bits());
        }
        // By ASID global translations stay.
        Style::Asid if !global => guest.invalidate(tlbi_asid(ASID)),
        Style::Asid | Style::All => guest.invalidate(opcode::TLBI_NH_ALL.into()),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_guest_that_invalidates_what_it_changes_never_sees_the_iotlb(
        page_bits in prop_oneof![Just(12u8), Just(14), Just(16)],
        style in prop_oneof![Just(Style::Va), Just(Style::Vaa), Just(Style::Range), Just(Style::Asid), Just(Style::All)],
        steps in prop::collection::vec(step(), 1..200),
    ) {
        let guest = Guest::new();
        let mut tables = super::tables(&guest, page_bits, 42);
        let cd = cd0(&tables);
        guest.use_cd(cd, tables.root, 0);
        for step in steps {
            match step {
                Step::Map { page, to, attributes } => {
                    let slot = tables.slot(page << page_bits, 3);
                    let old = tables.read(slot);
                    tables.write(slot, (DATA + (to << page_bits)) | attributes | PAGE);
                    if old != 0 {
                        invalidate(&guest, style, page_bits, page, 1, old & NG == 0);
                    }
                }
                Step::Unmap { page } => {
                    let slot = tables.slot(page << page_bits, 3);
                    let old = tables.read(slot);
                    tables.write(slot, 0);
                    invalidate(&guest, style, page_bits, page, 1, old & NG == 0);
                }
                Step::Group { group, to } => {
                    let mut global = false;
                    for i in 16 * group..16 * group + 16 {
                        let slot = tables.slot(i << page_bits, 3);
                        let old = tables.read(slot);
                        global |= old != 0 && old & NG == 0;
                        let new = to.map_or(0, |to| (DATA + ((16 * to + i % 16) << page_bits)) | RW | CONTIGUOUS | PAGE);
                        tables.write(slot, new);
                    }
                    invalidate(&guest, style, page_bits, 16 * group, 16, global);
                }
                Step::Access { page, write } => {
                    let naive = Naive { guest: &guest, cd, bases: [tables.root, 0] };
                    let iova = page << page_bits | 0x238;
                    let expected = naive.translate(iova, write, false, false);
                    prop_assert_eq!(observed(&guest, iova, write, false, false), expected);
                }
                Step::Noise { command, page } => guest.invalidate(match command {
                    0 => tlbi_asid(ASID + 1),
                    1 => tlbi_va(ASID + 1, page << page_bits),
                    2 => tlbi_vaa(page << page_bits),
                    3 => cfgi_cd(0),
                    4 => cfgi_cd_all(),
                    _ => opcode::TLBI_NSNH_ALL.into(),
                }),
            }
        }
    }

    /// Whatever the guest does without invalidating, an access ends where some table said at some time.
    #[test]
    fn a_cached_translation_is_always_one_that_was_there(
        steps in prop::collection::vec((0u64..16, prop::option::of(0u64..16), any::<bool>()), 1..200),
    ) {
        let guest = Guest::new();
        let mut tables = super::tables(&guest, 12, 48);
        let cd = cd0(&tables);
        guest.use_cd(cd, tables.root, 0);
        let mut history = vec![vec![]; 16];
        for (page, to, access) in steps {
            if access {
                match observed(&guest, page << 12, false, false, false) {
                    Reaches(address) => prop_assert!(history[page as usize].contains(&Some(address))),
                    Fault(..) => {
                        // Faults are never cached, so the tables say so now.
                        let now = history[page as usize].last().copied().flatten();
                        prop_assert_eq!(now, None);
                    }
                }
            } else {
                let address = to.map(|to| DATA + (to << 12));
                tables.put(page << 12, 3, address.map_or(0, |address| address | RW | PAGE));
                history[page as usize].push(address);
            }
        }
    }
}
