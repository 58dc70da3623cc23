//! The control loop: one thread that waits for requests, vSMMU events, console input and the clock's alarm.
#![forbid(unsafe_code)]

use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use event_manager::{EventManager, EventOps, EventSet, Events, MutEventSubscriber, SubscriberOps};
use vmm_sys_util::eventfd::EventFd;

use super::Outcome;
use super::console::{Input, State};
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
}

/// Work to do whenever a file descriptor is readable; `false` ends the watch.
pub type Readable = Box<dyn FnMut() -> bool + Send>;
/// Does what is due now and says how long it is until something is due again.
pub type Clock = Box<dyn FnMut() -> Option<Duration> + Send>;

/// The control loop of one machine.
pub struct ControlLoop {
    manager: EventManager<Box<dyn MutEventSubscriber + Send>>,
    handle: Handle,
    outcome: Arc<Mutex<Option<Outcome>>>,
    clock: Clock,
}

impl ControlLoop {
    /// A loop that knows requests and time only; `power_button` is what [`Request::PowerButton`] does.
    pub fn new(power_button: impl Fn() + Send + 'static, clock: Clock) -> Result<Self, Error> {
        let (handle, mailbox) = pair().map_err(Error::Wake)?;
        let mut manager = EventManager::<Box<dyn MutEventSubscriber + Send>>::new().map_err(Error::Loop)?;
        let outcome = Arc::default();
        let requests = Requests { mailbox, outcome: Arc::clone(&outcome), power_button: Box::new(power_button) };
        manager.add_subscriber(Box::new(requests));
        Ok(Self { manager, handle, outcome, clock })
    }

    /// The handle for other threads.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Calls `work` whenever `fd` is readable. The descriptor stays its owner's, who keeps it open as long as the loop
    /// lives: a second one for the same file would keep the kernel from destroying an event queue.
    pub fn watch(&mut self, fd: RawFd, work: Readable) {
        self.manager.add_subscriber(Box::new(Watch { fd, work }));
    }

    /// Feeds console input to the guest; `space` is signalled when a full UART has space again.
    pub fn console(&mut self, input: Input, space: EventFd) {
        self.manager.add_subscriber(Box::new(Console { input, space, handle: self.handle.clone() }));
    }

    /// Forgets what a guest that is stopped has asked for besides; what somebody outside wants still counts.
    pub fn forget_guest(&mut self) -> Result<(), Error> {
        self.handle.wake();
        self.manager.run_with_timeout(0).map_err(Error::Loop)?;
        let mut outcome = lock(&self.outcome);
        *outcome = outcome.take().filter(|outcome| *outcome == Outcome::Quit);
        Ok(())
    }

