//! An object of the kernel that is destroyed once: on request with an answer, else on drop with a log line.
#![forbid(unsafe_code)]

use std::sync::Arc;

use crate::error::{Call, Error};
use crate::kernel::Kernel;

/// Holds an object id. The objects of this crate keep it before (in field order) what it depends on.
#[derive(Debug)]
pub(crate) struct Object {
    kernel: Arc<dyn Kernel>,
    kind: &'static str,
    id: u32,
    destroyed: bool,
}

impl Object {
    pub(crate) fn new(kernel: &Arc<dyn Kernel>, kind: &'static str, id: u32) -> Self {
        Self { kernel: kernel.clone(), kind, id, destroyed: false }
    }

    pub(crate) fn kernel(&self) -> &Arc<dyn Kernel> {
        &self.kernel
    }

    /// Destroys it. After a failure the object stays in the kernel until its descriptor is closed.
    pub(crate) fn destroy(mut self) -> Result<(), Error> {
        self.destroy_once()
    }

    /// The error for an object that others in this process still hold.
    pub(crate) fn still_used(kind: &str, id: u32) -> Error {
        Error::StillUsed { object: format!("{kind} {id}") }
    }

    fn destroy_once(&mut self) -> Result<(), Error> {
        if std::mem::replace(&mut self.destroyed, true) {
            return Ok(());
        }
        self.kernel.destroy(self.id).map_err(|e| match e.raw_os_error() {
            Some(libc::EBUSY) => Self::still_used(self.kind, self.id),
            _ => Error::failed(Call::Destroy, e),
        })
    }
}

impl Drop for Object {
    fn drop(&mut self) {
        if let Err(e) = self.destroy_once() {
            log::warn!("iommufd: {} {} stays behind: {e}", self.kind, self.id);
        }
    }
}
