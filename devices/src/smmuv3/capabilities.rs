//! What the guest's identification registers show: the result of what the user allows, what the host has and what
//! the kernel forwards to it.

mod limits;
mod negotiate;
mod values;

use std::fmt;

pub use self::limits::check;
pub use self::negotiate::{negotiate, negotiate_vacant};
pub use self::values::{CMDQS, EVENTQS, Features, PASID_BITS, SIDSIZE, Value, Values};

/// A user's wish for one feature.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Wish<T> {
    /// What is best: as the host has it, as a rule.
    #[default]
    Auto,
    /// Exactly this; an error if the host does not have it.
    Exactly(T),
}

impl<T> Wish<T> {
    fn or(self, auto: T) -> T {
        match self {
            Self::Auto => auto,
            Self::Exactly(wish) => wish,
        }
    }
}

/// What the user wants. The default takes from the host all that the model can serve.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wishes {
    /// PCIe ATS.
    pub ats: Wish<bool>,
    /// SubstreamID (PASID) bits, 0 to 20.
    pub ssidsize: Wish<u8>,
    /// Output address size in bits: 32, 36, 40, 42, 44, 48 or 52.
    pub oas: Wish<u8>,
    /// Range invalidation.
    pub ril: Wish<bool>,
    /// Break-before-make level, 0 to 2.
    pub bbml: Wish<u8>,
    /// 4 KiB granule.
    pub gran4k: Wish<bool>,
    /// 16 KiB granule.
    pub gran16k: Wish<bool>,
    /// 64 KiB granule.
    pub gran64k: Wish<bool>,
    /// 16-bit ASIDs.
    pub asid16: Wish<bool>,
    /// 2-level stream tables.
    pub two_level_streams: Wish<bool>,
    /// 2-level context descriptor tables.
    pub two_level_contexts: Wish<bool>,
    /// SMMU_IDR0.STALL_MODEL: 1, as the kernel forwards no stalls.
    pub stall_model: Wish<u8>,
    /// SMMU_IDR0.TERM_MODEL: 0 or 1.
    pub term_model: Wish<u8>,
}

const STALL_LEGAL: &str = "1: the kernel forwards no stalls, so that a guest can have none";

/// A feature that was asked for and cannot be had.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    /// The host has less.
    #[error("{field}={wish} cannot be had: {who} {host}; use {field}=auto")]
    Missing {
        /// Name of the option.
        field: &'static str,
        /// What was asked for.
        wish: Value,
        /// Who limits it.
        who: &'static str,
        /// What the host has.
        host: Value,
    },
    /// There is no such value.
    #[error("{field}={wish} is not one of {legal}")]
    Illegal {
        /// Name of the option.
        field: &'static str,
        /// What was asked for.
        wish: Value,
        /// The legal values.
        legal: &'static str,
    },
    /// No granule is left, so no translation table could be built.
    #[error("no granule is left; allow one of gran4k, gran16k and gran64k that the host smmu has")]
    NoGranule,
    /// Linux probes no device that requires ATS unless there is ATS, and S1DSS, which is ignored without SubstreamIDs
    /// (`arm_smmu_master_prepare_ats`).
    #[error(
        "a device behind it requires ats, for which a guest needs ats=on and ssidsize of 1 at least, but {field} is \
         {value}; allow {field} if the host has it, or leave the device out"
    )]
    AtsRequired {
        /// What is missing.
        field: &'static str,
        /// What it is.
        value: Value,
    },
    /// The host SMMU does something that cannot be hidden from the guest.
    #[error("the host smmu {0}, which no guest can be given; leave its devices out")]
    Unusable(&'static str),
}

/// A host, or a device of it, has less than the guest was shown.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Mismatch {
    /// A field.
    #[error("the guest was shown {field}={guest}, but the host has {field}={host} here")]
    Field {
        /// Its name.
        field: &'static str,
        /// What the guest sees.
        guest: Value,
        /// The most that this host has with all devices.
        host: Value,
    },
    /// The device requires ATS.
    #[error("the device requires ats, but the guest was not shown both ats=on and ssidsize of 1 at least")]
    AtsRequired,
    /// The host SMMU cannot be nested at all.
    #[error("{0}")]
    Unusable(String),
}

/// One line of the start-up log: what became of a field, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// Name of the option or of the field.
    pub field: &'static str,
    /// What the guest sees.
    pub guest: Value,
    /// What the host has, together with its devices; none where it plays no role or is not known.
    pub host: Option<Value>,
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
    pub values: Values,
    /// The registers that say so.
    pub features: Features,
    /// Each field with its reason.
    pub rows: Vec<Row>,
}
