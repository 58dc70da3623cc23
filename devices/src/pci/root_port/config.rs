//! What a root port is made from, and what is refused.

#![forbid(unsafe_code)]

use std::ops::Range;

use crate::pci::msix::BAR_SIZE;

/// Granule of the bridge windows (7.5.1.3.8).
const MIB: u64 = 1 << 20;

/// Speed of a link (7.5.3.18, Supported Link Speeds Vector).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum LinkSpeed {
    /// 2.5 GT/s.
    Gen1 = 1,
    /// 5 GT/s.
    Gen2 = 2,
    /// 8 GT/s.
    Gen3 = 3,
    /// 16 GT/s.
    Gen4 = 4,
    /// 32 GT/s.
    #[default]
    Gen5 = 5,
    /// 64 GT/s.
    Gen6 = 6,
}

/// What the port says of its link. A driver that tunes itself by it wants the link of the host's port here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its speed.
    pub speed: LinkSpeed,
    /// Lanes: 1, 2, 4, 8, 16 or 32.
    pub width: u8,
}

impl Default for Link {
    fn default() -> Self {
        Self { speed: LinkSpeed::default(), width: 16 }
    }
}

/// What a root port is at power-on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RootPortConfig {
    /// Physical slot number, below 8192, unique in the machine.
    pub slot: u16,
    /// The root bus that the port is on.
    pub primary_bus: u8,
    /// Bus behind the port.
    pub secondary_bus: u8,
    /// Last bus behind the port.
    pub subordinate_bus: u8,
    /// Memory window in granules of 1 MiB below 4 GiB; empty for none.
    pub memory: Range<u64>,
    /// Prefetchable window in granules of 1 MiB; empty for none.
    pub prefetchable: Range<u64>,
    /// Address of BAR 0, 4 KiB ([`BAR_SIZE`]); a 64-bit BAR if it lies above 4 GiB.
    pub bar0: u64,
    /// Its link.
    pub link: Link,
}

/// Why there can be no such root port or function behind it.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    /// A slot number of more than 13 bits.
    #[error("root port slot {0}: slot numbers are below 8192")]
    SlotNumber(u16),
    /// Bus numbers that do not ascend from primary to subordinate.
    #[error(
        "root port slot {slot}: buses {secondary:#04x} to {subordinate:#04x} do not follow its root bus {primary:#04x}"
    )]
    Buses {
        /// The port's slot.
        slot: u16,
        /// Its root bus.
        primary: u8,
        /// First bus behind it.
        secondary: u8,
        /// Last bus behind it.
        subordinate: u8,
    },
    /// A window that the bridge registers cannot hold.
    #[error("root port slot {slot}: window {:#x}..{:#x} is not in granules of 1 MiB{}", .window.start, .window.end,
        if *.below_4g { " below 4 GiB" } else { "" })]
    Window {
        /// The port's slot.
        slot: u16,
        /// The window.
        window: Range<u64>,
        /// Whether it must lie below 4 GiB.
        below_4g: bool,
    },
    /// BAR 0 is not aligned to its size.
    #[error("root port slot {slot}: bar 0 at {address:#x} is not aligned to {BAR_SIZE:#x}")]
    Bar {
        /// The port's slot.
        slot: u16,
        /// The address.
        address: u64,
    },
    /// The place behind the port is taken.
    #[error("root port slot {slot}: device and function {devfn:#04x} behind it are taken")]
    Occupied {
        /// The port's slot.
        slot: u16,
        /// Device (bits 7:3) and function (2:0).
        devfn: u8,
    },
}

pub(super) fn check(config: &RootPortConfig) -> Result<(), Error> {
    let slot = config.slot;
    if slot >= 1 << 13 {
        return Err(Error::SlotNumber(slot));
    }
    let (primary, secondary, subordinate) = (config.primary_bus, config.secondary_bus, config.subordinate_bus);
    if secondary <= primary || subordinate < secondary {
        return Err(Error::Buses { slot, primary, secondary, subordinate });
    }
    for (window, below_4g) in [(&config.memory, true), (&config.prefetchable, false)] {
        let aligned = window.start.is_multiple_of(MIB) && window.end.is_multiple_of(MIB);
        if !window.is_empty() && (!aligned || below_4g && window.end > 1 << 32) {
            return Err(Error::Window { slot, window: window.clone(), below_4g });
        }
    }
    if !config.bar0.is_multiple_of(BAR_SIZE) {
        return Err(Error::Bar { slot, address: config.bar0 });
    }
    Ok(())
}
