//! A pseudo-terminal: nestling on one side, a test at the keyboard on the other.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;

use rustix::fs::OFlags;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, tcgetattr};

/// The keyboard's side.
#[derive(Debug)]
pub(super) struct Terminal {
    keyboard: File,
    user: File,
}

impl Terminal {
    pub(super) fn open() -> io::Result<Self> {
        let keyboard: OwnedFd = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
        grantpt(&keyboard)?;
        unlockpt(&keyboard)?;
        let name = ptsname(&keyboard, Vec::new())?;
        let path = std::ffi::OsStr::from_bytes(name.to_bytes());
        use std::os::unix::fs::OpenOptionsExt;
        // without NOCTTY it might become the test's own terminal
        let flags = i32::try_from(OFlags::NOCTTY.bits()).unwrap_or(0);
        let user = OpenOptions::new().read(true).write(true).custom_flags(flags).open(path)?;
        Ok(Self { keyboard: keyboard.into(), user })
    }

    /// The side that a program gets.
    pub(super) fn user_side(&self) -> io::Result<File> {
        self.user.try_clone()
    }

    /// What the program writes.
    pub(super) fn reader(&self) -> io::Result<File> {
        self.keyboard.try_clone()
    }

    /// Whether lines are not edited any more.
    pub(super) fn is_raw(&self) -> bool {
        tcgetattr(&self.user).is_ok_and(|mode| !mode.local_modes.contains(LocalModes::ICANON))
    }
}

impl Write for Terminal {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.keyboard.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.keyboard.flush()
    }
}
