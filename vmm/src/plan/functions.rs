//! The functions of a Plan, wherever in its tree they are.

use super::spec::{AssignedFunction, Expander, Plan, RootPort};

impl Plan {
    /// All assigned functions, each with its expander and port.
    pub fn functions(&self) -> impl Iterator<Item = (&Expander, &RootPort, &AssignedFunction)> {
        let ports =
            self.pci.expanders.iter().flat_map(|expander| expander.ports.iter().map(move |port| (expander, port)));
        ports.filter_map(|(expander, port)| Some((expander, port, port.function.as_ref()?)))
    }
}
