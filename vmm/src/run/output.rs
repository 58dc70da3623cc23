//! Console output through a thread of its own: a reader that does not read keeps no vCPU waiting.
#![forbid(unsafe_code)]

use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

/// What a reader may be behind; more is lost, and the UART counts it.
const BUFFER: usize = 1 << 20;

#[derive(Default)]
struct State {
    waiting: Vec<u8>,
    /// A piece is with the reader.
    writing: bool,
    /// The machine is gone, or the reader is.
    closed: bool,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Moves output to the reader until one of both is gone.
    fn pump(&self, mut reader: Box<dyn Write + Send>) {
        let mut piece = Vec::new();
        loop {
            {
                let idle = |state: &mut State| state.waiting.is_empty() && !state.closed;
                let waited = self.changed.wait_while(self.lock(), idle);
                let mut state = waited.unwrap_or_else(PoisonError::into_inner);
                if state.waiting.is_empty() {
                    return;
                }
                std::mem::swap(&mut piece, &mut state.waiting);
                state.writing = true;
            }
            let written = reader.write_all(&piece).and_then(|()| reader.flush());
            piece.clear();
            let mut state = self.lock();
            state.writing = false;
            if written.is_err() {
                state.closed = true;
                state.waiting.clear();
            }
            self.changed.notify_all();
        }
    }
}

/// The owner's end; dropping it ends the thread once all is written.
pub struct Output(Arc<Shared>);

/// The UART's end: takes bytes without waiting, or refuses them.
pub struct Sender(Arc<Shared>);

impl Output {
    /// Output to `reader`.
    pub fn new(reader: Box<dyn Write + Send>) -> io::Result<(Self, Sender)> {
        let shared = Arc::<Shared>::default();
        let pump = shared.clone();
        thread::Builder::new().name("console".into()).spawn(move || pump.pump(reader))?;
        Ok((Self(shared.clone()), Sender(shared)))
    }

    /// Waits until the reader has everything, but not longer than `limit`.
    pub fn finish(&self, limit: Duration) {
        let busy = |state: &mut State| !state.closed && (state.writing || !state.waiting.is_empty());
        let _ = self.0.changed.wait_timeout_while(self.0.lock(), limit, busy);
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        self.0.lock().closed = true;
        self.0.changed.notify_all();
    }
}

impl Write for Sender {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut state = self.0.lock();
        let space = BUFFER.saturating_sub(state.waiting.len()).min(bytes.len());
        if state.closed || space == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        state.waiting.extend_from_slice(&bytes[..space]);
        self.0.changed.notify_all();
        Ok(space)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    const LONG: Duration = Duration::from_secs(30);

    #[test]
    fn what_the_guest_prints_arrives_in_order() {
        let (mut reader, writer) = io::pipe().unwrap();
        let (output, mut sender) = Output::new(Box::new(writer)).unwrap();
        for piece in [b"nest".as_slice(), b"ling"] {
            sender.write_all(piece).unwrap();
        }
        output.finish(LONG);
        drop((output, sender));
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "nestling");
    }

    #[test]
    fn a_reader_that_does_not_read_keeps_nobody_waiting() {
        let (reader, writer) = io::pipe().unwrap();
        let (output, mut sender) = Output::new(Box::new(writer)).unwrap();
        let mut taken = 0;
        while let Ok(count) = sender.write(&[0; 4096]) {
            taken += count;
            assert!(taken <= 3 * BUFFER);
        }
        output.finish(Duration::from_millis(1));
        drop(reader);
    }

    #[test]
    fn without_a_reader_output_is_refused() {
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        let (output, mut sender) = Output::new(Box::new(writer)).unwrap();
        sender.write_all(b"lost").unwrap();
        output.finish(LONG);
        assert!(sender.write_all(b"lost").is_err());
    }
}
