//! What a device wants from an address, and what it gets.

use super::super::physical::EventWords;
use super::super::spec::event::{CLASS_IN, CLASS_TTD, EventHead, FaultSyndrome, number};

/// The attributes of a transaction (IHI 0070, section 13.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Access {
    /// A write, not a read.
    pub(super) write: bool,
    /// With privilege (PnU).
    pub(super) privileged: bool,
    /// An instruction fetch (InD); writes are always data.
    pub(super) instruction: bool,
}

/// Who a transaction comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Source {
    /// StreamID.
    pub(super) stream_id: u32,
    /// SubstreamID, if the transaction has one.
    pub(super) substream_id: Option<u32>,
}

/// Where an address leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Extent {
    /// Guest physical address.
    pub(super) address: u64,
    /// Bytes from there to the end of the mapping, at least 1.
    pub(super) length: u64,
}

/// Why a transaction is not translated (section 7.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// The stream aborts, without a record.
    Abort,
    /// F_STREAM_DISABLED.
    StreamDisabled,
    /// C_BAD_SUBSTREAMID.
    BadSubstreamId,
    /// F_CD_FETCH at this address.
    CdFetch(u64),
    /// C_BAD_CD.
    BadCd,
    /// A fault of the translation, of an address, with CD.R and CD.A.
    Walk { fault: WalkFault, record: bool, abort: bool },
}

/// Why a walk ends without a translation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WalkFault {
    /// F_WALK_EABT: the descriptor at this address is not in memory.
    ExternalAbort(u64),
    /// F_TRANSLATION.
    Translation,
    /// F_ADDR_SIZE.
    AddressSize,
    /// F_ACCESS.
    AccessFlag,
    /// F_PERMISSION.
    Permission,
}

impl Fault {
    /// Whether the device sees an abort; else its read returns zeroes and its write does nothing (CD.A).
    pub(super) fn aborts(self) -> bool {
        !matches!(self, Self::Walk { abort: false, .. })
    }

    /// The record of it, if there is to be one.
    pub(super) fn event(self, source: Source, access: Access, iova: u64) -> Option<EventWords> {
        let head = |event| {
            let head = EventHead::new().with_event(event).with_stream_id(source.stream_id);
            let substream = source.substream_id;
            head.with_ssv(substream.is_some()).with_substream_id(substream.unwrap_or(0) & 0xf_ffff).into_bits()
        };
        match self {
            Self::Abort | Self::Walk { record: false, .. } => None,
            Self::StreamDisabled => Some([head(number::F_STREAM_DISABLED), 0, 0, 0]),
            Self::BadSubstreamId => Some([head(number::C_BAD_SUBSTREAMID), 0, 0, 0]),
            Self::CdFetch(address) => Some([head(number::F_CD_FETCH), 0, 0, address]),
            Self::BadCd => Some([head(number::C_BAD_CD), 0, 0, 0]),
            Self::Walk { fault, .. } => {
                let (event, class, fetched) = match fault {
                    WalkFault::ExternalAbort(address) => (number::F_WALK_EABT, CLASS_TTD, address),
                    WalkFault::Translation => (number::F_TRANSLATION, CLASS_IN, 0),
                    WalkFault::AddressSize => (number::F_ADDR_SIZE, CLASS_IN, 0),
                    WalkFault::AccessFlag => (number::F_ACCESS, CLASS_IN, 0),
                    WalkFault::Permission => (number::F_PERMISSION, CLASS_IN, 0),
                };
                let syndrome = FaultSyndrome::new()
                    .with_pnu(access.privileged)
                    .with_ind(access.instruction && !access.write)
                    .with_rnw(!access.write)
                    .with_class(class);
                Some([head(event), syndrome.into_bits(), iova, fetched])
            }
        }
    }
}
