//! Registers of the DMA engine, nestling's own device for tests and demonstrations of a vSMMU. Types and offsets only.
//!
//! BAR 0 has the registers below, little-endian, for naturally aligned accesses of 1, 2, 4 or 8 bytes; BAR 1 has MSI-X
//! table and pending bits, with one vector. All registers are zero after reset except [`ID`].

#![forbid(unsafe_code)]

use bitfield_struct::bitfield;

/// Vendor ID that emulators give to devices of their own; nobody was assigned it.
pub const VENDOR_ID: u16 = 0x1234;
/// Device ID.
pub const DEVICE_ID: u16 = 0x6e64;
/// Base system peripheral, other (PCI Code and ID Assignment, 1.9).
pub const CLASS_OTHER_PERIPHERAL: u32 = 0x08_80_00;

/// Bytes of BAR 0.
pub const REGISTERS_SIZE: u64 = 0x1000;

/// Identification, 64 bits, read-only: [`ID_VALUE`].
pub const ID: u64 = 0x00;
/// Address that is read, 64 bits.
pub const SOURCE: u64 = 0x08;
/// Address that is written, 64 bits.
pub const DESTINATION: u64 = 0x10;
/// Bytes, 64 bits; at most [`MAX_LENGTH`].
pub const LENGTH: u64 = 0x18;
/// PASID of the accesses, 32 bits: a [`Pasid`].
pub const PASID: u64 = 0x20;
/// Written to start, 32 bits: a [`Command`]. The write is over when the engine is done.
pub const COMMAND: u64 = 0x28;
/// Result of the last command, 32 bits, read-only: a [`Status`] value.
pub const STATUS: u64 = 0x30;
/// Bytes that the last command has done, 64 bits, read-only.
pub const DONE: u64 = 0x38;
/// Where the last command failed, 64 bits, read-only: the start of the access that failed.
pub const FAULT: u64 = 0x40;
/// Pattern of [`OPERATION_FILL`]; result of [`OPERATION_SUM`]. 64 bits.
pub const DATA: u64 = 0x48;

/// Value of [`ID`]: "nestdma" and version 1.
pub const ID_VALUE: u64 = 0x0161_6d64_7473_656e;
/// Most bytes of one command.
pub const MAX_LENGTH: u64 = 1 << 20;

/// [`PASID`].
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct Pasid {
    /// The PASID.
    #[bits(20)]
    pub pasid: u32,
    #[bits(11)]
    __: u16,
    /// Accesses have it.
    pub valid: bool,
}

/// [`COMMAND`].
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct Command {
    /// What to do.
    #[bits(4)]
    pub operation: u8,
    /// Accesses ask for privilege (needs a PASID and its control bit).
    pub privileged: bool,
    /// Reads ask for execution (needs a PASID and its control bit).
    pub execute: bool,
    #[bits(2)]
    __: u8,
    /// Send the message at the end.
    pub interrupt: bool,
    #[bits(23)]
    __: u32,
}

/// Reads from [`SOURCE`], writes to [`DESTINATION`].
pub const OPERATION_COPY: u8 = 1;
/// Writes [`DATA`] over and over to [`DESTINATION`].
pub const OPERATION_FILL: u8 = 2;
/// Reads from [`SOURCE`] and adds the bytes up in [`DATA`].
pub const OPERATION_SUM: u8 = 3;

/// [`STATUS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Status {
    /// No command since the reset.
    Idle = 0,
    /// Done.
    Done = 1,
    /// An access failed, at [`FAULT`]; what was before it is done.
    Aborted = 2,
    /// The command is illegal: unknown, too long, or it asks for what configuration space does not enable.
    Refused = 3,
}

/// Extended capability ID of PASID (PCIe 7.8.9).
pub const PASID_CAPABILITY: u16 = 0x001b;
/// Bytes of the PASID capability.
pub const PASID_CAPABILITY_SIZE: u16 = 8;
/// Offset of PASID Capability.
pub const PASID_CAP: u16 = 4;
/// Offset of PASID Control.
pub const PASID_CONTROL: u16 = 6;

/// PASID Control (7.8.9.3).
#[bitfield(u16)]
#[derive(PartialEq, Eq)]
pub struct PasidControl {
    /// PASIDs may be used.
    pub enable: bool,
    /// Execute Requested may be set.
    pub execute: bool,
    /// Privileged Mode Requested may be set.
    pub privileged: bool,
    #[bits(13)]
    __: u16,
}

/// Function Level Reset Capability in Device Capabilities (7.5.3.3).
pub const FLR_CAPABLE: u32 = 1 << 28;
/// Initiate Function Level Reset in Device Control (7.5.3.4); reads 0.
pub const INITIATE_FLR: u16 = 1 << 15;
