//! What a command takes out of the caches (IHI 0070, sections 4.3 and 4.4).

use super::super::physical::CommandWords;
use super::super::spec::command::{Cfgi, Tlbi, opcode};
use super::iotlb::Iotlb;
use super::streams::Streams;
use super::walk::VA_MASK;

/// log2 of the granules of TG: 0 is no range, but a single address.
const GRANULE_BITS: [u8; 4] = [12, 12, 14, 16];

/// Executes one command. CMD_ATC_INV has nothing to do: the devices here have no ATC.
pub(super) fn execute(command: CommandWords, iotlb: &mut Iotlb, streams: &mut Streams) {
    let bits = u128::from(command[1]) << 64 | u128::from(command[0]);
    let (tlbi, cfgi) = (Tlbi::from_bits(bits), Cfgi::from_bits(bits));
    match tlbi.opcode() {
        opcode::TLBI_NH_ALL | opcode::TLBI_NSNH_ALL => iotlb.invalidate_all(),
        opcode::TLBI_NH_ASID => iotlb.invalidate_asid(tlbi.asid()),
        opcode::TLBI_NH_VA => {
            let (first, last) = range(tlbi);
            iotlb.invalidate_va(tlbi.asid(), first, last);
        }
        opcode::TLBI_NH_VAA => {
            let (first, last) = range(tlbi);
            iotlb.invalidate_vaa(first, last);
        }
        opcode::CFGI_CD => streams.forget_context(cfgi.stream_id(), cfgi.substream_id()),
        opcode::CFGI_CD_ALL => streams.forget_contexts(cfgi.stream_id()),
        _ => {}
    }
}

/// First and last address, bits 55:0 (section 4.4.1.1): with TG (NUM + 1) * 2^SCALE pages of the granule, else one
/// address, in whatever block it is.
fn range(tlbi: Tlbi) -> (u64, u64) {
    let granule = GRANULE_BITS[usize::from(tlbi.tg() & 3)];
    let pages = match tlbi.tg() {
        0 => 1,
        _ => u128::from(tlbi.num() + 1) << tlbi.scale(),
    };
    let first = tlbi.address() << 12 & VA_MASK & !((1 << granule) - 1);
    // At most 2^5 * 2^63 * 2^16 bytes.
    let last = u128::from(first) + (pages << granule) - 1;
    (first, last.min(VA_MASK.into()) as u64)
}
