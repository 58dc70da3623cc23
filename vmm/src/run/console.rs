//! Console input: bytes from a terminal, pipe or socket to the guest's UART, and the escape Ctrl-A X.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::Handle;

const CTRL_A: u8 = 1;

/// Where the guest's console is on the host.
pub struct Console {
    /// What people type; none for a console without input.
    pub input: Option<OwnedFd>,
    /// Whether Ctrl-A X in the input ends the machine (Ctrl-A Ctrl-A is one Ctrl-A for the guest).
    pub escape: bool,
    /// What the guest prints.
    pub output: Box<dyn std::io::Write + Send>,
}

/// What a piece of input means.
#[derive(Debug, Default, PartialEq, Eq)]
struct Typed {
    bytes: Vec<u8>,
    quit: bool,
}

/// Finds the escape in what is typed; remembers a Ctrl-A at the end of a piece.
#[derive(Default)]
struct Escape {
    enabled: bool,
    armed: bool,
}

impl Escape {
    fn filter(&mut self, typed: &[u8]) -> Typed {
        if !self.enabled {
            return Typed { bytes: typed.to_vec(), quit: false };
        }
        let mut result = Typed::default();
        for &byte in typed {
            match (std::mem::take(&mut self.armed), byte) {
                (false, CTRL_A) => self.armed = true,
                (false, byte) => result.bytes.push(byte),
                (true, b'x' | b'X') => result.quit = true,
                (true, CTRL_A) => result.bytes.push(CTRL_A),
                (true, byte) => result.bytes.extend([CTRL_A, byte]),
            }
        }
        result
    }
}

/// Hands bytes to the UART.
pub type Deliver = Box<dyn FnMut(&[u8])>;

/// The reading end that the control loop serves.
pub struct Input {
    file: File,
    escape: Escape,
    deliver: Deliver,
}

impl Input {
    /// Input from `fd`.
    pub fn new(fd: OwnedFd, escape: bool, deliver: Deliver) -> Self {
        Self { file: File::from(fd), escape: Escape { enabled: escape, armed: false }, deliver }
    }

    /// Reads what is there; `false` when nothing will ever come again.
    pub(super) fn read(&mut self, handle: &Handle) -> bool {
        let mut buffer = [0; 256];
        match self.file.read(&mut buffer) {
            Ok(0) => false,
            Ok(length) => {
                let typed = self.escape.filter(&buffer[..length]);
                (self.deliver)(&typed.bytes);
                if typed.quit {
                    handle.quit();
                }
                true
            }
            Err(error) => matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::Interrupted),
        }
    }
}

impl AsFd for Input {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn escape() -> Escape {
        Escape { enabled: true, armed: false }
    }

    #[test]
    fn ctrl_a_x_quits() {
        assert_eq!(escape().filter(b"ls\r\x01x"), Typed { bytes: b"ls\r".to_vec(), quit: true });
    }

    #[test]
    fn the_escape_may_come_in_two_pieces() {
        let mut escape = escape();
        assert_eq!(escape.filter(b"\x01"), Typed::default());
        assert!(escape.filter(b"X").quit);
    }

    #[test]
    fn ctrl_a_twice_is_one_for_the_guest() {
        assert_eq!(escape().filter(b"\x01\x01x"), Typed { bytes: b"\x01x".to_vec(), quit: false });
    }

    #[test]
    fn without_escape_every_byte_is_the_guests() {
        let typed = Escape::default().filter(b"\x01x");
        assert_eq!(typed, Typed { bytes: b"\x01x".to_vec(), quit: false });
    }
}
