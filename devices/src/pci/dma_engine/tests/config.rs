//! The engine as a PCIe function, and its registers.

use super::*;
use crate::pci::dma_engine::spec::Command as EngineCommand;

#[test]
fn a_guest_finds_an_endpoint_with_two_bars_and_three_capabilities() {
    let guest = Guest::new();
    assert_eq!(guest.config_read32(ENGINE, 0), u32::from(DEVICE_ID) << 16 | u32::from(VENDOR_ID));
    assert_eq!(guest.config_read32(ENGINE, 8) >> 8, CLASS_OTHER_PERIPHERAL);
    for (offset, address) in [(0x10, BAR0), (0x14, BAR1)] {
        assert_eq!(guest.config_read32(ENGINE, offset), address as u32);
        guest.write32(Guest::config(ENGINE, offset), u32::MAX);
        assert_eq!(guest.config_read32(ENGINE, offset), !0xfff, "4 KiB");
        guest.write32(Guest::config(ENGINE, offset), address as u32);
    }
    assert_eq!(guest.config_read32(ENGINE, guest.capability(capability::MSIX) + 4), 1, "table in BAR 1");
    assert_eq!(guest.config_read32(ENGINE, guest.capability(capability::PCI_EXPRESS)) >> 16, 2, "endpoint");
    assert_eq!(guest.config_read32(ENGINE, 0x104) & 0xffff, 8 << 8 | 0b110);
}

#[test]
fn registers_answer_while_memory_space_is_enabled() {
    let guest = Guest::new();
    assert_eq!(guest.read64(BAR0 + ID), u64::MAX);
    guest.enable_engine();
    assert_eq!(guest.read64(BAR0 + ID), ID_VALUE);
    assert_eq!(guest.read32(BAR0 + ID + 4), (ID_VALUE >> 32) as u32);
    guest.write64(BAR0 + SOURCE, 0x1122_3344_5566_7788);
    guest.write32(BAR0 + SOURCE + 4, 0xaabb_ccdd);
    assert_eq!(guest.read64(BAR0 + SOURCE), 0xaabb_ccdd_5566_7788);
    let mut byte = [0];
    guest.bus.read(BAR0 + SOURCE + 1, &mut byte);
    assert_eq!(byte, [0x77]);
    let mut odd = [0; 4];
    guest.bus.read(BAR0 + SOURCE + 1, &mut odd);
    assert_eq!(odd, [0xff; 4]);
    guest.bus.write(BAR0 + SOURCE + 1, &[0; 4]);
    guest.write64(BAR0 + ID, 0);
    guest.write64(BAR0 + 0xff8, 1);
    assert_eq!((guest.read64(BAR0 + ID), guest.read64(BAR0 + 0xff8)), (ID_VALUE, 0));
    assert_eq!(guest.read64(BAR0 + SOURCE), 0xaabb_ccdd_5566_7788);
}

#[test]
fn dma_and_messages_need_bus_mastering() {
    let guest = Guest::new();
    guest.enable_engine();
    guest.config_write(ENGINE, header::COMMAND, 0b010);
    assert_eq!(guest.copy(DATA, DATA + 8, 8), Status::Refused as u32);
    guest.config_write(ENGINE, header::COMMAND, 0b110);
    assert_eq!(guest.its.messages(), []);
    assert_eq!(guest.copy(DATA, DATA + 8, 8), Status::Done as u32);
    assert_eq!(guest.its.messages().len(), 1);
}

#[test]
fn commands_are_bounded_and_known() {
    let guest = Guest::new();
    guest.enable_engine();
    assert_eq!(guest.copy(DATA, DATA, MAX_LENGTH + 1), Status::Refused as u32);
    assert_eq!(guest.command(EngineCommand::new()), Status::Refused as u32);
    assert_eq!(guest.copy(DATA, DATA, 0), Status::Done as u32);
    assert_eq!(guest.command(EngineCommand::new().with_operation(9)), Status::Refused as u32);
    assert_eq!(guest.copy(u64::MAX - 3, DATA, u64::MAX), Status::Refused as u32);
}

#[test]
fn it_fills_and_adds_up_a_megabyte() {
    let guest = Guest::new();
    guest.enable_engine();
    guest.write64(BAR0 + SOURCE, super::DATA);
    guest.write64(BAR0 + DESTINATION, super::DATA);
    guest.write64(BAR0 + LENGTH, MAX_LENGTH - 3);
    guest.write64(BAR0 + DATA_REGISTER, 0x0101_0101_0101_0102);
    assert_eq!(guest.command(EngineCommand::new().with_operation(OPERATION_FILL)), Status::Done as u32);
    assert_eq!(guest.read64(BAR0 + DONE), MAX_LENGTH - 3);
    assert_eq!(guest.command(EngineCommand::new().with_operation(OPERATION_SUM)), Status::Done as u32);
    // Nine for each word, five of the last one's bytes are there.
    assert_eq!(guest.read64(BAR0 + DATA_REGISTER), (MAX_LENGTH / 8 - 1) * 9 + 6);
}

#[test]
fn a_function_level_reset_forgets_everything() {
    let guest = Guest::new();
    guest.enable_engine();
    guest.write64(BAR0 + SOURCE, 5);
    let express = guest.capability(capability::PCI_EXPRESS);
    guest.config_write(ENGINE, express + express::DEVICE_CONTROL, INITIATE_FLR);
    assert_eq!(guest.config_read32(ENGINE, header::COMMAND) & 0xffff, 0);
    assert_eq!(guest.config_read32(ENGINE, express + express::DEVICE_CONTROL) as u16 & INITIATE_FLR, 0);
    assert_eq!(guest.read64(BAR0 + SOURCE), u64::MAX, "no memory space");
    guest.enable_engine();
    assert_eq!(guest.read64(BAR0 + SOURCE), 0);
}
