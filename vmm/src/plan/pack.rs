//! Puts ranges side by side, each naturally aligned.

/// A range that needs a place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Need {
    /// Length in bytes; 0 needs no place.
    pub size: u64,
    /// Alignment, a power of two; at least 1 where the size is not 0.
    pub align: u64,
}

impl Need {
    /// A range aligned to its own size, but at least to `least`, which it then also has for itself.
    pub fn natural(size: u64, least: u64) -> Self {
        let size = size.max(least);
        Self { size, align: size }
    }
}

/// Ranges that have their places inside one that needs its own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Packed {
    /// Where each range begins, from the start of the whole; in the order they were given.
    pub offsets: Vec<u64>,
    /// The whole: a multiple of the granule, as strictly aligned as any range in it.
    pub need: Need,
}

/// Packs `needs` into one range of whole `granule`s. `None` if 64 bits are too few.
pub fn pack(needs: &[Need], granule: u64) -> Option<Packed> {
    let (offsets, end) = pack_from(0, needs)?;
    let align = needs.iter().map(|need| need.align).max().unwrap_or(0);
    let size = end.checked_next_multiple_of(granule)?;
    let need = if size == 0 { Need::default() } else { Need { size, align: align.max(granule) } };
    Some(Packed { offsets, need })
}

/// Packs `needs` from the address `start` on: where each begins, and the first address behind them all. The strictest
/// alignment comes first, which leaves the fewest holes.
pub fn pack_from(start: u64, needs: &[Need]) -> Option<(Vec<u64>, u64)> {
    let mut order: Vec<usize> = (0..needs.len()).filter(|&i| needs[i].size != 0).collect();
    order.sort_by_key(|&i| std::cmp::Reverse(needs[i].align));
    let mut places = vec![0; needs.len()];
    let mut free = start;
    for i in order {
        places[i] = free.checked_next_multiple_of(needs[i].align)?;
        free = places[i].checked_add(needs[i].size)?;
    }
    Some((places, free))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_strictest_alignment_comes_first() {
        let needs = [Need::natural(0x1000, 0x1000), Need::natural(0x10_0000, 0x1000), Need::default()];
        let packed = pack(&needs, 0x10_0000).unwrap();
        assert_eq!(packed.offsets, [0x10_0000, 0, 0]);
        assert_eq!(packed.need, Need { size: 0x20_0000, align: 0x10_0000 });
    }

    #[test]
    fn nothing_needs_no_place() {
        assert_eq!(pack(&[], 0x10_0000), Some(Packed::default()));
        assert_eq!(pack_from(0x1000, &[Need::default()]), Some((vec![0], 0x1000)));
    }

    #[test]
    fn a_small_range_gets_the_least_for_itself() {
        assert_eq!(Need::natural(0x1000, 0x1_0000), Need { size: 0x1_0000, align: 0x1_0000 });
        assert_eq!(Need::natural(0x4_0000, 0x1_0000), Need { size: 0x4_0000, align: 0x4_0000 });
    }

    #[test]
    fn what_64_bits_cannot_hold_has_no_place() {
        let needs = [Need::natural(1 << 63, 1); 3];
        assert_eq!(pack(&needs, 0x10_0000), None);
    }
}
