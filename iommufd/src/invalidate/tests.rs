use super::*;
use crate::error::Call;
use crate::fake::{FakeKernel, FakeSmmu, Record};
use crate::hw_info::SmmuV3Flags;
use crate::viommu::Viommu;
use crate::{AttachHwpt, Vdevice};
use std::sync::Arc;

const STREAM: u32 = 0x1100;
const NSNH_ALL: Command = [0x30, 0];
const SYNC: Command = [0x46, 0];

struct Machine {
    kernel: Arc<FakeKernel>,
    viommu: Arc<Viommu>,
    _vdevice: Vdevice,
}

fn machine(smmu: FakeSmmu) -> Machine {
    let kernel = FakeKernel::new();
    let smmu = kernel.add_smmu(smmu);
    let device = kernel.add_device(smmu, true);
    let ioas = kernel.iommufd().alloc_ioas().unwrap();
    let viommu = ioas.alloc_nest_parent(device.dev_id()).unwrap().alloc_viommu(device.dev_id()).unwrap();
    let vdevice = viommu.alloc_vdevice(device.dev_id(), STREAM).unwrap();
    kernel.take_records();
    Machine { kernel, viommu, _vdevice: vdevice }
}

/// Commands that can be told apart: TLBI_NH_VA at ascending addresses.
fn numbered(count: u64) -> Vec<Command> {
    (0..count).map(|n| [0x12, n << 12]).collect()
}

impl Machine {
    fn executed(&self) -> Vec<Command> {
        self.kernel.take_executed().into_iter().map(|(_, command)| command).collect()
    }

    fn calls(&self) -> usize {
        self.kernel.take_records().iter().filter(|record| matches!(record, Record::Invalidate { .. })).count()
    }
}

#[test]
fn a_batch_takes_one_call_however_long() {
    let machine = machine(FakeSmmu::default());
    let commands = numbered(1000);
    machine.viommu.invalidate(&commands).unwrap();
    assert_eq!(machine.executed(), commands);
    assert_eq!(machine.calls(), 1);
    let counters = machine.viommu.counters();
    assert_eq!((counters.invalidate_calls, counters.invalidate_commands), (1, 1000));
}

#[test]
fn an_empty_batch_never_reaches_the_kernel_which_would_refuse_it() {
    let machine = machine(FakeSmmu::default());
    machine.viommu.invalidate(&[]).unwrap();
    assert_eq!(machine.calls(), 0);
}

#[test]
fn all_commands_in_front_of_an_illegal_one_are_executed_wherever_it_is() {
    for bad_at in [0, 1, 62, 63, 64, 126, 199] {
        let machine = machine(FakeSmmu::default());
        let mut commands = numbered(200);
        commands[bad_at] = SYNC;
        let error = machine.viommu.invalidate(&commands).unwrap_err();
        assert!(matches!(error.failure, InvalidateFailure::Illegal), "{error:?}");
        assert_eq!(error.handled, bad_at);
        assert_eq!(machine.executed(), commands[..bad_at], "illegal at {bad_at}");
    }
}

#[test]
fn an_unknown_stream_is_illegal() {
    let machine = machine(FakeSmmu::default());
    let known = [0x06 | u64::from(STREAM) << 32, 0];
    let error = machine.viommu.invalidate(&[known, [0x06 | 0xbad << 32, 0]]).unwrap_err();
    assert_eq!(error.handled, 1);
    assert_eq!(machine.executed(), [known]);
}

#[test]
fn after_a_timeout_only_the_blocks_before_count() {
    let machine = machine(FakeSmmu::default());
    machine.kernel.time_out_at(70);
    let error = machine.viommu.invalidate(&numbered(200)).unwrap_err();
    assert_eq!(error.handled, 63);
    assert!(matches!(error.failure, InvalidateFailure::Timeout { ref block } if *block == (63..126)), "{error:?}");
    assert_eq!(machine.executed().len(), 63);
}

#[test]
fn a_timeout_in_the_last_block_ends_with_the_batch() {
    let machine = machine(FakeSmmu::default());
    machine.kernel.time_out_at(64);
    let error = machine.viommu.invalidate(&numbered(70)).unwrap_err();
    assert!(matches!(error.failure, InvalidateFailure::Timeout { ref block } if *block == (63..70)), "{error:?}");
}

#[test]
fn a_call_without_memory_executed_nothing_whatever_the_count_says() {
    for errno in [libc::ENOMEM, libc::EFAULT, libc::EINVAL] {
        let machine = machine(FakeSmmu::default());
        machine.kernel.fail_next(Call::Invalidate, errno);
        let error = machine.viommu.invalidate(&numbered(100)).unwrap_err();
        assert_eq!(error.handled, 0);
        assert!(matches!(&error.failure, InvalidateFailure::Failed(e) if e.raw_os_error() == Some(errno)));
    }
}

#[test]
fn a_failure_while_the_rest_of_a_block_is_repeated_is_the_one_that_counts() {
    let machine = machine(FakeSmmu::default());
    let mut commands = numbered(100);
    commands[80] = SYNC;
    // The first failure ordered belongs to the first call: let it pass its first block and fail in the second one.
    machine.kernel.time_out_at(1000);
    machine.kernel.fail_next(Call::Invalidate, libc::ENOMEM);
    let error = machine.viommu.invalidate(&commands).unwrap_err();
    assert_eq!(error.handled, 63, "commands 63 to 79 were converted and never issued");
    assert!(matches!(error.failure, InvalidateFailure::Failed(_)), "{error:?}");
}

#[test]
fn the_erratum_sends_every_batch_twice() {
    let mut smmu = FakeSmmu::default();
    smmu.info.flags = SmmuV3Flags::ERRATA_REPEAT_TLBI_CFGI;
    let machine = machine(smmu);
    machine.viommu.invalidate(&[NSNH_ALL, [0x10, 0]]).unwrap();
    assert_eq!(machine.executed(), [NSNH_ALL, [0x10, 0], NSNH_ALL, [0x10, 0]]);
    assert_eq!(machine.calls(), 2);
}

#[test]
fn the_erratum_sends_all_in_front_of_an_illegal_command_twice() {
    let mut smmu = FakeSmmu::default();
    smmu.info.flags = SmmuV3Flags::ERRATA_REPEAT_TLBI_CFGI;
    let machine = machine(smmu);
    let mut commands = numbered(100);
    commands[70] = SYNC;
    assert_eq!(machine.viommu.invalidate(&commands).unwrap_err().handled, 70);
    let executed = machine.executed();
    for command in &commands[..70] {
        assert!(executed.iter().filter(|other| *other == command).count() >= 2, "{command:x?}");
    }
}
