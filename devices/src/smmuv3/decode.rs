//! From the 16 bytes of a command to what is to be done (IHI 0070, chapter 4).
//!
//! A command becomes CERROR_ILL where the architecture says so; reserved fields are ignored in their entirety (section
//! 4.1.5), so that nothing reaches the host that its kernel refuses (`arm_vsmmu_validate_user_cmd` in
//! arm-smmu-v3-iommufd.c).

use std::ops::RangeInclusive;

use super::capabilities::Features;
use super::physical::CommandWords;
use super::spec::command::{ATC_INV_SIZE_ALL, AtcInv, Cfgi, RANGE_ALL, Sync, TG_16K, Tlbi, opcode};

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

impl Command {
    /// Whether it makes an end of the invalidations before it and may begin new ones.
    pub(super) fn configures(&self) -> bool {
        matches!(self, Self::ConfigureStream(_) | Self::ConfigureStreams(_))
    }
}

/// Why a command is CERROR_ILL.
pub(super) type Illegal = &'static str;

/// What an opcode asks for.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Illegal(Illegal),
    Prefetch,
    ConfigureStream,
    ConfigureStreams,
    Context,
    Tlb,
    /// With range fields.
    TlbRange,
    Atc,
    Sync,
}

/// An opcode, and the bits of its commands that mean something.
#[derive(Clone, Copy, Debug)]
struct Rule {
    kind: Kind,
    mask: CommandWords,
}

/// Decodes for one set of features: a rule for each opcode.
#[derive(Clone, Debug)]
pub(super) struct Decoder {
    rules: Box<[Rule; 256]>,
    ds: bool,
}

impl Decoder {
    pub(super) fn new(features: &Features) -> Self {
        let ds = features.idr5.ds();
        let substreams = features.idr1.ssidsize() > 0;
        // A SubstreamID that is out of range is cut off (section 4.1.7).
        let ssid = (1u32 << features.idr1.ssidsize().min(20)) - 1;

        // VMID is RES0 without stage 2 (section 4.4.2).
        let any = Tlbi::new().with_opcode(!0);
        let asid = any.with_asid(if features.idr0.asid16() { 0xffff } else { 0xff });
        let mut address = Tlbi::new().with_leaf(true).with_address(!0 >> 12);
        let mut by_address = Kind::Tlb;
        if features.idr3.ril() {
            by_address = Kind::TlbRange;
            let scale = if ds { 0x3f } else { 0x1f };
            address = address.with_num(0x1f).with_scale(scale).with_ttl(3).with_tg(3);
        }
        let stream = Cfgi::new().with_opcode(!0).with_stream_id(!0);
        let context = stream.with_substream_id(ssid).with_leaf_or_range(1);
        let atc = AtcInv::new()
            .with_opcode(!0)
            .with_global(substreams)
            .with_ssv(substreams)
            .with_substream_id(ssid)
            .with_stream_id(!0)
            .with_size(!0 >> 2)
            .with_address(!0 >> 12);
        let with_ssec = |bits: Cfgi| bits.with_ssec(true);

        let reserved = Rule { kind: Kind::Illegal("no such command"), mask: [0; 2] };
        let mut rules = Box::new([reserved; 256]);
        let mut rule = |opcode: u8, kind: Kind, mask: u128| {
            rules[usize::from(opcode)] = Rule { kind, mask: words(mask) };
        };
        let absent = |why| Kind::Illegal(why);
        rule(opcode::PREFETCH_CONFIG, Kind::Prefetch, with_ssec(stream).into_bits());
        rule(opcode::PREFETCH_ADDR, Kind::Prefetch, with_ssec(stream).into_bits());
        rule(opcode::CFGI_STE, Kind::ConfigureStream, with_ssec(stream).into_bits());
        rule(opcode::CFGI_STE_RANGE, Kind::ConfigureStreams, with_ssec(stream.with_leaf_or_range(!0 >> 3)).into_bits());
        rule(opcode::CFGI_CD, Kind::Context, with_ssec(context).into_bits());
        rule(opcode::CFGI_CD_ALL, Kind::Context, with_ssec(stream).into_bits());
        rule(opcode::CFGI_VMS_PIDM, absent("CMD_CFGI_VMS_PIDM without IDR3.MPAM (section 4.3.5)"), 0);
        rule(opcode::TLBI_NH_ALL, Kind::Tlb, any.into_bits());
        rule(opcode::TLBI_NH_ASID, Kind::Tlb, asid.into_bits());
        rule(opcode::TLBI_NH_VA, by_address, asid.into_bits() | address.into_bits());
        rule(opcode::TLBI_NH_VAA, by_address, any.into_bits() | address.into_bits());
        rule(opcode::TLBI_NSNH_ALL, Kind::Tlb, any.into_bits());
        for el3 in [opcode::TLBI_EL3_ALL, opcode::TLBI_EL3_VA] {
            rule(el3, absent("CMD_TLBI_EL3_* in the non-secure queue (section 4.4.2)"), 0);
        }
        for el2 in opcode::TLBI_EL2_ALL..=opcode::TLBI_EL2_VAA {
            rule(el2, absent("CMD_TLBI_EL2_* without IDR0.HYP (section 4.4.2)"), 0);
        }
        for stage2 in [opcode::TLBI_S12_VMALL, opcode::TLBI_S2_IPA] {
            rule(stage2, absent("invalidation of stage 2 without IDR0.S2P (section 4.4.3)"), 0);
        }
        let kind = if features.idr0.ats() { Kind::Atc } else { absent("CMD_ATC_INV without IDR0.ATS (section 4.5.1)") };
        rule(opcode::ATC_INV, kind, atc.into_bits());
        rule(opcode::PRI_RESP, absent("CMD_PRI_RESP without IDR0.PRI (section 4.5.2)"), 0);
        rule(opcode::RESUME, absent("CMD_RESUME with IDR0.STALL_MODEL 1 (section 4.7.1)"), 0);
        rule(opcode::STALL_TERM, absent("CMD_STALL_TERM with IDR0.STALL_MODEL 1 (section 4.7.2)"), 0);
        rule(opcode::SYNC, Kind::Sync, !0);
        Self { rules, ds }
    }

