//! nestling as a library: Request, Inventory, Plan, Machine.

pub mod plan;
