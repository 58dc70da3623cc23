//! Circular queues in guest memory (IHI 0070, section 3.5): where an entry lies, and how much is in the queue.

use super::spec::registers::QueueBase;

/// The largest LOG2SIZE that there is (section 6.3.2, CMDQS and EVENTQS).
const MAX_LOG2SIZE: u8 = 19;

/// Place and size of a queue. Indices carry a wrap bit above the index proper; bits above that are ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Queue {
    base: u64,
    log2size: u32,
}

impl Queue {
    /// The queue that a base register describes. LOG2SIZE above `limit` (IDR1.CMDQS or EVENTQS) counts as `limit`;
    /// a base that is not aligned to the size of the queue is aligned down (section 6.3.25, ADDR).
    pub(super) fn new(register: QueueBase, limit: u8, entry_size: u64) -> Self {
        let log2size = u32::from(register.log2size().min(limit).min(MAX_LOG2SIZE));
        let bytes = (entry_size << log2size).max(32);
        Self { base: (register.addr() << 5) & !(bytes - 1), log2size }
    }

    /// Number of entries that fit.
    pub(super) fn size(&self) -> u32 {
        1 << self.log2size
    }

    /// Guest physical address of the entry that `index` names.
    pub(super) fn address(&self, index: u32, entry_size: u64) -> u64 {
        self.base + u64::from(index & (self.size() - 1)) * entry_size
    }

    /// Entries from `index` to the end of the memory of the queue.
    pub(super) fn until_end(&self, index: u32) -> u32 {
        self.size() - (index & (self.size() - 1))
    }

    /// The index `count` entries on.
    pub(super) fn advance(&self, index: u32, count: u32) -> u32 {
        index.wrapping_add(count) & (2 * self.size() - 1)
    }

    /// Entries between the indices; none if the indices contradict each other (more than fit).
    pub(super) fn used(&self, producer: u32, consumer: u32) -> Option<u32> {
        let used = producer.wrapping_sub(consumer) & (2 * self.size() - 1);
        (used <= self.size()).then_some(used)
    }

    /// Whether no entry fits.
    pub(super) fn is_full(&self, producer: u32, consumer: u32) -> bool {
        self.used(producer, consumer).is_none_or(|used| used == self.size())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn indices_of_every_size_wrap_and_count_right(
            log2size in 0u8..=19, limit in 0u8..=19, page in 0u64..1 << 30, start in any::<u32>(), count in any::<u32>(),
            entry in prop::sample::select(vec![16u64, 32]),
        ) {
            let register = QueueBase::new().with_log2size(log2size).with_addr(page);
            let queue = Queue::new(register, limit, entry);
            let size = queue.size();
            prop_assert_eq!(size, 1 << log2size.min(limit));
            let (start, count) = (queue.advance(start, 0), count % (size + 1));
            let end = queue.advance(start, count);
            // As many as were put in, and what is free is the rest; the wrap bit is all that tells full from empty.
            prop_assert_eq!(queue.used(end, start), Some(count));
            prop_assert_eq!(queue.is_full(end, start), count == size);
            prop_assert!(end < 2 * size);
            if count > 0 && count < size {
                prop_assert_eq!(queue.used(start, end), None, "the other way round they contradict each other");
            }
            // One by one is the same as at once, and no entry lies outside of the queue's own memory.
            let base = queue.address(0, entry);
            prop_assert_eq!(base % (u64::from(size) * entry).max(32), 0);
            prop_assert!(base <= page << 5 && (page << 5) - base < (u64::from(size) * entry).max(32));
            let mut index = start;
            for step in 0..count.min(100) {
                let address = queue.address(index, entry);
                prop_assert!(address >= base && address + entry <= base + u64::from(size) * entry);
                prop_assert!(step >= queue.until_end(start) || address == queue.address(start, entry) + u64::from(step) * entry);
                index = queue.advance(index, 1);
                prop_assert_eq!(index, queue.advance(start, step + 1));
            }
        }
    }

    #[test]
    fn every_size_wraps_with_its_own_wrap_bit() {
        for log2size in 0..=MAX_LOG2SIZE {
            let queue = Queue::new(QueueBase::new().with_addr(0x4000_0000 >> 5).with_log2size(log2size), 19, 16);
            let size = 1u32 << log2size;
            assert_eq!(queue.used(0, 0), Some(0));
            assert_eq!(queue.used(size, 0), Some(size), "full is told from empty by the wrap bit");
            assert!(queue.is_full(size, 0) && queue.is_full(0, size));
            assert_eq!(queue.advance(2 * size - 1, 1), 0);
            assert_eq!(queue.address(size - 1, 16), queue.address(2 * size - 1, 16));
            assert_eq!(queue.until_end(size - 1), 1);
            assert_eq!(queue.until_end(size), size);
            if size > 1 {
                assert_eq!(queue.used(size + 1, 0), None, "more than fit");
                assert!(queue.is_full(size + 1, 0));
            }
        }
    }

    #[test]
    fn a_size_above_the_limit_counts_as_the_limit() {
        let queue = Queue::new(QueueBase::new().with_log2size(31), 8, 16);
        assert_eq!(queue.size(), 256);
    }

    #[test]
    fn a_base_is_aligned_down_to_the_size_of_the_queue() {
        let base = QueueBase::new().with_addr(0x4000_0fe0 >> 5);
        assert_eq!(Queue::new(base.with_log2size(8), 19, 16).address(0, 16), 0x4000_0000);
        assert_eq!(Queue::new(base.with_log2size(0), 19, 16).address(0, 16), 0x4000_0fe0);
    }
}
