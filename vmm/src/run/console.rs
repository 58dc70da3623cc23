//! Console input: bytes from a terminal, pipe or socket to the guest's UART, and what Ctrl-A begins.
#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

const CTRL_A: u8 = 1;
/// What somebody may type ahead of a guest that does not read; more is dropped, as a terminal does it.
const TYPE_AHEAD: usize = 4096;

/// Where the guest's console is on the host.
pub struct Console {
    /// What people type; none for a console without input.
    pub input: Option<OwnedFd>,
    /// Whether Ctrl-A in the input is for nestling: X ends the machine, P presses the power button, a second Ctrl-A or A
    /// is one Ctrl-A for the guest.
    pub escape: bool,
    /// What the guest prints.
    pub output: Box<dyn io::Write + Send>,
}

/// What a piece of input means.
#[derive(Debug, Default, PartialEq, Eq)]
struct Typed {
    bytes: Vec<u8>,
    quit: bool,
    power_button: bool,
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
            return Typed { bytes: typed.to_vec(), ..Typed::default() };
        }
        let mut result = Typed::default();
        for &byte in typed {
            match (std::mem::take(&mut self.armed), byte) {
                (false, CTRL_A) => self.armed = true,
                (false, byte) => result.bytes.push(byte),
                (true, b'x' | b'X') => result.quit = true,
                (true, b'p' | b'P') => result.power_button = true,
                (true, CTRL_A | b'a' | b'A') => result.bytes.push(CTRL_A),
                (true, byte) => result.bytes.extend([CTRL_A, byte]),
            }
        }
        result
    }
}

/// Takes as many bytes as the UART has space for and says how many those were.
pub type Uart = Box<dyn FnMut(&[u8]) -> usize + Send>;

/// What came of a look at the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// More may come, and there is space for it.
    Open,
    /// The UART is full: nothing should be read before it has space.
    Full,
    /// Somebody typed Ctrl-A X.
    Quit,
    /// Somebody typed Ctrl-A P.
    PowerButton,
    /// Nothing will ever come again.
    Ended,
}

/// The reading end that the control loop serves.
pub struct Input {
    file: File,
    escape: Escape,
    uart: Uart,
    waiting: VecDeque<u8>,
}

impl Input {
    /// Input from `fd` to `uart`.
    pub fn new(fd: OwnedFd, escape: bool, uart: Uart) -> Self {
        Self { file: File::from(fd), escape: Escape { enabled: escape, armed: false }, uart, waiting: VecDeque::new() }
    }

    /// Reads what is there, without waiting if `fd` was readable.
    pub(super) fn read(&mut self) -> State {
        let mut buffer = [0; 256];
        match self.file.read(&mut buffer) {
            Ok(0) => State::Ended,
            Ok(length) => {
                let typed = self.escape.filter(&buffer[..length]);
                self.waiting.extend(typed.bytes);
                match self.deliver() {
                    _ if typed.quit => State::Quit,
                    _ if typed.power_button => State::PowerButton,
                    // Who can type the escape is listened to even if the guest is not.
                    State::Full if self.escape.enabled => {
                        self.waiting.truncate(TYPE_AHEAD);
                        State::Open
                    }
                    state => state,
                }
            }
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => State::Open,
            Err(_) => State::Ended,
        }
    }

    /// Gives the UART what it could not take before.
    pub(super) fn deliver(&mut self) -> State {
        let taken = (self.uart)(self.waiting.make_contiguous());
        self.waiting.drain(..taken.min(self.waiting.len()));
        if self.waiting.is_empty() { State::Open } else { State::Full }
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
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    fn escape() -> Escape {
        Escape { enabled: true, armed: false }
    }

    #[test]
    fn ctrl_a_x_quits() {
        assert_eq!(escape().filter(b"ls\r\x01x"), Typed { bytes: b"ls\r".to_vec(), quit: true, power_button: false });
    }

    #[test]
    fn ctrl_a_p_presses_the_power_button() {
        assert_eq!(escape().filter(b"\x01p"), Typed { power_button: true, ..Typed::default() });
    }

    #[test]
    fn the_escape_may_come_in_two_pieces() {
        let mut escape = escape();
        assert_eq!(escape.filter(b"\x01"), Typed::default());
        assert!(escape.filter(b"X").quit);
    }

    #[test]
    fn ctrl_a_twice_is_one_for_the_guest() {
        let both = Typed { bytes: b"\x01x".to_vec(), ..Typed::default() };
        assert_eq!(escape().filter(b"\x01\x01x"), both);
        assert_eq!(escape().filter(b"\x01ax"), both);
    }

    #[test]
    fn without_escape_every_byte_is_the_guests() {
        let typed = Escape::default().filter(b"\x01x");
        assert_eq!(typed, Typed { bytes: b"\x01x".to_vec(), ..Typed::default() });
    }

    #[test]
    fn the_escape_works_when_the_guest_does_not_read() {
        let (reader, mut writer) = io::pipe().unwrap();
        let mut input = Input::new(reader.into(), true, Box::new(|_| 0));
        for _ in 0..TYPE_AHEAD {
            writer.write_all(b"hello?").unwrap();
            assert_eq!(input.read(), State::Open);
        }
        assert_eq!(input.waiting.len(), TYPE_AHEAD);
        writer.write_all(b"\x01x").unwrap();
        assert_eq!(input.read(), State::Quit);
    }

    #[test]
    fn what_the_uart_cannot_take_waits_for_it_in_order() {
        let (reader, mut writer) = io::pipe().unwrap();
        let taken = Arc::new(Mutex::new(Vec::new()));
        let sink = taken.clone();
        let four_at_a_time = move |bytes: &[u8]| {
            let count = bytes.len().min(4);
            sink.lock().unwrap().extend_from_slice(&bytes[..count]);
            count
        };
        let mut input = Input::new(reader.into(), false, Box::new(four_at_a_time));
        writer.write_all(b"nestling").unwrap();
        assert_eq!(input.read(), State::Full);
        assert_eq!(input.deliver(), State::Open);
        assert_eq!(*taken.lock().unwrap(), b"nestling");
        drop(writer);
        assert_eq!(input.read(), State::Ended);
    }
}
