//! Message routes of passed-through functions: an eventfd that KVM turns into an ITS event without a visit here.
//!
//! A route never changes while its irqfd lives: changing it would end direct injection (GICv4) for good
//! (arch/arm64/kvm/arm.c, `kvm_arch_update_irqfd_routing`). A new event gets a new route.
#![forbid(unsafe_code)]

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kvm_bindings::{
    KVM_IRQ_ROUTING_MSI, KVM_MSI_VALID_DEVID, KvmIrqRouting, kvm_irq_routing_entry,
    kvm_irq_routing_entry__bindgen_ty_1, kvm_irq_routing_msi, kvm_irq_routing_msi__bindgen_ty_1,
};
use kvm_ioctls::VmFd;
use vmm_sys_util::eventfd::EventFd;

use super::doorbell;

/// GSIs that KVM can route (`KVM_MAX_IRQ_ROUTES`, include/linux/kvm_host.h).
const MAX_ROUTES: usize = 4096;

/// All message routes of one VM. The VM's GSI routing table belongs to this object.
#[derive(Debug)]
pub struct MsiRoutes {
    vm: Arc<VmFd>,
    doorbell: u64,
    table: Mutex<RouteTable>,
}

impl MsiRoutes {
    /// Routes to the ITS whose registers are at guest physical address `its`.
    pub fn new(vm: Arc<VmFd>, its: u64) -> Self {
        Self { vm, doorbell: doorbell(its), table: Mutex::default() }
    }

    /// From now on each signal of `trigger` raises event `data` of `device_id`. Returns the route's GSI.
    ///
    /// The GIC must be initialised, else KVM says EAGAIN.
    pub fn connect(&self, trigger: &EventFd, device_id: u32, data: u32) -> io::Result<u32> {
        let mut table = self.lock();
        let gsi = table.allocate(Route { device_id, data }).ok_or_else(|| {
            io::Error::other(format!("all {MAX_ROUTES} interrupt routes of the VM are in use: give it fewer devices"))
        })?;
        let connected = KvmIrqRouting::from_entries(&table.entries(self.doorbell))
            .map_err(io::Error::other)
            .and_then(|routing| Ok(self.vm.set_gsi_routing(&routing)?))
            .and_then(|()| Ok(self.vm.register_irqfd(trigger, gsi)?));
        match connected {
            Ok(()) => Ok(gsi),
            Err(error) => {
                table.release(gsi);
                Err(error)
            }
        }
    }

    /// Ends the route `gsi` that `connect` made for `trigger`. Signals that come later stay in the eventfd.
    pub fn disconnect(&self, trigger: &EventFd, gsi: u32) {
        let mut table = self.lock();
        match self.vm.unregister_irqfd(trigger, gsi) {
            // KVM keeps the unused entry until the next `connect` writes the table: one ioctl less, no effect.
            Ok(()) => table.release(gsi),
            // The GSI stays taken: the eventfd may still be bound to it.
            Err(error) => log::warn!("interrupt route {gsi}: cannot unbind its eventfd: {error}"),
        }
    }

    fn lock(&self) -> MutexGuard<'_, RouteTable> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a GSI becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Route {
    device_id: u32,
    data: u32,
}

/// Which GSI is which route; the index is the GSI.
#[derive(Debug, Default)]
struct RouteTable(Vec<Option<Route>>);

impl RouteTable {
    /// Takes the lowest free GSI.
    fn allocate(&mut self, route: Route) -> Option<u32> {
        let gsi = self.0.iter().position(Option::is_none).unwrap_or(self.0.len());
        if gsi >= MAX_ROUTES {
            return None;
        }
        match self.0.get_mut(gsi) {
            Some(free) => *free = Some(route),
            None => self.0.push(Some(route)),
        }
        u32::try_from(gsi).ok()
    }

    fn release(&mut self, gsi: u32) {
        if let Some(slot) = self.0.get_mut(gsi as usize) {
            *slot = None;
        }
    }

    fn entries(&self, doorbell: u64) -> Vec<kvm_irq_routing_entry> {
        (0..).zip(&self.0).filter_map(|(gsi, route)| Some(entry(gsi, (*route)?, doorbell))).collect()
    }
}

fn entry(gsi: u32, route: Route, doorbell: u64) -> kvm_irq_routing_entry {
    kvm_irq_routing_entry {
        gsi,
        type_: KVM_IRQ_ROUTING_MSI,
        flags: KVM_MSI_VALID_DEVID,
        pad: 0,
        u: kvm_irq_routing_entry__bindgen_ty_1 {
            msi: kvm_irq_routing_msi {
                address_lo: doorbell as u32,
                address_hi: (doorbell >> 32) as u32,
                data: route.data,
                __bindgen_anon_1: kvm_irq_routing_msi__bindgen_ty_1 { devid: route.device_id },
            },
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Route = Route { device_id: 0x900, data: 0 };
    const B: Route = Route { device_id: 0x900, data: 1 };

    #[test]
    fn a_released_gsi_is_the_next_one_taken() {
        let mut table = RouteTable::default();
        assert_eq!(table.allocate(A), Some(0));
        assert_eq!(table.allocate(B), Some(1));
        assert_eq!(table.allocate(A), Some(2));
        table.release(1);
        assert_eq!(table.entries(0).len(), 2);
        assert_eq!(table.allocate(B), Some(1));
        assert_eq!(table.allocate(B), Some(3));
    }

    #[test]
    fn the_table_ends_where_kvm_ends() {
        let mut table = RouteTable::default();
        for gsi in 0..MAX_ROUTES {
            assert_eq!(table.allocate(A), Some(gsi as u32));
        }
        assert_eq!(table.allocate(A), None);
        table.release(77);
        assert_eq!(table.allocate(A), Some(77));
    }

    #[test]
    fn releasing_what_is_not_there_changes_nothing() {
        let mut table = RouteTable::default();
        table.release(5);
        assert_eq!(table.allocate(A), Some(0));
    }

    #[test]
    fn an_entry_names_its_gsi_and_says_that_the_device_id_is_valid() {
        let mut table = RouteTable::default();
        table.allocate(A);
        table.allocate(B);
        table.release(0);
        let [entry] = table.entries(0x0809_0040).try_into().unwrap();
        assert_eq!((entry.gsi, entry.type_, entry.flags), (1, KVM_IRQ_ROUTING_MSI, KVM_MSI_VALID_DEVID));
    }
}
