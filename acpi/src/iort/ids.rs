//! Which requester IDs go where: bus ranges to ID ranges, without overlaps and without gaps.

use crate::description::BusRange;

/// Requester IDs of one bus.
const BUS: u32 = 1 << 8;
/// Requester IDs of a segment.
const SEGMENT: u32 = 1 << 16;

/// IDs `base` to `base` + `count` - 1; never empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct IdRange {
    pub base: u32,
    pub count: u32,
}

impl IdRange {
    /// All requester IDs of a segment.
    pub const SEGMENT: Self = Self { base: 0, count: SEGMENT };

    fn end(self) -> u32 {
        self.base + self.count
    }
}

impl From<BusRange> for IdRange {
    fn from(buses: BusRange) -> Self {
        let last = buses.last.max(buses.first);
        Self { base: u32::from(buses.first) * BUS, count: (u32::from(last - buses.first) + 1) * BUS }
    }
}

/// The segment cut into pieces in ascending order: each claim with its owner, what nobody claims with `None`.
/// Where claims overlap, the one that starts first keeps the IDs.
pub(super) fn partition<T: Copy>(claims: impl IntoIterator<Item = (BusRange, T)>) -> Vec<(IdRange, Option<T>)> {
    let mut claims: Vec<(IdRange, T)> = claims.into_iter().map(|(buses, owner)| (buses.into(), owner)).collect();
    claims.sort_by_key(|(range, _)| range.base);
    let mut pieces = Vec::with_capacity(claims.len() * 2 + 1);
    let mut push = |start: u32, end: u32, owner| {
        if start < end {
            pieces.push((IdRange { base: start, count: end - start }, owner));
        }
    };
    let mut done = 0;
    for (range, owner) in claims {
        push(done, range.base, None);
        push(done.max(range.base), range.end(), Some(owner));
        done = done.max(range.end());
    }
    push(done, SEGMENT, None);
    pieces
}

/// The union of bus ranges as few ID ranges, in ascending order.
pub(super) fn union(buses: &[BusRange]) -> Vec<IdRange> {
    let mut sorted = buses.to_vec();
    sorted.sort();
    let mut ranges: Vec<IdRange> = Vec::new();
    for range in sorted.into_iter().map(IdRange::from) {
        match ranges.last_mut() {
            Some(last) if range.base <= last.end() => last.count = last.end().max(range.end()) - last.base,
            _ => ranges.push(range),
        }
    }
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;

    fn buses(first: u8, last: u8) -> BusRange {
        BusRange { first, last }
    }

    fn ids(base: u32, count: u32) -> IdRange {
        IdRange { base, count }
    }

    #[test]
    fn a_segment_without_claims_is_one_piece() {
        assert_eq!(partition::<u8>([]), [(IdRange::SEGMENT, None)]);
    }

    #[test]
    fn gaps_between_claims_are_nobodys() {
        let pieces = partition([(buses(0xf0, 0xff), 'b'), (buses(0x10, 0x10), 'a')]);
        let expected = [
            (ids(0, 0x1000), None),
            (ids(0x1000, 0x100), Some('a')),
            (ids(0x1100, 0xdf00), None),
            (ids(0xf000, 0x1000), Some('b')),
        ];
        assert_eq!(pieces, expected);
    }

    #[test]
    fn overlapping_claims_do_not_give_overlapping_pieces() {
        let pieces = partition([(buses(0, 9), 'a'), (buses(4, 5), 'b'), (buses(8, 0x0b), 'c')]);
        let expected = [(ids(0, 0xa00), Some('a')), (ids(0xa00, 0x200), Some('c')), (ids(0xc00, 0xf400), None)];
        assert_eq!(pieces, expected);
    }

    #[test]
    fn adjacent_and_overlapping_buses_become_one_range() {
        let union =
            union(&[buses(0x42, 0x43), buses(0x40, 0x40), buses(0x41, 0x41), buses(0x43, 0x43), buses(0xff, 0xff)]);
        assert_eq!(union, [ids(0x4000, 0x400), ids(0xff00, 0x100)]);
    }

    #[test]
    fn all_buses_are_the_whole_segment() {
        assert_eq!(IdRange::from(buses(0, 255)), IdRange::SEGMENT);
        assert_eq!(partition([(buses(0, 255), 'a')]), [(IdRange::SEGMENT, Some('a'))]);
    }

    #[test]
    fn an_inverted_bus_range_is_its_first_bus() {
        assert_eq!(IdRange::from(buses(9, 3)), ids(0x900, 0x100));
    }
}
