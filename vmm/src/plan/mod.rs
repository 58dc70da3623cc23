//! From the request and the inventory to the Plan.

mod hex;
pub mod spec;

pub use spec::Plan;
