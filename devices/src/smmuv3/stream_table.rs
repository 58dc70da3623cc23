//! From a StreamID to its configuration: the guest's stream table (IHI 0070, sections 3.3.1, 5.1 and 5.2).

use std::sync::atomic::Ordering;

use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use super::capabilities::Features;
use super::physical::{EventWords, Stage1, StreamConfig};
use super::registers::Registers;
use super::spec::event::{EventHead, number};
use super::spec::ste::{
    CONFIG_ABORT, CONFIG_BYPASS, CONFIG_STAGE1, EATS_SPLIT, L1STD_SIZE, L1Std, STE_SIZE, Ste0, Ste1,
};

/// Why a stream has no usable entry. Its transactions are terminated and, where the architecture says so, recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// C_BAD_STREAMID: outside of the table.
    BadStreamId,
    /// F_STE_FETCH: this address is not in memory.
    SteFetch(u64),
    /// C_BAD_STE: the entry is illegal.
    BadSte,
    /// C_BAD_STE because of V = 0: what every stream has that the guest does not use.
    Invalid,
}

impl Fault {
    /// The event record that a transaction of the stream would cause (section 7.3).
    pub(super) fn event(self, stream_id: u32) -> EventWords {
        let (event, address) = match self {
            Self::BadStreamId => (number::C_BAD_STREAMID, 0),
            Self::SteFetch(address) => (number::F_STE_FETCH, address),
            Self::BadSte | Self::Invalid => (number::C_BAD_STE, 0),
        };
        [EventHead::new().with_event(event).with_stream_id(stream_id).into_bits(), 0, 0, address]
    }
}

/// Finds the entry of a stream and reads what it says.
pub(super) fn find(memory: &GuestMemoryMmap, registers: &Registers, stream_id: u32) -> Result<StreamConfig, Fault> {
    let entry = entry_address(memory, registers, stream_id)?;
    let read = |address| memory.load(GuestAddress(address), Ordering::Acquire).map_err(|_| Fault::SteFetch(entry));
    let words = [u64::from_le(read(entry)?), u64::from_le(read(entry + 8)?)];
    decode(words, registers.features())
}

/// Guest physical address of the entry of a stream.
fn entry_address(memory: &GuestMemoryMmap, registers: &Registers, stream_id: u32) -> Result<u64, Fault> {
    let features = registers.features();
    let config = registers.strtab_base_cfg;
    let base = registers.strtab_base.addr() << 6;
    // The base is aligned to the size as written, the table is not larger than StreamIDs are (section 6.3.24).
    let log2size = config.log2size().min(features.idr1.sidsize());
    let stream = u64::from(stream_id);
    if stream >> log2size != 0 {
        return Err(Fault::BadStreamId);
    }
    if config.fmt() != 1 {
        return Ok(aligned(base, STE_SIZE, config.log2size()) + stream * STE_SIZE);
    }
    // Reserved values of SPLIT behave as 6.
    let split = if matches!(config.split(), 8 | 10) { config.split() } else { 6 };
    let table = aligned(base, L1STD_SIZE, config.log2size().saturating_sub(split));
    let descriptor_address = table + (stream >> split) * L1STD_SIZE;
    let descriptor = memory.load(GuestAddress(descriptor_address), Ordering::Acquire);
    let descriptor = L1Std::from_bits(u64::from_le(descriptor.map_err(|_| Fault::SteFetch(descriptor_address))?));
    let index = stream & ((1 << split) - 1);
    // A Span of 0, or of more than the split leaves, describes no table (section 5.1).
    let log2entries = match descriptor.span() {
        span @ 1.. if span <= split + 1 => span - 1,
        _ => return Err(Fault::BadStreamId),
    };
    if index >> log2entries != 0 {
        return Err(Fault::BadStreamId);
    }
    Ok(aligned(descriptor.l2ptr() << 6, STE_SIZE, log2entries) + index * STE_SIZE)
}

/// Address bits below the size of a table of 2^`log2entries` entries are ignored; registers hold none below bit 6.
fn aligned(base: u64, entry: u64, log2entries: u8) -> u64 {
    let size = entry.checked_shl(log2entries.into()).unwrap_or(0);
    // A size beyond all addresses shifts out and leaves none of the base.
    base & !size.wrapping_sub(1)
}

/// What an entry says, masked to what can be nested. Fields that have no meaning for the features shown are ignored.
pub(super) fn decode(words: [u64; 2], features: &Features) -> Result<StreamConfig, Fault> {
    let (ste0, ste1) = (Ste0::from_bits(words[0]), Ste1::from_bits(words[1]));
    if !ste0.v() {
        return Err(Fault::Invalid);
    }
    match ste0.config() {
        CONFIG_STAGE1 => stage1(ste0, ste1, features).map(StreamConfig::Stage1),
        CONFIG_BYPASS => Ok(StreamConfig::Bypass),
        // 0b0xx with xx not 00 is reserved and behaves as 0b000.
        config if config & 0b100 == CONFIG_ABORT => Ok(StreamConfig::Abort),
        // Stage 2 without IDR0.S2P.
        _ => Err(Fault::BadSte),
    }
}

fn stage1(ste0: Ste0, ste1: Ste1, features: &Features) -> Result<Stage1, Fault> {
    let mut word0 = Ste0::new().with_v(true).with_config(CONFIG_STAGE1).with_s1contextptr(ste0.s1contextptr());
    let mut word1 = Ste1::new().with_s1cir(ste1.s1cir()).with_s1cor(ste1.s1cor()).with_s1csh(ste1.s1csh());
    // The fields below are IGNORED or RES0 without the feature they belong to; reserved values behave as 0b00.
    if ste0.s1contextptr() << 6 & !features.address_mask() != 0 {
        // Section 3.4.3.
        return Err(Fault::BadSte);
    }
    if features.idr1.ssidsize() > 0 && ste0.s1cdmax() > 0 {
        if ste0.s1cdmax() > features.idr1.ssidsize() || ste0.s1fmt() != 0 && !features.idr0.cd2l() {
            return Err(Fault::BadSte);
        }
        word0 = word0.with_s1cdmax(ste0.s1cdmax()).with_s1fmt(unreserved(ste0.s1fmt()));
        word1 = word1.with_s1dss(unreserved(ste1.s1dss()));
    }
    // STRW is RES0 without IDR0.HYP: there is one stream world, NS-EL1.
    if features.idr0.ats() {
        match ste1.eats() {
            // Split-stage ATS needs stage 2.
            EATS_SPLIT => return Err(Fault::BadSte),
            eats => word1 = word1.with_eats(unreserved(eats)),
        }
    }
    // ILLEGAL unless the guest sees a stall model that can be chosen.
    if ste1.s1stalld() && features.idr0.stall_model() != 0 {
        return Err(Fault::BadSte);
    }
    word1 = word1.with_s1stalld(features.disable_stall);
    Ok(Stage1([word0.into_bits(), word1.into_bits()]))
}

/// 0b11 is reserved in S1Fmt, S1DSS and (without device permission tables) EATS and behaves as 0b00 (section 5.2).
fn unreserved(field: u8) -> u8 {
    if field == 0b11 { 0 } else { field }
}
