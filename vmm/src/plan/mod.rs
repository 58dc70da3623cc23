//! From the request and the inventory to the Plan, and what can be done with a Plan: show it, keep it in a file,
//! check it, and see whether this host can run it.
#![forbid(unsafe_code)]

mod boot_files;
mod error;
mod features;
mod file;
mod functions;
mod hex;
mod make;
mod pack;
mod ready;
mod render;
mod reserved;
pub mod spec;
mod topology;
mod validate;
mod windows;

#[cfg(test)]
pub(crate) mod tests;

pub use error::{Error, HostChange};
#[cfg(any(test, target_arch = "aarch64"))]
pub(crate) use features::reaches;
pub use features::{Error as FeaturesError, Narrow};
pub use file::{Format, read, write};
pub use make::plan;
pub use ready::ready;
pub use render::tree;
pub use spec::Plan;
pub use validate::{Invalid, validate};
