//! Placeholder, replaced in the next step.
fn main() {}
