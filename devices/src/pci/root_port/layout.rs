//! Configuration space of a root port as at power-on.
//!
//! As with QEMU's port there is no Power Management capability. With one, Linux on arm64 lets an empty port sleep in
//! D3hot with its hot-plug interrupt off (drivers/pci/pci.c, `pci_bridge_d3_possible`) and trusts a PME to wake it.

#![forbid(unsafe_code)]

use std::ops::Range;

use super::super::bar::BarShape;
use super::super::config::{ConfigBuilder, ConfigSpace};
use super::super::host_bridge::{SUBSYSTEM_ID, SUBSYSTEM_VENDOR_ID, VENDOR_ID};
use super::super::msix::{self, Msix};
use super::super::spec::{
    AccessControl, BridgeControl, Command, SlotCapabilities, SlotControl, SlotStatus, capability, express, extended,
    header,
};
use super::{Link, RootPortConfig};

/// Generic PCIe root port (QEMU docs/specs/pci-ids.rst).
const DEVICE_ID: u16 = 0x000c;
/// Bridge device, PCI-to-PCI bridge (PCI Code and ID Assignment, 1.7).
const CLASS_PCI_BRIDGE: u32 = 0x06_04_00;
/// Header layout of a bridge (7.5.1.1.9).
const HEADER_TYPE_1: u8 = 1;
/// RW1C bits of Status and Secondary Status (7.5.1.1.4, 7.5.1.3.7).
const STATUS_ERRORS: u16 = 0xf900;
/// Window registers hold address bits 31:20 in bits 15:4 (7.5.1.3.8).
const WINDOW_BITS: u16 = 0xfff0;
/// Bits 3:0 of a prefetchable window register: 64 bits wide (7.5.1.3.9).
const WINDOW_64: u16 = 1;
/// A window whose base lies above its limit decodes nothing.
const NO_WINDOW: (u64, u64) = (0xfff0_0000, 0x000f_ffff);

/// Where the capabilities that the port looks at ended up.
pub(super) struct Layout {
    pub express: u16,
    pub msix: u16,
    pub bar0: BarShape,
}

pub(super) fn build(config: &RootPortConfig, msix: &Msix) -> (ConfigSpace, Layout) {
    let mut space = ConfigBuilder::new();
    let wide = config.bar0 > u64::from(u32::MAX);
    let bar0 = BarShape { index: 0, size: msix::BAR_SIZE, wide, prefetchable: false };
    header_type_1(&mut space, config);
    space.bar(&bar0, config.bar0);
    subsystem(&mut space);
    let msix = msix.capability(&mut space, bar0.index);
    let express = pci_express(&mut space, config);
    advanced_error_reporting(&mut space);
    access_control(&mut space);
    (space.build(), Layout { express, msix, bar0 })
}

/// 7.5.1.3. There is no I/O window: its registers read zero, which says so.
fn header_type_1(space: &mut ConfigBuilder, config: &RootPortConfig) {
    let command = Command::MEMORY | Command::BUS_MASTER | Command::PARITY | Command::SERR | Command::INTERRUPT_DISABLE;
    let control = BridgeControl::PARITY | BridgeControl::SERR | BridgeControl::SECONDARY_BUS_RESET;
    space
        .u16(header::VENDOR_ID, VENDOR_ID, 0)
        .u16(header::DEVICE_ID, DEVICE_ID, 0)
        .u16(header::COMMAND, 0, command.bits())
        .clear_on_one_u16(header::STATUS, STATUS_ERRORS)
        .u32(header::REVISION_AND_CLASS, CLASS_PCI_BRIDGE << 8, 0)
        .u8(header::CACHE_LINE_SIZE, 0, 0xff)
        .u8(header::HEADER_TYPE, HEADER_TYPE_1, 0)
        .u8(header::PRIMARY_BUS, config.primary_bus, 0xff)
        .u8(header::SECONDARY_BUS, config.secondary_bus, 0xff)
        .u8(header::SUBORDINATE_BUS, config.subordinate_bus, 0xff)
        .clear_on_one_u16(header::SECONDARY_STATUS, STATUS_ERRORS)
        .u8(header::INTERRUPT_LINE, 0, 0xff)
        .u16(header::BRIDGE_CONTROL, 0, control.bits());

    let memory = first_and_last(&config.memory);
    space.u16(header::MEMORY_BASE, window_bits(memory.0), WINDOW_BITS).u16(
        header::MEMORY_LIMIT,
        window_bits(memory.1),
        WINDOW_BITS,
    );
    let prefetchable = first_and_last(&config.prefetchable);
    space
        .u16(header::PREFETCHABLE_BASE, window_bits(prefetchable.0) | WINDOW_64, WINDOW_BITS)
        .u16(header::PREFETCHABLE_LIMIT, window_bits(prefetchable.1) | WINDOW_64, WINDOW_BITS)
        .u32(header::PREFETCHABLE_BASE_UPPER, (prefetchable.0 >> 32) as u32, u32::MAX)
        .u32(header::PREFETCHABLE_LIMIT_UPPER, (prefetchable.1 >> 32) as u32, u32::MAX);
}

