//! The Request: what the user asks for, on the command line or in a TOML file, in one set of types.
#![forbid(unsafe_code)]

mod address;
mod error;
mod options;
mod request;
mod size;
mod vsmmu;
mod wish;

pub use address::HostAddress;
pub use error::Error;
pub use request::{DeviceRequest, OnReset, Request, RunOptions};
pub use size::Size;
pub use vsmmu::VsmmuRequest;
