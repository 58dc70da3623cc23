//! The most that a host lets a guest have, and whether given values keep to it.

use super::values::{OAS_BITS, OAS_LEGAL, PASID_BITS, Value, Values, oas_bits};
use super::{Error, Mismatch, STALL_LEGAL};
use crate::smmuv3::physical::HostCapabilities;
use crate::smmuv3::spec::registers::{Idr0, Idr1, Idr3, Idr5};

/// Terminates faulting transactions, never stalls them (SMMU_IDR0.STALL_MODEL).
pub(super) const NO_STALL: u8 = 1;

/// The most that a guest can be shown on this host, or why nothing can. Only fields that the kernel declares usable are
/// looked at (`struct iommu_hw_info_arm_smmuv3`), and OAS, which nested translation has of the hardware.
pub(super) fn most(host: &HostCapabilities) -> Result<Values, Error> {
    let (idr0, idr1) = (Idr0::from_bits(host.idr[0]), Idr1::from_bits(host.idr[1]));
    let (idr3, idr5) = (Idr3::from_bits(host.idr[3]), Idr5::from_bits(host.idr[5]));
    if idr0.ttf() & 2 == 0 {
        return Err(Error::Unusable("has no VMSAv8-64 tables"));
    }
    if !matches!(idr0.ttendian(), 0 | 2) {
        return Err(Error::Unusable("reads big-endian tables only"));
    }
    if idr0.stall_model() == 2 {
        return Err(Error::Unusable("stalls every faulting transaction (STALL_MODEL 2)"));
    }
    Ok(Values {
        ats: host.ats && idr0.ats(),
        ssidsize: idr1.ssidsize().min(host.pasid_bits).min(PASID_BITS),
        oas: oas_bits(idr5.oas()),
        ril: idr3.ril(),
        bbml: idr3.bbml().min(2),
        gran4k: idr5.gran4k(),
        gran16k: idr5.gran16k(),
        gran64k: idr5.gran64k(),
        asid16: idr0.asid16(),
        // The model walks the stream table itself.
        two_level_streams: true,
        two_level_contexts: idr0.cd2l(),
        stall_model: NO_STALL,
        term_model: idr0.term_model().into(),
        ttendian: idr0.ttendian(),
        vax: idr5.vax().min(1),
        ds: idr5.ds(),
    })
}

/// Whether this host, with all devices that are behind the vSMMU, can do what a guest was or will be shown. For a device
/// that comes while the guest runs, and for a Plan that was made on another day.
pub fn check(values: &Values, host: &HostCapabilities) -> Result<(), Mismatch> {
    let most = most(host).map_err(|error| Mismatch::Unusable(error.to_string()))?;
    let fields = [
        at_most("ats", values.ats, most.ats),
        at_most("ssidsize", values.ssidsize, most.ssidsize),
        at_most("oas", values.oas, most.oas),
        at_most("ril", values.ril, most.ril),
        at_most("bbml", values.bbml, most.bbml),
        at_most("gran4k", values.gran4k, most.gran4k),
        at_most("gran16k", values.gran16k, most.gran16k),
        at_most("gran64k", values.gran64k, most.gran64k),
        at_most("asid16", values.asid16, most.asid16),
        at_most("two-level-contexts", values.two_level_contexts, most.two_level_contexts),
        at_most("vax", values.vax, most.vax),
        at_most("ds", values.ds, most.ds),
        // 1 promises less than 0: CD.A = 1 means the same on both. Likewise tables that are little-endian only.
        at_least("term-model", values.term_model, most.term_model),
        at_least("ttendian", values.ttendian, most.ttendian),
    ];
    if let Some((mismatch, _)) = fields.into_iter().find(|(_, fits)| !fits) {
        return Err(mismatch);
    }
    match host.ats_required && !(values.ats && values.ssidsize > 0) {
        true => Err(Mismatch::AtsRequired),
        false => Ok(()),
    }
}

fn at_most<T: Ord + Into<Value>>(field: &'static str, guest: T, host: T) -> (Mismatch, bool) {
    let fits = guest <= host;
    (Mismatch::Field { field, guest: guest.into(), host: host.into() }, fits)
}

fn at_least<T: Ord + Into<Value>>(field: &'static str, guest: T, host: T) -> (Mismatch, bool) {
    let fits = guest >= host;
    (Mismatch::Field { field, guest: guest.into(), host: host.into() }, fits)
}

impl Values {
    /// Whether these can be values of a vSMMU at all; who reads them from a file must ask.
    pub fn validate(&self) -> Result<(), Error> {
        let illegal = |field, wish: u8, legal| Err(Error::Illegal { field, wish: wish.into(), legal });
        match self {
            v if !OAS_BITS.contains(&v.oas) => illegal("oas", v.oas, OAS_LEGAL),
            v if v.ssidsize > PASID_BITS => illegal("ssidsize", v.ssidsize, "0 to 20"),
            v if v.bbml > 2 => illegal("bbml", v.bbml, "0, 1, 2"),
            v if v.stall_model != NO_STALL => illegal("stall-model", v.stall_model, STALL_LEGAL),
            v if v.term_model > 1 => illegal("term-model", v.term_model, "0, 1"),
            v if !matches!(v.ttendian, 0 | 2) => illegal("ttendian", v.ttendian, "0, 2"),
            v if v.vax > 1 => illegal("vax", v.vax, "0, 1"),
            v if !(v.gran4k || v.gran16k || v.gran64k) => Err(Error::NoGranule),
            _ => Ok(()),
        }
    }
}
