//! From the 16 bytes of a command to what is to be done (IHI 0070, chapter 4).
//!
//! A command becomes CERROR_ILL where the architecture says so; reserved bits are ignored, so that nothing reaches the
//! host that its kernel refuses (`arm_vsmmu_validate_user_cmd` in arm-smmu-v3-iommufd.c).

use std::ops::RangeInclusive;

use super::capabilities::Features;
use super::physical::CommandWords;
use super::spec::command::{ATC_INV_SIZE_ALL, AtcInv, Cfgi, RANGE_ALL, Sync, Tlbi, opcode};

/// A legal command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Command {
    /// CMD_PREFETCH_*: a hint.
    Nothing,
    /// CMD_CFGI_STE.
    ConfigureStream(u32),
    /// CMD_CFGI_STE_RANGE and CMD_CFGI_ALL.
    ConfigureStreams(RangeInclusive<u32>),
    /// CMD_TLBI_*.
    InvalidateTlb(CommandWords),
    /// CMD_CFGI_CD and CMD_CFGI_CD_ALL.
    InvalidateContext { stream_id: u32, words: CommandWords },
    /// CMD_ATC_INV.
    InvalidateAtc { stream_id: u32, words: CommandWords },
    /// CMD_SYNC.
    Sync(Sync),
}

/// Why a command is CERROR_ILL.
pub(super) type Illegal = &'static str;

/// Decodes for one set of features: which bits of each command mean something.
#[derive(Clone, Copy, Debug)]
pub(super) struct Decoder {
    asid: CommandWords,
    range: bool,
    ds: bool,
    granules: [bool; 4],
    ats: bool,
    va: CommandWords,
    vaa: CommandWords,
    context: CommandWords,
    atc: CommandWords,
}

/// CMD_TLBI_*: TG 0b10 is 16 KiB.
const TG_16K: u8 = 2;

impl Decoder {
    pub(super) fn new(features: &Features) -> Self {
        let range = features.idr3.ril();
        let ds = features.idr5.ds();
        let substreams = features.idr1.ssidsize() > 0;
        let ssid = if substreams { 0xf_ffff } else { 0 };

        // VMID has no meaning without stage 2.
        let opcode_only = Tlbi::new().with_opcode(!0);
        let asid = opcode_only.with_asid(if features.idr0.asid16() { 0xffff } else { 0xff });
        let mut address = Tlbi::new().with_leaf(true).with_address((1 << 52) - 1);
        if range {
            let scale = if ds { 0x3f } else { 0x1f };
            address = address.with_num(0x1f).with_scale(scale).with_ttl(3).with_tg(3);
        }
        let vaa = opcode_only.into_bits() | address.into_bits();
        let va = asid.into_bits() | address.into_bits();
        let context = Cfgi::new().with_opcode(!0).with_substream_id(ssid).with_stream_id(!0).with_leaf_or_range(1);
        let atc = AtcInv::new()
            .with_opcode(!0)
            .with_global(substreams)
            .with_ssv(substreams)
            .with_substream_id(ssid)
            .with_stream_id(!0)
            .with_size(!0 >> 2)
            .with_address((1 << 52) - 1);
        Self {
            asid: words(asid.into_bits()),
            range,
            ds,
            granules: [false, features.idr5.gran4k(), features.idr5.gran16k(), features.idr5.gran64k()],
            ats: features.idr0.ats(),
            va: words(va),
            vaa: words(vaa),
            context: words(context.into_bits()),
            atc: words(atc.into_bits()),
        }
    }

