//! The functions that stand for host bridges on pcie.0: the root complex itself and one pxb-pcie per expander.
//!
//! They hold nothing: a guest learns of buses and windows from ACPI. They are there so that the tree of the guest
//! looks as on QEMU's `virt` machine, and so that an expander has a place in it.

#![forbid(unsafe_code)]

use std::sync::Mutex;

use super::PciFunction;
use super::config::{ConfigBuilder, ConfigSpace};
use super::spec::{Command, header};

/// Vendor ID of QEMU's virtual devices (docs/specs/pci-ids.rst).
pub const VENDOR_ID: u16 = 0x1b36;
/// Subsystem vendor that QEMU's virtual devices have.
pub const SUBSYSTEM_VENDOR_ID: u16 = 0x1af4;
/// Subsystem that QEMU's virtual devices have.
pub const SUBSYSTEM_ID: u16 = 0x1100;

/// Generic PCIe host bridge.
const GPEX: u16 = 0x0008;
/// PCIe expander bridge.
const PXB_PCIE: u16 = 0x000b;
/// Bridge device, host bridge (PCI Code and ID Assignment, 1.7).
const CLASS_HOST_BRIDGE: u32 = 0x06_00_00;

/// A host bridge's own function; all of it is read-only but the Command register's enable bits.
pub struct HostBridge {
    config: Mutex<ConfigSpace>,
}

impl HostBridge {
    /// 00:00.0 of the segment, 1b36:0008.
    pub fn root_complex() -> Self {
        Self::new(GPEX)
    }

    /// The pcie.0 side of an expander, 1b36:000b.
    pub fn expander() -> Self {
        Self::new(PXB_PCIE)
    }

    fn new(device_id: u16) -> Self {
        let mut config = ConfigBuilder::new();
        let command = Command::MEMORY | Command::BUS_MASTER;
        config
            .u16(header::VENDOR_ID, VENDOR_ID, 0)
            .u16(header::DEVICE_ID, device_id, 0)
            .u16(header::COMMAND, 0, command.bits())
            .u32(header::REVISION_AND_CLASS, CLASS_HOST_BRIDGE << 8, 0)
            .u8(header::CACHE_LINE_SIZE, 0, 0xff)
            .u16(header::SUBSYSTEM_VENDOR_ID, SUBSYSTEM_VENDOR_ID, 0)
            .u16(header::SUBSYSTEM_ID, SUBSYSTEM_ID, 0)
            .u8(header::INTERRUPT_LINE, 0, 0xff);
        Self { config: Mutex::new(config.build()) }
    }
}

impl PciFunction for HostBridge {
    fn config_read(&self, offset: u16, data: &mut [u8]) {
        self.config.lock().unwrap_or_else(|e| e.into_inner()).read(offset, data);
    }

    fn config_write(&self, offset: u16, data: &[u8]) {
        self.config.lock().unwrap_or_else(|e| e.into_inner()).write(offset, data);
    }

    fn reset(&self) {
        self.config.lock().unwrap_or_else(|e| e.into_inner()).reset();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expander_is_a_host_bridge_without_capabilities() {
        let expander = HostBridge::expander();
        let mut ids = [0; 4];
        expander.config_read(0, &mut ids);
        assert_eq!(ids, [0x36, 0x1b, 0x0b, 0x00]);
        let mut class = [0; 4];
        expander.config_read(8, &mut class);
        assert_eq!(class, [0, 0x00, 0x00, 0x06]);
        let mut status = [0; 2];
        expander.config_read(6, &mut status);
        assert_eq!(status, [0; 2]);
    }

    #[test]
    fn reset_takes_back_what_the_guest_enabled() {
        let bridge = HostBridge::root_complex();
        bridge.config_write(4, &[0xff, 0xff]);
        let mut command = [0; 2];
        bridge.config_read(4, &mut command);
        assert_eq!(command, [0b110, 0]);
        bridge.reset();
        bridge.config_read(4, &mut command);
        assert_eq!(command, [0, 0]);
    }
}
