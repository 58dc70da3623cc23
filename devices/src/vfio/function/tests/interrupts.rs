//! MSI and MSI-X as the guest drives them and the host sees it.

use super::*;

#[test]
fn an_unmasked_vector_is_enabled_on_the_host_and_routed_with_the_guests_data() {
    let guest = guest();
    guest.enable();
    guest.write16(MSIX + 2, 0x8000);
    assert_eq!(guest.take(), [Entry::SetIrqs { index: irq::MSIX, start: 0, connected: vec![true] }]);
    guest.open(3, 0x33);
    assert_eq!(
        guest.take(),
        [
            Entry::SetIrqs { index: irq::MSIX, start: 3, connected: vec![true] },
            Entry::Connect { device_id: REQUESTER, data: 0x33 }
        ]
    );
    assert_eq!(guest.function.counters().routed_vectors, 1);
}

#[test]
fn an_entry_written_before_msi_x_is_enabled_counts_afterwards() {
    let guest = guest();
    guest.enable();
    guest.open(1, 0x11);
    assert_eq!(guest.take(), []);
    guest.write16(MSIX + 2, 0x8000);
    assert!(guest.take().contains(&Entry::Connect { device_id: REQUESTER, data: 0x11 }));
}

#[test]
fn an_interrupt_at_a_masked_vector_is_pending_and_delivered_when_it_opens() {
    let guest = guest();
    guest.enable();
    guest.write16(MSIX + 2, 0x8000);
    guest.open(2, 0x22);
    guest.table(2, 3, 1);
    assert_eq!(guest.take().last(), Some(&Entry::Disconnect { data: 0x22 }));
    assert_eq!(guest.pending(), 0);
    guest.host.raise(irq::MSIX, 2);
    assert_eq!((guest.pending(), guest.pending()), (4, 4), "looking does not take it");
    guest.table(2, 2, 0x99);
    guest.table(2, 3, 0);
    assert_eq!(guest.delivered(), [0x99]);
    assert_eq!(guest.pending(), 0);
}

#[test]
fn the_function_mask_holds_all_vectors_back() {
    let guest = guest();
    guest.enable();
    guest.write16(MSIX + 2, 0xc000);
    guest.open(0, 0x10);
    guest.host.raise(irq::MSIX, 0);
    assert_eq!((guest.pending(), guest.delivered()), (1, vec![]));
    guest.write16(MSIX + 2, 0x8000);
    assert_eq!(guest.delivered(), [0x10]);
}

#[test]
fn disabling_msi_x_frees_everything_and_keeps_the_table() {
    let guest = guest();
    guest.enable();
    guest.write16(MSIX + 2, 0x8000);
    guest.open(0, 0x10);
    guest.take();
    guest.write16(MSIX + 2, 0);
    let [silence, silenced] = SILENCE;
    let entries = [Entry::Disconnect { data: 0x10 }, Entry::DisableIrqs(irq::MSIX), silence, silenced];
    assert_eq!(guest.take(), entries);
    let mut data = [0; 4];
    guest.bus.read(BAR0 + 0x2008, &mut data);
    assert_eq!(u32::from_le_bytes(data), 0x10);
    guest.write16(MSIX + 2, 0x8000);
    assert!(guest.take().contains(&Entry::Connect { device_id: REQUESTER, data: 0x10 }));
}

#[test]
fn a_host_that_cannot_add_vectors_starts_over_with_more() {
    let mut host = device();
    host.vectors(irq::MSIX, 8, false);
    let guest = guest_with(host);
    guest.enable();
    guest.write16(MSIX + 2, 0x8000);
    guest.take();
    guest.open(2, 0x22);
    let entries = guest.take();
    assert_eq!(entries[0], Entry::DisableIrqs(irq::MSIX));
    assert_eq!(entries[1..3], SILENCE);
    assert_eq!(entries[3], Entry::SetIrqs { index: irq::MSIX, start: 0, connected: vec![true, false, true] });
}

