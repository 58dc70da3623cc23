//! Accesses under way. An invalidation is complete when no access uses what it took away (IHI 0070, section 3.21.1).

/// Counts accesses of two generations: an invalidation starts a new one and waits for the old one to end, so that a
/// device that goes on and on cannot hold it up.
#[derive(Default)]
pub(super) struct Flights {
    under_way: [u32; 2],
    generation: Generation,
    /// How many times a generation began, modulo 2^64.
    turns: u64,
}

/// Which of the two.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Generation {
    #[default]
    Even,
    Odd,
}

impl Generation {
    fn other(self) -> Self {
        match self {
            Self::Even => Self::Odd,
            Self::Odd => Self::Even,
        }
    }
}

impl Flights {
    /// An access starts.
    pub(super) fn start(&mut self) -> Generation {
        self.under_way[self.generation as usize] += 1;
        self.generation
    }

    /// An access of this generation is over. Returns whether it was the last.
    pub(super) fn end(&mut self, generation: Generation) -> bool {
        let count = &mut self.under_way[generation as usize];
        *count = count.saturating_sub(1);
        *count == 0
    }

    /// What [`have_landed`](Self::have_landed) needs to know of now.
    pub(super) fn now(&self) -> u64 {
        self.turns
    }

    /// Whether all accesses are over that were under way at `since`. Of many who wait each calls it with its own time,
    /// whenever a generation has ended: nobody waits for accesses that began after it did because somebody else turns.
    pub(super) fn have_landed(&mut self, since: u64) -> bool {
        if self.turns == since && !self.has_old() {
            // All that is under way is old now.
            self.generation = self.generation.other();
            self.turns = self.turns.wrapping_add(1);
        }
        match self.turns.wrapping_sub(since) {
            0 => false,
            1 => !self.has_old(),
            // The generation of then was old, and over, when the next turn came.
            _ => true,
        }
    }

    /// Whether accesses of the generation before this one are under way.
    fn has_old(&self) -> bool {
        self.under_way[self.generation.other() as usize] > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_who_wait_do_not_wait_for_what_began_after_them() {
        let mut flights = Flights::default();
        let first = flights.start();
        let early = flights.now();
        assert!(!flights.have_landed(early));
        let second = flights.start();
        let late = flights.now();
        assert!(!flights.have_landed(late));
        assert!(flights.end(first));
        // The late one wakes up first, and turns.
        assert!(!flights.have_landed(late));
        let third = flights.start();
        assert!(flights.have_landed(early), "the first is over");
        assert!(flights.end(second));
        assert!(flights.have_landed(late), "the third began later");
        assert!(flights.have_landed(early));
        let last = flights.now();
        assert!(!flights.have_landed(last));
        assert!(flights.end(third));
        assert!(flights.have_landed(last));
    }
}
