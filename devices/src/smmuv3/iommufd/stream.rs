//! One device behind the vSMMU: its vDEVICE, what it is attached to, and the order in which that changes.

#![forbid(unsafe_code)]

use std::sync::Arc;

use nestling_iommufd as kernel;
use nestling_iommufd::{AttachHwpt, DeviceId, NestedHwpt, Ste, Vdevice, Viommu};

use super::super::physical::StreamConfig;

/// What all streams share.
#[derive(Clone, Copy)]
pub(super) struct Fixed<'a> {
    pub(super) viommu: &'a Arc<Viommu>,
    pub(super) bypass: &'a NestedHwpt,
    pub(super) abort: &'a NestedHwpt,
}

pub(super) struct Stream {
    device: Arc<dyn AttachHwpt>,
    /// Its StreamID; none while the guest cannot reach it.
    vdevice: Option<Vdevice>,
    /// What the device is attached to; none if that is not known.
    config: Option<StreamConfig>,
    /// The device was in reset when it was to get a page table, and is detached.
    busy: bool,
    /// Its bus is about to be reset, or is: the kernel would answer an attach or detach only at the end of that
    /// (`vfio_device_set.lock`), so it is detached and not asked.
    held: bool,
    /// A page table of its own behind `config`, if it is not one of the fixed ones.
    nested: Option<NestedHwpt>,
}

impl Stream {
    /// A device with its vDEVICE, attached to a fixed page table.
    pub(super) fn new(device: Arc<dyn AttachHwpt>, vdevice: Vdevice, config: StreamConfig) -> Self {
        Self { device, vdevice: Some(vdevice), config: Some(config), busy: false, held: false, nested: None }
    }

    pub(super) fn device(&self) -> DeviceId {
        self.device.dev_id()
    }

    /// Whether it is configured so.
    pub(super) fn has(&self, config: StreamConfig) -> bool {
        self.config == Some(config)
    }

    /// Whether it waits for the end of a reset.
    pub(super) fn is_busy(&self) -> bool {
        self.busy
    }

    /// Detaches it, and attaches nothing before [`release`](Self::release).
    pub(super) fn hold(&mut self) {
        self.wait_closed();
        self.held = true;
    }

    /// Page tables can be attached again.
    pub(super) fn release(&mut self) {
        self.held = false;
    }

    /// Off stage 1, then page table, then vDEVICE.
    pub(super) fn destroy(self, result: &mut Result<(), kernel::Error>) {
        keep_first(result, self.device.detach_hwpt());
        if let Some(nested) = self.nested {
            keep_first(result, nested.destroy());
        }
        if let Some(vdevice) = self.vdevice {
            keep_first(result, vdevice.destroy());
        }
    }

    /// Replaces the configuration; what was attached before is freed only afterwards.
    pub(super) fn replace(&mut self, fixed: Fixed<'_>, config: StreamConfig) -> Result<(), kernel::Error> {
        if self.held {
            return Err(self.is_held(fixed.abort));
        }
        let nested = match config {
            StreamConfig::Stage1(ste) => Some(fixed.viommu.alloc_nested(self.device(), Ste(ste.0))?),
            StreamConfig::Bypass | StreamConfig::Abort => None,
        };
        let hwpt = match (&nested, config) {
            (Some(nested), _) => nested,
            (None, StreamConfig::Bypass) => fixed.bypass,
            (None, _) => fixed.abort,
        };
        self.attach(hwpt)?;
        self.config = Some(config);
        self.free_old(nested);
        Ok(())
    }

    /// Nothing may pass any more: abort, and if even that fails, no page table at all.
    pub(super) fn fail_closed(&mut self, fixed: Fixed<'_>) {
        match self.replace(fixed, StreamConfig::Abort) {
            Ok(()) => {}
            Err(kernel::Error::DeviceBusy { .. }) => self.wait_closed(),
            Err(error) => {
                log::error!("{} cannot be aborted and is detached: {error}", self.device());
                self.detach();
            }
        }
    }

    /// The device is in reset and cannot even be made to abort. Detached it stays without a page table when the reset
    /// ends, where the kernel would attach the last one again (`pci_dev_reset_iommu_done`).
    pub(super) fn wait_closed(&mut self) {
        if !self.busy {
            log::debug!("{} is detached until it is out of reset", self.device());
            self.busy = true;
            self.detach();
        }
    }

    /// Gives up its StreamID and aborts. Off stage 1 before the vDEVICE goes: the kernel could not attach it again after
    /// a reset.
    pub(super) fn leave(&mut self, fixed: Fixed<'_>) -> Result<(), kernel::Error> {
        self.fail_closed(fixed);
        self.vdevice.take().map_or(Ok(()), Vdevice::destroy)
    }

    /// Takes a StreamID after [`leave`](Self::leave), and aborts. If this fails it is detached and has none.
    pub(super) fn enter(&mut self, fixed: Fixed<'_>, stream_id: u32) -> Result<(), kernel::Error> {
        let result = self.try_enter(fixed, stream_id);
        if result.is_err() {
            self.detach();
            if let Some(Err(error)) = self.vdevice.take().map(Vdevice::destroy) {
                log::warn!("stream {stream_id:#x}: its vdevice is left behind: {error}");
            }
        }
        result
    }

    fn try_enter(&mut self, fixed: Fixed<'_>, stream_id: u32) -> Result<(), kernel::Error> {
        self.vdevice = Some(fixed.viommu.alloc_vdevice(self.device(), stream_id)?);
        // The kernel looks for the vDEVICE only when another page table is attached.
        let fresh = fixed.viommu.alloc_nested(self.device(), Ste::ABORT)?;
        match self.attach(&fresh) {
            Ok(()) => self.config = Some(StreamConfig::Abort),
            // It is detached already, or aborts by the old one.
            Err(kernel::Error::DeviceBusy { .. }) => {
                self.busy = true;
                self.detach();
            }
            Err(error) => return Err(error),
        }
        self.free_old(Some(fresh));
        Ok(())
    }

    /// Attaches a page table. Who was in reset the last time may be so for a minute and is not waited for again.
    fn attach(&mut self, hwpt: &NestedHwpt) -> Result<(), kernel::Error> {
        if self.held {
            return Err(self.is_held(hwpt));
        }
        if self.busy { self.device.try_attach_hwpt(hwpt.id()) } else { self.device.attach_hwpt(hwpt.id()) }?;
        self.busy = false;
        Ok(())
    }

    fn is_held(&self, hwpt: &NestedHwpt) -> kernel::Error {
        kernel::Error::DeviceBusy { device: self.device(), hwpt: hwpt.id() }
    }

    fn free_old(&mut self, new: Option<NestedHwpt>) {
        if let Some(old) = std::mem::replace(&mut self.nested, new)
            && let Err(error) = old.destroy()
        {
            log::warn!("{}: its last page table is left behind: {error}", self.device());
        }
    }

    fn detach(&mut self) {
        self.config = None;
        if self.held {
            return;
        }
        if let Err(error) = self.device.detach_hwpt() {
            log::error!("{} cannot even be detached: {error}", self.device());
        }
    }
}

/// Notes a failure of the teardown and goes on.
pub(super) fn keep_first(result: &mut Result<(), kernel::Error>, next: Result<(), kernel::Error>) {
    if let Err(error) = next {
        log::warn!("teardown of a vsmmu: {error}");
        if result.is_ok() {
            *result = Err(error);
        }
    }
}
