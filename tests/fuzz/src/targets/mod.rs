//! The targets: which steps are likely in each, and what must hold.

mod nested;
mod walker;

use arbitrary::Unstructured;

use crate::input::{Kind, operations};
use crate::reference::{Machine, Operation, Shape};

pub use nested::nested;
pub use walker::walker;

/// The model and the reference are the same after every step.
fn side_by_side(data: &[u8], menu: &[Kind], started: bool) {
    let mut u = Unstructured::new(data);
    let (Ok(&shape), Ok(&split)) = (u.choose(&Shape::ALL), u.choose(&[0, 0, 6, 8])) else { return };
    let mut steps = operations(&mut u, menu);
    if started {
        steps.insert(0, Operation::Start { commands: 6, events: 4, split });
    }
    Machine::new(shape).run(&steps);
}

/// Accesses to registers, at any time and of any kind, with guest memory behind them.
pub fn registers(data: &[u8]) {
    use Kind::*;
    let menu = [
        Register,
        Register,
        Register,
        Register,
        Register,
        Access,
        Poke,
        Poke,
        Start,
        Commands,
        Kick,
        Acknowledge,
        Raise,
        Poll,
        TakeEvents,
        Reset,
    ];
    side_by_side(data, &menu, false);
}

/// Commands, on a host that fails now and then.
pub fn commands(data: &[u8]) {
    use Kind::*;
    let menu = [
        Commands,
        Commands,
        Commands,
        StrangeCommand,
        ManyCommands,
        Kick,
        Kick,
        Kick,
        Acknowledge,
        Acknowledge,
        Entry,
        Entry,
        Trouble,
        Trouble,
        Register,
        Poke,
        Start,
        Reset,
    ];
    side_by_side(data, &menu, true);
}

/// Stream tables of one and two levels and their entries, while devices come and go.
pub fn streams(data: &[u8]) {
    use Kind::*;
    let menu = [
        Start,
        Descriptor,
        Descriptor,
        Entry,
        Entry,
        Entry,
        Poke,
        Poke,
        Poke,
        Register,
        Register,
        Commands,
        Commands,
        Kick,
        Kick,
        Acknowledge,
        Trouble,
        Plug,
        Unplug,
        Announce,
        Reset,
    ];
    side_by_side(data, &menu, true);
}

/// Events of devices and of the model, an event queue that is too small, and a guest that does not read.
pub fn events(data: &[u8]) {
    use Kind::*;
    let menu = [
        Raise,
        Raise,
        Raise,
        Poll,
        Poll,
        Poll,
        TakeEvents,
        TakeEvents,
        Register,
        Register,
        Register,
        Poke,
        Entry,
        Commands,
        Kick,
        Acknowledge,
        Trouble,
        Start,
        Reset,
    ];
    side_by_side(data, &menu, true);
}
