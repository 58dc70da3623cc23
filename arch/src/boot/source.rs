//! Where the bytes of a kernel or an initrd come from.
#![forbid(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use vm_memory::GuestMemoryMmap;

use super::{BootError, write};

/// How much is copied at once.
const CHUNK: usize = 1 << 20;

/// A regular file, or bytes in memory. A file is read by position: its own offset neither matters nor moves.
#[derive(Clone, Copy, Debug)]
pub enum Source<'a> {
    /// An open file.
    File(&'a File),
    /// Its content.
    Bytes(&'a [u8]),
}

impl Source<'_> {
    /// Length in bytes.
    pub(super) fn len(&self) -> io::Result<u64> {
        match self {
            Self::File(file) => Ok(file.metadata()?.len()),
            Self::Bytes(bytes) => Ok(bytes.len() as u64),
        }
    }

    /// Reads from `offset` on as much as there is, at most `buffer`; returns how much.
    pub(super) fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        match self {
            Self::File(file) => read_full(file, buffer, offset),
            Self::Bytes(bytes) => {
                let rest = usize::try_from(offset).ok().and_then(|offset| bytes.get(offset..)).unwrap_or_default();
                let count = rest.len().min(buffer.len());
                buffer[..count].copy_from_slice(&rest[..count]);
                Ok(count)
            }
        }
    }

    /// Copies all of it to guest memory at `address`.
    pub(super) fn load(&self, memory: &GuestMemoryMmap, what: &'static str, address: u64) -> Result<(), BootError> {
        if let Self::Bytes(bytes) = self {
            return write(memory, what, address, bytes);
        }
        let size = self.len().map_err(|source| BootError::Read { what, source })?;
        let mut buffer = vec![0; CHUNK];
        let mut done = 0;
        while done < size {
            // Never more than its place, even if the file grows meanwhile.
            let want = usize::try_from(size - done).map_or(CHUNK, |rest| rest.min(CHUNK));
            let chunk = &mut buffer[..want];
            let count = self.read_at(chunk, done).map_err(|source| BootError::Read { what, source })?;
            if count < want {
                return Err(BootError::Read { what, source: io::ErrorKind::UnexpectedEof.into() });
            }
            write(memory, what, address + done, chunk)?;
            done += count as u64;
        }
        Ok(())
    }
}

fn read_full(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut done = 0;
    while done < buffer.len() {
        match file.read_at(&mut buffer[done..], offset + done as u64) {
            Ok(0) => break,
            Ok(count) => done += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}