    /// Decodes a command, or says why it is illegal.
    pub(super) fn decode(&self, command: CommandWords) -> Result<Command, Illegal> {
        let head = Cfgi::from_bits(bits(command));
        // A command for the secure world does not belong into a non-secure queue (section 4.1.6).
        if head.ssec() {
            return Err("SSec is 1");
        }
        match head.opcode() {
            opcode::TLBI_NH_VA => self.tlbi_address(masked(command, self.va)),
            opcode::TLBI_NH_VAA => self.tlbi_address(masked(command, self.vaa)),
            opcode::TLBI_NH_ASID => Ok(Command::InvalidateTlb(masked(command, self.asid))),
            opcode::TLBI_NH_ALL | opcode::TLBI_NSNH_ALL => Ok(Command::InvalidateTlb([command[0] & 0xff, 0])),
            opcode::CFGI_CD => {
                Ok(Command::InvalidateContext { stream_id: head.stream_id(), words: masked(command, self.context) })
            }
            opcode::CFGI_CD_ALL => {
                let stream_id = head.stream_id();
                Ok(Command::InvalidateContext { stream_id, words: cfgi_cd_all(stream_id) })
            }
            opcode::ATC_INV => self.atc_inv(command),
            opcode::SYNC => {
                let sync = Sync::from_bits(bits(command));
                if sync.cs() == 0b11 { Err("CS is reserved") } else { Ok(Command::Sync(sync)) }
            }
            opcode::CFGI_STE => Ok(Command::ConfigureStream(head.stream_id())),
            opcode::CFGI_STE_RANGE => Ok(Command::ConfigureStreams(range(head.stream_id(), head.leaf_or_range()))),
            opcode::PREFETCH_CONFIG | opcode::PREFETCH_ADDR => Ok(Command::Nothing),
            // Among them, by the features shown: EL2, EL3 and stage 2 TLBIs (HYP, S2P), CMD_PRI_RESP (PRI),
            // CMD_RESUME and CMD_STALL_TERM (STALL_MODEL).
            _ => Err("no such command"),
        }
    }

    /// CMD_TLBI_NH_VA and CMD_TLBI_NH_VAA with the range fields of section 4.4.1.1.
    fn tlbi_address(&self, command: CommandWords) -> Result<Command, Illegal> {
        if !self.range {
            return Ok(Command::InvalidateTlb(command));
        }
        let tlbi = Tlbi::from_bits(bits(command));
        if tlbi.tg() == 0 {
            // NUM, SCALE and TTL are RES0 then.
            let plain = tlbi.with_num(0).with_scale(0).with_ttl(0);
            return Ok(Command::InvalidateTlb(words(plain.into_bits())));
        }
        if !self.granules[usize::from(tlbi.tg()) & 3] {
            return Err("TG is a granule that IDR5 does not show");
        }
        if tlbi.num() == 0 && tlbi.scale() == 0 && tlbi.ttl() == 0 {
            return Err("NUM, SCALE and TTL are all 0 with TG not 0");
        }
        if tlbi.tg() == TG_16K && tlbi.ttl() == 1 && !self.ds {
            return Err("TTL 1 with 16 KiB granule needs IDR5.DS");
        }
        Ok(Command::InvalidateTlb(command))
    }

    fn atc_inv(&self, command: CommandWords) -> Result<Command, Illegal> {
        if !self.ats {
            return Err("CMD_ATC_INV without IDR0.ATS");
        }
        let words = masked(command, self.atc);
        let atc = AtcInv::from_bits(bits(words));
        if atc.size() > ATC_INV_SIZE_ALL {
            return Err("Size is above 52");
        }
        Ok(Command::InvalidateAtc { stream_id: atc.stream_id(), words })
    }
}

/// CMD_CFGI_CD_ALL for a stream.
pub(super) fn cfgi_cd_all(stream_id: u32) -> CommandWords {
    words(Cfgi::new().with_opcode(opcode::CFGI_CD_ALL).with_stream_id(stream_id).into_bits())
}

/// The stream of a command if it is CMD_ATC_INV.
pub(super) fn atc_stream(command: CommandWords) -> Option<u32> {
    let atc = AtcInv::from_bits(bits(command));
    (atc.opcode() == opcode::ATC_INV).then(|| atc.stream_id())
}

/// 2^(Range + 1) streams, aligned; all for Range 31 (section 4.3.2).
fn range(stream_id: u32, range: u8) -> RangeInclusive<u32> {
    let mask = if range >= RANGE_ALL { u32::MAX } else { (2u32 << range) - 1 };
    stream_id & !mask..=stream_id | mask
}

fn masked(command: CommandWords, mask: CommandWords) -> CommandWords {
    [command[0] & mask[0], command[1] & mask[1]]
}

fn bits(command: CommandWords) -> u128 {
    u128::from(command[1]) << 64 | u128::from(command[0])
}

fn words(bits: u128) -> CommandWords {
    [bits as u64, (bits >> 64) as u64]
}
