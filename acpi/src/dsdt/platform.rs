//! Platform devices: console, clock, power button, and the ECAM window's reservation.

use acpi_tables::{
    Aml, AmlSink,
    aml::{
        And, Arg, Device, EISAName, Equal, Field, FieldAccessType, FieldEntry, FieldLockRule, FieldUpdateRule, If,
        Interrupt, Local, Method, Name, Notify, OpRegion, OpRegionSpace, Path, ResourceTemplate, Store, ZERO,
    },
};

use super::resources::Registers;
use crate::{
    description::{Window, WiredDevice},
    uart,
};

/// Bytes of the generic event device's selector.
const SELECTOR_SIZE: u8 = 4;
/// Bit of the selector: the power button was pressed.
const POWER_BUTTON_EVENT: u8 = 1 << 1;
/// Notification of a power button: pressed in S0 (ACPI 6.5, 5.6.6).
const BUTTON_PRESSED: u8 = 0x80;

/// The PL011. ARMH0011 is bound by the SBSA UART driver, which names it ttyAMA0 (drivers/tty/serial/amba-pl011.c).
pub(super) fn append_serial(sink: &mut Vec<u8>, serial: &WiredDevice) {
    Device::new(
        Path::new(uart::NAME),
        vec![
            &Name::new(Path::new("_HID"), &"ARMH0011"),
            &Name::new(Path::new("_UID"), &ZERO),
            &Name::new(Path::new("_CRS"), &Wired(serial)),
        ],
    )
    .to_aml_bytes(sink);
}

/// The PL031. No ACPI ID of it is known to Linux. But Linux makes an AMBA device of everything that has an ID in
/// drivers/acpi/arm64/amba.c, also as `_CID`, and then binds by the peripheral ID that it reads from the registers; so
/// with ARMH0061 (a PL061, which no driver takes this for) it gets to rtc-pl031, and the guest to the time of day that
/// it would otherwise lack without UEFI runtime services. LNRO0013 is what Arm's own models call a PL031.
pub(super) fn append_clock(sink: &mut Vec<u8>, rtc: &WiredDevice) {
    Device::new(
        Path::new("RTC0"),
        vec![
            &Name::new(Path::new("_HID"), &"LNRO0013"),
            &Name::new(Path::new("_CID"), &"ARMH0061"),
            &Name::new(Path::new("_UID"), &ZERO),
            &Name::new(Path::new("_CRS"), &Wired(rtc)),
        ],
    )
    .to_aml_bytes(sink);
}

/// The power button, and the generic event device (ACPI 6.5, 5.6.9) that tells of it.
pub(super) fn append_power_button(sink: &mut Vec<u8>, ged: &WiredDevice) {
    Device::new(
        Path::new("PWRB"),
        vec![&Name::new(Path::new("_HID"), &EISAName::new("PNP0C0C")), &Name::new(Path::new("_UID"), &ZERO)],
    )
    .to_aml_bytes(sink);
    let selector = Path::new("ESEL");
    let pressed = And::new(&ZERO, &Local(0), &POWER_BUTTON_EVENT);
    Device::new(
        Path::new("GED0"),
        vec![
            &Name::new(Path::new("_HID"), &"ACPI0013"),
            &Name::new(Path::new("_UID"), &ZERO),
            &Name::new(Path::new("_CRS"), &ResourceTemplate::new(vec![&interrupt(ged.gsiv, Trigger::Edge)])),
            &OpRegion::new(Path::new("EREG"), OpRegionSpace::SystemMemory, &ged.window.base, &SELECTOR_SIZE),
            &Field::new(
                Path::new("EREG"),
                FieldAccessType::DWord,
                FieldLockRule::NoLock,
                FieldUpdateRule::WriteAsZeroes,
                vec![FieldEntry::Named(*b"ESEL", usize::from(SELECTOR_SIZE) * 8)],
            ),
            &Method::new(
                Path::new("_EVT"),
                1,
                true,
                vec![&If::new(
                    &Equal::new(&Arg(0), &ged.gsiv),
                    vec![
                        // Read once: the read clears it.
                        &Store::new(&Local(0), &selector),
                        &If::new(&pressed, vec![&Notify::new(&Path::new("PWRB"), &BUTTON_PRESSED)]),
                    ],
                )],
            ),
        ],
    )
    .to_aml_bytes(sink);
}

/// Reserves ECAM as a motherboard resource (PCI Firmware Specification 3.3, 4.1.2); Linux looks for it and warns without
/// (drivers/pci/pci-acpi.c).
pub(super) fn append_ecam(sink: &mut Vec<u8>, ecam: Window) {
    Device::new(
        Path::new("RES0"),
        vec![
            &Name::new(Path::new("_HID"), &EISAName::new("PNP0C02")),
            &Name::new(Path::new("_UID"), &ZERO),
            &Name::new(Path::new("_CRS"), &ResourceTemplate::new(vec![&Registers(ecam)])),
        ],
    )
    .to_aml_bytes(sink);
}

/// Resources of a device with registers and a level-triggered interrupt.
struct Wired<'a>(&'a WiredDevice);

impl Aml for Wired<'_> {
    fn to_aml_bytes(&self, sink: &mut dyn AmlSink) {
        let interrupt = interrupt(self.0.gsiv, Trigger::Level);
        ResourceTemplate::new(vec![&Registers(self.0.window), &interrupt]).to_aml_bytes(sink);
    }
}

#[derive(PartialEq)]
enum Trigger {
    Level,
    Edge,
}

/// An interrupt that is active high and not shared, as the GIC has them.
fn interrupt(gsiv: u32, trigger: Trigger) -> Interrupt {
    let (consumer, active_low, shared) = (true, false, false);
    Interrupt::new(consumer, trigger == Trigger::Edge, active_low, shared, gsiv)
}
