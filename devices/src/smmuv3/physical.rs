//! The way to hardware: what the vSMMU model needs from whoever really translates DMA.

use std::fmt;
use std::os::fd::RawFd;

use nestling_iommufd::{HwInfo, SmmuV3Flags};
use serde::{Deserialize, Serialize};

use super::spec::event::EVENT_SIZE;
use super::spec::ste::{EATS_ABORT, Ste1};

/// A command as the guest wrote it, masked to what a nested host accepts: two little-endian words.
pub type CommandWords = [u64; 2];

/// An event record as it is written to the guest's event queue.
pub type EventWords = [u64; EVENT_SIZE as usize / 8];

/// What is done with the transactions of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamConfig {
    /// They are terminated, without an event.
    Abort,
    /// They pass stage 1 untranslated.
    Bypass,
    /// The guest's stage 1 translates them.
    Stage1(Stage1),
}

impl StreamConfig {
    /// The same for a device whose ATC does not answer. What bypasses has ATS on in the kernel's nested entry
    /// (`arm_smmu_make_nested_domain_ste`), so such a device aborts.
    pub fn without_ats(self) -> Self {
        match self {
            Self::Stage1(ste) => Self::Stage1(ste.without_ats()),
            Self::Bypass | Self::Abort => Self::Abort,
        }
    }
}

/// The first two words of a stage 1 stream table entry, masked to the bits that a nested host accepts
/// (`STRTAB_STE_*_NESTING_ALLOWED` in the kernel's arm-smmu-v3.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stage1(pub [u64; 2]);

impl Stage1 {
    /// The same with ATS off: translated transactions are terminated.
    pub fn without_ats(self) -> Self {
        let Self([word0, word1]) = self;
        Self([word0, Ste1::from_bits(word1).with_eats(EATS_ABORT).into_bits()])
    }
}

/// What the host answered.
pub type HostError = Box<dyn std::error::Error + Send + Sync>;

/// What [`PhysicalSmmu::install`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Installed {
    /// The stream has the new configuration.
    Replaced,
    /// It already had it. Cached context descriptors are still there.
    Unchanged,
    /// No device has this StreamID: an emulated root port, or an empty slot.
    NoDevice,
}

/// Why a stream did not get its configuration. Nothing of it passes now.
#[derive(Debug, thiserror::Error)]
#[error("stream {stream_id:#x} cannot be configured {}", if *.busy { "yet and is shut" } else { "and is aborted" })]
pub struct InstallError {
    /// Its StreamID.
    pub stream_id: u32,
    /// The device is in reset: the same may work later. Until then this comes at once, without another wait.
    pub busy: bool,
    /// What the host answered.
    #[source]
    pub source: HostError,
}

/// Why a batch of invalidations was not executed as a whole.
#[derive(Debug, thiserror::Error)]
pub enum InvalidateError {
    /// The host refuses command `index`. Those before it are done, those from it on are not.
    #[error("the host refuses command {index} of the batch")]
    Refused {
        /// Index in the batch.
        index: usize,
    },
    /// The host waited in vain for the completion of commands `first..end`. Those before `first` are done, those from `end` on are not.
    #[error("the host got no completion for commands {first}..{end} of the batch")]
    Timeout {
        /// First command whose completion is unknown.
        first: usize,
        /// Behind the last command whose completion is unknown.
        end: usize,
    },
    /// The host failed; nothing is known about any command.
    #[error("the host cannot execute the batch")]
    Failed(#[source] HostError),
}

/// What comes out of the host's event queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostEvent {
    /// A record; its StreamID is the guest's.
    Record(EventWords),
    /// The host dropped this many records here.
    Lost(u32),
}

