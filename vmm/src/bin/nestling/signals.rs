//! SIGTERM, SIGINT and SIGHUP end the guest's machine.

use std::io;
use std::thread;

use nestling::run::Handle;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// Forwards the signals that ask a program to end to `machine`.
pub fn forward(machine: Handle) -> io::Result<()> {
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP])?;
    thread::Builder::new().name("signals".into()).spawn(move || {
        for signal in signals.forever() {
            log::info!("signal {signal}: the machine ends");
            machine.quit();
        }
    })?;
    Ok(())
}
