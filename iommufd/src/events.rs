//! The kernel's queue of events for one vSMMU (vEVENTQ).
//!
//! A read never blocks and returns 0 bytes when the queue is empty, which is not the end of the file. A record is a
//! header of 8 bytes (flags, sequence) and the 32 bytes of an SMMU event with the virtual StreamID in place. When
//! events were dropped for want of room, a lone header ends the queue (`drivers/iommu/iommufd/eventq.c`).
#![forbid(unsafe_code)]

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::sync::{Arc, Mutex};

use crate::error::{Call, Error};
use crate::ids::EventQueueId;
use crate::kernel::Kernel;
use crate::object::Object;
use crate::viommu::Viommu;

pub(crate) const HEADER_SIZE: usize = 8;
pub(crate) const RECORD_SIZE: usize = HEADER_SIZE + 32;
/// `IOMMU_VEVENTQ_FLAG_LOST_EVENTS`.
pub(crate) const LOST_EVENTS: u32 = 1;
/// Sequence numbers wrap behind this one.
pub(crate) const SEQUENCE_MASK: u32 = i32::MAX as u32;
/// Records read from the kernel at once, on the stack.
const BATCH: usize = 32;

/// One entry of the queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Vevent {
    /// How many events the kernel dropped right before this entry.
    pub lost: u32,
    /// The four words of the event (IHI 0070 section 7.3); none if the entry only tells of lost ones.
    pub record: Option<[u64; 4]>,
}

/// The event queue of one vIOMMU. Poll the descriptor for input, then [`EventQueue::read`] until it returns 0.
#[derive(Debug)]
pub struct EventQueue {
    // The kernel refuses to destroy the queue while its descriptor is open: this field drops first.
    file: File,
    object: Object,
    id: EventQueueId,
    next_sequence: Mutex<u32>,
    _viommu: Arc<Viommu>,
}

impl EventQueue {
    pub(crate) fn alloc(viommu: &Arc<Viommu>, kernel: &Arc<dyn Kernel>, depth: u32) -> Result<Self, Error> {
        let (id, fd) = kernel.veventq_alloc(viommu.id(), depth).map_err(|e| match e.raw_os_error() {
            Some(libc::EEXIST) => Error::EventQueueExists,
            _ => Error::failed(Call::VeventqAlloc, e),
        })?;
        Ok(Self {
            file: fd.into(),
            object: Object::new(kernel, "veventq", id.0),
            id,
            next_sequence: Mutex::new(0),
            _viommu: viommu.clone(),
        })
    }

    /// Its id.
    pub fn id(&self) -> EventQueueId {
        self.id
    }

    /// Fills `events` from the front and returns how many there are now; 0 when the queue is empty. Never blocks.
    pub fn read(&self, events: &mut [Vevent]) -> Result<usize, Error> {
        let mut buffer = [0; BATCH * RECORD_SIZE];
        // Room for n records never returns more than n of them, with or without lone headers between.
        let room = &mut buffer[..events.len().min(BATCH) * RECORD_SIZE];
        if room.is_empty() {
            return Ok(0);
        }
        // Held over the read: sequence numbers must be seen in order.
        let mut next = self.next_sequence.lock().unwrap_or_else(|e| e.into_inner());
        let length = match (&self.file).read(room) {
            Ok(length) => length,
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => 0,
            Err(e) => return Err(Error::failed(Call::VeventqRead, e)),
        };
        parse(&room[..length.min(room.len())], &mut next, events)
    }

    /// Closes the descriptor and destroys the queue. Remove the descriptor from every poll set first.
    pub fn destroy(self) -> Result<(), Error> {
        drop(self.file);
        self.object.destroy()
    }
}

impl AsRawFd for EventQueue {
    fn as_raw_fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }
}

impl AsFd for EventQueue {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

fn parse(mut bytes: &[u8], next: &mut u32, events: &mut [Vevent]) -> Result<usize, Error> {
    let mut count = 0;
    while let Some((header, rest)) = bytes.split_at_checked(HEADER_SIZE) {
        let flags = word32(&header[..4]);
        let sequence = word32(&header[4..]) & SEQUENCE_MASK;
        let Some(event) = events.get_mut(count) else {
            // Lone headers may still have fit, and records in the room that they left: the gap shows in the sequence
            // number of the next record.
            let size = if flags & LOST_EVENTS != 0 { 0 } else { RECORD_SIZE - HEADER_SIZE };
            let Some((_, rest)) = rest.split_at_checked(size) else { break };
            bytes = rest;
            continue;
        };
        let skipped = sequence.wrapping_sub(*next) & SEQUENCE_MASK;
        if flags & LOST_EVENTS != 0 {
            // The header carries the number of the last event that was lost.
            *event = Vevent { lost: skipped.wrapping_add(1) & SEQUENCE_MASK, record: None };
            bytes = rest;
        } else {
            let Some((data, rest)) = rest.split_at_checked(RECORD_SIZE - HEADER_SIZE) else { break };
            let mut record = [0; 4];
            for (word, data) in record.iter_mut().zip(data.chunks_exact(8)) {
                *word = data.iter().rev().fold(0, |word, &byte| word << 8 | u64::from(byte));
            }
            *event = Vevent { lost: skipped, record: Some(record) };
            bytes = rest;
        }
        *next = sequence.wrapping_add(1) & SEQUENCE_MASK;
        count += 1;
    }
    if bytes.is_empty() { Ok(count) } else { Err(Error::BadEvent(bytes.len())) }
}

fn word32(bytes: &[u8]) -> u32 {
    bytes.iter().rev().fold(0, |word, &byte| word << 8 | u32::from(byte))
}

#[cfg(test)]
mod tests;
