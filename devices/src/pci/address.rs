//! Bus, device and function numbers.
#![forbid(unsafe_code)]

use std::fmt;

/// A requester ID: bus in bits 15:8, device in 7:3, function in 2:0. Within one vSMMU it is the StreamID.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bdf(u16);

impl Bdf {
    /// Puts the parts together; `device` below 32 and `function` below 8.
    pub const fn new(bus: u8, device: u8, function: u8) -> Self {
        Self((bus as u16) << 8 | (device as u16 & 0x1f) << 3 | function as u16 & 7)
    }

    /// Puts a bus number and a devfn (device in bits 7:3, function in 2:0) together.
    pub const fn from_devfn(bus: u8, devfn: u8) -> Self {
        Self((bus as u16) << 8 | devfn as u16)
    }

    /// From the 16 bits of a requester ID.
    pub const fn from_requester_id(id: u16) -> Self {
        Self(id)
    }

    /// The 16 bits of the requester ID.
    pub const fn requester_id(self) -> u16 {
        self.0
    }

    /// The bus number.
    pub const fn bus(self) -> u8 {
        (self.0 >> 8) as u8
    }

    /// The device number.
    pub const fn device(self) -> u8 {
        (self.0 >> 3) as u8 & 0x1f
    }

    /// The function number.
    pub const fn function(self) -> u8 {
        self.0 as u8 & 7
    }

    /// Device and function as one byte (devfn).
    pub const fn devfn(self) -> u8 {
        self.0 as u8
    }
}

impl fmt::Display for Bdf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02x}:{:02x}.{}", self.bus(), self.device(), self.function())
    }
}
