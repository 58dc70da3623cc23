//! Gets a vCPU thread out of KVM_RUN.
//!
//! The kick is a real-time signal that stays blocked in the vCPU's thread except inside KVM_RUN
//! (KVM_SET_SIGNAL_MASK). It is therefore never delivered: no handler is needed, and a kick that comes early stays
//! pending and ends the next KVM_RUN at once.

use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::thread::JoinHandleExt;
use std::thread::JoinHandle;

use kvm_bindings::{KVMIO, kvm_signal_mask};
use kvm_ioctls::VcpuFd;
use vmm_sys_util::ioctl::ioctl_with_ptr;
use vmm_sys_util::ioctl_iow_nr;

ioctl_iow_nr!(KVM_SET_SIGNAL_MASK, KVMIO, 0x8b, kvm_signal_mask);

/// `struct kvm_signal_mask` with the kernel's 64-bit signal set behind it (include/uapi/linux/kvm.h).
#[repr(C, packed)]
struct SignalMask {
    length: u32,
    set: u64,
}

fn kick_signal() -> libc::c_int {
    libc::SIGRTMIN()
}

fn kick_set() -> libc::sigset_t {
    let mut set = std::mem::MaybeUninit::uninit();
    // SAFETY: sigemptyset initialises the set that the pointer names; sigaddset then gets an initialised one.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        libc::sigaddset(set.as_mut_ptr(), kick_signal());
        set.assume_init()
    }
}

/// Blocks the kick in the calling thread until it is dropped. Threads that start meanwhile are born with it blocked: a
/// kick that comes before they are ready stays pending instead of ending the process.
pub(super) struct Blocked {
    before: libc::sigset_t,
}

impl Blocked {
    pub(super) fn new() -> io::Result<Self> {
        let mut before = kick_set();
        // SAFETY: both pointers name valid sets that live across the call.
        match unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &kick_set(), &mut before) } {
            0 => Ok(Self { before }),
            error => Err(io::Error::from_raw_os_error(error)),
        }
    }
}

impl Drop for Blocked {
    fn drop(&mut self) {
        // SAFETY: `before` was filled in by the same call; it cannot fail with a valid `how`.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &self.before, std::ptr::null_mut()) };
    }
}

/// Prepares the calling thread, which is to run `vcpu` and was born under [`Blocked`], for kicks.
pub(super) fn accept(vcpu: &VcpuFd) -> io::Result<()> {
    let mut blocked = kick_set();
    // SAFETY: the pointer names a valid set that lives across the call.
    unsafe {
        let error = libc::pthread_sigmask(libc::SIG_BLOCK, std::ptr::null(), &mut blocked);
        if error != 0 {
            return Err(io::Error::from_raw_os_error(error));
        }
    }
    let set = (1..=64)
        .filter(|&signal| signal != kick_signal()) // the one that KVM_RUN lets in
        // SAFETY: `blocked` is initialised and the signal number is in range; libc refuses its own internal ones.
        .filter(|&signal| unsafe { libc::sigismember(&blocked, signal) } == 1)
        .fold(0, |set, signal| set | 1u64 << (signal - 1));
    let mask = SignalMask { length: 8, set };
    // SAFETY: the kernel reads 4 + 8 bytes, which is what `mask` holds.
    let result = unsafe { ioctl_with_ptr(&vcpu.as_raw_fd(), KVM_SET_SIGNAL_MASK(), &mask) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Takes pending kicks of the calling thread away, so that the next KVM_RUN runs.
pub(super) fn clear() {
    let kick = kick_set();
    let now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointers name valid objects; no information about the signal is asked for.
    while unsafe { libc::sigtimedwait(&kick, std::ptr::null_mut(), &now) } >= 0 {}
}

/// Kicks the vCPU thread behind `thread`. One that has already returned is left alone.
pub(super) fn send<T>(thread: &JoinHandle<T>) {
    if !thread.is_finished() {
        // SAFETY: the thread has not been joined, so its identifier is valid.
        unsafe { libc::pthread_kill(thread.as_pthread_t() as libc::pthread_t, kick_signal()) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_early_kick_stays_pending_until_it_is_cleared() {
        let blocked = Blocked::new().unwrap();
        let (go, wait) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || {
            wait.recv().unwrap();
            clear();
        });
        drop(blocked);
        send(&thread);
        go.send(()).unwrap();
        thread.join().unwrap();
    }

    #[test]
    fn the_kernel_reads_the_set_right_behind_the_length() {
        assert_eq!(std::mem::size_of::<SignalMask>(), 12);
    }
}
