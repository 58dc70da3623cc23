//! Plans of synthetic hosts.

mod host;
mod properties;
mod ready;
mod refusals;
mod shape;
mod valid;
