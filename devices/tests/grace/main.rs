//! The whole object order of hardware nesting, and passed-through functions, on the real kernel.
//!
//! Runs where devices are bound to vfio-pci: in the lab's host `grace`, after which it is named and which has one of
//! each kind, or natively with their addresses in NESTLING_LAB_DEVICES. Elsewhere each test says why it does nothing.

mod functions;
mod guest;
mod interrupts;
mod machine;
mod objects;
