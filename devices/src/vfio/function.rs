//! The PCI function that the guest sees.

#![forbid(unsafe_code)]

mod identity;
mod reset;

use std::sync::{Arc, Mutex, MutexGuard, Weak};

use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::bars::Bar;
use super::config::{Config, Translation};
use super::error::Error;
use super::host::{HostFunction, irq, region};
use super::msi::Msi;
use super::msix::Msix;
use super::trap::{BarTrap, Counters, VfioCounters};
use super::vectors::Vectors;
use crate::bus::MmioBus;
use crate::interrupt::MsiRouter;
use crate::mapping::GuestMapper;
use crate::pci::spec::{Command, header};
use crate::pci::{Bdf, PciFunction};
use identity::Identity;
pub use identity::Upstream;
use reset::Resets;

/// Where a memory BAR lies at power-on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BarAddress {
    /// BAR number, 0 to 5; of a wide one the lower.
    pub index: u8,
    /// Guest physical address, aligned to the BAR's size.
    pub address: u64,
}

/// What a passed-through function is made from.
pub struct VfioFunctionConfig {
    /// What messages call it, the host address for example.
    pub name: String,
    /// The bound device.
    pub host: Arc<dyn HostFunction>,
    /// Requester ID in the guest: the DeviceID of its messages at the guest's ITS.
    pub guest: Bdf,
    /// All memory BARs of the device.
    pub bars: Vec<BarAddress>,
    /// What its vSMMU offers of address translation.
    pub translation: Translation,
}

/// A passed-through function in the guest.
pub struct VfioFunction {
    name: String,
    host: Arc<dyn HostFunction>,
    state: Mutex<State>,
    /// Shared with the traps on the pages of its table.
    msix: Option<Arc<Mutex<Msix>>>,
    counters: Arc<Counters>,
    identity: Identity,
    resets: Resets,
    /// For the thread of a reset.
    me: Weak<Self>,
    request: EventFd,
    error: EventFd,
}

struct State {
    config: Config,
    bars: Vec<Bar>,
    msi: Option<Msi>,
    /// The device is in D0 as far as the guest asked.
    powered: bool,
    /// Nothing may appear in the guest any more.
    closed: bool,
    /// A reset goes on: nothing answers.
    resetting: bool,
    /// The last reset did not happen: the device may still be at what it did before.
    unreset: bool,
}

impl State {
    fn decodes(&self) -> bool {
        self.powered && !self.closed && self.config.command().contains(Command::MEMORY)
    }
}

impl VfioFunction {
    /// Makes the function from a bound device. Nothing of it is in the guest yet.
    pub fn new(
        config: VfioFunctionConfig,
        bus: Arc<MmioBus>,
        mapper: Arc<dyn GuestMapper>,
        router: Arc<dyn MsiRouter>,
    ) -> Result<Arc<Self>, Error> {
        let VfioFunctionConfig { name, host, guest, bars: addresses, translation } = config;
        let config = Config::new(&*host, translation);
        let mut config = config.ok_or_else(|| Error::NotAnEndpoint { name: name.clone() })?;
        place_at_power_on(&name, &mut config, &addresses)?;
        let layout = *config.layout();
        if translation.pasid.is_some() && layout.pasid.is_none() {
            return Err(Error::NoPasidCapability { name });
        }
        let vectors =
            |index, count| Vectors::new(host.clone(), router.clone(), index, count, guest.requester_id().into());
        let msi = layout.msi.map(|msi| Msi::new(msi, vectors(irq::MSI, msi.vectors())));
        let msix = layout.msix.map(|msix| Arc::new(Mutex::new(Msix::new(msix, vectors(irq::MSIX, msix.vectors)))));
        let counters = Arc::new(Counters::new(&name));
        let mut bars = Vec::new();
        for shape in config.bars() {
            let trap = BarTrap::new(host.clone(), shape.index, layout.msix, msix.clone(), counters.clone());
            let holes = trap.holes();
            let bar = Bar::new(&*host, *shape, &holes, Arc::new(trap), bus.clone(), mapper.clone());
            bars.push(bar.map_err(|e| Error::vfio(&name, "mmap of a bar", e))?);
        }
        let event = || EventFd::new(EFD_NONBLOCK).map_err(|e| Error::vfio(&name, "eventfd", e));
        let (request, error) = (event()?, event()?);
        for (index, event) in [(irq::REQUEST, &request), (irq::ERROR, &error)] {
            if host.irqs(index).count > 0
                && let Err(e) = host.set_irqs(index, 0, &[Some(event)])
            {
                log::warn!("{name}: the host cannot tell about interrupt index {index}: {e}");
            }
        }
        let state = State { config, bars, msi, powered: true, closed: false, resetting: false, unreset: false };
        let function = Arc::new_cyclic(|me| Self {
            name,
            host,
            state: Mutex::new(state),
            msix,
            counters,
            identity: Identity::new(guest),
            resets: Resets::default(),
            me: me.clone(),
            request,
            error,
        });
        function.write_device_command(&function.lock());
        Ok(function)
    }

