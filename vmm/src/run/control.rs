//! The control loop: one thread that waits for requests, vSMMU events and console input.

use std::cell::Cell;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::rc::Rc;

use event_manager::{EventManager, EventOps, EventSet, Events, MutEventSubscriber, SubscriberOps};

use super::Outcome;
use super::console::Input;
use super::handle::{Handle, Mailbox, Request, pair};

/// Why the control loop cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The loop itself.
    #[error("control loop")]
    Loop(#[source] event_manager::Error),
    /// Its wake-up event.
    #[error("control loop's wake-up event")]
    Wake(#[source] std::io::Error),
    /// A descriptor to wait for.
    #[error("control loop's share in a descriptor")]
    Watch(#[source] std::io::Error),
}

/// Work to do whenever a file descriptor is readable.
pub type Readable = Box<dyn FnMut()>;

/// The control loop of one machine.
pub struct ControlLoop {
    manager: EventManager<Box<dyn MutEventSubscriber>>,
    handle: Handle,
    outcome: Rc<Cell<Option<Outcome>>>,
}

impl ControlLoop {
    /// A loop that knows requests only; `power_button` is what [`Request::PowerButton`] does.
    pub fn new(power_button: impl Fn() + 'static) -> Result<Self, Error> {
        let (handle, mailbox) = pair().map_err(Error::Wake)?;
        let mut manager = EventManager::<Box<dyn MutEventSubscriber>>::new().map_err(Error::Loop)?;
        let outcome = Rc::new(Cell::new(None));
        let requests = Requests { mailbox, outcome: outcome.clone(), power_button: Box::new(power_button) };
        manager.add_subscriber(Box::new(requests));
        Ok(Self { manager, handle, outcome })
    }

    /// The handle for other threads.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Calls `work` whenever `fd` is readable, as long as the loop lives.
    pub fn watch(&mut self, fd: impl AsFd, work: Readable) -> Result<(), Error> {
        let fd = fd.as_fd().try_clone_to_owned().map_err(Error::Watch)?;
        self.manager.add_subscriber(Box::new(Watch { fd, work }));
        Ok(())
    }

    /// Feeds console input to the guest.
    pub fn console(&mut self, input: Input) {
        self.manager.add_subscriber(Box::new(Console { input, handle: self.handle.clone() }));
    }

    /// Serves until the machine has to stop.
    pub fn run(&mut self) -> Result<Outcome, Error> {
        loop {
            self.manager.run().map_err(Error::Loop)?;
            if let Some(outcome) = self.outcome.take() {
                return Ok(outcome);
            }
        }
    }
}

fn add(ops: &mut EventOps, fd: RawFd) {
    // A regular file or /dev/null as console has no readiness (EPERM): then there is no such source.
    if let Err(error) = ops.add(Events::new_raw(fd, EventSet::IN)) {
        log::debug!("control loop: fd {fd} cannot be waited for: {error}");
    }
}

struct Requests {
    mailbox: Mailbox,
    outcome: Rc<Cell<Option<Outcome>>>,
    power_button: Box<dyn Fn()>,
}

impl MutEventSubscriber for Requests {
    fn init(&mut self, ops: &mut EventOps) {
        add(ops, self.mailbox.wake.as_raw_fd());
    }

    fn process(&mut self, _: Events, _: &mut EventOps) {
        let _ = self.mailbox.wake.read();
        for request in self.mailbox.requests.try_iter() {
            match request {
                // The first reason counts: a guest that switches off while somebody quits has switched off.
                Request::Stop(outcome) if self.outcome.get().is_none() => self.outcome.set(Some(outcome)),
                Request::Stop(_) => {}
                Request::PowerButton => (self.power_button)(),
            }
        }
    }
}

struct Watch {
    fd: OwnedFd,
    work: Readable,
}

impl MutEventSubscriber for Watch {
    fn init(&mut self, ops: &mut EventOps) {
        add(ops, self.fd.as_raw_fd());
    }

    fn process(&mut self, _: Events, _: &mut EventOps) {
        (self.work)();
    }
}

struct Console {
    input: Input,
    handle: Handle,
}

impl MutEventSubscriber for Console {
    fn init(&mut self, ops: &mut EventOps) {
        add(ops, self.input.as_fd().as_raw_fd());
    }

    fn process(&mut self, _: Events, ops: &mut EventOps) {
        if !self.input.read(&self.handle) {
            let _ = ops.remove(Events::empty_raw(self.input.as_fd().as_raw_fd()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn the_first_reason_to_stop_is_the_outcome() {
        let mut control = ControlLoop::new(|| {}).unwrap();
        control.handle().send(Request::Stop(Outcome::PowerOff));
        control.handle().quit();
        assert_eq!(control.run().unwrap(), Outcome::PowerOff);
    }

    #[test]
    fn another_thread_presses_the_power_button() {
        let pressed = Arc::new(AtomicUsize::new(0));
        let seen = pressed.clone();
        let mut control = ControlLoop::new(move || {
            seen.fetch_add(1, Ordering::SeqCst);
        })
        .unwrap();
        let handle = control.handle();
        std::thread::spawn(move || {
            handle.power_button();
            handle.quit();
        });
        assert_eq!(control.run().unwrap(), Outcome::Quit);
        assert_eq!(pressed.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn a_readable_descriptor_is_served() {
        let mut control = ControlLoop::new(|| {}).unwrap();
        let served = Arc::new(AtomicUsize::new(0));
        let count = served.clone();
        let handle = control.handle();
        let (reader, writer) = std::io::pipe().unwrap();
        let work = move || {
            count.fetch_add(1, Ordering::SeqCst);
            handle.quit();
        };
        control.watch(reader, Box::new(work)).unwrap();
        std::io::Write::write_all(&mut &writer, b"x").unwrap();
        assert_eq!(control.run().unwrap(), Outcome::Quit);
        assert!(served.load(Ordering::SeqCst) >= 1);
    }
}
