//! Event records on their way to the model, in a bounded queue.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::super::physical::{EventWords, HostEvent};

/// Most records that wait for the model; as many as the guest's largest queue holds an eighth of.
pub(super) const CAPACITY: usize = 1024;

/// Events handed over without the lock in between.
const BATCH: usize = 32;

/// The queue and the eventfd that is readable while it is not empty.
pub(super) struct Events {
    queue: Mutex<VecDeque<HostEvent>>,
    fd: EventFd,
}

impl Events {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self { queue: Mutex::new(VecDeque::new()), fd: EventFd::new(EFD_NONBLOCK)? })
    }

    pub(super) fn fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }

    /// Appends a record, or counts it as lost.
    pub(super) fn push(&self, record: EventWords) {
        let mut queue = self.lock();
        if queue.is_empty() {
            // The counter is 0 before, so this cannot fail.
            let _ = self.fd.write(1);
        }
        let full = queue.len() >= CAPACITY;
        match queue.back_mut() {
            Some(HostEvent::Lost(count)) if full => *count = count.saturating_add(1),
            _ if full => queue.push_back(HostEvent::Lost(1)),
            _ => queue.push_back(HostEvent::Record(record)),
        }
    }

    /// Hands over what is there now, oldest first.
    pub(super) fn drain(&self, sink: &mut dyn FnMut(HostEvent)) {
        let mut left = self.lock().len();
        let mut batch = [HostEvent::Lost(0); BATCH];
        while left > 0 {
            let mut queue = self.lock();
            let count = left.min(BATCH).min(queue.len());
            for (slot, event) in batch.iter_mut().zip(queue.drain(..count)) {
                *slot = event;
            }
            if queue.is_empty() {
                let _ = self.fd.read();
            }
            drop(queue);
            // Without the lock: the sink writes guest memory and raises interrupts.
            batch.iter().take(count).for_each(|&event| sink(event));
            left = if count == 0 { 0 } else { left - count };
        }
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<HostEvent>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
