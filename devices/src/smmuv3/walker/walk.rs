//! The walk through VMSAv8-64 stage 1 translation tables (Arm ARM DDI 0487, chapter D8).

use std::sync::atomic::Ordering;

use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use super::super::spec::descriptor::{DESCRIPTOR_SIZE, Descriptor, LAST_LEVEL};
use super::access::{Access, Extent, WalkFault};
use super::context::{Context, Granule, Region};

/// Addresses differ in these bits; 63:56 are a copy of bit 55, or are ignored.
pub(super) const VA_MASK: u64 = (1 << 56) - 1;

/// Most entries of a contiguous group.
const MOST_CONTIGUOUS: usize = 128;

/// A translation of a whole block, page or contiguous group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Leaf {
    /// First address that is translated, bits 55:0.
    pub(super) start: u64,
    /// log2 of its size.
    pub(super) bits: u8,
    /// Output address of the first.
    pub(super) output: u64,
    /// The same for all ASIDs (nG = 0).
    pub(super) global: bool,
    pub(super) access_flag: bool,
    /// Without privilege (AP[1]).
    user: bool,
    /// AP[2].
    read_only: bool,
    pxn: bool,
    uxn: bool,
}

impl Granule {
    /// log2 of the page and table size.
    fn bits(self) -> u8 {
        match self {
            Self::K4 => 12,
            Self::K16 => 14,
            Self::K64 => 16,
        }
    }

    /// Address bits that one level resolves.
    fn stride(self) -> u8 {
        self.bits() - 3
    }

    /// Address bits below what `level` resolves.
    fn shift(self, level: u8) -> u8 {
        self.bits() + self.stride() * (LAST_LEVEL - level)
    }

    /// Whether a descriptor at `level` may be a block.
    fn has_blocks(self, level: u8) -> bool {
        match self {
            Self::K4 => matches!(level, 1 | 2),
            Self::K16 | Self::K64 => level == 2,
        }
    }

    /// log2 of the number of entries in a contiguous group.
    fn contiguous(self, level: u8) -> u8 {
        match self {
            Self::K4 => 4,
            Self::K16 if level == LAST_LEVEL => 7,
            Self::K16 | Self::K64 => 5,
        }
    }
}

impl Leaf {
    /// Whether the mapping allows an access (D8.4).
    pub(super) fn allows(&self, context: &Context, access: Access) -> bool {
        if access.instruction && !access.write {
            let user_write = self.user && !self.read_only;
            let never = if access.privileged {
                // What can be written without privilege is never executed with privilege.
                self.pxn || user_write || context.wxn && !self.read_only
            } else {
                self.uxn || context.wxn && user_write
            };
            return !never;
        }
        let reached = if access.privileged { !(context.pan && self.user) } else { self.user };
        reached && !(access.write && self.read_only)
    }

    /// Where an address in it leads.
    pub(super) fn extent(&self, iova: u64) -> Extent {
        let offset = iova & ((1 << self.bits) - 1);
        Extent { address: self.output + offset, length: (1 << self.bits) - offset }
    }

    /// Whether it translates this address (bits 55:0).
    pub(super) fn contains(&self, address: u64) -> bool {
        address.wrapping_sub(self.start) >> self.bits == 0
    }
}

/// The region of an address (D8.2): bit 55 selects TTB0 or TTB1, and the bits above the region are all like it.
fn region(context: &Context, iova: u64) -> Option<Region> {
    let high = usize::from(iova & 1 << 55 != 0);
    let region = context.regions[high]?;
    let top = if context.ignore_top[high] { 56 } else { 64 };
    let shifted = (iova << (64 - top)) as i64 >> (64 - top + region.bits);
    (shifted == -(high as i64)).then_some(region)
}

/// Whether a table translates the region of an address at all.
pub(super) fn is_in_region(context: &Context, iova: u64) -> bool {
    region(context, iova).is_some()
}

