//! What the guest's identification registers show: the result of what the user allows, what the host has and what
//! the kernel forwards to it.

use std::fmt;

use super::physical::HostCapabilities;
use super::spec::registers::{Idr0, Idr1, Idr3, Idr5};

/// A user's wish for one feature.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Wish<T> {
    /// As the host has it.
    #[default]
    Auto,
    /// Exactly this; an error if the host does not have it.
    Exactly(T),
}

/// What the user wants. The default takes from the host all that the model can serve.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wishes {
    /// PCIe ATS.
    pub ats: Wish<bool>,
    /// Range invalidation.
    pub ril: Wish<bool>,
    /// Output address size in bits: 32, 36, 40, 42, 44, 48 or 52.
    pub oas: Wish<u8>,
    /// SubstreamID bits.
    pub ssidsize: Wish<u8>,
    /// 4 KiB granule.
    pub gran4k: Wish<bool>,
    /// 16 KiB granule.
    pub gran16k: Wish<bool>,
    /// 64 KiB granule.
    pub gran64k: Wish<bool>,
    /// Break-before-make level, 0 to 2.
    pub bbml: Wish<u8>,
    /// 16-bit ASIDs.
    pub asid16: Wish<bool>,
    /// 2-level stream tables.
    pub two_level_streams: Wish<bool>,
    /// 2-level context descriptor tables.
    pub two_level_contexts: Wish<bool>,
}

/// A feature that was asked for and cannot be had.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    /// The host has less.
    #[error("{field}={wish} is more than the host smmu has ({host}); use {field}=auto")]
    Missing {
        /// Name of the option.
        field: &'static str,
        /// What was asked for.
        wish: u64,
        /// What the host has.
        host: u64,
    },
    /// There is no such value.
    #[error("{field}={wish} is not one of {legal}")]
    Illegal {
        /// Name of the option.
        field: &'static str,
        /// What was asked for.
        wish: u64,
        /// The legal values.
        legal: &'static str,
    },
    /// No granule is left, so no translation table could be built.
    #[error("no granule is left; allow one of gran4k, gran16k and gran64k that the host smmu has")]
    NoGranule,
    /// The host SMMU does something that cannot be hidden from the guest.
    #[error("the host smmu {0}, which no guest can be given; leave its devices out")]
    Unusable(&'static str),
}

/// The frozen result: the identification registers of one vSMMU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Features {
    /// SMMU_IDR0.
    pub idr0: Idr0,
    /// SMMU_IDR1.
    pub idr1: Idr1,
    /// SMMU_IDR3.
    pub idr3: Idr3,
    /// SMMU_IDR5.
    pub idr5: Idr5,
    /// Whether stage 1 entries get S1STALLD: the host SMMU could stall, which nobody would ever resume
    /// (STALL_MODEL is 0 on the host and 1 in the guest).
    pub disable_stall: bool,
}

/// One line of the start-up log: what became of a field, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// Name of the option or of the field.
    pub field: &'static str,
    /// What the guest sees.
    pub guest: u64,
    /// What the host has; none where the host plays no role.
    pub host: Option<u64>,
    /// Why.
    pub reason: &'static str,
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = self.host.map_or_else(|| "-".to_string(), |host| host.to_string());
        write!(f, "{}: guest {} host {} ({})", self.field, self.guest, host, self.reason)
    }
}

/// Result of [`negotiate`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Negotiation {
    /// What the guest gets.
    pub features: Features,
    /// Each field with its reason.
    pub rows: Vec<Row>,
}

/// log2 of the most command queue entries: 256 KiB, more than 100 vCPUs ever have in flight.
pub const CMDQS: u8 = 14;
/// log2 of the most event queue entries: 256 KiB.
pub const EVENTQS: u8 = 13;
/// Bits of a StreamID: a PCI requester ID.
pub const SIDSIZE: u8 = 16;

const OAS_BITS: [u8; 7] = [32, 36, 40, 42, 44, 48, 52];

const FROM_HOST: &str = "as the host has it";
const ASKED: &str = "asked for";
const BY_MODEL: &str = "done by nestling";
const ON_REQUEST: &str = "off unless asked for";

