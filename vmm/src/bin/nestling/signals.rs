//! SIGTERM, SIGINT and SIGHUP end the guest's machine.

use std::io;
use std::thread;

use nestling::run::Handle;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// The signals that ask a program to end. As long as this exists they wait instead of killing the process.
pub struct EndSignals(Signals);

impl EndSignals {
    /// From now on they wait.
    pub fn catch() -> io::Result<Self> {
        Signals::new([SIGTERM, SIGINT, SIGHUP]).map(Self)
    }

    /// Each of them, those that waited first, ends `machine`.
    pub fn forward(mut self, machine: Handle) -> io::Result<()> {
        let forward = move || {
            for signal in self.0.forever() {
                log::info!("signal {signal}: the machine ends");
                machine.quit();
            }
        };
        thread::Builder::new().name("signals".into()).spawn(forward)?;
        Ok(())
    }
}
