//! A PCIe root port with a hot-plug slot, as Linux's `pcieport` and `pciehp` expect it (QEMU's `pcie-root-port` was
//! the model). What is behind it is reached by the bus numbers that the guest programmed.

#![forbid(unsafe_code)]

mod config;
mod layout;
mod slot;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};

use super::bar::MmioBar;
use super::config::ConfigSpace;
use super::msix::{BAR_SIZE, Msix};
use super::occupant::{Bus, Occupant};
use super::spec::{BridgeControl, Command, express, header};
use super::{Bdf, PciFunction};
use crate::bus::MmioBus;
use crate::interrupt::MsiTarget;
pub use config::{Error, Link, LinkSpeed, RootPortConfig};
use layout::Layout;
use slot::Slot;

/// By what a port passes configuration requests on. When it changes, functions lose or get back their numbers.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Routing {
    secondary: u8,
    subordinate: u8,
    /// Device numbers other than 0 (6.13).
    ari: bool,
    link_up: bool,
}

/// Device 0, function 0: with it the slot is occupied.
const FUNCTION_0: u8 = 0;

type PowerOffHook = Box<dyn Fn() + Send + Sync>;

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
    power_off_hook: OnceLock<PowerOffHook>,
    misplaced_bars: AtomicU64,
}

impl RootPort {
    /// A port with an empty slot. Its BAR 0 shows on `mmio` while the guest enables memory space, and its interrupts
    /// go to `target`.
    pub fn new(config: RootPortConfig, mmio: Arc<MmioBus>, target: Arc<dyn MsiTarget>) -> Result<Self, Error> {
        config::check(&config)?;
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
            power_off_hook: OnceLock::new(),
            misplaced_bars: AtomicU64::new(0),
        })
    }

    /// The physical slot number.
    pub fn slot(&self) -> u16 {
        self.slot_number
    }

    /// Puts a function behind the port before the guest runs, at device (bits 7:3) and function (2:0) `devfn` of its
    /// secondary bus. A guest reaches devices other than 0 only by ARI forwarding (6.13).
    pub fn plug(&self, devfn: u8, function: Arc<dyn PciFunction>) -> Result<(), Error> {
        let occupant = self.insert(devfn, function)?;
        let mut state = self.lock();
        self.slot.power_on(&mut state.config, self.is_occupied());
        drop(state);
        occupant.capture(Bdf::from_devfn(self.routing().secondary, devfn));
        Ok(())
    }

    /// Puts a function behind the port of a running guest. Function 0 goes last: with it the guest is told that the
    /// slot is occupied. The function has no requester ID before the guest's first write to its configuration space.
    pub fn hot_plug(&self, devfn: u8, function: Arc<dyn PciFunction>) -> Result<(), Error> {
        self.insert(devfn, function)?;
        self.update_presence();
        Ok(())
    }

    /// Presses the attention button of an occupied slot: asks the guest to let go of what is in it (6.7.1.5). When it
    /// has, it switches the slot off: see [`RootPort::on_power_off`].
    pub fn press_attention_button(&self) {
        let mut state = self.lock();
        if self.slot.press_attention_button(&mut state.config) {
            self.msix.notify(0);
        }
    }

    /// Calls `hook` after the guest switched the occupied slot off and the functions in it were reset. It runs on a
    /// vCPU thread. Set once; a second one is ignored.
    pub fn on_power_off(&self, hook: impl Fn() + Send + Sync + 'static) {
        let _ = self.power_off_hook.set(Box::new(hook));
    }

    /// Takes the function at `devfn` away. The slot is empty without function 0; a guest that did not switch it off
    /// before sees a surprise removal.
    pub fn unplug(&self, devfn: u8) -> Option<Arc<dyn PciFunction>> {
        let occupant = self.behind.remove(devfn)?;
        self.update_presence();
        Some(occupant.function().clone())
    }

    fn insert(&self, devfn: u8, function: Arc<dyn PciFunction>) -> Result<Arc<Occupant>, Error> {
        let occupant = Arc::new(Occupant::new(function));
        if !self.behind.insert(devfn, occupant.clone()) {
            return Err(Error::Occupied { slot: self.slot_number, devfn });
        }
        Ok(occupant)
    }

    fn is_occupied(&self) -> bool {
        self.behind.get(FUNCTION_0).is_some()
    }

    /// Whether requests for `bus` go to the other side of the port, by the bus numbers as they are now.
    pub(super) fn forwards(&self, bus: u8) -> bool {
        let Routing { secondary, subordinate, .. } = self.routing();
        secondary != 0 && (secondary..=subordinate).contains(&bus)
    }

    /// The function behind the port that answers at `target`. No bridge is ever behind it, so buses after the
    /// secondary are empty.
    pub(super) fn find_behind(&self, target: Bdf) -> Option<Arc<Occupant>> {
        let Routing { secondary, ari, link_up, .. } = self.routing();
        // Without ARI forwarding the port itself refuses every device but 0 (7.3.1).
        let passes = target.bus() == secondary && link_up && (target.device() == 0 || ari);
        if passes { self.behind.get(target.devfn()) } else { None }
    }

    /// Resets everything behind the port, then the port.
    pub(super) fn reset_all(&self) {
        self.behind.for_each(|_, occupant| occupant.function().reset());
        self.reset();
    }

    /// Gives everything behind the port the number that it has by the port's registers now.
    pub(super) fn assign_numbers(&self) {
        let Routing { secondary, .. } = self.routing();
        self.behind.for_each(|devfn, occupant| occupant.assign(Bdf::from_devfn(secondary, devfn)));
    }

    /// Calls `visit` for everything behind the port.
    pub(super) fn for_each_behind(&self, mut visit: impl FnMut(&Occupant)) {
        self.behind.for_each(|_, occupant| visit(occupant));
    }

    /// How the port passes configuration requests on now.
    pub(super) fn routing(&self) -> Routing {
        let state = self.lock();
        let control = state.config.get_u16(self.layout.express + express::DEVICE_CONTROL_2);
        Routing {
            secondary: state.config.get_u8(header::SECONDARY_BUS),
            subordinate: state.config.get_u8(header::SUBORDINATE_BUS),
            ari: control & express::ARI_FORWARDING != 0,
            link_up: self.slot.is_link_up(&state.config),
        }
    }

    fn update_presence(&self) {
        let mut state = self.lock();
        if self.slot.set_present(&mut state.config, self.is_occupied()) {
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
        if bus_reset || outcome.link_lost {
            self.behind.for_each(|_, occupant| occupant.function().bus_reset());
        }
        if let Some(hook) = self.power_off_hook.get().filter(|_| outcome.power_lost && self.is_occupied()) {
            hook();
        }
    }

    /// Resets the port alone; the slot keeps what is in it.
    fn reset(&self) {
        let mut guard = self.lock();
        let state = &mut *guard;
        state.config.reset();
        self.place_bar0(state);
        self.msix.reset();
        self.slot.power_on(&mut state.config, self.is_occupied());
    }

    fn on_requester_id(&self, id: Bdf) {
        self.msix.set_requester_id(id);
    }
}

#[cfg(test)]
mod tests;
