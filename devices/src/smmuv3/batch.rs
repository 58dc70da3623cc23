//! Invalidations on their way to the host: in order, in a buffer that is made once.

use super::physical::CommandWords;

/// Most commands in one batch; the kernel issues them in blocks of 63.
pub(super) const CAPACITY: usize = 256;

/// Commands with the queue index that each came from.
pub(super) struct Batch {
    commands: Vec<CommandWords>,
    indices: Vec<u32>,
}

impl Batch {
    pub(super) fn new() -> Self {
        Self { commands: Vec::with_capacity(CAPACITY), indices: Vec::with_capacity(CAPACITY) }
    }

    /// Appends a command. The caller sends the batch when [`is_full`](Self::is_full).
    pub(super) fn push(&mut self, command: CommandWords, index: u32) {
        self.commands.push(command);
        self.indices.push(index);
    }

    pub(super) fn is_full(&self) -> bool {
        self.commands.len() >= CAPACITY
    }

    pub(super) fn commands(&self) -> &[CommandWords] {
        &self.commands
    }

    /// Queue index of the command at `position`, or of the last one if there are fewer.
    pub(super) fn index(&self, position: usize) -> Option<u32> {
        self.indices.get(position).or(self.indices.last()).copied()
    }

    pub(super) fn clear(&mut self) {
        self.commands.clear();
        self.indices.clear();
    }
}
