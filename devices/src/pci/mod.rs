//! PCI Express: addresses, functions, and the hierarchy that ECAM reaches.

mod address;
mod function;

pub use address::Bdf;
pub use function::PciFunction;
