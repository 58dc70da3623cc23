//! Invalidations on their way to the host: in order, in buffers that are made once.

use super::physical::CommandWords;

/// Most commands in one batch; the kernel issues them in blocks of 63.
pub(super) const CAPACITY: usize = 256;

/// Commands with the queue index that each came from.
pub(super) struct Batch {
    commands: Box<[CommandWords; CAPACITY]>,
    indices: Box<[u32; CAPACITY]>,
    length: usize,
}

impl Batch {
    pub(super) fn new() -> Self {
        Self { commands: Box::new([[0; 2]; CAPACITY]), indices: Box::new([0; CAPACITY]), length: 0 }
    }

    /// Appends a command. The caller sends the batch when this says that it is full; what comes after that is lost.
    #[inline]
    #[must_use]
    pub(super) fn push(&mut self, command: CommandWords, index: u32) -> bool {
        if let (Some(slot), Some(from)) = (self.commands.get_mut(self.length), self.indices.get_mut(self.length)) {
            (*slot, *from) = (command, index);
            self.length += 1;
        }
        self.length == CAPACITY
    }

    pub(super) fn commands(&self) -> &[CommandWords] {
        self.commands.get(..self.length).unwrap_or_default()
    }

    /// Queue index of the command at `position`, or of the last one if there are fewer.
    pub(super) fn index(&self, position: usize) -> Option<u32> {
        self.indices.get(position.min(self.length.checked_sub(1)?)).copied()
    }

    pub(super) fn clear(&mut self) {
        self.length = 0;
    }
}
