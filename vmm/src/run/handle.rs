//! The handle: how signals, other threads and vCPUs talk to the control loop.
#![forbid(unsafe_code)]

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use super::Outcome;

/// What can be asked of a running machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// Stop, for this reason.
    Stop(Outcome),
    /// Press the power button; what the guest makes of it is its own affair.
    PowerButton,
}

/// A running machine as other threads see it. Clones talk to the same machine.
#[derive(Clone)]
pub struct Handle {
    requests: Sender<Request>,
    wake: Arc<EventFd>,
}

/// The control loop's end.
pub(super) struct Mailbox {
    pub(super) requests: Receiver<Request>,
    pub(super) wake: Arc<EventFd>,
}

pub(super) fn pair() -> std::io::Result<(Handle, Mailbox)> {
    let (sender, requests) = channel();
    let wake = Arc::new(EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?);
    Ok((Handle { requests: sender, wake: wake.clone() }, Mailbox { requests, wake }))
}

impl Handle {
    /// Asks; once the machine is gone nothing happens.
    pub fn send(&self, request: Request) {
        if self.requests.send(request).is_ok() {
            self.wake();
        }
    }

    /// Makes the control loop look around: something is due earlier than it knew.
    pub fn wake(&self) {
        // Fails only when the counter is full, and then the loop is awake anyhow.
        let _ = self.wake.write(1);
    }

    /// Ends the machine without asking the guest.
    pub fn quit(&self) {
        self.send(Request::Stop(Outcome::Quit));
    }

    /// Presses the power button.
    pub fn power_button(&self) {
        self.send(Request::PowerButton);
    }
}
