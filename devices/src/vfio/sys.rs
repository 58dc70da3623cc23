//! The calls that `vfio-ioctls` does not have or whose answers it drops: SET_IRQS for any vectors, RESET with its
//! errno, resets of the bus, and mmap of regions. The only module of this room with unsafe code.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::ptr;

use vfio_bindings::bindings::vfio;
use vmm_sys_util::eventfd::EventFd;
use vmm_sys_util::ioctl::{_IOC_NONE, ioctl, ioctl_expr, ioctl_with_mut_ptr, ioctl_with_ptr};

use crate::mapping::HostMemory;

/// `VFIO_DEVICE_SET_IRQS`, `VFIO_DEVICE_RESET`, `VFIO_DEVICE_GET_PCI_HOT_RESET_INFO` and `VFIO_DEVICE_PCI_HOT_RESET`,
/// counted from VFIO_BASE.
const SET_IRQS: u32 = vfio::VFIO_BASE + 10;
const RESET: u32 = vfio::VFIO_BASE + 11;
const GET_HOT_RESET_INFO: u32 = vfio::VFIO_BASE + 12;
const HOT_RESET: u32 = vfio::VFIO_BASE + 13;

/// 32-bit words of `struct vfio_pci_hot_reset_info` and of `struct vfio_pci_hot_reset` before their data.
const HOT_RESET_WORDS: usize = 3;
/// 32-bit words of `struct vfio_pci_dependent_device`.
const DEPENDENT_WORDS: usize = 2;

/// 32-bit words of `struct vfio_irq_set` before its data.
const IRQ_SET_WORDS: usize = 5;

/// `VFIO_DEVICE_SET_IRQS`: connects eventfds to vectors from `start` on; no triggers at all frees the index.
pub(super) fn set_irqs(device: &File, index: u32, start: u32, triggers: &[Option<&EventFd>]) -> io::Result<()> {
    let data = if triggers.is_empty() { vfio::VFIO_IRQ_SET_DATA_NONE } else { vfio::VFIO_IRQ_SET_DATA_EVENTFD };
    let words = IRQ_SET_WORDS + triggers.len();
    let mut set = Vec::with_capacity(words);
    set.extend([
        (words * size_of::<u32>()) as u32,
        data | vfio::VFIO_IRQ_SET_ACTION_TRIGGER,
        index,
        start,
        triggers.len() as u32,
    ]);
    set.extend(triggers.iter().map(|trigger| trigger.map_or(-1, |fd| fd.as_raw_fd()) as u32));
    let request = ioctl_expr(_IOC_NONE, vfio::VFIO_TYPE.into(), SET_IRQS, 0);
    // SAFETY: `set` is a `struct vfio_irq_set` with its `argsz` bytes; the kernel only reads it.
    match unsafe { ioctl_with_ptr(device, request, set.as_ptr()) } {
        0 => Ok(()),
        // The kernel says how many vectors there are when there are not enough (vfio_msi_enable).
        1.. => Err(io::Error::from_raw_os_error(libc::ENOSPC)),
        _ => Err(io::Error::last_os_error()),
    }
}

