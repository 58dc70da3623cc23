//! What follows a function to another requester ID: its stream and its messages.

use super::*;

/// A vSMMU that remembers what it was told.
#[derive(Default)]
struct Told {
    numbers: Mutex<Vec<Option<Bdf>>>,
    refuses: Mutex<bool>,
}

impl Upstream for Told {
    fn renumber(&self, to: Option<Bdf>) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        self.numbers.lock().unwrap().push(to);
        if *self.refuses.lock().unwrap() { Err("no".into()) } else { Ok(()) }
    }
}

impl Told {
    fn take(&self) -> Vec<Option<Bdf>> {
        std::mem::take(&mut self.numbers.lock().unwrap())
    }
}

const PLANNED: Bdf = Bdf::from_requester_id(REQUESTER as u16);
const NEW: Bdf = Bdf::new(0x22, 0, 0);

/// A guest with open MSI-X vectors 0 and 1, the second masked, and what its vSMMU is told.
fn behind() -> (Guest, Arc<Told>) {
    let guest = guest();
    let told = Arc::new(Told::default());
    guest.function.set_upstream(told.clone());
    guest.function.on_requester_id(PLANNED);
    assert_eq!(told.take(), [], "no news");
    guest.enable();
    guest.write16(MSIX + 2, 0x8000);
    guest.open(0, 0x10);
    guest.open(1, 0x11);
    guest.table(1, 3, 1);
    guest.take();
    (guest, told)
}

#[test]
fn stream_and_open_vectors_follow_to_a_new_number() {
    let (guest, told) = behind();
    guest.function.on_requester_id(NEW);
    assert_eq!(told.take(), [Some(NEW)]);
    assert_eq!(guest.function.requester_id(), Some(NEW));
    let moved = [Entry::Disconnect { data: 0x10 }, Entry::Connect { device_id: 0x2200, data: 0x10 }];
    assert_eq!(guest.take(), moved);
    guest.table(1, 3, 0);
    assert_eq!(guest.take().last(), Some(&Entry::Connect { device_id: 0x2200, data: 0x11 }));
    assert_eq!(guest.function.counters().moves, 1);
}

#[test]
fn without_a_number_interrupts_wait_and_come_with_the_next() {
    let (guest, told) = behind();
    guest.function.on_unreachable();
    assert_eq!((told.take(), guest.function.requester_id()), (vec![None], None));
    assert_eq!(guest.take(), [Entry::Disconnect { data: 0x10 }]);
    guest.host.raise(irq::MSIX, 0);
    guest.table(0, 2, 0x77);
    guest.table(1, 3, 0);
    assert_eq!((guest.function.counters().routed_vectors, guest.pending()), (0, 1));
    guest.function.on_requester_id(NEW);
    assert_eq!(guest.delivered(), [0x77], "as the guest has it by then");
    assert_eq!(guest.function.counters().routed_vectors, 2);
}

#[test]
fn a_vector_that_was_masked_meanwhile_stays_so() {
    let (guest, _) = behind();
    guest.function.on_unreachable();
    guest.table(0, 3, 1);
    guest.function.on_requester_id(NEW);
    assert_eq!(guest.function.counters().routed_vectors, 0);
}

#[test]
fn msi_follows_too() {
    let (guest, _) = behind();
    guest.write16(MSIX + 2, 0);
    guest.write(MSI + 4, 0xdead_b000);
    guest.write16(MSI + 12, 0x40);
    guest.write16(MSI + 2, 1);
    guest.take();
    guest.function.on_requester_id(NEW);
    assert_eq!(guest.take(), [Entry::Disconnect { data: 0x40 }, Entry::Connect { device_id: 0x2200, data: 0x40 }]);
}

#[test]
fn the_vsmmu_is_told_of_resets_at_the_number_that_the_function_has() {
    let (guest, told) = behind();
    guest.function.on_requester_id(NEW);
    guest.write16(EXPRESS + 8, 0x8000);
    assert_eq!(told.take(), [Some(NEW), Some(NEW)]);
    guest.function.on_unreachable();
    guest.function.reset();
    assert_eq!(told.take(), [None, None], "and that it has none");
}

#[test]
fn a_vsmmu_that_cannot_follow_is_counted() {
    let (guest, told) = behind();
    *told.refuses.lock().unwrap() = true;
    guest.function.on_requester_id(NEW);
    assert_eq!((guest.function.counters().errors, guest.function.counters().moves), (1, 1));
    assert_eq!(guest.function.counters().routed_vectors, 1, "what works goes on");
}