    /// Serves until the machine has to stop.
    pub fn run(&mut self) -> Result<Outcome, Error> {
        loop {
            if let Some(outcome) = lock(&self.outcome).take() {
                return Ok(outcome);
            }
            let timeout =
                (self.clock)().map_or(-1, |time| time.as_millis().saturating_add(1).min(i32::MAX as u128) as i32);
            self.manager.run_with_timeout(timeout).map_err(Error::Loop)?;
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn add(ops: &mut EventOps, fd: RawFd) {
    // A regular file or /dev/null as console has no readiness (EPERM): then there is no such source.
    if let Err(error) = ops.add(Events::new_raw(fd, EventSet::IN)) {
        log::debug!("control loop: fd {fd} cannot be waited for: {error}");
    }
}

struct Requests {
    mailbox: Mailbox,
    outcome: Arc<Mutex<Option<Outcome>>>,
    power_button: Box<dyn Fn() + Send>,
}

impl MutEventSubscriber for Requests {
    fn init(&mut self, ops: &mut EventOps) {
        add(ops, self.mailbox.wake.as_raw_fd());
    }

    fn process(&mut self, _: Events, _: &mut EventOps) {
        let _ = self.mailbox.wake.read();
        for request in self.mailbox.requests.try_iter() {
            match request {
                Request::Stop(outcome) => {
                    let mut first = lock(&self.outcome);
                    // The first reason counts, but a reset does not keep the machine from ending.
                    if matches!(*first, None | Some(Outcome::Reset)) {
                        *first = Some(outcome);
                    }
                }
                Request::PowerButton => (self.power_button)(),
            }
        }
    }
}

struct Watch {
    fd: RawFd,
    work: Readable,
}

impl MutEventSubscriber for Watch {
    fn init(&mut self, ops: &mut EventOps) {
        add(ops, self.fd);
    }

    fn process(&mut self, _: Events, ops: &mut EventOps) {
        if !(self.work)() {
            let _ = ops.remove(Events::empty_raw(self.fd));
        }
    }
}

struct Console {
    input: Input,
    space: EventFd,
    handle: Handle,
}

impl MutEventSubscriber for Console {
    fn init(&mut self, ops: &mut EventOps) {
        add(ops, self.input.as_fd().as_raw_fd());
        add(ops, self.space.as_raw_fd());
    }

    fn process(&mut self, events: Events, ops: &mut EventOps) {
        let input = self.input.as_fd().as_raw_fd();
        if events.fd() == input {
            match self.input.read() {
                State::Open => {}
                State::Quit => self.handle.quit(),
                State::PowerButton => self.handle.power_button(),
                State::Full | State::Ended => {
                    let _ = ops.remove(Events::empty_raw(input));
                }
            }
        } else {
            let _ = self.space.read();
            if self.input.deliver() == State::Open {
                // It is there already if the UART was never full.
                let _ = ops.add(Events::new_raw(input, EventSet::IN));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    fn control() -> ControlLoop {
        ControlLoop::new(|| {}, Box::new(|| None)).unwrap()
    }

    #[test]
    fn the_first_reason_to_stop_is_the_outcome() {
        let mut control = control();
        control.handle().send(Request::Stop(Outcome::PowerOff));
        control.handle().quit();
        assert_eq!(control.run().unwrap(), Outcome::PowerOff);
    }

    #[test]
    fn who_quits_is_not_overruled_by_a_reset() {
        let mut control = control();
        control.handle().send(Request::Stop(Outcome::Reset));
        control.handle().quit();
        assert_eq!(control.run().unwrap(), Outcome::Quit);
    }

    #[test]
    fn a_second_reset_of_the_same_guest_is_forgotten_and_a_quit_is_not() {
        let mut control = control();
        control.handle().send(Request::Stop(Outcome::Reset));
        assert_eq!(control.run().unwrap(), Outcome::Reset);
        control.handle().send(Request::Stop(Outcome::Reset));
        control.forget_guest().unwrap();
        control.handle().send(Request::Stop(Outcome::PowerOff));
        assert_eq!(control.run().unwrap(), Outcome::PowerOff);
        control.handle().quit();
        control.forget_guest().unwrap();
        assert_eq!(control.run().unwrap(), Outcome::Quit);
    }

    #[test]
    fn another_thread_presses_the_power_button() {
        let pressed = Arc::new(AtomicUsize::new(0));
        let seen = pressed.clone();
        let press = move || {
            seen.fetch_add(1, Ordering::SeqCst);
        };
        let mut control = ControlLoop::new(press, Box::new(|| None)).unwrap();
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
        let mut control = control();
        let served = Arc::new(AtomicUsize::new(0));
        let count = served.clone();
        let handle = control.handle();
        let (reader, writer) = std::io::pipe().unwrap();
        let work = move || {
            count.fetch_add(1, Ordering::SeqCst);
            handle.quit();
            true
        };
        control.watch(reader.as_raw_fd(), Box::new(work));
        std::io::Write::write_all(&mut &writer, b"x").unwrap();
        assert_eq!(control.run().unwrap(), Outcome::Quit);
        assert!(served.load(Ordering::SeqCst) >= 1);
    }

    #[test]
    fn a_descriptor_that_nobody_can_empty_is_given_up() {
        let mut control = control();
        let served = Arc::new(AtomicUsize::new(0));
        let count = served.clone();
        let (reader, writer) = std::io::pipe().unwrap();
        let work = move || {
            count.fetch_add(1, Ordering::SeqCst);
            false
        };
        control.watch(reader.as_raw_fd(), Box::new(work));
        std::io::Write::write_all(&mut &writer, b"x").unwrap();
        let handle = control.handle();
        let later = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(50));
            handle.quit();
        });
        assert_eq!(control.run().unwrap(), Outcome::Quit);
        later.join().unwrap();
        assert_eq!(served.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn the_clock_is_asked_again_when_its_time_is_over() {
        let handle: Arc<Mutex<Option<Handle>>> = Arc::default();
        let later = handle.clone();
        let mut looks = 0;
        let clock = move || {
            looks += 1;
            if looks == 3 {
                later.lock().unwrap().take().unwrap().quit();
            }
            Some(Duration::from_millis(1))
        };
        let mut control = ControlLoop::new(|| {}, Box::new(clock)).unwrap();
        *handle.lock().unwrap() = Some(control.handle());
        assert_eq!(control.run().unwrap(), Outcome::Quit);
    }
}