#[test]
fn a_host_that_fails_to_add_a_vector_keeps_those_before() {
    let mut host = device();
    host.vectors(irq::MSIX, 8, false);
    let guest = guest_with(host);
    guest.enable();
    guest.write16(MSIX + 2, 0x8000);
    guest.open(0, 0x10);
    guest.take();
    *guest.host.fail_irqs.lock().unwrap() = (0, 1);
    guest.open(2, 0x22);
    let again = Entry::SetIrqs { index: irq::MSIX, start: 0, connected: vec![true] };
    assert_eq!(guest.take().last(), Some(&again));
    guest.host.raise(irq::MSIX, 0);
    assert_eq!((guest.function.counters().routed_vectors, guest.function.counters().errors), (1, 1));
    guest.table(2, 3, 0);
    assert_eq!(guest.function.counters().routed_vectors, 2, "the next time it works");
}

#[test]
fn a_vector_that_cannot_be_routed_takes_no_other_along() {
    let guest = guest();
    guest.enable();
    guest.write16(MSIX + 2, 0xc000);
    (0..4).for_each(|vector| guest.open(vector, 0x10 + vector as u32));
    guest.router.refused.lock().unwrap().push(0x11);
    guest.write16(MSIX + 2, 0x8000);
    assert_eq!((guest.function.counters().routed_vectors, guest.function.counters().errors), (3, 1));
    guest.write16(MSIX + 2, 0);

    guest.write16(MSI + 12, 0x10);
    guest.write16(MSI + 2, 1 | 2 << 4);
    assert_eq!((guest.function.counters().routed_vectors, guest.function.counters().errors), (3, 2));
}

#[test]
fn the_table_reads_back_and_only_the_mask_bit_of_vector_control_sticks() {
    let guest = guest();
    guest.enable();
    let entry = BAR0 + 0x2000 + 16 * 7;
    assert!(guest.bus.write(entry, &0x0123_4567_89ab_cdefu64.to_le_bytes()));
    assert!(guest.bus.write(entry + 12, &u32::MAX.to_le_bytes()));
    let mut data = [0; 8];
    guest.bus.read(entry, &mut data);
    assert_eq!(u64::from_le_bytes(data), 0x0123_4567_89ab_cdef);
    guest.bus.read(entry + 8, &mut data);
    assert_eq!(u64::from_le_bytes(data), 1 << 32);
    assert!(guest.bus.write(entry + 2, &[0xff; 2]), "half a field is ignored");
    guest.bus.read(entry, &mut data);
    assert_eq!(u64::from_le_bytes(data), 0x0123_4567_89ab_cdef);
}

#[test]
fn msi_vectors_take_their_number_into_the_low_bits_of_the_data() {
    let guest = guest();
    guest.enable();
    guest.write(MSI + 4, 0xdead_b000);
    guest.write16(MSI + 12, 0x57);
    guest.write16(MSI + 2, 0x0001 | 1 << 4); // two vectors
    assert_eq!(
        guest.take(),
        [
            Entry::SetIrqs { index: irq::MSI, start: 0, connected: vec![true, true] },
            Entry::Connect { device_id: REQUESTER, data: 0x56 },
            Entry::Connect { device_id: REQUESTER, data: 0x57 },
        ]
    );
    guest.write16(MSI + 2, 0);
    assert!(guest.take().contains(&Entry::DisableIrqs(irq::MSI)));
}

#[test]
fn a_masked_msi_vector_is_pending_until_it_opens() {
    let guest = guest();
    guest.enable();
    guest.write16(MSI + 12, 0x40);
    guest.write(MSI + 16, 1);
    guest.write16(MSI + 2, 1);
    guest.host.raise(irq::MSI, 0);
    assert_eq!(guest.read(MSI + 20), 1);
    guest.write(MSI + 16, 0);
    assert_eq!(guest.delivered(), [0x40]);
    assert_eq!(guest.read(MSI + 20), 0);
}
