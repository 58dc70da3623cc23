//! Registers of PCI Express configuration space (PCIe Base Specification 6.0, chapter 7). Types and offsets only.

#![forbid(unsafe_code)]

use bitflags::bitflags;

/// Offsets of the Type 0 and Type 1 headers (7.5.1).
pub mod header {
    /// Vendor ID, 2 bytes.
    pub const VENDOR_ID: u16 = 0x00;
    /// Device ID, 2 bytes.
    pub const DEVICE_ID: u16 = 0x02;
    /// Command, 2 bytes.
    pub const COMMAND: u16 = 0x04;
    /// Status, 2 bytes.
    pub const STATUS: u16 = 0x06;
    /// Revision ID in bits 7:0, class code in bits 31:8.
    pub const REVISION_AND_CLASS: u16 = 0x08;
    /// Cache Line Size, 1 byte.
    pub const CACHE_LINE_SIZE: u16 = 0x0c;
    /// Header Type, 1 byte.
    pub const HEADER_TYPE: u16 = 0x0e;
    /// Base Address Register 0; the others follow.
    pub const BAR0: u16 = 0x10;
    /// Subsystem Vendor ID (Type 0), 2 bytes.
    pub const SUBSYSTEM_VENDOR_ID: u16 = 0x2c;
    /// Subsystem ID (Type 0), 2 bytes.
    pub const SUBSYSTEM_ID: u16 = 0x2e;
    /// Capabilities Pointer, 1 byte.
    pub const CAPABILITIES: u16 = 0x34;
    /// Interrupt Line, 1 byte.
    pub const INTERRUPT_LINE: u16 = 0x3c;

    /// Primary Bus Number (Type 1), 1 byte.
    pub const PRIMARY_BUS: u16 = 0x18;
    /// Secondary Bus Number (Type 1), 1 byte.
    pub const SECONDARY_BUS: u16 = 0x19;
    /// Subordinate Bus Number (Type 1), 1 byte.
    pub const SUBORDINATE_BUS: u16 = 0x1a;
    /// Secondary Status (Type 1), 2 bytes.
    pub const SECONDARY_STATUS: u16 = 0x1e;
    /// Memory Base (Type 1), 2 bytes.
    pub const MEMORY_BASE: u16 = 0x20;
    /// Memory Limit (Type 1), 2 bytes.
    pub const MEMORY_LIMIT: u16 = 0x22;
    /// Prefetchable Memory Base (Type 1), 2 bytes.
    pub const PREFETCHABLE_BASE: u16 = 0x24;
    /// Prefetchable Memory Limit (Type 1), 2 bytes.
    pub const PREFETCHABLE_LIMIT: u16 = 0x26;
    /// Prefetchable Base Upper 32 Bits (Type 1).
    pub const PREFETCHABLE_BASE_UPPER: u16 = 0x28;
    /// Prefetchable Limit Upper 32 Bits (Type 1).
    pub const PREFETCHABLE_LIMIT_UPPER: u16 = 0x2c;
    /// Bridge Control (Type 1), 2 bytes.
    pub const BRIDGE_CONTROL: u16 = 0x3e;

    /// First byte behind the header.
    pub const END: u16 = 0x40;
    /// First byte of extended configuration space.
    pub const EXTENDED: u16 = 0x100;
}

/// Capability IDs (PCI Code and ID Assignment, chapter 2).
pub mod capability {
    /// PCI Power Management Interface (7.5.2).
    pub const POWER_MANAGEMENT: u8 = 0x01;
    /// Message Signalled Interrupts (7.7.1).
    pub const MSI: u8 = 0x05;
    /// Subsystem ID and Subsystem Vendor ID of a bridge (7.9.23).
    pub const SUBSYSTEM: u8 = 0x0d;
    /// PCI Express (7.5.3).
    pub const PCI_EXPRESS: u8 = 0x10;
    /// MSI-X (7.7.2).
    pub const MSIX: u8 = 0x11;
}

/// Extended capability IDs (PCI Code and ID Assignment, chapter 3).
pub mod extended {
    /// Advanced Error Reporting (7.8.4).
    pub const ADVANCED_ERROR_REPORTING: u16 = 0x0001;
    /// Access Control Services (7.7.11).
    pub const ACCESS_CONTROL: u16 = 0x000d;
}

