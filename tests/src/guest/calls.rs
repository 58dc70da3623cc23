//! Programs on a kernel that lacks a call, as an older one does: a seccomp filter answers it in the kernel's place.

use std::collections::BTreeMap;
use std::io;
use std::process::{Child, Command};

use rustix::io::Errno;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
};

/// A call that not every kernel with iommufd has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// `IOMMU_IOAS_MAP_FILE`, Linux 6.13.
    IoasMapFile,
    /// `IOMMU_VIOMMU_ALLOC`, Linux 6.13.
    ViommuAlloc,
    /// `IOMMU_VDEVICE_ALLOC`, Linux 6.13.
    VdeviceAlloc,
    /// `IOMMU_VEVENTQ_ALLOC`, Linux 6.15.
    VeventqAlloc,
    /// `VFIO_DEVICE_ATTACH_IOMMUFD_PT`, Linux 6.6.
    Attach,
}

impl Call {
    /// The request of its ioctl: `_IO(';', n)` of `include/uapi/linux/iommufd.h` and `vfio.h`.
    const fn request(self) -> u32 {
        match self {
            Self::IoasMapFile => 0x3b8f,
            Self::ViommuAlloc => 0x3b90,
            Self::VdeviceAlloc => 0x3b91,
            Self::VeventqAlloc => 0x3b93,
            Self::Attach => 0x3b77,
        }
    }
}

/// Starts a program for which this call ends with ENOTTY, whoever opened the file.
pub(super) fn spawn_without(call: Call, command: &mut Command) -> io::Result<Child> {
    without(call.request(), || command.spawn()).and_then(|child| child)
}

/// Runs `what` in a thread for which an ioctl with this request ends with ENOTTY. A filter belongs to its thread and to
/// what that starts, and cannot be taken off again.
fn without<T: Send>(request: u32, what: impl FnOnce() -> T + Send) -> io::Result<T> {
    let filter = filter(request).map_err(io::Error::other)?;
    let filtered = || {
        seccompiler::apply_filter(&filter).map_err(io::Error::other)?;
        Ok(what())
    };
    std::thread::scope(|scope| scope.spawn(filtered).join()).unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn filter(request: u32) -> Result<BpfProgram, seccompiler::BackendError> {
    let is_it = SeccompCondition::new(1, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, request.into())?;
    let rules = BTreeMap::from([(libc::SYS_ioctl, vec![SeccompRule::new(vec![is_it])?])]);
    let unknown = SeccompAction::Errno(Errno::NOTTY.raw_os_error().unsigned_abs());
    SeccompFilter::new(rules, SeccompAction::Allow, unknown, std::env::consts::ARCH.try_into()?)?.try_into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::io::ioctl_fionread;

    const FIONREAD: u32 = 0x541b;

    #[test]
    fn one_call_is_unknown_in_the_filtered_thread_only() {
        let (reader, writer) = rustix::pipe::pipe().expect("there are pipes");
        rustix::io::write(&writer, b"three").expect("a pipe has room");
        let filtered = without(FIONREAD, || (ioctl_fionread(&reader), rustix::io::read(&reader, &mut [0; 2])));
        assert_eq!(filtered.expect("filters can be set"), (Err(Errno::NOTTY), Ok(2)));
        assert_eq!(ioctl_fionread(&reader), Ok(3));
    }
}
