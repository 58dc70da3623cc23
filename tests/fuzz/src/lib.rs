//! Fuzz targets: what a guest, its devices and a failing host do to the vSMMUv3, read from a string of bytes.
//!
//! A target is a function from bytes to nothing that panics when something is wrong. libFuzzer calls it
//! (`fuzz_targets/`, by `cargo lab fuzz` or `cargo fuzz`), and so does [`smoke`](../smoke/index.html), which needs
//! neither a nightly compiler nor a C++ compiler. Every call is also checked for memory that it keeps or takes too
//! much of, and every log message is formatted.

#![deny(unsafe_code)] // the one exception is `allocator`

#[allow(unsafe_code)] // a global allocator is an unsafe trait
mod allocator;
mod input;
mod messages;
mod targets;

// The second vSMMU of the property tests; it names the model by `crate`.
#[path = "../../../devices/src/smmuv3/tests/reference/mod.rs"]
mod reference;
use nestling_devices::{bus, interrupt, smmuv3};

/// Bytes that one input may take at once. Guest memory is mapped and does not count.
const MOST_MEMORY: usize = 16 << 20;

/// Bytes that all inputs together may leave behind: what the standard library makes once.
const MOST_LEFT: isize = 64 << 10;

/// A name and its function.
pub struct Target {
    /// Name of the target, of its file in `fuzz_targets/` and of its folder in `corpus/`.
    pub name: &'static str,
    function: fn(&[u8]),
}

/// All targets.
pub const TARGETS: [Target; 6] = [
    Target { name: "registers", function: targets::registers },
    Target { name: "commands", function: targets::commands },
    Target { name: "streams", function: targets::streams },
    Target { name: "events", function: targets::events },
    Target { name: "nested", function: targets::nested },
    Target { name: "walker", function: targets::walker },
];

/// Runs one input.
///
/// # Panics
/// If something is wrong: that is what it is for.
pub fn run(name: &str, data: &[u8]) {
    let target = TARGETS.iter().find(|target| target.name == name);
    let function = target.unwrap_or_else(|| panic!("there is no target {name}")).function;
    messages::format_all();
    let usage = allocator::measure(|| function(data));
    assert!(usage.most < MOST_MEMORY, "one input took {} bytes at once", usage.most);
    assert!(usage.left_in_all < MOST_LEFT, "the inputs so far left {} bytes behind", usage.left_in_all);
}
