//! Plans of synthetic hosts.

mod acpi;
mod features;
pub(crate) mod host;
mod properties;
mod ready;
mod refusals;
mod shape;
mod valid;