fn first_and_last(window: &Range<u64>) -> (u64, u64) {
    if window.is_empty() { NO_WINDOW } else { (window.start, window.end - 1) }
}

fn window_bits(address: u64) -> u16 {
    (address >> 16) as u16 & WINDOW_BITS
}

/// 7.9.23.
fn subsystem(space: &mut ConfigBuilder) {
    let at = space.capability(capability::SUBSYSTEM, 8);
    space.u16(at + 4, SUBSYSTEM_VENDOR_ID, 0).u16(at + 6, SUBSYSTEM_ID, 0);
}

/// 7.5.3, capability version 2: a root port with a hot-plug slot.
fn pci_express(space: &mut ConfigBuilder, config: &RootPortConfig) -> u16 {
    const VERSION: u16 = 2;
    const ROOT_PORT: u16 = 0b0100 << 4;
    const SLOT_IMPLEMENTED: u16 = 1 << 8;
    const ROLE_BASED_ERROR_REPORTING: u32 = 1 << 15;
    /// Error reporting enables, Relaxed Ordering, Extended Tag, No Snoop, payload and read request sizes.
    const DEVICE_CONTROL_WRITABLE: u16 = 0x7fff & !(1 << 9 | 1 << 10);
    /// Relaxed Ordering and No Snoop on, read requests of 512 bytes.
    const DEVICE_CONTROL: u16 = 0x2810;
    const DEVICE_STATUS_ERRORS: u16 = 0xf;
    const EXTENDED_TAG: u32 = 1 << 5;
    const CLEAR_ERRORS_AND_PME: u32 = 1 << 16;
    /// SERR on correctable, non-fatal and fatal errors, PME interrupt.
    const ROOT_CONTROL: u16 = 0xf;
    /// A PASID is a prefix, which every port on the way must pass on (drivers/pci/probe.c, `pci_configure_eetlp_prefix`).
    const DEVICE_CAPABILITIES_2: u32 = express::ARI_FORWARDING as u32 | express::END_END_PREFIX;
    const DEVICE_CONTROL_2_WRITABLE: u16 = express::ARI_FORWARDING | express::END_END_PREFIX_BLOCKING;

    let at = space.capability(capability::PCI_EXPRESS, express::LENGTH);
    space
        .u16(at + express::CAPABILITIES, VERSION | ROOT_PORT | SLOT_IMPLEMENTED, 0)
        .u32(at + express::DEVICE_CAPABILITIES, ROLE_BASED_ERROR_REPORTING | EXTENDED_TAG, 0)
        .u16(at + express::DEVICE_CONTROL, DEVICE_CONTROL, DEVICE_CONTROL_WRITABLE)
        .clear_on_one_u16(at + express::DEVICE_STATUS, DEVICE_STATUS_ERRORS);
    link(space, at, config);
    slot(space, at, config.slot);
    space
        .u16(at + express::ROOT_CONTROL, 0, ROOT_CONTROL)
        .clear_on_one_u32(at + express::ROOT_STATUS, CLEAR_ERRORS_AND_PME)
        .u32(at + express::DEVICE_CAPABILITIES_2, DEVICE_CAPABILITIES_2, 0)
        .u16(at + express::DEVICE_CONTROL_2, 0, DEVICE_CONTROL_2_WRITABLE);
    at
}

