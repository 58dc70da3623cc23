//! Whether a Plan agrees with itself. A Plan made here does; one that comes from a file may have been edited.

mod pci;
mod platform;

use std::collections::BTreeSet;
use std::fmt;

use nestling_devices::smmuv3::capabilities;

use super::features::Narrow;
use super::spec::{Plan, Window};

/// What does not agree.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Invalid {
    /// Two ranges have an address in common.
    #[error("{first} and {second} overlap")]
    Overlap {
        /// The one that begins first.
        first: Place,
        /// The other.
        second: Place,
    },
    /// A range ends behind the guest's physical addresses.
    #[error("{place} does not fit {ipa_bits} address bits")]
    Address {
        /// The range.
        place: Place,
        /// Guest physical address bits.
        ipa_bits: u8,
    },
    /// A range is not inside the one that it must be inside of.
    #[error("{inner} is not inside {outer}")]
    Outside {
        /// The inner one.
        inner: Place,
        /// The outer one.
        outer: Place,
    },
    /// A range does not begin where it must.
    #[error("{place} is not aligned to {align:#x}")]
    Misaligned {
        /// The range.
        place: Place,
        /// The alignment it needs.
        align: u64,
    },
    /// A range is not as large as what it is for.
    #[error("{place} has {:#x} bytes, but must have {size:#x}", .place.window.size)]
    Size {
        /// The range.
        place: Place,
        /// The size it needs.
        size: u64,
    },
    /// A vSMMU that shows what none can.
    #[error("{name}: {why}")]
    Features {
        /// The vSMMU.
        name: String,
        /// What is wrong.
        why: capabilities::Error,
    },
    /// A vSMMU that does not reach all memory.
    #[error("{name}: {narrow}")]
    Narrow {
        /// The vSMMU.
        name: String,
        /// What it reaches.
        narrow: Narrow,
    },
    /// A number or name that must be there once is there twice.
    #[error("{what} {value} is there twice")]
    Twice {
        /// What it is.
        what: &'static str,
        /// Its value.
        value: String,
    },
    /// A number that cannot be.
    #[error("{what} is {value}, but must be {must}")]
    Value {
        /// What it is.
        what: String,
        /// Its value.
        value: u64,
        /// What it must be.
        must: String,
    },
}

/// A range with its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// What is there.
    pub name: String,
    /// Where.
    pub window: Window,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name, self.window)
    }
}

/// Checks everything that the machine relies on.
pub fn validate(plan: &Plan) -> Result<(), Invalid> {
    platform::check_numbers(plan)?;
    platform::check_windows(plan)?;
    pci::check_buses(plan)?;
    plan.pci.expanders.iter().try_for_each(|expander| pci::check_expander(expander, plan.memory))
}

fn place(name: impl Into<String>, window: Window) -> Place {
    Place { name: name.into(), window }
}

fn value(what: impl Into<String>, value: impl Into<u64>, must: impl Into<String>) -> Invalid {
    Invalid::Value { what: what.into(), value: value.into(), must: must.into() }
}

fn once<T: Ord + fmt::Display>(what: &'static str, values: impl Iterator<Item = T>) -> Result<(), Invalid> {
    let mut seen = BTreeSet::new();
    for value in values {
        if seen.contains(&value) {
            return Err(Invalid::Twice { what, value: value.to_string() });
        }
        seen.insert(value);
    }
    Ok(())
}

fn apart(mut places: Vec<Place>) -> Result<(), Invalid> {
    places.retain(|place| place.window.size != 0);
    places.sort_by_key(|place| place.window.base);
    match places.windows(2).find(|pair| pair[0].window.end() > pair[1].window.base) {
        Some(pair) => Err(Invalid::Overlap { first: pair[0].clone(), second: pair[1].clone() }),
        None => Ok(()),
    }
}

fn inside(inner: &Place, outer: &Place) -> Result<(), Invalid> {
    let fits =
        inner.window.size == 0 || (outer.window.base <= inner.window.base && inner.window.end() <= outer.window.end());
    if fits { Ok(()) } else { Err(Invalid::Outside { inner: inner.clone(), outer: outer.clone() }) }
}

fn aligned(place: &Place, align: u64) -> Result<(), Invalid> {
    let fits = place.window.base.is_multiple_of(align) && place.window.size.is_multiple_of(align);
    if fits { Ok(()) } else { Err(Invalid::Misaligned { place: place.clone(), align }) }
}

fn sized(place: &Place, size: u64) -> Result<(), Invalid> {
    if place.window.size == size { Ok(()) } else { Err(Invalid::Size { place: place.clone(), size }) }
}

fn natural(bar: &Place) -> Result<(), Invalid> {
    let size = bar.window.size;
    if !size.is_power_of_two() {
        return Err(value(format!("size of {}", bar.name), size, "a power of two"));
    }
    aligned(bar, size)
}
