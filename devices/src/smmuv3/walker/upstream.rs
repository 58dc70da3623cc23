//! The vSMMU in front of an emulated device, as the device sees it when its requester ID changes.

use std::error::Error;
use std::sync::Arc;

use super::super::Smmuv3;
use super::DmaPort;
use crate::pci::Bdf;
use crate::vfio::Upstream;

/// Lets the stream of an emulated device follow the device to another requester ID.
pub struct EmulatedUpstream {
    model: Arc<Smmuv3>,
    port: DmaPort,
}

impl EmulatedUpstream {
    /// For the device of `port`, behind `model` with its walker.
    pub fn new(model: Arc<Smmuv3>, port: DmaPort) -> Self {
        Self { model, port }
    }
}

impl Upstream for EmulatedUpstream {
    fn renumber(&self, to: Option<Bdf>) -> Result<(), Box<dyn Error + Send + Sync>> {
        let to = to.map(|id| id.requester_id().into());
        self.model.move_stream(to, || self.port.smmu().move_device(&self.port, to))?;
        Ok(())
    }
}
