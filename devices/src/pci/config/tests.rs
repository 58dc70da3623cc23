use super::*;

const REGISTER: u16 = 0x44;

fn space(lay_out: impl FnOnce(&mut ConfigBuilder)) -> ConfigSpace {
    let mut builder = ConfigBuilder::new();
    lay_out(&mut builder);
    builder.build()
}

#[test]
fn only_writable_bits_change() {
    let mut space = space(|b| {
        b.u32(REGISTER, 0xaabb_ccdd, 0x00ff_00f0);
    });
    space.write(REGISTER, &0x1122_3344_u32.to_le_bytes());
    assert_eq!(space.get_u32(REGISTER), 0xaa22_cc4d);
}

#[test]
fn a_narrow_write_leaves_the_rest_of_the_register() {
    let mut space = space(|b| {
        b.u32(REGISTER, 0, u32::MAX);
    });
    space.write(REGISTER + 1, &[0x12]);
    space.write(REGISTER + 2, &[0x34, 0x56]);
    assert_eq!(space.get_u32(REGISTER), 0x5634_1200);
}

#[test]
fn writing_1_clears_a_status_bit_and_0_keeps_it() {
    let mut space = space(|b| {
        b.u16(REGISTER, 0, 0x0001).clear_on_one_u16(REGISTER, 0xf000);
    });
    space.set_u16(REGISTER, 0xf000);
    space.write(REGISTER, &0x3001_u16.to_le_bytes());
    assert_eq!(space.get_u16(REGISTER), 0xc001);
    space.write(REGISTER, &0xc000_u16.to_le_bytes());
    assert_eq!(space.get_u16(REGISTER), 0);
}

#[test]
fn reset_brings_back_the_values_of_power_on() {
    let mut space = space(|b| {
        b.u16(REGISTER, 0x1234, 0xffff);
    });
    space.write(REGISTER, &[0xff, 0xff]);
    space.update_u16(REGISTER + 2, 0xff, 0xff);
    space.reset();
    assert_eq!(space.get_u32(REGISTER), 0x1234);
}

#[test]
fn beyond_4_kib_everything_reads_ones_and_no_write_lands() {
    let mut space = space(|_| {});
    let mut data = [0; 4];
    space.read(0xffe, &mut data);
    assert_eq!(data, [0xff; 4]);
    space.write(0xffe, &[0xff; 4]);
    space.write(u16::MAX, &[0xff; 4]);
    space.set_u16(0xfff, 0xffff);
    assert_eq!(space.get_u16(0xffe), 0);
}

#[test]
fn capabilities_are_chained_from_the_pointer_and_the_status_bit() {
    let mut offsets = [0; 3];
    let space = space(|b| offsets = [b.capability(0x01, 8), b.capability(0x11, 10), b.capability(0x10, 0x3c)]);
    assert_eq!(offsets, [0x40, 0x48, 0x54], "each starts at a DWORD (7.5.1.1.11)");
    assert_eq!(space.get_u16(header::STATUS), 1 << 4);
    assert_eq!(space.get_u8(header::CAPABILITIES), 0x40);
    assert_eq!(space.get_u16(0x40), 0x4801);
    assert_eq!(space.get_u16(0x48), 0x5411);
    assert_eq!(space.get_u16(0x54), 0x0010, "the last next pointer is 0");
}

#[test]
fn extended_capabilities_are_chained_from_0x100() {
    let mut offsets = [0; 3];
    let space = space(|b| {
        offsets = [
            b.extended_capability(0x0001, 2, 0x48),
            b.extended_capability(0x000d, 1, 8),
            b.extended_capability(0x001b, 1, 6),
        ];
    });
    assert_eq!(offsets, [0x100, 0x148, 0x150]);
    assert_eq!(space.get_u32(0x100), 0x1482_0001);
    assert_eq!(space.get_u32(0x148), 0x1501_000d);
    assert_eq!(space.get_u32(0x150), 0x0001_001b);
}

#[test]
fn without_extended_capabilities_the_first_header_is_zero() {
    assert_eq!(space(|_| {}).get_u32(header::EXTENDED), 0, "7.6.3");
}

fn size_of(space: &mut ConfigSpace, shape: &BarShape) -> u64 {
    let offset = shape.offset();
    space.write(offset, &[0xff; 4]);
    let low = space.get_u32(offset) & !0xf;
    if shape.wide {
        space.write(offset + 4, &[0xff; 4]);
        let high = space.get_u32(offset + 4);
        return !(u64::from(high) << 32 | u64::from(low)) + 1;
    }
    u64::from(!low) + 1
}

#[test]
fn a_guest_sizes_a_bar_by_writing_ones() {
    let narrow = BarShape { index: 0, size: 0x1000, wide: false, prefetchable: false };
    let wide = BarShape { index: 2, size: 16 << 30, wide: true, prefetchable: true };
    let mut space = space(|b| {
        b.bar(&narrow, 0x1000_1000).bar(&wide, 0x80_0000_0000);
    });
    assert_eq!(space.get_u32(0x10), 0x1000_1000);
    assert_eq!(space.get_u32(0x18), 0x0000_000c, "64 bits, prefetchable (7.5.1.2.1)");
    assert_eq!(space.get_u32(0x1c), 0x80);
    assert_eq!(size_of(&mut space, &narrow), 0x1000);
    assert_eq!(size_of(&mut space, &wide), 16 << 30);
}

#[test]
fn a_bar_is_where_the_guest_moved_it() {
    let wide = BarShape { index: 0, size: 0x4000, wide: true, prefetchable: true };
    let mut space = space(|b| {
        b.bar(&wide, 0x80_0000_0000);
    });
    assert_eq!(space.bar(&wide), 0x80_0000_0000);
    space.write(0x10, &0x1234_7fff_u32.to_le_bytes());
    space.write(0x14, &0x81_u32.to_le_bytes());
    assert_eq!(space.bar(&wide), 0x81_1234_4000);
}

#[test]
fn a_narrow_bar_ignores_the_register_behind_it() {
    let narrow = BarShape { index: 1, size: 0x1000, wide: false, prefetchable: false };
    assert_eq!(narrow.decode(0xe000_1008, 0xffff_ffff), 0xe000_1000);
}
