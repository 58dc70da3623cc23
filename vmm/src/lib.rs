//! nestling as a library: Request, Inventory, Plan, Machine.

pub mod config;
pub mod host;
pub mod plan;
pub mod stats;
