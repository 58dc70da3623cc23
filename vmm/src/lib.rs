//! nestling as a library: Request and Inventory become a Plan, the Plan becomes a Machine, the Machine runs.
//!
//! Process-global state is the caller's: nothing here installs signal handlers, prints, exits or reads the environment.

#![deny(unsafe_code)] // exceptions: `run::kick` (signals) and `machine::slots` (guest mappings)

pub mod config;
pub mod host;
pub mod machine;
pub mod memory;
pub mod plan;
pub mod run;
pub mod stats;
