//! From a context descriptor to what the walker needs of it, with the validity rules of IHI 0070, section 5.4.

use std::sync::atomic::Ordering;

use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use super::super::capabilities::Features;
use super::super::physical::Stage1;
use super::super::spec::cd::{CD_SIZE, Cd0, CdTable, L1CD_SIZE, L1Cd, S1FMT_4K_L2, S1FMT_64K_L2, S1FMT_LINEAR};
use super::super::spec::ste::{S1DSS_BYPASS, S1DSS_SUBSTREAM_0, Ste0, Ste1};
use super::access::Fault;

/// Widths of output addresses by the encoding of CD.IPS and IDR5.OAS.
const OUTPUT_BITS: [u8; 8] = [32, 36, 40, 42, 44, 48, 52, 52];
/// VMSAv8-64 without 52-bit addresses.
const MOST_OUTPUT_BITS: u8 = 48;
/// Legal values of T0SZ and T1SZ without small tables (IDR3.STT) and 52-bit addresses (IDR5.VAX).
const TXSZ: std::ops::RangeInclusive<u8> = 16..=39;

/// The size of the smallest page, and of the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Granule {
    /// 4 KiB.
    K4,
    /// 16 KiB.
    K16,
    /// 64 KiB.
    K64,
}

/// The VA region of one translation table base.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Region {
    /// Address of the first table.
    pub(super) table: u64,
    pub(super) granule: Granule,
    /// Bits of an address in it, 25 to 48.
    pub(super) bits: u8,
    /// Attributes in tables are ignored.
    pub(super) flat: bool,
}

/// A valid context descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Context {
    pub(super) asid: u16,
    /// TTB0 and TTB1; none if it is not to be walked.
    pub(super) regions: [Option<Region>; 2],
    /// Whether the top byte of an address is ignored in each.
    pub(super) ignore_top: [bool; 2],
    /// Bits that an output address may have.
    pub(super) output_bits: u8,
    pub(super) big_endian: bool,
    /// No access flag faults.
    pub(super) ignore_access_flag: bool,
    pub(super) wxn: bool,
    pub(super) pan: bool,
    /// CD.R.
    pub(super) record: bool,
    /// CD.A.
    pub(super) abort: bool,
}

/// What STE and SubstreamID make of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Select {
    /// Stage 1 is bypassed.
    Bypass,
    /// This descriptor of the table translates.
    Context(u32),
}

/// Which context descriptor a transaction uses (STE.S1CDMax, S1DSS).
pub(super) fn select(ste: Stage1, substream_id: Option<u32>) -> Result<Select, Fault> {
    let (ste0, ste1) = (Ste0::from_bits(ste.0[0]), Ste1::from_bits(ste.0[1]));
    let max = ste0.s1cdmax();
    match substream_id {
        None if max == 0 => Ok(Select::Context(0)),
        None => match ste1.s1dss() {
            S1DSS_BYPASS => Ok(Select::Bypass),
            S1DSS_SUBSTREAM_0 => Ok(Select::Context(0)),
            _ => Err(Fault::StreamDisabled),
        },
        Some(id) if u64::from(id) >> max != 0 || max == 0 => Err(Fault::BadSubstreamId),
        Some(0) if ste1.s1dss() == S1DSS_SUBSTREAM_0 => Err(Fault::StreamDisabled),
        Some(id) => Ok(Select::Context(id)),
    }
}

/// Reads and checks descriptor `index` of a stream's table.
pub(super) fn fetch(memory: &GuestMemoryMmap, features: &Features, ste: Stage1, index: u32) -> Result<Context, Fault> {
    let address = address(memory, Ste0::from_bits(ste.0[0]), index)?;
    // Word by word, the one with V last: the guest writes it last.
    let word = |i: u64| load(memory, address.wrapping_add(8 * i)).ok_or(Fault::CdFetch(address));
    let (ttb1, ttb0) = (word(2)?, word(1)?);
    decode([word(0)?, ttb0, ttb1], features).ok_or(Fault::BadCd)
}

