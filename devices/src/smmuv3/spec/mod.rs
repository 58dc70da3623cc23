//! What Arm IHI 0070 (SMMUv3) lays down, as types: registers, stream table entries, commands and event records.
//!
//! Names, numbers and section references are the specification's. No logic lives here.

#![forbid(unsafe_code)]

pub mod cd;
pub mod command;
pub mod descriptor;
pub mod event;
pub mod registers;
pub mod ste;
