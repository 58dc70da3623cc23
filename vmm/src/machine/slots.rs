//! KVM memory slots: host memory in the guest's physical address space.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};

use kvm_bindings::{KVM_MEM_READONLY, kvm_userspace_memory_region};
use kvm_ioctls::VmFd;
use nestling_devices::mapping::{Error, GuestMapper, HostMemory};

/// The memory slots of one VM.
pub struct KvmSlots {
    vm: Arc<VmFd>,
    slots: Mutex<Slots>,
}

#[derive(Default)]
struct Slots {
    used: BTreeMap<u64, Used>,
    free: Vec<u32>,
    next: u32,
}

struct Used {
    slot: u32,
    memory: Arc<dyn HostMemory>,
}

impl KvmSlots {
    /// No slot yet.
    pub fn new(vm: Arc<VmFd>) -> Self {
        Self { vm, slots: Mutex::default() }
    }

    fn set(&self, slot: u32, guest_address: u64, length: u64, memory: &dyn HostMemory) -> io::Result<()> {
        let region = kvm_userspace_memory_region {
            slot,
            flags: if memory.read_only() { KVM_MEM_READONLY } else { 0 },
            guest_phys_addr: guest_address,
            memory_size: length,
            userspace_addr: memory.host_address(),
        };
        // SAFETY: a HostMemory stays mapped as long as it lives, and `slots` keeps it until the slot is gone.
        unsafe { self.vm.set_user_memory_region(region) }.map_err(|e| io::Error::from_raw_os_error(e.errno()))
    }
}

impl GuestMapper for KvmSlots {
    fn map(&self, guest_address: u64, memory: Arc<dyn HostMemory>) -> Result<(), Error> {
        let mut slots = self.slots.lock().unwrap_or_else(|e| e.into_inner());
        let slot = slots.free.pop().unwrap_or_else(|| {
            slots.next += 1;
            slots.next - 1
        });
        let length = memory.length();
        if let Err(source) = self.set(slot, guest_address, length, &*memory) {
            slots.free.push(slot);
            return Err(Error { guest_address, length, source });
        }
        slots.used.insert(guest_address, Used { slot, memory });
        Ok(())
    }

    fn unmap(&self, guest_address: u64) {
        let mut slots = self.slots.lock().unwrap_or_else(|e| e.into_inner());
        let Some(Used { slot, memory }) = slots.used.remove(&guest_address) else { return };
        match self.set(slot, guest_address, 0, &*memory) {
            Ok(()) => slots.free.push(slot),
            Err(error) => {
                log::error!("memory slot {slot} at {guest_address:#x} cannot be removed: {error}");
                // The guest still reaches this memory: it has to stay mapped as long as the process lives.
                std::mem::forget(memory);
            }
        }
    }
}