    /// What messages call it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Signalled while the host wants the device back (its driver is to be unbound).
    pub fn request_event(&self) -> &EventFd {
        &self.request
    }

    /// Signalled when the host sees an uncorrectable error of the device.
    pub fn error_event(&self) -> &EventFd {
        &self.error
    }

    /// What happened so far, and what is in the guest now.
    pub fn counters(&self) -> VfioCounters {
        let state = self.lock();
        let msi = state.msi.as_ref().map_or(0, Msi::routed);
        let msix = self.msix().map_or(0, |msix| msix.routed());
        let mapped_bytes = state.bars.iter().map(Bar::mapped_bytes).sum();
        VfioCounters { mapped_bytes, routed_vectors: msi + msix, moves: self.identity.moves(), ..self.counters.read() }
    }

    /// Takes everything out of the guest and stops the device's DMA and interrupts, for good. First step of the
    /// teardown; the vSMMU's objects follow, then the device.
    pub fn shutdown(&self) {
        self.wait_for_reset();
        let mut state = self.lock();
        state.closed = true;
        state.config.reset();
        self.quiesce(&mut state);
        for index in [irq::REQUEST, irq::ERROR] {
            if self.host.irqs(index).count > 0 {
                self.note("disable an event", self.host.disable_irqs(index));
            }
        }
        drop(state);
        let VfioCounters { trapped, errors, .. } = self.counters();
        if trapped > 0 {
            log::debug!("{}: {trapped} accesses to its bars were trapped", self.name);
        }
        if errors > 0 {
            log::info!("{}: {errors} calls to the host failed", self.name);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }

    fn msix(&self) -> Option<MutexGuard<'_, Msix>> {
        self.msix.as_ref().map(|msix| msix.lock().unwrap_or_else(|e| e.into_inner()))
    }

    fn note<E: std::fmt::Display>(&self, what: &str, result: Result<(), E>) {
        if let Err(e) = result {
            self.counters.error(what, &e);
        }
    }

    /// No BAR, no vector, no DMA.
    fn quiesce(&self, state: &mut State) {
        self.place_bars(state, false);
        if let Some(msi) = &mut state.msi {
            self.note("free msi", msi.release());
        }
        if let Some(mut msix) = self.msix() {
            self.note("free msi-x", msix.release());
        }
        self.write_device(header::COMMAND, &Command::INTERRUPT_DISABLE.bits().to_le_bytes());
    }

    fn place_bars(&self, state: &mut State, decodes: bool) {
        let State { config, bars, .. } = state;
        let address = |bar: &Bar| decodes.then(|| config.bar(bar.shape()));
        // All that leave their place go first: another one may be about to take it.
        for bar in bars.iter_mut().filter(|bar| bar.address() != address(bar)) {
            self.note("remove a bar", bar.place(None));
        }
        for bar in bars.iter_mut() {
            let address = address(bar);
            self.note("place a bar", bar.place(address));
        }
    }

    /// The device's own Command register follows the guest's.
    fn write_device_command(&self, state: &State) {
        // Nobody handles its INTx, which VFIO enables when the device is opened (`vfio_pci_core_enable`).
        let mut command = state.config.command() | Command::INTERRUPT_DISABLE;
        if state.unreset {
            // Old DMA, at addresses of the guest before, must not go on.
            command -= Command::BUS_MASTER;
        }
        self.write_device(header::COMMAND, &command.bits().to_le_bytes());
    }