    /// Decodes a command, or says why it is illegal.
    #[inline]
    pub(super) fn decode(&self, command: CommandWords) -> Result<Command, Illegal> {
        let Rule { kind, mask } = &self.rules[usize::from(command[0] as u8)];
        let command = [command[0] & mask[0], command[1] & mask[1]];
        match *kind {
            Kind::Tlb => Ok(Command::InvalidateTlb(command)),
            Kind::TlbRange => self.tlbi_range(command).map(Command::InvalidateTlb),
            Kind::Sync => {
                let sync = Sync::from_bits(bits(command));
                if sync.cs() == 0b11 { Err("CS is reserved (section 4.7.3)") } else { Ok(Command::Sync(sync)) }
            }
            Kind::Atc => atc_inv(command),
            Kind::Illegal(why) => Err(why),
            Kind::Prefetch | Kind::Context | Kind::ConfigureStream | Kind::ConfigureStreams => {
                configuration(*kind, command)
            }
        }
    }

    /// The range fields of section 4.4.1.1. A granule that IDR5 does not show is no error: nothing was cached with it.
    #[inline]
    fn tlbi_range(&self, command: CommandWords) -> Result<CommandWords, Illegal> {
        let tlbi = Tlbi::from_bits(bits(command));
        if tlbi.tg() == 0 {
            // NUM, SCALE and TTL are RES0 then.
            return Ok(words(tlbi.with_num(0).with_scale(0).with_ttl(0).into_bits()));
        }
        // There are no level 1 blocks of 16 KiB pages without DS: reserved, treated as 0b00.
        let reserved = tlbi.tg() == TG_16K && tlbi.ttl() == 1 && !self.ds;
        let tlbi = if reserved { tlbi.with_ttl(0) } else { tlbi };
        if tlbi.num() == 0 && tlbi.scale() == 0 && tlbi.ttl() == 0 {
            return Err("NUM, SCALE and TTL are all 0 with TG not 0 (section 4.4.1.1)");
        }
        Ok(words(tlbi.into_bits()))
    }
}

/// CMD_PREFETCH_* and CMD_CFGI_*. Only these name a security state; that bit is reserved in all others.
fn configuration(kind: Kind, command: CommandWords) -> Result<Command, Illegal> {
    let cfgi = Cfgi::from_bits(bits(command));
    if cfgi.ssec() {
        return Err("SSec is 1 in the non-secure queue (section 4.1.6)");
    }
    let stream_id = cfgi.stream_id();
    Ok(match kind {
        Kind::ConfigureStream => Command::ConfigureStream(stream_id),
        Kind::ConfigureStreams => Command::ConfigureStreams(range(stream_id, cfgi.leaf_or_range())),
        Kind::Context => Command::InvalidateContext { stream_id, words: command },
        _ => Command::Nothing,
    })
}

/// CMD_ATC_INV.
fn atc_inv(command: CommandWords) -> Result<Command, Illegal> {
    let atc = AtcInv::from_bits(bits(command));
    if atc.size() > ATC_INV_SIZE_ALL {
        return Err("Size is above 52 (section 4.5.1)");
    }
    Ok(Command::InvalidateAtc { stream_id: atc.stream_id(), words: command })
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

fn bits(command: CommandWords) -> u128 {
    u128::from(command[1]) << 64 | u128::from(command[0])
}

fn words(bits: u128) -> CommandWords {
    [bits as u64, (bits >> 64) as u64]
}
