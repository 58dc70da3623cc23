//! PCI host bridges: pcie.0 and every expander, as PCI Firmware Specification 3.3, chapter 4, wants them.
//!
//! No `_PRT`: no function of the machine has an interrupt pin.

use acpi_tables::{
    Aml, AmlSink,
    aml::{
        AddressSpace, And, Arg, BufferData, CreateDWordField, Device, EISAName, Else, Equal, GreaterEqual, If, Local,
        Method, Name, NotEqual, ONE, Or, Path, ResourceTemplate, Return, Store, Uuid, ZERO,
    },
};

use super::resources::BridgeWindow;
use crate::description::HostBridge;

/// `_OSC` of PCI host bridges (4.5.1).
const OSC_UUID: &str = "33db4d5b-1ff7-401c-9657-7441c03dd766";
/// What the guest may control itself: hot-plug (bit 0), PME (2), AER (3), the PCIe capability (4) and LTR (5). There is
/// no standard hot-plug controller (1).
const OSC_CONTROL: u8 = 0x3d;
/// Status bits of the first capabilities DWORD.
const OSC_UNRECOGNIZED_UUID: u8 = 1 << 2;
const OSC_UNRECOGNIZED_REVISION: u8 = 1 << 3;
const OSC_CAPABILITIES_MASKED: u8 = 1 << 4;

/// `_DSM` of PCI devices (4.6).
const DSM_UUID: &str = "e5c937d0-3553-4d7a-9117-ea4d19c3434d";
/// Functions 0 (which there are) and 5 (PCI Boot Configuration, 4.6.5).
const DSM_FUNCTIONS: u8 = 1 << 0 | 1 << 5;
const DSM_BOOT_CONFIGURATION: u8 = 5;

/// Appends the bridge's device: `PCI0` for bus 0, else `PC` and the bus in hexadecimal.
pub(super) fn append(sink: &mut Vec<u8>, bridge: &HostBridge) {
    let name = match bridge.buses.first {
        0 => "PCI0".to_string(),
        bus => format!("PC{bus:02X}"),
    };
    let last_bus = bridge.buses.last.max(bridge.buses.first);
    Device::new(
        Path::new(&name),
        vec![
            &Name::new(Path::new("_HID"), &EISAName::new("PNP0A08")),
            &Name::new(Path::new("_CID"), &EISAName::new("PNP0A03")),
            &Name::new(Path::new("_UID"), &bridge.uid),
            &Name::new(Path::new("_SEG"), &ZERO),
            &Name::new(Path::new("_BBN"), &bridge.buses.first),
            // arm64 gives a device without it no DMA at all.
            &Name::new(Path::new("_CCA"), &ONE),
            &Name::new(
                Path::new("_CRS"),
                &ResourceTemplate::new(vec![
                    &AddressSpace::new_bus_number(u16::from(bridge.buses.first), u16::from(last_bus)),
                    &BridgeWindow(bridge.mmio32),
                    &BridgeWindow(bridge.mmio64),
                ]),
            ),
            &OperatingSystemCapabilities,
            &DeviceSpecificMethod,
        ],
    )
    .to_aml_bytes(sink);
}

/// `_OSC`: hands over what [`OSC_CONTROL`] has and says so when that is less than was asked for.
struct OperatingSystemCapabilities;

impl Aml for OperatingSystemCapabilities {
    fn to_aml_bytes(&self, sink: &mut dyn AmlSink) {
        let status = Path::new("CDW1");
        let control = Path::new("CDW3");
        Method::new(
            Path::new("_OSC"),
            4,
            true,
            vec![
                &CreateDWordField::new(&status, &Arg(3), &0u8),
                &If::new(
                    &Equal::new(&Arg(0), &Uuid::new(OSC_UUID)),
                    vec![
                        &CreateDWordField::new(&control, &Arg(3), &8u8),
                        &And::new(&Local(0), &control, &OSC_CONTROL),
                        &If::new(&NotEqual::new(&Arg(1), &ONE), vec![&StatusBit(OSC_UNRECOGNIZED_REVISION)]),
                        &If::new(&NotEqual::new(&control, &Local(0)), vec![&StatusBit(OSC_CAPABILITIES_MASKED)]),
                        &Store::new(&control, &Local(0)),
                    ],
                ),
                &Else::new(vec![&StatusBit(OSC_UNRECOGNIZED_UUID)]),
                &Return::new(&Arg(3)),
            ],
        )
        .to_aml_bytes(sink);
    }
}

/// Sets a bit of the first capabilities DWORD.
struct StatusBit(u8);

impl Aml for StatusBit {
    fn to_aml_bytes(&self, sink: &mut dyn AmlSink) {
        let status = Path::new("CDW1");
        Or::new(&status, &status, &self.0).to_aml_bytes(sink);
    }
}

/// `_DSM`: function 5 returns 0, so that the guest keeps the bus numbers and BARs that it finds. StreamIDs are requester
/// IDs, and Linux ignores IORT's reserved memory ranges below a bridge without it (drivers/acpi/arm64/iort.c,
/// iort_rmr_has_dev).
struct DeviceSpecificMethod;

impl Aml for DeviceSpecificMethod {
    fn to_aml_bytes(&self, sink: &mut dyn AmlSink) {
        Method::new(
            Path::new("_DSM"),
            4,
            true,
            vec![
                &If::new(
                    &Equal::new(&Arg(0), &Uuid::new(DSM_UUID)),
                    vec![&If::new(
                        &GreaterEqual::new(&Arg(1), &ONE),
                        vec![
                            &If::new(
                                &Equal::new(&Arg(2), &ZERO),
                                vec![&Return::new(&BufferData::new(vec![DSM_FUNCTIONS]))],
                            ),
                            &If::new(&Equal::new(&Arg(2), &DSM_BOOT_CONFIGURATION), vec![&Return::new(&ZERO)]),
                        ],
                    )],
                ),
                &Return::new(&BufferData::new(vec![0])),
            ],
        )
        .to_aml_bytes(sink);
    }
}
