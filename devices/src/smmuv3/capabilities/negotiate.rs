//! Each field decided: what the user allows, what the host has, and why.

use super::limits::{NO_STALL, most};
use super::values::{Features, OAS_BITS, OAS_LEGAL, PASID_BITS, SIDSIZE, Value, Values};
use super::{Error, Negotiation, Row, STALL_LEGAL, Wish, Wishes};
use crate::smmuv3::physical::HostCapabilities;
use crate::smmuv3::spec::registers::{Idr0, Idr1};

/// SubstreamID bits where context descriptor tables are linear: what Linux makes at most (`CTXDESC_LINEAR_CDMAX`), 64 KiB
/// for each device. 20 bits would be 64 MiB.
const LINEAR_SSIDSIZE: u8 = 10;

const FROM_HOST: &str = "as the host has it";
const ASKED: &str = "asked for";
const BY_MODEL: &str = "done by nestling";
const DEVICES: &str = "not every device, or the way to it, can";
const LINEAR: &str = "what fits a linear table, as there are no 2-level ones";
const NO_DEVICE: &str = "off unless asked for: no device is there that could have it";
const CAUTIOUS: &str = "cautious: nobody is there to ask the host";
const ASKED_BLINDLY: &str = "asked for; devices that come later must have it";
const NO_STALLS: &str = "no stalls: the kernel forwards none";

/// What every host that nests can do, as far as is known: no device is there to be asked.
const CAUTIOUS_VALUES: Values = Values {
    ats: false,
    ssidsize: 0,
    oas: 44,
    ril: false,
    bbml: 0,
    gran4k: true,
    gran16k: false,
    gran64k: false,
    asid16: false,
    two_level_streams: true,
    two_level_contexts: false,
    stall_model: NO_STALL,
    term_model: 1,
    ttendian: 2,
    vax: 0,
    ds: false,
};

/// The most that any SMMUv3 could have.
const BOUNDLESS: Values = Values {
    ats: true,
    ssidsize: PASID_BITS,
    oas: 52,
    ril: true,
    bbml: 2,
    gran4k: true,
    gran16k: true,
    gran64k: true,
    asid16: true,
    two_level_streams: true,
    two_level_contexts: true,
    stall_model: NO_STALL,
    term_model: 0,
    ttendian: 0,
    vax: 1,
    ds: true,
};

/// Decides what the guest sees. `host` has what all devices behind the vSMMU have in common. Fails only if something that
/// was asked for by name cannot be had, or if the host cannot be used at all.
pub fn negotiate(wishes: &Wishes, host: &HostCapabilities) -> Result<Negotiation, Error> {
    let most = most(host)?;
    let mut auto = most;
    if !most.two_level_contexts || wishes.two_level_contexts == Wish::Exactly(false) {
        auto.ssidsize = auto.ssidsize.min(LINEAR_SSIDSIZE);
    }
    let negotiation = Basis { most, auto, host: Some(host) }.decide(wishes)?;
    let Values { ats, ssidsize, .. } = negotiation.values;
    match (host.ats_required, ats, ssidsize) {
        (true, false, _) => Err(Error::AtsRequired { field: "ats", value: false.into() }),
        (true, true, 0) => Err(Error::AtsRequired { field: "ssidsize", value: 0.into() }),
        _ => Ok(negotiation),
    }
}

/// Decides what the guest sees of a host SMMU that none of its devices is behind yet. `host` is what another device behind
/// it tells, if there is one; what devices must have is off unless asked for, and devices that come later are
/// [checked](super::check).
pub fn negotiate_vacant(wishes: &Wishes, host: Option<&HostCapabilities>) -> Result<Negotiation, Error> {
    let (most, auto) = match host {
        Some(host) => {
            let most = most(&HostCapabilities { ats: true, pasid_bits: PASID_BITS, ..*host })?;
            (most, Values { ats: false, ssidsize: 0, ..most })
        }
        None => (BOUNDLESS, CAUTIOUS_VALUES),
    };
    Basis { most, auto, host }.decide(wishes)
}

/// What the decisions are based on.
struct Basis<'a> {
    /// The most that can be shown.
    most: Values,
    /// What is shown if the user does not care.
    auto: Values,
    /// The host, if anybody could be asked.
    host: Option<&'a HostCapabilities>,
}