/// `VFIO_DEVICE_RESET`.
pub(super) fn reset(device: &File) -> io::Result<()> {
    let request = ioctl_expr(_IOC_NONE, vfio::VFIO_TYPE.into(), RESET, 0);
    // SAFETY: the ioctl has no argument.
    match unsafe { ioctl(device, request) } {
        0.. => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// `VFIO_DEVICE_GET_PCI_HOT_RESET_INFO`: whether a reset of the bus would reset this device alone. An error if there is
/// no such reset.
pub(super) fn is_alone_on_bus(device: &File) -> io::Result<bool> {
    let mut info = [0u32; HOT_RESET_WORDS + DEPENDENT_WORDS];
    info[0] = size_of_val(&info) as u32;
    let request = ioctl_expr(_IOC_NONE, vfio::VFIO_TYPE.into(), GET_HOT_RESET_INFO, 0);
    // SAFETY: `info` is a `struct vfio_pci_hot_reset_info` with its `argsz` bytes, room for one device included.
    match unsafe { ioctl_with_mut_ptr(device, request, info.as_mut_ptr()) } {
        0.. => Ok(info[2] == 1),
        _ => match io::Error::last_os_error() {
            // There are more.
            error if error.raw_os_error() == Some(libc::ENOSPC) => Ok(false),
            error => Err(error),
        },
    }
}

/// `VFIO_DEVICE_PCI_HOT_RESET` of a character device: it owns everything that is reset by its iommufd.
pub(super) fn reset_bus(device: &File) -> io::Result<()> {
    let reset = [(HOT_RESET_WORDS * size_of::<u32>()) as u32, 0, 0];
    let request = ioctl_expr(_IOC_NONE, vfio::VFIO_TYPE.into(), HOT_RESET, 0);
    // SAFETY: `reset` is a `struct vfio_pci_hot_reset` with its `argsz` bytes; the kernel only reads it.
    match unsafe { ioctl_with_ptr(device, request, reset.as_ptr()) } {
        0.. => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Bytes of a page of the host.
pub(super) fn page_size() -> u64 {
    // SAFETY: sysconf has no preconditions.
    u64::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096)
}

/// A mapped part of a region. Nothing in this process accesses it; it is handed to the guest.
#[derive(Debug)]
pub(super) struct Mapping {
    address: *mut libc::c_void,
    length: usize,
}

// SAFETY: the address is only a number here: no access goes through it in this process.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps `length` bytes of the device's file at `offset`, both multiples of the page size, at an address that has
    /// the same position within a 1 GiB page as the offset, so that the kernel can use huge pages for large BARs.
    pub(super) fn new(device: &File, offset: u64, length: u64) -> io::Result<Self> {
        const HUGE: usize = 1 << 30;
        const LARGE: usize = 2 << 20;
        let too_large = || io::Error::from_raw_os_error(libc::EOVERFLOW);
        let length = usize::try_from(length).map_err(|_| too_large())?;
        let align = if length >= HUGE { HUGE } else { LARGE };
        let reserved = length.checked_add(align).ok_or_else(too_large)?;
        let file_offset = libc::off_t::try_from(offset).map_err(|_| too_large())?;
        // SAFETY: reserves address space at a place that the kernel chooses.
        let reserve = unsafe {
            libc::mmap(
                ptr::null_mut(),
                reserved,
                libc::PROT_NONE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        if reserve == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let wanted = (offset % align as u64) as usize;
        let head = wanted.wrapping_sub(reserve as usize) % align;
        let address = reserve.wrapping_byte_add(head);
        // SAFETY: `address..address + length` lies in the reservation just made, which nobody else knows.
        let mapped = unsafe {
            libc::mmap(
                address,
                length,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_FIXED,
                device.as_fd().as_raw_fd(),
                file_offset,
            )
        };
        if mapped == libc::MAP_FAILED {
            let error = io::Error::last_os_error();
            // SAFETY: the reservation, which nobody uses.
            unsafe { libc::munmap(reserve, reserved) };
            return Err(error);
        }
        let tail = address.wrapping_byte_add(length);
        // SAFETY: the rest of the reservation in front of and behind the mapping; all three are page-aligned.
        unsafe {
            if head > 0 {
                libc::munmap(reserve, head);
            }
            if reserved > head + length {
                libc::munmap(tail, reserved - head - length);
            }
        }
        Ok(Self { address, length })
    }
}

impl HostMemory for Mapping {
    fn host_address(&self) -> u64 {
        self.address as u64
    }

    fn length(&self) -> u64 {
        self.length as u64
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: our own mapping; the guest's slots on it hold an Arc of it, so they are gone.
        if unsafe { libc::munmap(self.address, self.length) } != 0 {
            log::error!("vfio: a mapped region stays: {}", io::Error::last_os_error());
        }
    }
}
