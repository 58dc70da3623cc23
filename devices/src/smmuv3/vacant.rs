//! A host SMMU that none of its devices is behind yet: a vSMMU on it serves empty slots.

use std::sync::Arc;

use super::physical::{
    CommandWords, HostCapabilities, HostError, HostEvent, InstallError, Installed, InvalidateError, PhysicalSmmu,
    StreamConfig,
};

/// Nothing translates here, because there is no DMA. The kernel makes no vIOMMU without a device.
pub struct VacantSmmu(());

impl VacantSmmu {
    /// For a vSMMU whose features are [`negotiate_vacant`](super::capabilities::negotiate_vacant)'s.
    pub fn new() -> Arc<Self> {
        Arc::new(Self(()))
    }
}

impl PhysicalSmmu for VacantSmmu {
    fn capabilities(&self) -> HostCapabilities {
        HostCapabilities::default()
    }

    fn streams(&self, _: &mut Vec<u32>) {}

    fn has_stream(&self, _: u32) -> bool {
        false
    }

    fn install(&self, _: u32, _: StreamConfig) -> Result<Installed, InstallError> {
        Ok(Installed::NoDevice)
    }

    fn invalidate(&self, _: &[CommandWords]) -> Result<(), InvalidateError> {
        Ok(())
    }

    fn drain_events(&self, _: &mut dyn FnMut(HostEvent)) -> Result<bool, HostError> {
        Ok(false)
    }

    fn invalidation_calls(&self) -> u64 {
        0
    }
}
