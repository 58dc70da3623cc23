//! A PCIe root port with a hot-plug slot, as Linux's `pcieport` and `pciehp` expect it (QEMU's `pcie-root-port` was
//! the model). What is behind it is reached by the bus numbers that the guest programmed.

#![forbid(unsafe_code)]

mod layout;
mod slot;

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use super::bar::MmioBar;
use super::config::ConfigSpace;
use super::msix::{BAR_SIZE, Msix};
use super::occupant::{Bus, Occupant};
use super::spec::{BridgeControl, Command, express, header};
use super::{Bdf, PciFunction};
use crate::bus::MmioBus;
use crate::interrupt::MsiTarget;
use layout::Layout;
use slot::Slot;

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
    /// The function number behind the port is taken.
    #[error("root port slot {slot}: device and function {devfn:#04x} behind it are taken")]
    Occupied {
        /// The port's slot.
        slot: u16,
        /// Device (bits 7:3) and function (2:0).
        devfn: u8,
    },
}

struct State {
    config: ConfigSpace,
    bar0: MmioBar,
}

/// A root port; put it into a [`super::Segment`] with [`super::Segment::add_port`].
pub struct RootPort {
    slot_number: u16,
    layout: Layout,
    slot: Slot,
    msix: Arc<Msix>,
    behind: Bus,
    state: Mutex<State>,
    misplaced_bars: AtomicU64,
}

impl RootPort {
    /// A port with an empty slot. Its BAR 0 shows on `mmio` while the guest enables memory space, and its interrupts
    /// go to `target`.
    pub fn new(config: RootPortConfig, mmio: Arc<MmioBus>, target: Arc<dyn MsiTarget>) -> Result<Self, Error> {
        check(&config)?;
        // One vector for hot-plug, PME and errors alike: the message numbers in the capabilities stay 0.
        let msix = Arc::new(Msix::new(1, target));
        let (space, layout) = layout::build(&config, &msix);
        let bar0 = MmioBar::new(mmio, msix.clone(), BAR_SIZE);
        let slot = Slot::new(layout.express);
        let mut state = State { config: space, bar0 };
        slot.power_on(&mut state.config, false);
        Ok(Self {
            slot_number: config.slot,
            layout,
            slot,
            msix,
            behind: Bus::default(),
            state: Mutex::new(state),
            misplaced_bars: AtomicU64::new(0),
        })
    }

    /// The physical slot number.
    pub fn slot(&self) -> u16 {
        self.slot_number
    }

    /// Puts a function behind the port, at device (bits 7:3) and function (2:0) `devfn` of its secondary bus; with
    /// the first one the slot becomes occupied and, in a running guest that listens, hot-plug begins.
    ///
    /// A guest reaches device numbers other than 0 only with ARI forwarding enabled (6.13).
    pub fn plug(&self, devfn: u8, function: Arc<dyn PciFunction>) -> Result<(), Error> {
        let occupant = Arc::new(Occupant::new(function));
        if !self.behind.insert(devfn, occupant.clone()) {
            return Err(Error::Occupied { slot: self.slot_number, devfn });
        }
        let secondary = self.lock().config.get_u8(header::SECONDARY_BUS);
        occupant.announce(Bdf::from_devfn(secondary, devfn));
        self.update_presence();
        Ok(())
    }

    /// Takes the function at `devfn` away, as if it were pulled out; with the last one the slot becomes empty.
    pub fn unplug(&self, devfn: u8) -> Option<Arc<dyn PciFunction>> {
        let occupant = self.behind.remove(devfn)?;
        self.update_presence();
        Some(occupant.function().clone())
    }

    /// Whether requests for `bus` go to the other side of the port, by the bus numbers as they are now.
    pub(super) fn forwards(&self, bus: u8) -> bool {
        let (secondary, subordinate) = self.bus_numbers();
        secondary != 0 && (secondary..=subordinate).contains(&bus)
    }

    /// The function behind the port that answers at `target`. No bridge is ever behind it, so buses after the
    /// secondary are empty.
    pub(super) fn find_behind(&self, target: Bdf) -> Option<Arc<Occupant>> {
        let state = self.lock();
        let at_secondary = target.bus() == state.config.get_u8(header::SECONDARY_BUS);
        let control = state.config.get_u16(self.layout.express + express::DEVICE_CONTROL_2);
        // Without ARI forwarding the port itself refuses every device but 0 (7.3.1).
        let reachable = target.device() == 0 || control & express::ARI_FORWARDING != 0;
        if !at_secondary || !reachable || !self.slot.is_link_up(&state.config) {
            return None;
        }
        drop(state);
        self.behind.get(target.devfn())
    }

    /// Resets everything behind the port, then the port, and tells the functions their first requester ID again.
    pub(super) fn reset_all(&self) {
        self.behind.for_each(|_, occupant| occupant.function().reset());
        self.reset();
        let (secondary, _) = self.bus_numbers();
        self.behind.for_each(|devfn, occupant| occupant.announce(Bdf::from_devfn(secondary, devfn)));
    }

    fn bus_numbers(&self) -> (u8, u8) {
        let state = self.lock();
        (state.config.get_u8(header::SECONDARY_BUS), state.config.get_u8(header::SUBORDINATE_BUS))
    }

    fn update_presence(&self) {
        let mut state = self.lock();
        if self.slot.set_present(&mut state.config, !self.behind.is_empty()) {
            self.msix.notify(0);
        }
    }

    fn place_bar0(&self, state: &mut State) {
        let command = Command::from_bits_retain(state.config.get_u16(header::COMMAND));
        let address = command.contains(Command::MEMORY).then(|| state.config.bar(&self.layout.bar0));
        if let Err(error) = state.bar0.place(address) {
            let count = self.misplaced_bars.fetch_add(1, Ordering::Relaxed) + 1;
            // The guest can repeat this at will, so only every power of two is told.
            if count.is_power_of_two() {
                log::warn!("root port slot {}: bar 0 answers nowhere ({count} times): {error}", self.slot_number);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }
}

impl PciFunction for RootPort {
    fn config_read(&self, offset: u16, data: &mut [u8]) {
        self.lock().config.read(offset, data);
    }

    fn config_write(&self, offset: u16, data: &[u8]) {
        let mut guard = self.lock();
        let state = &mut *guard;
        let bridge_control =
            |config: &ConfigSpace| BridgeControl::from_bits_retain(config.get_u16(header::BRIDGE_CONTROL));
        let before = bridge_control(&state.config);
        let slot_before = self.slot.snapshot(&state.config);
        state.config.write(offset, data);
        self.place_bar0(state);
        self.msix.follow(&state.config, self.layout.msix);
        let outcome = self.slot.follow(&mut state.config, slot_before);
        if outcome.interrupt {
            self.msix.notify(0);
        }
        let bus_reset = (bridge_control(&state.config) - before).contains(BridgeControl::SECONDARY_BUS_RESET);
        drop(guard);
        // Outside the lock: a function may look at its port while it resets.
        if bus_reset || outcome.power_lost {
            self.behind.for_each(|_, occupant| occupant.function().reset());
        }
    }

    /// Resets the port alone; the slot keeps what is in it.
    fn reset(&self) {
        let mut guard = self.lock();
        let state = &mut *guard;
        state.config.reset();
        self.place_bar0(state);
        self.msix.reset();
        self.slot.power_on(&mut state.config, !self.behind.is_empty());
    }

    fn on_requester_id(&self, id: Bdf) {
        self.msix.set_requester_id(id);
    }
}

fn check(config: &RootPortConfig) -> Result<(), Error> {
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

#[cfg(test)]
mod tests;
