//! Resource descriptors (ACPI 6.5, 6.4) that `acpi_tables` lacks or would refuse.

use acpi_tables::{
    Aml, AmlSink,
    aml::{AddressSpace, AddressSpaceCacheable, Memory32Fixed},
};

use crate::description::Window;

/// Registers that the device itself decodes. `acpi_tables` marks every address space as produced for others.
pub(super) struct Registers(pub Window);

impl Aml for Registers {
    fn to_aml_bytes(&self, sink: &mut dyn AmlSink) {
        const QWORD_ADDRESS_SPACE: u8 = 0x8a;
        const LENGTH: u16 = 43;
        const MEMORY: u8 = 0;
        const CONSUMER_MIN_AND_MAX_FIXED: u8 = 1 << 3 | 1 << 2 | 1 << 0;
        const READ_WRITE_NOT_CACHEABLE: u8 = 1 << 0;

        let Window { base, size } = self.0;
        if let (Ok(base), Ok(size)) = (base.try_into(), size.try_into()) {
            return Memory32Fixed::new(true, base, size).to_aml_bytes(sink);
        }
        sink.byte(QWORD_ADDRESS_SPACE);
        sink.word(LENGTH);
        sink.byte(MEMORY);
        sink.byte(CONSUMER_MIN_AND_MAX_FIXED);
        sink.byte(READ_WRITE_NOT_CACHEABLE);
        sink.qword(0);
        sink.qword(base);
        sink.qword(base.saturating_add(size.saturating_sub(1)));
        sink.qword(0);
        sink.qword(size);
    }
}

/// Addresses that a host bridge passes on; nothing if the window is empty. Not marked prefetchable: Linux would keep
/// other BARs out of it (drivers/pci/pci.c, pci_find_parent_resource).
pub(super) struct BridgeWindow(pub Window);

impl Aml for BridgeWindow {
    fn to_aml_bytes(&self, sink: &mut dyn AmlSink) {
        let Window { base, size } = self.0;
        let Some(last) = size.checked_sub(1).and_then(|span| base.checked_add(span)) else { return };
        let cacheable = AddressSpaceCacheable::NotCacheable;
        match (u32::try_from(base), u32::try_from(last)) {
            (Ok(base), Ok(last)) if size <= u32::MAX.into() => {
                AddressSpace::new_memory(cacheable, true, base, last, None).to_aml_bytes(sink)
            }
            // All 2^64 addresses have no length that fits.
            _ if size < u64::MAX => AddressSpace::new_memory(cacheable, true, base, last, None).to_aml_bytes(sink),
            _ => (),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sdt::bytes;

    fn window(base: u64, size: u64) -> Window {
        Window { base, size }
    }

    #[test]
    fn an_empty_or_wrapping_window_is_left_out() {
        assert!(bytes(&BridgeWindow(window(0x1000_0000, 0))).is_empty());
        assert!(bytes(&BridgeWindow(window(u64::MAX, 2))).is_empty());
    }

    #[test]
    fn a_window_is_described_in_as_few_bits_as_hold_it() {
        assert_eq!(bytes(&BridgeWindow(window(0x1000_0000, 0x1000))).first(), Some(&0x87));
        assert_eq!(bytes(&BridgeWindow(window(0, 1 << 32))).first(), Some(&0x8a));
        assert_eq!(bytes(&BridgeWindow(window(0xffff_f000, 0x1000))).first(), Some(&0x87));
        assert_eq!(bytes(&BridgeWindow(window(1 << 38, 1 << 36))).first(), Some(&0x8a));
    }

    #[test]
    fn high_registers_are_consumed_not_produced() {
        let descriptor = bytes(&Registers(window(0x40_1000_0000, 0x1000_0000)));
        assert_eq!(descriptor.len(), 46);
        assert_eq!(descriptor.get(4), Some(&0x0d));
        assert_eq!(descriptor.get(22..30), Some(&0x40_1fff_ffff_u64.to_le_bytes()[..]));
        assert_eq!(bytes(&Registers(window(0x900_0000, 0x1000))).first(), Some(&0x86));
    }
}