/// 7.5.3.6 to 7.5.3.8 and 7.5.3.18 to 7.5.3.20. The link is at its full speed and width whenever it is up.
fn link(space: &mut ConfigBuilder, at: u16, config: &RootPortConfig) {
    const LINK_ACTIVE_REPORTING: u32 = 1 << 20;
    const ASPM_OPTIONALITY: u32 = 1 << 22;
    /// ASPM, Link Disable, common clock and extended synch; of these only Link Disable has an effect.
    const LINK_CONTROL: u16 = 0b1101_0011;
    const TARGET_SPEED: u16 = 0xf;
    let Link { speed, width } = config.link;
    let speed = speed as u16;
    let width = u16::from(width) << 4;
    // Supported Link Speeds Vector, bits 7:1: this speed and every slower one.
    let speeds = (1u32 << (speed + 1)) - 2;
    let capabilities = u32::from(speed | width) | LINK_ACTIVE_REPORTING | ASPM_OPTIONALITY;
    // The Port Number (bits 31:24) tells the ports of one root complex apart.
    let port = u32::from(config.slot as u8) << 24;
    space
        .u32(at + express::LINK_CAPABILITIES, capabilities | port, 0)
        .u16(at + express::LINK_CONTROL, 0, LINK_CONTROL)
        .u16(at + express::LINK_STATUS, speed | width, 0)
        .u32(at + express::LINK_CAPABILITIES_2, speeds, 0)
        .u16(at + express::LINK_CONTROL_2, speed, TARGET_SPEED);
}

/// 7.5.3.9 to 7.5.3.11: native hot-plug as QEMU's slot has it. Commands take effect at once, so there is no Command
/// Completed event to wait for.
fn slot(space: &mut ConfigBuilder, at: u16, number: u16) {
    let capabilities = SlotCapabilities::ATTENTION_BUTTON
        | SlotCapabilities::POWER_CONTROLLER
        | SlotCapabilities::ATTENTION_INDICATOR
        | SlotCapabilities::POWER_INDICATOR
        | SlotCapabilities::SURPRISE
        | SlotCapabilities::HOT_PLUG
        | SlotCapabilities::NO_COMMAND_COMPLETED;
    let events = SlotStatus::ATTENTION_BUTTON | SlotStatus::PRESENCE_CHANGED | SlotStatus::LINK_CHANGED;
    space
        .u32(at + express::SLOT_CAPABILITIES, capabilities.bits() | u32::from(number) << 19, 0)
        .u16(at + express::SLOT_CONTROL, 0, SlotControl::all().bits())
        .clear_on_one_u16(at + express::SLOT_STATUS, events.bits());
}

/// 7.8.4. No error ever occurs on an emulated link; the registers are there because Linux's port driver wants them.
fn advanced_error_reporting(space: &mut ConfigBuilder) {
    const LENGTH: u16 = 0x48;
    /// Every uncorrectable error of 7.8.4.2 that a PCIe 3 port knows.
    const UNCORRECTABLE: u32 = 0x01ff_f030;
    /// Default severity: Data Link, Surprise Down, Flow Control, Overflow and Malformed TLP errors are fatal (7.8.4.4).
    const FATAL: u32 = 0x0046_2030;
    /// 7.8.4.5.
    const CORRECTABLE: u32 = 0xf1c1;
    /// Advisory Non-Fatal, Corrected Internal and Header Log Overflow are masked from the start (7.8.4.6).
    const CORRECTABLE_MASK: u32 = 0xe000;
    /// And so are Uncorrectable Internal errors (7.8.4.3).
    const UNCORRECTABLE_MASK: u32 = 1 << 22;
    /// Three reporting enables (7.8.4.9).
    const ROOT_COMMAND: u32 = 0b111;
    /// Status bits 6:0 (7.8.4.10); the interrupt message number in 31:27 is 0.
    const ROOT_STATUS: u32 = 0x7f;
    let at = space.extended_capability(extended::ADVANCED_ERROR_REPORTING, 2, LENGTH);
    space
        .clear_on_one_u32(at + 0x04, UNCORRECTABLE)
        .u32(at + 0x08, UNCORRECTABLE_MASK, UNCORRECTABLE)
        .u32(at + 0x0c, FATAL, UNCORRECTABLE)
        .clear_on_one_u32(at + 0x10, CORRECTABLE)
        .u32(at + 0x14, CORRECTABLE_MASK, CORRECTABLE)
        .u32(at + 0x2c, 0, ROOT_COMMAND)
        .clear_on_one_u32(at + 0x30, ROOT_STATUS);
}

/// 7.7.11. With these four Linux gives every function below its own IOMMU group (drivers/pci/pci.c,
/// `pci_acs_enabled`; drivers/iommu/iommu.c, `REQ_ACS_FLAGS`). They are kept: nothing here routes peer to peer.
fn access_control(space: &mut ConfigBuilder) {
    let at = space.extended_capability(extended::ACCESS_CONTROL, 1, 8);
    let services = AccessControl::all().bits();
    space.u16(at + 4, services, 0).u16(at + 6, 0, services);
}
