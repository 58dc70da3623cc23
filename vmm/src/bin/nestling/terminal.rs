//! The terminal: raw while the guest runs, as it was on every way out.

use std::io::{self, IsTerminal};
use std::os::fd::OwnedFd;

use rustix::stdio::stdin;
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};

/// A terminal in raw mode; dropping it restores what was before.
pub struct RawTerminal {
    before: Option<Termios>,
}

impl RawTerminal {
    /// Switches standard input to raw mode, if it is a terminal.
    ///
    /// Output keeps its post-processing: a line feed of our own messages still starts a new line.
    pub fn enter() -> io::Result<Self> {
        if !io::stdin().is_terminal() {
            return Ok(Self { before: None });
        }
        let before = tcgetattr(stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        raw.output_modes = before.output_modes;
        tcsetattr(stdin(), OptionalActions::Now, &raw)?;
        Ok(Self { before: Some(before) })
    }

    /// Whether there is somebody who types.
    pub fn is_terminal(&self) -> bool {
        self.before.is_some()
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            // Nothing is left to do if even this fails.
            let _ = tcsetattr(stdin(), OptionalActions::Flush, before);
        }
    }
}

/// Standard input as a descriptor of our own.
pub fn input() -> io::Result<OwnedFd> {
    Ok(rustix::io::dup(stdin())?)
}
