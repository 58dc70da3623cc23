//! The kernel's checks on stream table entries and commands (`arm-smmu-v3-iommufd.c`).

use super::smmu::FakeSmmu;
use crate::hwpt::Ste;
use crate::invalidate::Command;

/// STE.Config of an entry after the checks of `arm_smmu_validate_vste`; an invalid one counts as abort.
pub(super) fn ste_config(ste: [u64; 2]) -> Option<u64> {
    const ABORT: u64 = 0b000;
    const BYPASS: u64 = 0b100;
    const STAGE1: u64 = 0b101;
    if ste[0] & 1 == 0 {
        return Some(ABORT);
    }
    let config = ste[0] >> 1 & 0b111;
    let eats = ste[1] >> 28 & 0b11;
    let allowed = ste[0] & !Ste::WORD0_ALLOWED == 0 && ste[1] & !Ste::WORD1_ALLOWED == 0;
    (allowed && matches!(config, ABORT | BYPASS | STAGE1) && eats <= 1).then_some(config)
}

/// Whether an entry needs a vDEVICE to be attached.
pub(super) fn is_stage1(ste: [u64; 2]) -> bool {
    ste_config(ste) == Some(0b101)
}

const fn bits(high: u32, low: u32) -> u64 {
    (u64::MAX >> (63 - high)) & (u64::MAX << low)
}

const ASID: u32 = 48;
const VMID: u64 = bits(47, 32);
const NUM: u64 = bits(16, 12);
const SCALE: u64 = bits(25, 20);
const TTL: u64 = bits(9, 8);
const TG: u64 = bits(11, 10);
const SID: u64 = bits(63, 32);
const SSID: u64 = bits(31, 12);

/// The StreamID in a legal command that has one, `Err` for a command the kernel refuses
/// (`arm_vsmmu_validate_user_cmd`).
pub(super) fn command(smmu: &FakeSmmu, command: Command) -> Result<Option<u32>, ()> {
    let mut allowed = [0xff, 0];
    let asid = bits(smmu.asid_bits() - 1, 0) << ASID;
    let opcode = command[0] & 0xff;
    match opcode {
        0x30 => {}                         // TLBI_NSNH_ALL
        0x10 => allowed[0] |= VMID,        // TLBI_NH_ALL
        0x11 => allowed[0] |= VMID | asid, // TLBI_NH_ASID
        0x12 | 0x13 => {
            // TLBI_NH_VA, TLBI_NH_VAA
            allowed[0] |= VMID | if opcode == 0x12 { asid } else { 0 };
            allowed[1] |= 1 | bits(63, 12);
            if smmu.range_invalidation() {
                range(smmu, command)?;
                allowed[0] |= NUM | SCALE;
                allowed[1] |= TTL | TG;
                if !smmu.ds() {
                    allowed[0] &= !(1 << 25);
                }
            }
        }
        0x40 if smmu.ats() => {
            // ATC_INV: SSV, SSID and Global need substreams
            if command[1] & bits(5, 0) > 52 {
                return Err(());
            }
            allowed[0] |= SID | if smmu.ssid_bits() > 0 { 1 << 11 | SSID | 1 << 9 } else { 0 };
            allowed[1] |= bits(5, 0) | bits(63, 12);
        }
        0x05 => {
            // CFGI_CD
            allowed[0] |= SID | if smmu.ssid_bits() > 0 { SSID } else { 0 };
            allowed[1] |= 1;
        }
        0x06 => allowed[0] |= SID, // CFGI_CD_ALL
        _ => return Err(()),
    }
    if command[0] & !allowed[0] != 0 || command[1] & !allowed[1] != 0 {
        return Err(());
    }
    Ok(matches!(opcode, 0x40 | 0x05 | 0x06).then_some((command[0] >> 32) as u32))
}

/// `arm_vsmmu_validate_range`.
fn range(smmu: &FakeSmmu, command: Command) -> Result<(), ()> {
    let range = command[0] & (NUM | SCALE) != 0;
    let ttl = (command[1] & TTL) >> 8;
    let tg = (command[1] & TG) >> 10;
    let reserved = match tg {
        0 => range || ttl != 0,
        2 if ttl == 1 && !smmu.ds() => true,
        _ => !range && ttl == 0,
    };
    if reserved { Err(()) } else { Ok(()) }
}
