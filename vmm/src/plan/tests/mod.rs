//! Plans of synthetic hosts.

mod acpi;
mod host;
mod properties;
mod ready;
mod refusals;
mod shape;
mod valid;
