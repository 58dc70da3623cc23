//! Device attributes of a KVM device with the name of the device in each error.
#![allow(unsafe_code)] // KVM_GET_DEVICE_ATTR writes through a pointer

use kvm_bindings::kvm_device_attr;
use kvm_ioctls::DeviceFd;

use crate::gic::GicError;

/// A KVM device that is configured by attributes.
#[derive(Debug)]
pub(crate) struct Attributes {
    fd: DeviceFd,
    device: &'static str,
}

impl Attributes {
    pub(crate) fn new(fd: DeviceFd, device: &'static str) -> Self {
        Self { fd, device }
    }

    /// An attribute without a value.
    pub(crate) fn command(&self, group: u32, attr: u32, step: &'static str) -> Result<(), GicError> {
        self.set(kvm_device_attr { group, attr: attr.into(), ..Default::default() }, step)
    }

    /// An attribute of 4 bytes.
    pub(crate) fn set_u32(
        &self,
        group: u32,
        attr: impl Into<u64>,
        value: u32,
        step: &'static str,
    ) -> Result<(), GicError> {
        self.set(kvm_device_attr { group, attr: attr.into(), addr: &raw const value as u64, flags: 0 }, step)
    }

    /// An attribute of 8 bytes.
    pub(crate) fn set_u64(
        &self,
        group: u32,
        attr: impl Into<u64>,
        value: u64,
        step: &'static str,
    ) -> Result<(), GicError> {
        self.set(kvm_device_attr { group, attr: attr.into(), addr: &raw const value as u64, flags: 0 }, step)
    }

    /// Reads an attribute of at most 8 bytes; a shorter one is in the low bits.
    pub(crate) fn get(&self, group: u32, attr: u64, step: &'static str) -> Result<u64, GicError> {
        let mut value = 0u64;
        let mut request = kvm_device_attr { group, attr, addr: &raw mut value as u64, flags: 0 };
        // SAFETY: `addr` points to 8 writable bytes that outlive the call, and none of the attributes of a GICv3 or
        // an ITS is longer (Documentation/virt/kvm/devices/arm-vgic-v3.rst, arm-vgic-its.rst).
        unsafe { self.fd.get_device_attr(&mut request) }.map_err(|source| self.failed(step, source))?;
        Ok(value)
    }

    fn set(&self, request: kvm_device_attr, step: &'static str) -> Result<(), GicError> {
        self.fd.set_device_attr(&request).map_err(|source| self.failed(step, source))
    }

    fn failed(&self, step: &'static str, source: kvm_ioctls::Error) -> GicError {
        GicError::Attribute { device: self.device, step, source }
    }
}
