//! The lab: an emulated Grace-like host on any machine.
#![forbid(unsafe_code)]

pub mod cli;
pub mod guest;
pub mod host;
mod pump;
pub mod setup;