    fn write_device(&self, offset: u16, data: &[u8]) {
        self.note("write configuration space", self.host.write(region::CONFIG, offset.into(), data));
    }
}

/// Enters the Plan's addresses, which must be those of the device's BARs, all of them.
fn place_at_power_on(name: &str, config: &mut Config, addresses: &[BarAddress]) -> Result<(), Error> {
    let wrong = |bar, problem| Error::Bar { name: name.to_owned(), bar, problem };
    let shapes = config.bars().to_vec();
    if let Some(extra) = addresses.iter().find(|a| !shapes.iter().any(|shape| shape.index == a.index)) {
        return Err(wrong(extra.index, "has an address in the plan but is no memory bar of the device"));
    }
    for shape in &shapes {
        let planned = addresses.iter().find(|planned| planned.index == shape.index);
        let address = planned.ok_or_else(|| wrong(shape.index, "has no address in the plan"))?.address;
        if address & !shape.address_mask() != 0 {
            return Err(wrong(shape.index, "has an address that is not aligned to its size or beyond its width"));
        }
        config.set_power_on_address(shape, address);
    }
    Ok(())
}

/// The byte at `register` in a write of `data` at `offset`.
fn written(offset: u16, data: &[u8], register: u16) -> Option<u8> {
    data.get(usize::from(register.checked_sub(offset)?)).copied()
}

impl PciFunction for VfioFunction {
    fn config_read(&self, offset: u16, data: &mut [u8]) {
        let mut state = self.lock();
        if state.resetting {
            return data.fill(0xff);
        }
        let pending = state.config.layout().msi.and_then(|msi| msi.pending());
        if let (Some(at), Some(msi)) = (pending.filter(|at| offset & !3 == *at & !3), &state.msi) {
            let bits = msi.pending();
            state.config.set_u32(at, bits);
        }
        state.config.read(&*self.host, offset, data);
    }

    fn config_write(&self, offset: u16, data: &[u8]) {
        let mut guard = self.lock();
        let state = &mut *guard;
        if state.closed || state.resetting {
            return;
        }
        let powered = state.powered;
        state.config.write(offset, data);
        let layout = *state.config.layout();
        let starts = |&(at, bit): &(u16, u8)| written(offset, data, at).is_some_and(|byte| byte & bit != 0);
        if layout.resets.iter().flatten().any(starts) {
            // Not by that bit: VFIO would do nothing, silently, while somebody else in the kernel holds the device.
            return self.start_reset(guard, false);
        }
        if let Some(byte) = layout.power_state.and_then(|at| written(offset, data, at)) {
            state.powered = byte & 0b11 == 0;
        }
        let wakes = state.powered && !powered;
        // What the device will no longer decode leaves the guest first, what it will decode comes last.
        let decodes = state.decodes();
        if !decodes {
            self.place_bars(state, false);
        }
        if offset < header::STATUS && usize::from(offset) + data.len() > usize::from(header::COMMAND) {
            self.write_device_command(state);
        }
        self.note("write configuration space", state.config.pass(&*self.host, offset, data));
        if wakes {
            // A device without No_Soft_Reset has forgotten it in D3hot.
            self.write_device_command(state);
        }
        if decodes {
            self.place_bars(state, true);
        }
        if let Some(msi) = &mut state.msi {
            self.note("enable msi", msi.follow(&state.config));
        }
        if let (Some(mut msix), Some(layout)) = (self.msix(), layout.msix) {
            self.note("enable msi-x", msix.follow(state.config.u16(layout.control)));
        }
    }

    fn reset(&self) {
        self.reset_and_wait();
    }

    fn bus_reset(&self) {
        let state = self.lock();
        if !state.closed && !state.resetting {
            self.start_reset(state, true);
        }
    }

    fn on_requester_id(&self, id: Bdf) {
        self.renumber(Some(id));
    }

    fn on_unreachable(&self) {
        self.renumber(None);
    }
}

impl Drop for VfioFunction {
    fn drop(&mut self) {
        if !self.lock().closed {
            self.shutdown();
        }
    }
}

#[cfg(test)]
mod tests;
