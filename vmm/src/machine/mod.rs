//! The machine: KVM VM, memory, interrupt controller, devices and vSMMUs, built from the Plan.

mod interrupts;
mod slots;
