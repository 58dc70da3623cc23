//! The lab: an emulated Grace-like host on any machine.
#![forbid(unsafe_code)]

pub mod cli;
pub mod guest;
pub mod host;
pub mod setup;