bitflags! {
    /// Command register (7.5.1.1.3).
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Command: u16 {
        /// I/O Space Enable.
        const IO = 1 << 0;
        /// Memory Space Enable.
        const MEMORY = 1 << 1;
        /// Bus Master Enable.
        const BUS_MASTER = 1 << 2;
        /// Parity Error Response.
        const PARITY = 1 << 6;
        /// SERR# Enable.
        const SERR = 1 << 8;
        /// Interrupt Disable.
        const INTERRUPT_DISABLE = 1 << 10;
    }

    /// Bridge Control register (7.5.1.3.10).
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct BridgeControl: u16 {
        /// Parity Error Response Enable.
        const PARITY = 1 << 0;
        /// SERR# Enable.
        const SERR = 1 << 1;
        /// Secondary Bus Reset.
        const SECONDARY_BUS_RESET = 1 << 6;
    }

    /// Slot Capabilities (7.5.3.9); the Physical Slot Number is in bits 31:19.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct SlotCapabilities: u32 {
        /// Attention Button Present.
        const ATTENTION_BUTTON = 1 << 0;
        /// Power Controller Present.
        const POWER_CONTROLLER = 1 << 1;
        /// Attention Indicator Present.
        const ATTENTION_INDICATOR = 1 << 3;
        /// Power Indicator Present.
        const POWER_INDICATOR = 1 << 4;
        /// Hot-Plug Surprise.
        const SURPRISE = 1 << 5;
        /// Hot-Plug Capable.
        const HOT_PLUG = 1 << 6;
        /// No Command Completed Support.
        const NO_COMMAND_COMPLETED = 1 << 18;
    }

    /// Slot Control (7.5.3.10), without the two-bit indicator fields.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct SlotControl: u16 {
        /// Attention Button Pressed Enable.
        const ATTENTION_BUTTON = 1 << 0;
        /// Presence Detect Changed Enable.
        const PRESENCE = 1 << 3;
        /// Hot-Plug Interrupt Enable.
        const HOT_PLUG_INTERRUPT = 1 << 5;
        /// Attention Indicator Control.
        const ATTENTION_INDICATOR = 0b11 << 6;
        /// Power Indicator Control.
        const POWER_INDICATOR = 0b11 << 8;
        /// Power Controller Control: set means that the slot has no power.
        const POWER_OFF = 1 << 10;
        /// Data Link Layer State Changed Enable.
        const LINK_STATE = 1 << 12;
    }

    /// Slot Status (7.5.3.11).
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct SlotStatus: u16 {
        /// Attention Button Pressed, cleared by writing 1.
        const ATTENTION_BUTTON = 1 << 0;
        /// Presence Detect Changed, cleared by writing 1.
        const PRESENCE_CHANGED = 1 << 3;
        /// Presence Detect State.
        const PRESENT = 1 << 6;
        /// Data Link Layer State Changed, cleared by writing 1.
        const LINK_CHANGED = 1 << 8;
    }

    /// Access Control Services capability and control (7.7.11.2, 7.7.11.3).
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct AccessControl: u16 {
        /// Source Validation.
        const SOURCE_VALIDATION = 1 << 0;
        /// P2P Request Redirect.
        const REQUEST_REDIRECT = 1 << 2;
        /// P2P Completion Redirect.
        const COMPLETION_REDIRECT = 1 << 3;
        /// Upstream Forwarding.
        const UPSTREAM_FORWARDING = 1 << 4;
    }

    /// Message Control of MSI-X (7.7.2.2); the table size less one is in bits 10:0.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct MsixControl: u16 {
        /// Function Mask.
        const FUNCTION_MASK = 1 << 14;
        /// MSI-X Enable.
        const ENABLE = 1 << 15;
    }
}

/// Value of a slot indicator (7.5.3.10): on.
pub const INDICATOR_ON: u16 = 0b01;
/// Value of a slot indicator (7.5.3.10): off.
pub const INDICATOR_OFF: u16 = 0b11;

/// Offsets from the start of the PCI Express capability (7.5.3, figure 7-22).
pub mod express {
    /// PCI Express Capabilities, 2 bytes.
    pub const CAPABILITIES: u16 = 0x02;
    /// Device Capabilities.
    pub const DEVICE_CAPABILITIES: u16 = 0x04;
    /// Device Control, 2 bytes.
    pub const DEVICE_CONTROL: u16 = 0x08;
    /// Device Status, 2 bytes.
    pub const DEVICE_STATUS: u16 = 0x0a;
    /// Link Capabilities.
    pub const LINK_CAPABILITIES: u16 = 0x0c;
    /// Link Control, 2 bytes.
    pub const LINK_CONTROL: u16 = 0x10;
    /// Link Status, 2 bytes.
    pub const LINK_STATUS: u16 = 0x12;
    /// Slot Capabilities.
    pub const SLOT_CAPABILITIES: u16 = 0x14;
    /// Slot Control, 2 bytes.
    pub const SLOT_CONTROL: u16 = 0x18;
    /// Slot Status, 2 bytes.
    pub const SLOT_STATUS: u16 = 0x1a;
    /// Root Control, 2 bytes.
    pub const ROOT_CONTROL: u16 = 0x1c;
    /// Root Status.
    pub const ROOT_STATUS: u16 = 0x20;
    /// Device Capabilities 2.
    pub const DEVICE_CAPABILITIES_2: u16 = 0x24;
    /// Device Control 2, 2 bytes.
    pub const DEVICE_CONTROL_2: u16 = 0x28;
    /// Link Capabilities 2.
    pub const LINK_CAPABILITIES_2: u16 = 0x2c;
    /// Link Control 2, 2 bytes.
    pub const LINK_CONTROL_2: u16 = 0x30;
    /// Length of the capability in bytes.
    pub const LENGTH: u16 = 0x3c;

    /// Link Disable in Link Control.
    pub const LINK_DISABLE: u16 = 1 << 4;
    /// Data Link Layer Link Active in Link Status.
    pub const LINK_ACTIVE: u16 = 1 << 13;
    /// ARI Forwarding in Device Capabilities 2 (Supported) and Device Control 2 (Enable).
    pub const ARI_FORWARDING: u16 = 1 << 5;
    /// End-End TLP Prefix Supported in Device Capabilities 2; Max End-End TLP Prefixes 0 above it is four.
    pub const END_END_PREFIX: u32 = 1 << 21;
    /// End-End TLP Prefix Blocking in Device Control 2.
    pub const END_END_PREFIX_BLOCKING: u16 = 1 << 15;
}
