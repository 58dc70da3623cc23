//! Resets of a passed-through function: by the guest (function level, secondary bus) and by the machine.
//!
//! The host's reset of a device takes 100 ms, but one that does not come back keeps the kernel waiting for a minute. So a
//! reset that the guest asks for has a thread of its own: the vCPU waits for it only as long as it usually takes. Then
//! the function answers as a device in reset does, with all ones, and drivers poll for the end of that
//! (Linux: `pci_dev_wait`).

#![forbid(unsafe_code)]

use std::io;
use std::sync::{Condvar, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::{State, VfioFunction};

/// How long a vCPU waits for a reset that it asked for.
const PATIENCE: Duration = Duration::from_millis(250);

#[derive(Default)]
pub(super) struct Resets {
    thread: Mutex<Option<JoinHandle<()>>>,
    /// A reset has ended.
    ended: Condvar,
}

impl Resets {
    fn thread(&self) -> MutexGuard<'_, Option<JoinHandle<()>>> {
        self.thread.lock().unwrap_or_else(|e| e.into_inner())
    }
}

impl VfioFunction {
    /// A reset that the guest asked for, of the function or of the bus that it is on.
    pub(super) fn start_reset(&self, mut state: MutexGuard<'_, State>, bus: bool) {
        self.begin(&mut state);
        let (host, me) = (self.host.clone(), self.me.clone());
        let work = move || {
            let result = if bus {
                // Not under the lock of the function: its requester ID may be changing.
                if let Some(function) = me.upgrade() {
                    function.hold();
                }
                host.reset_bus()
            } else {
                host.reset()
            };
            // The last owner of the device is not to be this thread.
            drop(host);
            if let Some(function) = me.upgrade() {
                function.end(function.lock(), result);
            }
        };
        match thread::Builder::new().name("device reset".to_owned()).spawn(work) {
            Ok(thread) => {
                let last = self.resets.thread().replace(thread);
                // Its reset has ended, or nobody could ask for another; now it is gone as well.
                let _ = last.map(JoinHandle::join);
            }
            Err(error) => {
                log::warn!("{}: a vcpu waits for its reset, as there is no thread: {error}", self.name);
                let result = self.host.reset();
                return self.end(state, result);
            }
        }
        let waited = self.resets.ended.wait_timeout_while(state, PATIENCE, |state| state.resetting);
        if waited.unwrap_or_else(|e| e.into_inner()).0.resetting {
            log::debug!("{}: its reset goes on", self.name);
        }
    }

    /// A reset while no vCPU runs.
    pub(super) fn reset_and_wait(&self) {
        self.wait_for_reset();
        let mut state = self.lock();
        if !state.closed {
            self.begin(&mut state);
            let result = self.host.reset();
            self.end(state, result);
        }
    }

    /// Waits for the end of a reset that goes on, as long as it takes: nothing can be done with the device before.
    pub(super) fn wait_for_reset(&self) {
        let thread = self.resets.thread().take().filter(|thread| thread.thread().id() != thread::current().id());
        if thread.is_some_and(|thread| thread.join().is_err()) {
            log::error!("{}: the thread of its reset panicked", self.name);
        }
    }

    /// Nothing of the function is in the guest, and it does no DMA.
    fn begin(&self, state: &mut State) {
        state.resetting = true;
        self.quiesce(state);
        if let (false, Some(at)) = (state.powered, state.config.layout().power_state) {
            self.write_device(at, &[0; 2]);
        }
    }

    /// The virtual registers as at power-on. Without a reset there is no more DMA until one works.
    fn end(&self, mut guard: MutexGuard<'_, State>, result: io::Result<bool>) {
        let state = &mut *guard;
        let reason = match result {
            Ok(true) => None,
            Ok(false) => Some("the host has no reset for it".to_owned()),
            Err(e) => Some(e.to_string()),
        };
        self.counters.count_reset();
        if let Some(reason) = &reason {
            self.counters.count_error();
            if !state.unreset {
                log::error!(
                    "{}: cannot be reset: {reason}; its dma stays off until a reset works: reset the guest again, or end it and start it anew",
                    self.name
                );
            }
        }
        state.unreset = reason.is_some();
        state.config.reset();
        state.powered = true;
        // VFIO restores the registers that it saved before; Command must read 0 again.
        self.write_device_command(state);
        drop(guard);
        // The guest finds the function only when its stream is as it was.
        self.renumber_again();
        self.lock().resetting = false;
        self.resets.ended.notify_all();
    }
}
