//! What each vSMMU shows: decided when somebody could ask its host SMMU, frozen, and held against the host from then on.

use std::fmt::{self, Write};

use nestling_devices::smmuv3::capabilities::{
    self, Features, Mismatch, Negotiation, Value, Values, check, negotiate, negotiate_vacant,
};
use nestling_devices::smmuv3::physical::HostCapabilities;
use nestling_devices::smmuv3::spec::registers::Idr0;

use super::spec::{FeatureRow, Smmu, Window};
use crate::config::VsmmuRequest;
use crate::host::{HostDevice, Inventory, SmmuAnswer};

/// Why a vSMMU cannot show what it should.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    /// It was asked for.
    #[error(transparent)]
    Wish(#[from] capabilities::Error),
    /// It is in the Plan.
    #[error("plan: {0}; make it again with 'nestling plan'")]
    Frozen(Mismatch),
    /// Its tables cannot name all of the guest's memory.
    #[error(transparent)]
    Narrow(#[from] Narrow),
}

/// What a vSMMU puts out does not reach to the end of the guest's memory.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "its oas is {oas} bits, but the guest's memory ends at {end:#x}; give --memory less, or a wider oas if the host has it"
)]
pub struct Narrow {
    /// Output address bits.
    pub oas: u8,
    /// First address behind the memory.
    pub end: u64,
}

/// Whether a vSMMU that shows `values` reaches all of the guest's memory.
pub fn reaches(values: &Values, memory: Window) -> Result<(), Narrow> {
    let (oas, end) = (values.oas, memory.end());
    match 1_u64.checked_shl(oas.into()).is_none_or(|limit| end <= limit) {
        true => Ok(()),
        false => Err(Narrow { oas, end }),
    }
}

/// The features of one vSMMU, as far as they can be decided.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decided {
    /// What the guest sees; none while the host is not known.
    pub features: Option<Values>,
    /// Whether a host that could stall has no devices here yet.
    pub disable_stall: bool,
    /// Why the host is not known, if it was asked.
    pub unknown: Option<String>,
    /// Each field with its reason.
    pub report: Vec<FeatureRow>,
}

/// Decides for the vSMMU of the host SMMU `name` with these `devices`.
pub fn decide(
    name: &str,
    devices: &[&HostDevice],
    wishes: &VsmmuRequest,
    inventory: &Inventory,
) -> Result<Decided, capabilities::Error> {
    let cpu_bits = inventory.kvm.map(|kvm| kvm.ipa_bits);
    if devices.is_empty() {
        let behind = || inventory.devices.iter().filter(|device| device.iommu.as_deref() == Some(name));
        let known = behind().find_map(known);
        let unknown = behind().rev().find_map(unknown).filter(|_| known.is_none());
        let negotiation = negotiate_vacant(&wishes.wishes(), known)?;
        let disable_stall = negotiation.features.disable_stall;
        return Ok(Decided { disable_stall, unknown, ..Decided::from(negotiation, cpu_bits) });
    }
    if let Some(host) = common(devices) {
        return Ok(Decided::from(negotiate(&wishes.wishes(), &host)?, cpu_bits));
    }
    let unknown = devices.iter().find_map(|device| unknown(device));
    Ok(Decided { unknown, ..Decided::default() })
}

/// Holds the frozen features against what is known of the host's devices, if all of them are.
pub fn hold(smmu: &Smmu, devices: &[&HostDevice]) -> Result<(), Mismatch> {
    let (Some(features), Some(host)) = (smmu.features, common(devices)) else { return Ok(()) };
    check(&features, &host)
}

fn common(devices: &[&HostDevice]) -> Option<HostCapabilities> {
    devices.iter().map(|device| known(device).copied()).reduce(|common, device| Some(common?.and(&device?)))?
}

fn known(device: &HostDevice) -> Option<&HostCapabilities> {
    match &device.smmu {
        SmmuAnswer::Known(known) => Some(known),
        _ => None,
    }
}

fn unknown(device: &HostDevice) -> Option<String> {
    match &device.smmu {
        SmmuAnswer::Unknown(why) => Some(why.clone()),
        _ => None,
    }
}

impl Decided {
    /// `cpu_bits` is how wide the vCPUs' physical addresses are, at least.
    fn from(negotiation: Negotiation, cpu_bits: Option<u8>) -> Self {
        let rows = negotiation.rows.iter().map(|row| FeatureRow {
            field: row.field.into(),
            guest: row.guest,
            host: row.host,
            reason: match cpu_bits.filter(|bits| row.field == "oas" && row.guest < Value::Number(*bits)) {
                Some(bits) => format!("{}; no SVA in the guest, whose vCPUs have {bits}", row.reason),
                None => row.reason.into(),
            },
        });
        Self { features: Some(negotiation.values), report: rows.collect(), ..Self::default() }
    }
}

impl Smmu {
    /// The registers, for a host of which all devices are known, or for no device. Decides what the Plan has left open,
    /// and enters it there; what the Plan has decided is held against the host.
    pub fn freeze(&mut self, host: Option<&HostCapabilities>, cpu_bits: Option<u8>) -> Result<Features, Error> {
        let values = match (self.features, host) {
            (Some(values), Some(host)) => check(&values, host).map(|()| values).map_err(Error::Frozen)?,
            (Some(values), None) => values,
            (None, host) => {
                let wishes = self.wishes.wishes();
                let negotiation =
                    host.map_or_else(|| negotiate_vacant(&wishes, None), |host| negotiate(&wishes, host))?;
                let values = negotiation.values;
                let Decided { features, unknown, report, .. } = Decided::from(negotiation, cpu_bits);
                (self.features, self.unknown, self.report) = (features, unknown, report);
                values
            }
        };
        let stalls = |host: &HostCapabilities| Idr0::from_bits(host.idr[0]).stall_model() == 0;
        Ok(Features::new(&values, host.map_or(self.disable_stall, stalls)))
    }

    /// Guest, host and reason of each field as a table, each line ended; empty if nothing is decided.
    pub fn table(&self) -> String {
        let mut text = String::new();
        if !self.report.is_empty() {
            // Writing to a string does not fail.
            let _ = write_table(&mut text, &self.report);
        }
        text
    }
}

fn write_table(out: &mut String, rows: &[FeatureRow]) -> fmt::Result {
    let width = rows.iter().map(|row| row.field.len()).max().unwrap_or_default();
    writeln!(out, "{:width$}  guest  host  reason", "feature")?;
    for FeatureRow { field, guest, host, reason } in rows {
        let host = host.map_or_else(|| "-".to_owned(), |host| host.to_string());
        writeln!(out, "{field:width$}  {guest:<5}  {host:<4}  {reason}")?;
    }
    Ok(())
}