impl Basis<'_> {
    fn decide(&self, wishes: &Wishes) -> Result<Negotiation, Error> {
        let mut rows = Vec::new();
        let mut flag = |field, wish, of: fn(&Values) -> bool| self.at_most(&mut rows, field, wish, of);
        let ats = flag("ats", wishes.ats, |v| v.ats)?;
        let ril = flag("ril", wishes.ril, |v| v.ril)?;
        let gran4k = flag("gran4k", wishes.gran4k, |v| v.gran4k)?;
        let gran16k = flag("gran16k", wishes.gran16k, |v| v.gran16k)?;
        let gran64k = flag("gran64k", wishes.gran64k, |v| v.gran64k)?;
        let asid16 = flag("asid16", wishes.asid16, |v| v.asid16)?;
        let two_level_contexts = flag("two-level-contexts", wishes.two_level_contexts, |v| v.two_level_contexts)?;
        let mut number = |field, wish, of: fn(&Values) -> u8| self.at_most(&mut rows, field, wish, of);
        let ssidsize = number("ssidsize", wishes.ssidsize, |v| v.ssidsize)?;
        let bbml = number("bbml", wishes.bbml, |v| v.bbml)?;
        if let Wish::Exactly(wish) = wishes.oas
            && !OAS_BITS.contains(&wish)
        {
            return Err(Error::Illegal { field: "oas", wish: wish.into(), legal: OAS_LEGAL });
        }
        let oas = number("oas", wishes.oas, |v| v.oas)?;
        if !(gran4k || gran16k || gran64k) {
            return Err(Error::NoGranule);
        }
        let two_level_streams = wishes.two_level_streams.or(true);
        let term_model = self.term_model(&mut rows, wishes.term_model)?;
        let stall_model = wishes.stall_model.or(NO_STALL);
        if stall_model != NO_STALL {
            return Err(Error::Illegal { field: "stall-model", wish: stall_model.into(), legal: STALL_LEGAL });
        }

        let stalls = self.host.map(|host| Idr0::from_bits(host.idr[0]).stall_model());
        let Values { ttendian, vax, ds, .. } = self.auto;
        let mut row = |field, guest, host, reason| rows.push(Row { field, guest, host, reason });
        row("two-level-streams", two_level_streams.into(), None, BY_MODEL);
        row("sidsize", SIDSIZE.into(), None, BY_MODEL);
        row("msi", true.into(), None, BY_MODEL);
        row("stall-model", stall_model.into(), stalls.map(Value::Number), NO_STALLS);
        let reason = if self.host.is_some() { FROM_HOST } else { CAUTIOUS };
        row("ttendian", ttendian.into(), self.shown(self.most.ttendian), reason);
        row("vax", vax.into(), self.shown(self.most.vax), reason);
        row("ds", ds.into(), self.shown(self.most.ds), reason);
        let values = Values {
            ats,
            ssidsize,
            oas,
            ril,
            bbml,
            gran4k,
            gran16k,
            gran64k,
            asid16,
            two_level_streams,
            two_level_contexts,
            stall_model,
            term_model,
            ttendian,
            vax,
            ds,
        };
        Ok(Negotiation { features: Features::new(&values, stalls == Some(0)), values, rows })
    }

    /// A value of the host in a row; none where nobody could be asked.
    fn shown(&self, value: impl Into<Value>) -> Option<Value> {
        self.host.map(|_| value.into())
    }

    /// A field of which less is always right.
    fn at_most<T: Ord + Copy + Into<Value>>(
        &self,
        rows: &mut Vec<Row>,
        field: &'static str,
        wish: Wish<T>,
        of: fn(&Values) -> T,
    ) -> Result<T, Error> {
        let (most, auto) = (of(&self.most), of(&self.auto));
        let (guest, reason) = match wish {
            Wish::Auto => (auto, self.why(field, auto == most)),
            Wish::Exactly(wish) if wish > most => return Err(self.missing(field, wish.into(), most.into())),
            Wish::Exactly(wish) => (wish, self.asked()),
        };
        rows.push(Row { field, guest: guest.into(), host: self.shown(most), reason });
        Ok(guest)
    }

    /// 1 promises less than 0, so it is always right.
    fn term_model(&self, rows: &mut Vec<Row>, wish: Wish<u8>) -> Result<u8, Error> {
        let (field, most) = ("term-model", self.most.term_model);
        let (guest, reason) = match wish {
            Wish::Auto => (self.auto.term_model, self.why(field, true)),
            Wish::Exactly(wish) if wish > 1 => {
                return Err(Error::Illegal { field, wish: wish.into(), legal: "0, 1" });
            }
            Wish::Exactly(wish) if wish < most => return Err(self.missing(field, wish.into(), most.into())),
            Wish::Exactly(wish) => (wish, self.asked()),
        };
        rows.push(Row { field, guest: guest.into(), host: self.shown(most), reason });
        Ok(guest)
    }

    fn asked(&self) -> &'static str {
        if self.host.is_some() { ASKED } else { ASKED_BLINDLY }
    }

    /// Why a field is what it is where the user does not care; `all` is whether that is all that could be had.
    fn why(&self, field: &str, all: bool) -> &'static str {
        match (self.host, field) {
            (None, _) => CAUTIOUS,
            _ if all && self.lost_by_devices(field) => DEVICES,
            _ if all => FROM_HOST,
            (_, "ssidsize") if self.auto.ssidsize > 0 => LINEAR,
            _ => NO_DEVICE,
        }
    }

    /// Whether the SMMU has more of it than the devices, or the ways to them.
    fn lost_by_devices(&self, field: &str) -> bool {
        let Some(host) = self.host else { return false };
        match field {
            "ats" => Idr0::from_bits(host.idr[0]).ats() && !self.most.ats,
            "ssidsize" => Idr1::from_bits(host.idr[1]).ssidsize().min(PASID_BITS) > self.most.ssidsize,
            _ => false,
        }
    }

    fn missing(&self, field: &'static str, wish: Value, host: Value) -> Error {
        let who = match (self.host.is_some(), self.lost_by_devices(field)) {
            (true, true) => "the host smmu's devices, or the ways to them, have",
            (true, false) => "the host smmu has",
            (false, _) => "the most that an smmuv3 has is",
        };
        Error::Missing { field, wish, who, host }
    }
}