/// Address of a context descriptor (sections 3.3.2 and 5.3).
fn address(memory: &GuestMemoryMmap, ste: Ste0, index: u32) -> Result<u64, Fault> {
    let base = ste.s1contextptr() << 6;
    let index = u64::from(index);
    let leaf_bits = match ste.s1fmt() {
        _ if ste.s1cdmax() == 0 => return Ok(base),
        S1FMT_4K_L2 => 6,
        S1FMT_64K_L2 => 10,
        // The model lets no other value pass.
        S1FMT_LINEAR.. => return Ok(base + index * CD_SIZE),
    };
    let descriptor = base + (index >> leaf_bits) * L1CD_SIZE;
    let l1 = L1Cd::from_bits(load(memory, descriptor).ok_or(Fault::CdFetch(descriptor))?);
    if !l1.v() {
        return Err(Fault::BadSubstreamId);
    }
    Ok((l1.l2ptr() << 12) + (index & ((1 << leaf_bits) - 1)) * CD_SIZE)
}

fn load(memory: &GuestMemoryMmap, address: u64) -> Option<u64> {
    memory.load(GuestAddress(address), Ordering::Acquire).ok().map(u64::from_le)
}

/// The first three words of a descriptor; none if it is illegal for an SMMU with these features.
pub(super) fn decode(words: [u64; 3], features: &Features) -> Option<Context> {
    let cd = Cd0::from_bits(words[0]);
    let legal_endian = match features.idr0.ttendian() {
        0 => true,
        endian => cd.endi() == (endian == 3),
    };
    // There is no VMSAv8-32 (IDR0.TTF), nobody stalls (STALL_MODEL), and CD.A may be fixed (TERM_MODEL).
    let legal = cd.v() && cd.aa64() && !cd.s() && legal_endian && (cd.a() || !features.idr0.term_model());
    if !legal {
        return None;
    }
    let output_bits = |encoded: u8| OUTPUT_BITS[usize::from(encoded & 7)];
    let output_bits = output_bits(cd.ips()).min(output_bits(features.idr5.oas())).min(MOST_OUTPUT_BITS);

    // TG0 and TG1 have codes of their own.
    let granule0 = [Some(Granule::K4), Some(Granule::K64), Some(Granule::K16), None][usize::from(cd.tg0() & 3)];
    let granule1 = [None, Some(Granule::K16), Some(Granule::K4), Some(Granule::K64)][usize::from(cd.tg1() & 3)];
    let region = |off: bool, granule: Option<Granule>, size: u8, word: u64| {
        if off {
            return Some(None);
        }
        let table = CdTable::from_bits(word);
        let granule = granule.filter(|&granule| has_granule(features, granule))?;
        let base = table.ttb() << 4;
        if !TXSZ.contains(&size) || base >> output_bits != 0 {
            return None;
        }
        let flat = table.had() && features.idr3.had();
        Some(Some(Region { table: base, granule, bits: 64 - size, flat }))
    };
    let regions =
        [region(cd.epd0(), granule0, cd.t0sz(), words[1])?, region(cd.epd1(), granule1, cd.t1sz(), words[2])?];
    Some(Context {
        asid: if features.idr0.asid16() { cd.asid() } else { cd.asid() & 0xff },
        regions,
        ignore_top: [cd.tbi0(), cd.tbi1()],
        output_bits,
        big_endian: cd.endi(),
        ignore_access_flag: cd.affd(),
        wxn: cd.wxn(),
        pan: cd.pan(),
        record: cd.r(),
        abort: cd.a(),
    })
}

fn has_granule(features: &Features, granule: Granule) -> bool {
    match granule {
        Granule::K4 => features.idr5.gran4k(),
        Granule::K16 => features.idr5.gran16k(),
        Granule::K64 => features.idr5.gran64k(),
    }
}
