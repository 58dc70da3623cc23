//! The KVM edges against a real kernel, with guests of a few instructions.
#![cfg(target_arch = "aarch64")]

mod asm;
mod its;
mod machine;

use asm::{
    ESR_EL1, FAR_EL1, ICC_CTLR_EL1, ICC_IAR1_EL1, ICC_IGRPEN1_EL1, ICC_PMR_EL1, LOAD_AND_STEP, LOAD_PAIR, Program,
    STORE_PAIR, SYNCHRONOUS,
};
use machine::{Machine, Stop, machine};
use nestling_arch::interrupt::routes::MsiRoutes;
use nestling_arch::interrupt::{MsiSender, SpiLine};
use nestling_arch::layout::{GIC_DISTRIBUTOR, GIC_ITS, GIC_REDISTRIBUTORS, HIGH_MMIO_SIZE, HighRegions, ipa_bits};
use nestling_arch::vm::{VmError, create, ipa_limit};
use vmm_sys_util::eventfd::EventFd;

const GICD: u64 = GIC_DISTRIBUTOR.base;
const GICR: u64 = GIC_REDISTRIBUTORS.base;
const GITS: u64 = GIC_ITS.base;
const SPURIOUS: u64 = 1023;
const DEVICE: u32 = 0x900;

#[test]
fn the_first_vcpu_starts_at_the_entry_with_the_tree_in_x0() {
    let Some(mut machine) = machine(2) else { return };
    let program = Program::new().report_x0().power_off();
    assert_eq!(machine.boot(&program), ([machine::FDT].into(), Stop::PowerOff));
}

#[test]
fn every_vcpu_can_be_the_last_one_in_its_cluster() {
    let Some(mut machine) = machine(17) else { return };
    // GICR_TYPER of the last one: Last, and its affinity 0.0.1.0 in the upper half.
    let last = GICR + 16 * 0x2_0000 + 8;
    let program = Program::new().report_at(last).report_at(last + 4).power_off();
    let (reports, _) = machine.boot(&program);
    assert_eq!(reports[0] & 0x10, 0x10);
    assert_eq!(reports[1], 0x100);
}

#[test]
fn a_line_is_pending_while_it_is_high() {
    let Some(mut machine) = machine(1) else { return };
    let line = SpiLine::new(machine.vm.clone(), 33).unwrap();
    // GICD_ICFGR2: KVM starts with edges.
    let program = Program::new().write(GICD + 0xc08, 0).report_value(1);
    machine.start(&program.report_at(GICD + 0x204).report_at(GICD + 0x204));
    assert_eq!(machine.step(), Some(1));
    line.set_level(true);
    assert_eq!(machine.step(), Some(0b10));
    line.set_level(false);
    assert_eq!(machine.step(), Some(0));
    assert_eq!(SpiLine::new(machine.vm.clone(), 31).map(|_| ()), None);
    assert_eq!(SpiLine::new(machine.vm.clone(), 1020).map(|_| ()), None);
}

#[test]
fn messages_and_routes_arrive_as_lpis() {
    let Some(mut machine) = machine(1) else { return };
    its::prepare(&machine, DEVICE);
    machine.start(&its::program());
    assert_eq!(machine.step(), Some(its::READY));
    assert_eq!(machine.step(), Some(SPURIOUS));

    let sender = MsiSender::new(machine.vm.clone(), GITS);
    sender.send(DEVICE, 0);
    assert_eq!(machine.next_interrupt(), Some(8192));
    sender.send(DEVICE, 99); // not mapped: lost
    sender.send(DEVICE + 1, 0);
    assert_eq!(machine.next_interrupt(), None);

    let routes = MsiRoutes::new(machine.vm.clone(), GITS);
    let triggers = [EventFd::new(0).unwrap(), EventFd::new(0).unwrap()];
    let gsis: Vec<_> =
        (0..).zip(&triggers).map(|(data, trigger)| routes.connect(trigger, DEVICE, data).unwrap()).collect();
    triggers[1].write(1).unwrap();
    assert_eq!(machine.next_interrupt(), Some(8193));
    triggers[0].write(1).unwrap();
    assert_eq!(machine.next_interrupt(), Some(8192));

    routes.disconnect(&triggers[1], gsis[1]);
    triggers[1].write(1).unwrap();
    assert_eq!(machine.next_interrupt(), None);
    // What came while it was disconnected is still in the eventfd, and the other route still works.
    let again = routes.connect(&triggers[1], DEVICE, 0).unwrap();
    assert_eq!(again, gsis[1]);
    assert_eq!(machine.next_interrupt(), Some(8192));
    triggers[0].write(1).unwrap();
    assert_eq!(machine.next_interrupt(), Some(8192));
}

