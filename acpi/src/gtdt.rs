//! GTDT (ACPI 6.5, 5.2.25): the Generic Timer's interrupts; no memory-mapped timers, no watchdog.

use zerocopy::{
    Immutable, IntoBytes,
    little_endian::{U32, U64},
};

use crate::sdt;

const REVISION: u8 = 3;

/// PPIs as the Arm Base System Architecture assigns them and KVM raises them.
const SECURE_EL1: u32 = 29;
const NON_SECURE_EL1: u32 = 30;
const VIRTUAL: u32 = 27;
const NON_SECURE_EL2: u32 = 26;

/// Timer flags: bit 0 clear = level, bit 1 clear = active high, bit 2 = always on: a vCPU that is not running keeps its
/// timers, so the guest needs no broadcast timer.
const LEVEL_ALWAYS_ON: u32 = 1 << 2;

/// "Not provided" for both counter frames.
const NO_ADDRESS: u64 = u64::MAX;

#[repr(C, packed)]
#[derive(IntoBytes, Immutable)]
struct Body {
    cnt_control_base: U64,
    _reserved: U32,
    secure_el1: Timer,
    non_secure_el1: Timer,
    virtual_el1: Timer,
    non_secure_el2: Timer,
    cnt_read_base: U64,
    platform_timer_count: U32,
    platform_timer_offset: U32,
    /// GSIV 0 says that there is none: the guest does not run at EL2.
    virtual_el2: Timer,
}

#[repr(C, packed)]
#[derive(IntoBytes, Immutable)]
struct Timer {
    gsiv: U32,
    flags: U32,
}

impl Timer {
    fn ppi(gsiv: u32) -> Self {
        Self { gsiv: gsiv.into(), flags: LEVEL_ALWAYS_ON.into() }
    }
}

/// The table.
pub(crate) fn build() -> Vec<u8> {
    let body = Body {
        cnt_control_base: NO_ADDRESS.into(),
        _reserved: 0.into(),
        secure_el1: Timer::ppi(SECURE_EL1),
        non_secure_el1: Timer::ppi(NON_SECURE_EL1),
        virtual_el1: Timer::ppi(VIRTUAL),
        non_secure_el2: Timer::ppi(NON_SECURE_EL2),
        cnt_read_base: NO_ADDRESS.into(),
        platform_timer_count: 0.into(),
        platform_timer_offset: 0.into(),
        virtual_el2: Timer { gsiv: 0.into(), flags: 0.into() },
    };
    sdt::table(*b"GTDT", REVISION, body.as_bytes())
}
