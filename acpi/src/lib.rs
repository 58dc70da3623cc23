//! ACPI tables of the nestling machine: pure functions from a [`Description`] to bytes, one file for each table.
//!
//! [`build`] lays all tables out in one blob that is copied to guest memory as it is; [`Tables::iter`] hands them out one
//! by one, as `iasl -d` takes them. Revisions and layouts follow ACPI 6.5 and the documents named in each file; where
//! Linux reads a field in its own way, the file says which line of the kernel decided.
#![forbid(unsafe_code)]

mod dbg2;
pub mod description;
mod dsdt;
mod fadt;
mod gtdt;
mod iort;
mod madt;
mod mcfg;
mod pptt;
mod sdt;
mod spcr;
mod tables;
mod uart;

pub use description::Description;
pub use tables::{Table, Tables, build};