/// Walks to the translation of an address. Access flag and permissions are not looked at.
pub(super) fn walk(memory: &GuestMemoryMmap, context: &Context, iova: u64) -> Result<Leaf, WalkFault> {
    let Region { table, granule, bits, flat } = region(context, iova).ok_or(WalkFault::Translation)?;
    let address = iova & ((1 << bits) - 1);
    let mut level = LAST_LEVEL + 1 - (bits - granule.bits()).div_ceil(granule.stride());
    // The first table may have fewer entries than the others, or be as large as they are.
    let mut entries = 1u64 << (bits - granule.shift(level));
    // Bits of the base below the size of the table are ignored.
    let mut table = table & !(entries * DESCRIPTOR_SIZE - 1);
    let (mut user, mut read_only, mut pxn, mut uxn) = (true, false, false, false);
    loop {
        let shift = granule.shift(level);
        let index = address >> shift & (entries - 1);
        let descriptor = load(memory, context, table + index * DESCRIPTOR_SIZE)?;
        if !descriptor.valid() {
            return Err(WalkFault::Translation);
        }
        let last = level == LAST_LEVEL;
        if descriptor.table_or_page() && !last {
            if !flat {
                user &= descriptor.ap_table() & 1 == 0;
                read_only |= descriptor.ap_table() & 2 != 0;
                pxn |= descriptor.pxn_table();
                uxn |= descriptor.uxn_table();
            }
            table = output(descriptor, granule.bits());
            check_size(context, table)?;
            entries = 1 << granule.stride();
            level += 1;
            continue;
        }
        if last != descriptor.table_or_page() || !last && !granule.has_blocks(level) {
            return Err(WalkFault::Translation);
        }
        check_size(context, output(descriptor, shift))?;
        let group = Group { table, index, entries, shift, log2: granule.contiguous(level) };
        let (first, bits) = group.merge(memory, context, descriptor).unwrap_or((descriptor, shift));
        return Ok(Leaf {
            start: iova & VA_MASK & !((1 << bits) - 1),
            bits,
            output: output(first, shift),
            global: !descriptor.ng(),
            access_flag: descriptor.af(),
            user: user && descriptor.ap() & 1 != 0,
            read_only: read_only || descriptor.ap() & 2 != 0,
            pxn: pxn || descriptor.pxn(),
            uxn: uxn || descriptor.uxn(),
        });
    }
}

/// Where a descriptor with the contiguous bit stands.
struct Group {
    table: u64,
    index: u64,
    entries: u64,
    shift: u8,
    log2: u8,
}

impl Group {
    /// The group of a descriptor as one translation: its first descriptor and log2 of its size. The bit is a hint, and it
    /// is believed only after a look at the whole group.
    fn merge(self, memory: &GuestMemoryMmap, context: &Context, descriptor: Descriptor) -> Option<(Descriptor, u8)> {
        let count = 1usize << self.log2;
        if !descriptor.contiguous() || self.entries < count as u64 {
            return None;
        }
        let place = self.index & (count as u64 - 1);
        let first = descriptor.into_bits().checked_sub(place << self.shift)?;
        let mut bytes = [0; MOST_CONTIGUOUS * DESCRIPTOR_SIZE as usize];
        let bytes = bytes.get_mut(..count * DESCRIPTOR_SIZE as usize)?;
        memory.read_slice(bytes, GuestAddress(self.table + (self.index - place) * DESCRIPTOR_SIZE)).ok()?;
        let mut words = bytes.as_chunks::<8>().0.iter().zip(0u64..);
        let alike = words.all(|(&word, i)| {
            let word = if context.big_endian { u64::from_be_bytes(word) } else { u64::from_le_bytes(word) };
            word == first.wrapping_add(i << self.shift)
        });
        let first = Descriptor::from_bits(first);
        let last = output(first, self.shift).wrapping_add((count as u64 - 1) << self.shift);
        (alike && check_size(context, last).is_ok()).then_some((first, self.shift + self.log2))
    }
}

/// The address in a descriptor; bits below `shift` are reserved or mean something else.
fn output(descriptor: Descriptor, shift: u8) -> u64 {
    descriptor.address() << 12 & !((1 << shift) - 1)
}

fn check_size(context: &Context, address: u64) -> Result<(), WalkFault> {
    if address >> context.output_bits == 0 { Ok(()) } else { Err(WalkFault::AddressSize) }
}

fn load(memory: &GuestMemoryMmap, context: &Context, address: u64) -> Result<Descriptor, WalkFault> {
    let word: u64 =
        memory.load(GuestAddress(address), Ordering::Acquire).map_err(|_| WalkFault::ExternalAbort(address))?;
    Ok(Descriptor::from_bits(if context.big_endian { u64::from_be(word) } else { u64::from_le(word) }))
}