/// Registers and abilities of the host SMMU and of the kernel's nesting, from which the guest's are negotiated.
#[derive(Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct HostCapabilities {
    /// SMMU_IDR0 to SMMU_IDR5 as the hardware has them.
    pub idr: [u32; 6],
    /// SMMU_IIDR.
    pub iidr: u32,
    /// SMMU_AIDR.
    pub aidr: u32,
    /// Whether every device behind this vSMMU, and the way to it, can use ATS.
    pub ats: bool,
    /// Bits of a PASID that every device behind this vSMMU, and the way to it, can use; 0 is none.
    pub pasid_bits: u8,
    /// Whether a device behind this vSMMU works with ATS only. The kernel does not tell; who knows the devices sets it.
    pub ats_required: bool,
    /// Erratum: each batch of TLBI and CFGI commands must be sent a second time, after the first call has returned
    /// (`IOMMU_HW_INFO_ARM_SMMUV3_ERRATA_REPEAT_TLBI_CFGI`). On this path the kernel does not do it itself.
    pub repeat_tlbi_cfgi: bool,
}

impl HostCapabilities {
    /// What a device's kernel tells of its SMMU, its abilities and the way between them; none if that is no SMMUv3.
    pub fn of(info: &HwInfo) -> Option<Self> {
        let smmu = info.smmu?;
        Some(Self {
            idr: smmu.idr,
            iidr: smmu.iidr,
            aidr: smmu.aidr,
            ats: info.ats_supported(),
            pasid_bits: info.max_pasid_log2,
            ats_required: false,
            repeat_tlbi_cfgi: smmu.flags.contains(SmmuV3Flags::ERRATA_REPEAT_TLBI_CFGI),
        })
    }

    /// What is left when `device`, of the same host SMMU, is behind the vSMMU as well.
    pub fn and(self, device: &Self) -> Self {
        Self {
            ats: self.ats && device.ats,
            pasid_bits: self.pasid_bits.min(device.pasid_bits),
            ats_required: self.ats_required || device.ats_required,
            ..self
        }
    }
}

impl fmt::Debug for HostCapabilities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { idr, iidr, aidr, ats, pasid_bits, ats_required, repeat_tlbi_cfgi } = self;
        write!(f, "idr {idr:#010x?} iidr {iidr:#x} aidr {aidr:#x} ats {ats} (required {ats_required}) ")?;
        write!(f, "pasids {pasid_bits} repeat {repeat_tlbi_cfgi}")
    }
}

/// Who really translates: the host's SMMU through iommufd, a software walker, or a fake in tests.
///
/// The model calls it with its own lock held and in the order of the guest's commands; each function returns when its
/// work is done.
pub trait PhysicalSmmu: Send + Sync {
    /// What the hardware can do.
    fn capabilities(&self) -> HostCapabilities;

    /// Appends the StreamIDs of all devices, in any order.
    fn streams(&self, into: &mut Vec<u32>);

    /// Whether a device has this StreamID. Called for each command that names one.
    fn has_stream(&self, stream_id: u32) -> bool;

    /// Gives a stream its configuration. From one stage 1 to the next there is no moment of abort. On failure the
    /// stream aborts: it never keeps what the guest has taken away.
    fn install(&self, stream_id: u32, config: StreamConfig) -> Result<Installed, InstallError>;

    /// Executes invalidations in order. Only TLBI_NH_*, TLBI_NSNH_ALL, CFGI_CD, CFGI_CD_ALL and ATC_INV come here,
    /// valid, and only with StreamIDs for which [`has_stream`](Self::has_stream) holds.
    fn invalidate(&self, commands: &[CommandWords]) -> Result<(), InvalidateError>;

    /// Takes pending events, oldest first; a bounded number of them, so that [`event_fd`](Self::event_fd) may be readable
    /// still. Returns whether it is worth to be polled; after an error it is not.
    fn drain_events(&self, sink: &mut dyn FnMut(HostEvent)) -> Result<bool, HostError>;

    /// Readable while events are pending; none if there are never events.
    fn event_fd(&self) -> Option<RawFd> {
        None
    }

    /// System calls that carried invalidations so far.
    fn invalidation_calls(&self) -> u64;
}
