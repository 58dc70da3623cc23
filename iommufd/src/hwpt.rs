//! Page tables of the hardware: the stage 2 of an SMMU, and a guest's stage 1 nested in it.
#![forbid(unsafe_code)]

use std::sync::Arc;

use crate::error::{Call, Error};
use crate::ids::{DeviceId, HwptId};
use crate::ioas::Ioas;
use crate::kernel::Kernel;
use crate::object::Object;
use crate::viommu::Viommu;

/// Words 0 and 1 of a stream table entry, reduced to what may be nested (IHI 0070 section 5.2).
///
/// The kernel accepts V, Config (abort, bypass, stage 1), S1Fmt, S1ContextPtr and S1CDMax of word 0, and S1DSS, S1CIR,
/// S1COR, S1CSH, S1STALLD and EATS (0 or 1) of word 1. [`Ste::nested`] takes the other bits away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ste(pub [u64; 2]);

impl Ste {
    /// V, Config, S1Fmt, S1ContextPtr, S1CDMax (`STRTAB_STE_0_NESTING_ALLOWED`).
    pub const WORD0_ALLOWED: u64 = 0xf80f_ffff_ffff_ffff;
    /// S1DSS, S1CIR, S1COR, S1CSH, S1STALLD, EATS (`STRTAB_STE_1_NESTING_ALLOWED`).
    pub const WORD1_ALLOWED: u64 = 0xff | 1 << 27 | 0b11 << 28;
    /// V = 1, Config = 0b100: the device sees guest physical addresses.
    pub const BYPASS: Self = Self([0x9, 0]);
    /// V = 1, Config = 0b000: the device can do no DMA, and no event is recorded.
    pub const ABORT: Self = Self([0x1, 0]);

    /// The two words of a guest's entry without the bits that cannot be nested (SHCFG, MEV, CONT, PPAR, ...).
    pub const fn nested(word0: u64, word1: u64) -> Self {
        Self([word0 & Self::WORD0_ALLOWED, word1 & Self::WORD1_ALLOWED])
    }
}

/// The stage 2 of one host SMMU: maps guest physical addresses, as its [`Ioas`] has them.
#[derive(Debug)]
pub struct NestParent {
    object: Object,
    id: HwptId,
    ioas: Arc<Ioas>,
}

impl NestParent {
    pub(crate) fn alloc(ioas: &Arc<Ioas>, kernel: &Arc<dyn Kernel>, device: DeviceId) -> Result<Self, Error> {
        let id = kernel.nest_parent_alloc(device, ioas.id()).map_err(|e| match e.raw_os_error() {
            Some(libc::EOPNOTSUPP) => Error::NoNesting { device },
            _ => Error::failed(Call::NestParentAlloc, e),
        })?;
        Ok(Self { object: Object::new(kernel, "nest parent", id.0), id, ioas: ioas.clone() })
    }

    /// Its id; a device attached to it sees guest physical addresses.
    pub fn id(&self) -> HwptId {
        self.id
    }

    /// What it maps.
    pub fn ioas(&self) -> &Arc<Ioas> {
        &self.ioas
    }

    /// Makes a vIOMMU on it for the SMMU that `device` is behind.
    pub fn alloc_viommu(self: &Arc<Self>, device: DeviceId) -> Result<Arc<Viommu>, Error> {
        Viommu::alloc(self, self.object.kernel(), device).map(Arc::new)
    }

    /// Destroys it. Its vIOMMUs must be gone and no device attached.
    pub fn destroy(self: Arc<Self>) -> Result<(), Error> {
        let id = self.id.0;
        Arc::into_inner(self).ok_or_else(|| Object::still_used("nest parent", id))?.object.destroy()
    }
}

/// What a guest's stream table entry became: attach it through [`crate::AttachHwpt`].
///
/// Destroy it after another one is attached in its place: while attached the kernel keeps it (EBUSY).
#[derive(Debug)]
pub struct NestedHwpt {
    object: Object,
    id: HwptId,
    ste: Ste,
    _viommu: Arc<Viommu>,
}

impl NestedHwpt {
    pub(crate) fn alloc(
        viommu: &Arc<Viommu>,
        kernel: &Arc<dyn Kernel>,
        device: DeviceId,
        ste: Ste,
    ) -> Result<Self, Error> {
        let id = kernel.nested_alloc(device, viommu.id(), ste.0).map_err(|e| match e.raw_os_error() {
            Some(libc::EIO) => Error::BadSte { device, ste: ste.0 },
            Some(libc::EINVAL) => Error::OtherSmmu { device, call: Call::NestedAlloc },
            _ => Error::failed(Call::NestedAlloc, e),
        })?;
        Ok(Self { object: Object::new(kernel, "nested hwpt", id.0), id, ste, _viommu: viommu.clone() })
    }

    /// Its id.
    pub fn id(&self) -> HwptId {
        self.id
    }

    /// The words it was made from.
    pub fn ste(&self) -> Ste {
        self.ste
    }

    /// Destroys it; no device may be attached.
    pub fn destroy(self) -> Result<(), Error> {
        self.object.destroy()
    }
}
