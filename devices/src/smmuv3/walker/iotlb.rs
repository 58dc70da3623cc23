//! The IOTLB: a bounded number of translations, with what the guest's invalidations take out of it.

use std::collections::BTreeMap;

use super::walk::{Leaf, VA_MASK};

/// Most translations kept.
pub(super) const CAPACITY: usize = 4096;

/// Whose translations: of one ASID, or of all (global). Global ones come first.
type Tag = Option<u16>;

/// Translations by tag and first address. Those of one tag never overlap, so two sizes of one page cannot meet
/// (IDR3.BBML 2). Tables are not cached, so TLBI.Leaf makes no difference; TTL is a hint that is not needed.
#[derive(Default)]
pub(super) struct Iotlb {
    entries: BTreeMap<(Tag, u64), Leaf>,
    /// The next to be replaced is the first from here on.
    hand: (Tag, u64),
}

impl Iotlb {
    /// The translation of an address for an ASID.
    pub(super) fn find(&self, asid: u16, iova: u64) -> Option<Leaf> {
        let address = iova & VA_MASK;
        let of = |tag: Tag| {
            let (key, leaf) = self.entries.range(..=(tag, address)).next_back()?;
            (key.0 == tag && leaf.contains(address)).then_some(*leaf)
        };
        of(Some(asid)).or_else(|| of(None))
    }

    /// Keeps a translation. What it overlaps goes, and another one if there are too many.
    pub(super) fn insert(&mut self, asid: u16, leaf: Leaf) {
        let tag = (!leaf.global).then_some(asid);
        self.remove(tag, leaf.start, leaf.start | ((1 << leaf.bits) - 1));
        if self.entries.len() >= CAPACITY {
            let victim = self.entries.range(self.hand..).next().or_else(|| self.entries.iter().next());
            if let Some(&key) = victim.map(|(key, _)| key) {
                self.entries.remove(&key);
                self.hand = key;
            }
        }
        self.entries.insert((tag, leaf.start), leaf);
    }

    /// CMD_TLBI_NH_ALL and CMD_TLBI_NSNH_ALL.
    pub(super) fn invalidate_all(&mut self) {
        self.entries.clear();
    }

    /// CMD_TLBI_NH_ASID: global translations stay.
    pub(super) fn invalidate_asid(&mut self, asid: u16) {
        self.remove(Some(asid), 0, VA_MASK);
    }

    /// CMD_TLBI_NH_VA for addresses `first..=last` (bits 55:0): global translations go, too.
    pub(super) fn invalidate_va(&mut self, asid: u16, first: u64, last: u64) {
        self.remove(Some(asid), first, last);
        self.remove(None, first, last);
    }

    /// CMD_TLBI_NH_VAA: the same for all ASIDs.
    pub(super) fn invalidate_vaa(&mut self, first: u64, last: u64) {
        let mut from = (None, 0);
        while let Some((&(tag, _), _)) = self.entries.range(from..).next() {
            self.remove(tag, first, last);
            from = match tag {
                None => (Some(0), 0),
                Some(u16::MAX) => return,
                Some(asid) => (Some(asid + 1), 0),
            };
        }
    }

    /// Takes out what overlaps `first..=last`.
    fn remove(&mut self, tag: Tag, first: u64, last: u64) {
        while let Some((&key, leaf)) = self.entries.range((tag, 0)..=(tag, last)).next_back() {
            if key.1 < first && !leaf.contains(first) {
                return;
            }
            self.entries.remove(&key);
        }
    }

    /// How many there are.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }
}