#[test]
fn a_reset_leaves_no_trace_of_the_last_guest() {
    let Some(mut machine) = machine(2) else { return };
    its::prepare(&machine, DEVICE);
    let first = Program::new()
        .write(GICD + 0x104, !0) // GICD_ISENABLER1
        .write(GICD + 0x404, 0x8080_8080)
        .write(GICD + 0xc08, 0xaaaa_aaaa) // GICD_ICFGR2: edges
        .write(GICD + 0x6000 + 33 * 8, 1) // GICD_IROUTER33: vCPU 1
        .write(GICD + 0x204, 0b100) // GICD_ISPENDR1
        .write(GICR + 0x1_0100, 0xffff) // GICR_ISENABLER0: SGIs
        .write(GICR + 0x1_0200, 0x8) // GICR_ISPENDR0: SGI 3
        .then(its::program());
    machine.start(&first);
    assert_eq!(machine.step(), Some(its::READY));
    MsiSender::new(machine.vm.clone(), GITS).send(DEVICE, 0);
    let line = SpiLine::new(machine.vm.clone(), 40).unwrap();
    line.set_level(true);
    line.set_level(false);

    machine.reset();
    const VALID: u64 = 1 << 31;
    // Address, the bits that count, what they are.
    let registers = [
        (GICD, !0, 0x50), // GICD_CTLR: DS and ARE only
        (GICD + 0x104, !0, 0),
        (GICD + 0x204, !0, 0),
        (GICD + 0x304, !0, 0), // GICD_ISACTIVER1
        (GICD + 0x404, !0, 0),
        (GICD + 0xc08, !0, 0),
        (GICD + 0x6000 + 33 * 8, !0, 0),
        (GICR, 1, 0), // GICR_CTLR.EnableLPIs
        (GICR + 0x1_0100, !0, 0),
        (GICR + 0x1_0200, !0, 0),
        (GICR + 0x1_0300, !0, 0), // GICR_ISACTIVER0
        (GITS, 1, 0),             // GITS_CTLR.Enabled
        (GITS + 0x84, VALID, 0),  // GITS_CBASER
        (GITS + 0x104, VALID, 0), // GITS_BASER0
        (GITS + 0x10c, VALID, 0), // GITS_BASER1
    ];
    let second = registers
        .iter()
        .fold(Program::new(), |program, (register, ..)| program.report_at(*register))
        .report_register(ICC_IGRPEN1_EL1)
        .report_register(ICC_PMR_EL1)
        .report_register(ICC_CTLR_EL1)
        .write(GICD, 2)
        .set_register(ICC_PMR_EL1, 0xff)
        .set_register(ICC_IGRPEN1_EL1, 1)
        .report_register(ICC_IAR1_EL1)
        .power_off();
    let (reports, stop) = machine.boot(&second);
    assert_eq!(stop, Stop::PowerOff);
    for ((register, mask, expected), found) in registers.iter().zip(&reports) {
        assert_eq!(found & mask, *expected, "{register:#x} is {found:#x}");
    }
    let cpu_interface = &reports[registers.len()..];
    assert_eq!(cpu_interface[..2], [0, 0]);
    assert_eq!(cpu_interface[2] & 0b11, 0, "ICC_CTLR_EL1");
    assert_eq!(cpu_interface[3], SPURIOUS);
}

#[test]
fn a_guest_works_again_after_each_reset() {
    let Some(mut machine) = machine(2) else { return };
    for _ in 0..3 {
        its::prepare(&machine, DEVICE);
        machine.start(&its::program());
        assert_eq!(machine.step(), Some(its::READY));
        MsiSender::new(machine.vm.clone(), GITS).send(DEVICE, 1);
        assert_eq!(machine.next_interrupt(), Some(8193));
        machine.reset();
    }
    let program = Program::new().power_off();
    assert_eq!(machine.boot(&program), (vec![], Stop::PowerOff));
}

#[test]
fn an_unfinished_load_does_not_reach_the_next_guest() {
    let Some(mut machine) = machine(1) else { return };
    // Stops in the load of the report window: KVM owes x2 a value.
    machine.start(&Program::new().report_at(machine::REPORT));
    assert!(machine.stop_in_load());
    machine.reset();
    assert_eq!(machine.boot(&Program::new().report_x0().power_off()).0, [machine::FDT]);
}

#[test]
fn guest_addresses_wider_than_the_host_are_refused() {
    let Some(kvm) = machine::kvm() else { return };
    let limit = ipa_limit(&kvm);
    let high = HighRegions::new(1 << 30, HIGH_MMIO_SIZE).unwrap();
    println!("KVM gives {limit} bits; QEMU's layout needs {}", ipa_bits(high.mmio.end()));
    assert!(matches!(
        create(&kvm, limit + 1),
        Err(VmError::AddressesTooWide { needed, limit: given }) if needed == limit + 1 && given == limit
    ));
    assert!(create(&kvm, limit).is_ok());
}

#[test]
fn a_guest_may_have_fewer_features_than_the_host() {
    let Some(mut machine) = Machine::with_features(1, Default::default()) else { return };
    assert_eq!(machine.boot(&Program::new().power_off()).1, Stop::PowerOff);
}

#[test]
fn an_access_that_kvm_cannot_describe_is_an_external_abort_in_the_guest() {
    const VECTORS: u64 = machine::RAM + 0x1000;
    // A data abort without a change of level, by a synchronous external abort on no table walk.
    const ESR: u64 = 0x25 << 26 | 1 << 25 | 0x10;
    let Some(mut machine) = machine(1) else { return };
    let handler = Program::new().report_register(ESR_EL1).report_register(FAR_EL1).skip_and_return();
    machine.place(&handler, VECTORS + SYNCHRONOUS);
    let program = Program::new().vectors_at(VECTORS).report_value(1);
    let program = program.access(LOAD_PAIR, machine::NOWHERE).access(STORE_PAIR, machine::NOWHERE + 8);
    let program = program.access(LOAD_AND_STEP, machine::NOWHERE + 16).report_value(2).power_off();
    let (reports, stop) = machine.boot(&program);
    assert_eq!(stop, Stop::PowerOff);
    let nowhere = machine::NOWHERE;
    assert_eq!(reports, [1, ESR, nowhere, ESR, nowhere + 8, ESR, nowhere + 16, 2]);
    assert_eq!(machine.undecoded, [nowhere, nowhere + 8, nowhere + 16]);
}
