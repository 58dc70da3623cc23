//! PCI Express: addresses, functions, and the hierarchy that ECAM reaches.
#![forbid(unsafe_code)]

mod address;
pub mod bar;
pub mod config;
pub mod dma_engine;
mod ecam;
#[cfg(test)]
mod fakes;
mod function;
mod hierarchy;
mod host_bridge;
pub mod msix;
mod occupant;
pub mod root_port;
pub mod spec;

pub use address::Bdf;
pub use dma_engine::{DmaEngine, DmaEngineConfig};
pub use ecam::{ECAM_SIZE, Ecam};
pub use function::PciFunction;
pub use hierarchy::{Error, Segment};
pub use host_bridge::HostBridge;
pub use root_port::{RootPort, RootPortConfig};
