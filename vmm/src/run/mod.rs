//! A machine that runs: vCPU threads, the control loop, and the handle for the outside.

pub mod console;
mod control;
mod handle;
#[allow(unsafe_code)] // signal sets and the ioctl that takes one
#[cfg_attr(not(target_arch = "aarch64"), allow(dead_code))] // vCPUs run there only; the signals are tested everywhere
mod kick;
mod output;
#[cfg(target_arch = "aarch64")]
mod vcpus;

pub use control::{ControlLoop, Error as ControlError};
pub use handle::{Handle, Request};
pub use output::{Output, Sender};
#[cfg(target_arch = "aarch64")]
pub use vcpus::{Error as VcpuError, Vcpus};

/// Why a machine stopped running.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The guest switched itself off.
    PowerOff,
    /// The guest asked for a reset.
    Reset,
    /// Somebody outside ended it.
    Quit,
    /// A vCPU could not go on; the reason is in the log.
    Failed,
}
