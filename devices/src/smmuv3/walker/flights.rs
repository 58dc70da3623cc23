//! Accesses under way. An invalidation is complete when no access uses what it took away (IHI 0070, section 3.21.1).

/// Counts accesses of two generations: an invalidation starts a new one and waits for the old one to end, so that a
/// device that goes on and on cannot hold it up.
#[derive(Default)]
pub(super) struct Flights {
    under_way: [u32; 2],
    generation: Generation,
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

    /// Whether accesses of the generation before this one are under way.
    pub(super) fn has_old(&self) -> bool {
        self.under_way[self.generation.other() as usize] > 0
    }

    /// All that is under way is old now. Only when nothing [`has_old`](Self::has_old).
    pub(super) fn turn(&mut self) {
        self.generation = self.generation.other();
    }
}
