//! The lab: an emulated Grace-like host on any machine.
#![forbid(unsafe_code)]