/// Decides what the guest sees. Fails only if something that was asked for by name cannot be had, or if the host
/// cannot be used at all.
pub fn negotiate(wishes: &Wishes, host: &HostCapabilities) -> Result<Negotiation, Error> {
    let (host0, host1) = (Idr0::from_bits(host.idr[0]), Idr1::from_bits(host.idr[1]));
    let (host3, host5) = (Idr3::from_bits(host.idr[3]), Idr5::from_bits(host.idr[5]));
    if host0.ttf() & 2 == 0 {
        return Err(Error::Unusable("has no VMSAv8-64 tables"));
    }
    if !matches!(host0.ttendian(), 0 | 2) {
        return Err(Error::Unusable("reads big-endian tables only"));
    }
    if host0.stall_model() == 2 {
        return Err(Error::Unusable("stalls every faulting transaction (STALL_MODEL 2)"));
    }
    let mut rows = Rows(Vec::new());

    let ats = rows.flag("ats", wishes.ats, host.ats && host0.ats(), false)?;
    let asid16 = rows.flag("asid16", wishes.asid16, host0.asid16(), true)?;
    let cd2l = rows.flag("two-level-contexts", wishes.two_level_contexts, host0.cd2l(), true)?;
    let ril = rows.flag("ril", wishes.ril, host3.ril(), true)?;
    let bbml = rows.level("bbml", wishes.bbml, host3.bbml().min(2), host3.bbml().min(2))?;
    let ssidsize = rows.level("ssidsize", wishes.ssidsize, host1.ssidsize().min(20), 0)?;
    let gran4k = rows.flag("gran4k", wishes.gran4k, host5.gran4k(), true)?;
    let gran16k = rows.flag("gran16k", wishes.gran16k, host5.gran16k(), true)?;
    let gran64k = rows.flag("gran64k", wishes.gran64k, host5.gran64k(), true)?;
    if !(gran4k || gran16k || gran64k) {
        return Err(Error::NoGranule);
    }
    let oas = rows.oas(wishes.oas, host5.oas())?;
    // The model walks the stream table itself.
    let two_level = match wishes.two_level_streams {
        Wish::Auto => true,
        Wish::Exactly(wish) => wish,
    };
    rows.push("two-level-streams", two_level.into(), None, BY_MODEL);
    rows.push("sidsize", SIDSIZE.into(), None, BY_MODEL);
    rows.push("msi", 1, None, BY_MODEL);
    rows.push("stall-model", 1, Some(host0.stall_model().into()), "no stalls: the kernel does not forward them");
    rows.push("term-model", host0.term_model().into(), Some(host0.term_model().into()), FROM_HOST);
    rows.push("ttendian", host0.ttendian().into(), Some(host0.ttendian().into()), FROM_HOST);
    let vax = host5.vax().min(1);
    rows.push("vax", vax.into(), Some(host5.vax().into()), FROM_HOST);
    rows.push("ds", host5.ds().into(), Some(host5.ds().into()), FROM_HOST);

    let features = Features {
        // S2P, HYP, VMID16, BTM, HTTU, PRI, SEV stay 0: stage 2 is the kernel's, and it forwards none of them.
        idr0: Idr0::new()
            .with_s1p(true)
            .with_ttf(2)
            .with_cohacc(true)
            .with_ats(ats)
            .with_asid16(asid16)
            .with_msi(true)
            .with_cd2l(cd2l)
            .with_ttendian(host0.ttendian())
            .with_stall_model(1)
            .with_term_model(host0.term_model())
            .with_st_level(two_level.into()),
        idr1: Idr1::new().with_sidsize(SIDSIZE).with_ssidsize(ssidsize).with_eventqs(EVENTQS).with_cmdqs(CMDQS),
        idr3: Idr3::new().with_ril(ril).with_bbml(bbml),
        idr5: Idr5::new()
            .with_oas(oas)
            .with_gran4k(gran4k)
            .with_gran16k(gran16k)
            .with_gran64k(gran64k)
            .with_ds(host5.ds())
            .with_vax(vax),
        disable_stall: host0.stall_model() == 0,
    };
    Ok(Negotiation { features, rows: rows.0 })
}

struct Rows(Vec<Row>);

impl Rows {
    fn push(&mut self, field: &'static str, guest: u64, host: Option<u64>, reason: &'static str) {
        self.0.push(Row { field, guest, host, reason });
    }

    fn flag(&mut self, field: &'static str, wish: Wish<bool>, host: bool, auto: bool) -> Result<bool, Error> {
        let wish = match wish {
            Wish::Auto => Wish::Auto,
            Wish::Exactly(wish) => Wish::Exactly(wish.into()),
        };
        Ok(self.level(field, wish, host.into(), u8::from(auto && host))? != 0)
    }

    fn level(&mut self, field: &'static str, wish: Wish<u8>, host: u8, auto: u8) -> Result<u8, Error> {
        let (guest, reason) = match wish {
            Wish::Auto => (auto, if auto == host { FROM_HOST } else { ON_REQUEST }),
            Wish::Exactly(wish) if wish > host => {
                return Err(Error::Missing { field, wish: wish.into(), host: host.into() });
            }
            Wish::Exactly(wish) => (wish, ASKED),
        };
        self.push(field, guest.into(), Some(host.into()), reason);
        Ok(guest)
    }

    fn oas(&mut self, wish: Wish<u8>, host: u8) -> Result<u8, Error> {
        let field = "oas";
        let host = usize::from(host).min(OAS_BITS.len() - 1);
        let host_bits = OAS_BITS[host];
        let (guest, reason) = match wish {
            Wish::Auto => (host, FROM_HOST),
            Wish::Exactly(bits) => {
                let legal = "32, 36, 40, 42, 44, 48, 52";
                let guest = OAS_BITS.iter().position(|&known| known == bits);
                let guest = guest.ok_or(Error::Illegal { field, wish: bits.into(), legal })?;
                if guest > host {
                    return Err(Error::Missing { field, wish: bits.into(), host: host_bits.into() });
                }
                (guest, ASKED)
            }
        };
        self.push(field, OAS_BITS[guest].into(), Some(host_bits.into()), reason);
        Ok(guest as u8)
    }
}

impl Features {
    /// Width of output addresses in bits. For shared virtual addressing it must not be less than that of the vCPUs.
    pub fn oas_bits(&self) -> u8 {
        OAS_BITS[usize::from(self.idr5.oas()).min(OAS_BITS.len() - 1)]
    }
}
