//! The vSMMU in front of iommufd: what reaches the kernel, in which order, and what is left at the end.

use nestling_iommufd::fake::{FakeDevice, FakeKernel, FakeSmmu as FakeHost, Record};
use nestling_iommufd::{AttachHwpt, Call, Ioas, SmmuV3Flags};
use proptest::prelude::*;

use super::*;
use crate::smmuv3::physical::PhysicalSmmu;
use crate::smmuv3::{IommufdError, IommufdSmmu};

pub(super) struct Host {
    pub(super) kernel: Arc<FakeKernel>,
    ioas: Arc<Ioas>,
    pub(super) devices: Vec<FakeDevice>,
    pub(super) physical: Arc<IommufdSmmu>,
}

impl Host {
    pub(super) fn new() -> Self {
        Self::with(FakeHost::default())
    }

    fn with(smmu: FakeHost) -> Self {
        let kernel = FakeKernel::new();
        let iommufd = kernel.iommufd();
        let smmu = kernel.add_smmu(smmu);
        let devices: Vec<_> = STREAMS.iter().map(|_| kernel.add_device(smmu, true)).collect();
        let ioas = iommufd.alloc_ioas().unwrap();
        let physical = IommufdSmmu::new(&iommufd, &ioas, &devices[0]).unwrap();
        for (stream, device) in STREAMS.into_iter().zip(&devices) {
            physical.add_stream(stream, Arc::new(device.clone())).unwrap();
        }
        Self { kernel, ioas, devices, physical }
    }

    /// A guest whose driver has started, with all that this host has.
    pub(super) fn guest(&self) -> Guest {
        let wishes = Wishes { ats: Wish::Exactly(true), ssidsize: Wish::Exactly(20), ..Wishes::default() };
        self.guest_with(negotiate(&wishes, &self.physical.capabilities()).unwrap().features)
    }

    fn guest_with(&self, features: Features) -> Guest {
        let guest = Guest::new();
        let config = Config { name: "vsmmu0".into(), features };
        let smmu = Smmuv3::new(config, self.physical.clone(), guest.memory.clone(), guest.smmu.interrupts.clone());
        without_waits(&smmu);
        let mut guest = Guest { smmu, ..guest };
        guest.start();
        self.kernel.take_records();
        self.kernel.take_executed();
        guest
    }

    pub(super) fn ste(&self, device: usize) -> Option<[u64; 2]> {
        self.kernel.attached_ste(self.devices[device].dev_id())
    }

    pub(super) fn executed(&self) -> Vec<CommandWords> {
        self.kernel.take_executed().into_iter().map(|(_, command)| command).collect()
    }
}

pub(super) const BYPASS: Option<[u64; 2]> = Some([0x9, 0]);
pub(super) const ABORT: Option<[u64; 2]> = Some([0x1, 0]);

#[test]
fn a_device_starts_in_bypass_behind_its_vdevice() {
    let host = Host::new();
    let records = host.kernel.take_records();
    let position = |wanted: &dyn Fn(&Record) -> bool| records.iter().position(wanted).unwrap();
    let vdevice = position(&|r| matches!(r, Record::Alloc { call: Call::VdeviceAlloc, .. }));
    let attach = position(&|r| matches!(r, Record::Attach { .. }));
    assert!(vdevice < attach, "the kernel looks for it at the attach");
    assert_eq!((host.ste(0), host.ste(1)), (BYPASS, BYPASS));
}

#[test]
fn entries_become_page_tables_and_the_old_one_goes_last() {
    let host = Host::new();
    let mut guest = host.guest();
    assert_eq!(host.ste(0), ABORT, "SMMUEN without an entry");
    guest.set_ste(STREAMS[0], stage1_ste(SCRATCH));
    let first = host.ste(0).unwrap();
    assert_eq!(first[0] & 0xf, 0b1011);
    host.kernel.take_records();
    guest.set_ste(STREAMS[0], stage1_ste(SCRATCH + 0x1000));
    assert_ne!(host.ste(0).unwrap(), first);
    let records = host.kernel.take_records();
    assert!(
        matches!(
            records[..],
            [Record::Alloc { call: Call::NestedAlloc, .. }, Record::Attach { .. }, Record::Destroy { .. }]
        ),
        "{records:?}"
    );
    guest.set_ste(STREAMS[0], BYPASS_STE);
    assert_eq!(host.ste(0), BYPASS);
    let records = host.kernel.take_records();
    assert!(matches!(records[..], [Record::Attach { .. }, Record::Destroy { .. }]), "bypass is there: {records:?}");
}

#[test]
fn a_batch_is_one_call_and_counted() {
    let host = Host::new();
    let mut guest = host.guest();
    let mut commands: Vec<u128> = (0..63).map(|page| tlbi_va(1, page << 12)).collect();
    commands.push(sync());
    guest.run(&commands);
    assert_eq!(host.executed().len(), 63);
    let invalidations = host.kernel.take_records();
    assert!(matches!(&invalidations[..], [Record::Invalidate { commands, .. }] if commands.len() == 63));
    let stats = guest.smmu.stats();
    assert_eq!((stats.invalidation_batches, stats.invalidation_ioctls), (1, 1), "one ioctl for one CMD_SYNC");
    let stats = guest.smmu.stats();
    assert_eq!(stats.invalidation_ioctls, 1);
    assert_eq!(stats.latency.iter().map(|(_, count)| count).sum::<u64>(), 1);
    let counted: Vec<_> = stats.opcodes.iter().filter(|&(_, count)| count > 0).collect();
    assert_eq!(counted, [("CMD_TLBI_NH_VA", 63), ("CMD_SYNC", 1)]);
}

#[test]
fn events_of_the_hardware_reach_the_guest_with_its_stream_id() {
    let host = Host::new();
    let mut guest = host.guest();
    guest.set_ste(STREAMS[1], stage1_ste(SCRATCH));
    assert!(host.kernel.raise_event(host.devices[1].dev_id(), [0x10, 0, 0xdead_b000, 0]));
    assert!(guest.smmu.event_fd().is_some());
    guest.smmu.events_ready();
    assert_eq!(guest.take_events(), [[0x10 | u64::from(STREAMS[1]) << 32, 0, 0xdead_b000, 0]]);
    assert_eq!(guest.event.take(), 1);
    let [(first, quiet), (second, noisy)] = guest.smmu.stream_stats()[..] else { panic!("two streams") };
    assert_eq!([first, second], STREAMS);
    assert_eq!((quiet.installs.total(), quiet.events.total()), (1, 0), "abort");
    assert_eq!((noisy.installs.total(), noisy.events.total()), (2, 1), "abort, stage 1");
}

#[test]
fn a_host_with_the_repeat_erratum_gets_each_batch_twice() {
    let mut smmu = FakeHost::default();
    smmu.info.flags = SmmuV3Flags::ERRATA_REPEAT_TLBI_CFGI;
    let host = Host::with(smmu);
    let mut guest = host.guest();
    assert!(host.physical.capabilities().repeat_tlbi_cfgi);
    let batch = [tlbi_va(1, 0x1000), cfgi_cd(STREAMS[0])];
    guest.run(&[batch[0], batch[1], sync()]);
    assert_eq!(host.executed(), [batch, batch].concat().into_iter().map(words).collect::<Vec<_>>());
    assert_eq!(guest.smmu.stats().invalidation_ioctls, 2);
}

#[test]
fn what_the_kernel_cannot_install_aborts() {
    for call in [Call::NestedAlloc, Call::Attach] {
        let host = Host::new();
        let mut guest = host.guest();
        guest.set_ste(STREAMS[0], BYPASS_STE);
        host.kernel.fail_next(call, libc::ENOMEM);
        guest.set_ste(STREAMS[0], stage1_ste(SCRATCH));
        assert_eq!(host.ste(0), ABORT, "{call}");
        guest.set_ste(STREAMS[0], stage1_ste(SCRATCH));
        assert!(host.ste(0).unwrap()[0] & 0xf == 0b1011, "the next time it works");
        assert_eq!(guest.smmu.stats().installs.failed, 1);
    }
}

#[test]
fn a_device_that_cannot_even_be_aborted_is_detached() {
    let host = Host::new();
    let mut guest = host.guest();
    guest.set_ste(STREAMS[0], BYPASS_STE);
    host.kernel.fail_next(Call::Attach, libc::ENOMEM);
    host.kernel.fail_next(Call::Attach, libc::ENOMEM);
    guest.set_ste(STREAMS[0], stage1_ste(SCRATCH));
    assert_eq!(host.kernel.attached(host.devices[0].dev_id()), None);
    guest.set_ste(STREAMS[0], ABORT_STE);
    assert_eq!(host.ste(0), ABORT);
}

#[test]
fn a_reset_of_the_device_is_waited_for() {
    let host = Host::new();
    let mut guest = host.guest();
    host.kernel.fail_next(Call::Attach, libc::EBUSY);
    host.kernel.fail_next(Call::Attach, libc::EBUSY);
    guest.set_ste(STREAMS[0], BYPASS_STE);
    assert_eq!((host.ste(0), guest.smmu.stats().installs.failed), (BYPASS, 0));
}

#[test]
fn a_device_in_a_long_reset_is_shut_and_gets_its_entry_when_the_reset_is_over() {
    let host = Host::new();
    let mut guest = host.guest();
    let device = host.devices[0].dev_id();
    guest.set_ste(STREAMS[0], BYPASS_STE);
    host.kernel.set_in_reset(device, true);
    guest.set_ste(STREAMS[0], stage1_ste(SCRATCH));
    assert_eq!(host.kernel.attached(device), None, "not what it had before, nor abort, which is busy too");
    host.kernel.take_records();
    guest.run(&[atc_inv(STREAMS[0]), sync()]);
    let attaches = |records: Vec<Record>| records.iter().filter(|r| matches!(r, Record::Attach { .. })).count();
    assert_eq!(attaches(host.kernel.take_records()), 1, "tried once, not waited for");
    assert_eq!(host.executed(), Vec::<CommandWords>::new(), "nothing is in the atc");
    assert_eq!(guest.smmu.stats().installs.failed, 1);
    host.kernel.set_in_reset(device, false);
    guest.run(&[sync()]);
    assert!(host.ste(0).unwrap()[0] & 0xf == 0b1011);
    guest.run(&[sync()]);
    assert_eq!(attaches(host.kernel.take_records()), 1, "and is left in peace then");
    host.physical.teardown().unwrap();
    assert_eq!(host.kernel.live_objects(), 1, "the ioas");
}

#[test]
fn a_device_that_cannot_be_aborted_because_of_its_reset_is_tried_again_too() {
    let host = Host::new();
    let mut guest = host.guest();
    let device = host.devices[0].dev_id();
    guest.set_ste(STREAMS[0], BYPASS_STE);
    host.kernel.set_in_reset(device, true);
    host.kernel.fail_next(Call::NestedAlloc, libc::ENOMEM);
    guest.write_ste(STREAMS[0], stage1_ste(SCRATCH));
    guest.run(&[cfgi_ste(STREAMS[0])]);
    assert_eq!(host.kernel.attached(device), None);
    host.kernel.set_in_reset(device, false);
    guest.run(&[sync()]);
    assert!(host.ste(0).unwrap()[0] & 0xf == 0b1011);
}

#[test]
fn the_end_of_a_reset_can_be_told() {
    let host = Host::new();
    let mut guest = host.guest();
    let device = host.devices[0].dev_id();
    host.kernel.set_in_reset(device, true);
    guest.set_ste(STREAMS[0], stage1_ste(SCRATCH));
    guest.smmu.stream_added(STREAMS[0]);
    assert_eq!(host.kernel.attached(device), None);
    host.kernel.set_in_reset(device, false);
    guest.smmu.stream_added(STREAMS[0]);
    assert!(host.ste(0).unwrap()[0] & 0xf == 0b1011);
}

#[test]
fn an_entry_that_changes_during_a_reset_counts_as_it_is_then() {
    let host = Host::new();
    let mut guest = host.guest();
    host.kernel.set_in_reset(host.devices[0].dev_id(), true);
    guest.set_ste(STREAMS[0], stage1_ste(SCRATCH));
    guest.set_ste(STREAMS[0], BYPASS_STE);
    host.kernel.set_in_reset(host.devices[0].dev_id(), false);
    guest.run(&[sync()]);
    assert_eq!(host.ste(0), BYPASS);
}

#[test]
fn a_storm_of_events_ends_at_some_time() {
    let host = Host::new();
    let _guest = host.guest();
    let raise = || host.kernel.raise_event(host.devices[0].dev_id(), [0x10, 0, 0, 0]);
    assert!(raise());
    let mut count = 0;
    let more = host.physical.drain_events(&mut |_| {
        count += 1;
        raise();
    });
    assert!(more.unwrap(), "the rest comes by the next poll");
    assert!((1..=4096).contains(&count), "{count}");
}

#[test]
fn a_device_that_is_less_coherent_than_the_first_is_refused_with_the_reason() {
    let host = Host::new();
    let stranger = host.kernel.add_device(0, false);
    let error = host.physical.add_stream(0x300, Arc::new(stranger)).unwrap_err().to_string();
    assert!(error.contains("CANWBS") && error.contains("0x300"), "{error}");
}

#[test]
fn an_atc_that_times_out_is_an_error_of_the_sync() {
    let host = Host::new();
    let mut guest = host.guest();
    // Together with the others, and alone.
    host.kernel.time_out_at(1);
    guest.push(tlbi_va(1, 0x1000));
    guest.push(atc_inv(STREAMS[0]));
    guest.push(sync());
    guest.kick();
    assert_eq!(guest.command_error(), None, "alone it answered");
    host.kernel.time_out_at(0);
    host.kernel.time_out_at(0);
    guest.push(atc_inv(STREAMS[0]));
    guest.push(sync());
    guest.kick();
    assert_eq!(guest.command_error(), Some((4, CmdqError::AtcInvSync as u8)));
}

#[test]
fn teardown_leaves_nothing_behind_and_can_be_done_again_and_again() {
    for _ in 0..3 {
        let host = Host::new();
        let mut guest = host.guest();
        guest.set_ste(STREAMS[0], stage1_ste(SCRATCH));
        host.physical.teardown().unwrap();
        host.physical.teardown().unwrap();
        let Host { kernel, ioas, devices, physical } = host;
        let calls = guest.smmu.stats().invalidation_ioctls;
        // The model may live on; it has no devices any more.
        guest.set_ste(STREAMS[0], stage1_ste(SCRATCH + 0x1000));
        guest.run(&[tlbi_va(1, 0), atc_inv(STREAMS[0]), sync()]);
        guest.smmu.events_ready();
        assert_eq!((guest.smmu.event_fd(), guest.smmu.stats().invalidation_ioctls), (None, calls));
        assert!(matches!(physical.add_stream(1, Arc::new(devices[0].clone())), Err(IommufdError::Gone)));
        ioas.destroy().unwrap();
        assert_eq!(kernel.live_objects(), 0);
    }
}

#[test]
fn a_drop_without_a_teardown_leaves_nothing_behind_either() {
    let Host { kernel, ioas, devices, physical } = Host::new();
    for device in &devices {
        device.detach_hwpt().unwrap();
    }
    drop(physical);
    drop(ioas);
    assert_eq!(kernel.live_objects(), 0);
}

#[test]
fn a_device_can_go_and_come_back() {
    let host = Host::new();
    let mut guest = host.guest();
    guest.set_ste(STREAMS[0], stage1_ste(SCRATCH));
    let device = Arc::new(host.devices[0].clone());
    assert!(matches!(host.physical.add_stream(STREAMS[0], device.clone()), Err(IommufdError::StreamTaken(_))));
    host.physical.remove_device(device.dev_id()).unwrap();
    assert_eq!(host.kernel.attached(device.dev_id()), None);
    assert!(matches!(host.physical.remove_device(device.dev_id()), Err(IommufdError::NoDevice(_))));
    host.physical.add_stream(STREAMS[0], device).unwrap();
    guest.smmu.stream_added(STREAMS[0]);
    assert!(host.ste(0).unwrap()[0] & 0xf == 0b1011);
}

#[test]
fn a_device_behind_another_host_smmu_is_refused_by_name() {
    let host = Host::new();
    let other = host.kernel.add_smmu(FakeHost::default());
    let stranger = host.kernel.add_device(other, true);
    let id = stranger.dev_id();
    let error = host.physical.add_stream(0x300, Arc::new(stranger)).unwrap_err();
    assert_eq!(error.to_string(), format!("{id} cannot be put behind the vsmmu as stream 0x300"));
    assert!(std::error::Error::source(&error).unwrap().to_string().contains("another host smmu"));
    let _ = host.ioas;
}

#[test]
fn a_host_with_one_stage_says_which_is_missing() {
    for (bit, stage) in [(1, "no stage 1 (SMMU_IDR0.S1P)"), (0, "no stage 2 (SMMU_IDR0.S2P)")] {
        let mut smmu = FakeHost::default();
        smmu.info.idr[0] &= !(1 << bit);
        let kernel = FakeKernel::new();
        let smmu = kernel.add_smmu(smmu);
        let device = kernel.add_device(smmu, true);
        let ioas = kernel.iommufd().alloc_ioas().unwrap();
        let error = IommufdSmmu::new(&kernel.iommufd(), &ioas, &device).err().unwrap();
        assert!(error.to_string().contains(stage), "{error}");
    }
}

/// Hosts with much and with little.
fn hosts() -> [FakeHost; 3] {
    let mut little = FakeHost::default();
    little.info.idr[0] &= !(1 << 12 | 1 << 10 | 1 << 19); // no ASID16, ATS, CD2L
    little.info.idr[1] &= !(0x1f << 6); // no substreams
    little.info.idr[3] = 1 << 8; // S2FWB only
    let mut ds = FakeHost::default();
    ds.info.idr[5] |= 1 << 7;
    ds.info.idr[0] &= !(3 << 24); // stalls
    [FakeHost::default(), little, ds]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_kernel_never_refuses_what_the_model_lets_through(
        which in 0usize..3,
        all in any::<bool>(),
        commands in proptest::collection::vec(
            (proptest::sample::select(vec![0x05u8, 0x06, 0x10, 0x11, 0x12, 0x12, 0x13, 0x30, 0x40]), any::<u128>(), any::<bool>()),
            1..100,
        ),
        entries in proptest::collection::vec((any::<u64>(), any::<u64>()), 0..10),
    ) {
        let host = Host::with(hosts()[which]);
        let mut wishes = Wishes::default();
        if all && which != 1 {
            wishes = Wishes { ats: Wish::Exactly(true), ssidsize: Wish::Exactly(20), ..wishes };
        }
        let mut guest = host.guest_with(negotiate(&wishes, &host.physical.capabilities()).unwrap().features);
        for (opcode, noise, known) in commands {
            let mut command = noise & !0x4ff | u128::from(opcode);
            if known {
                command = command & !(0xffff_ffff << 32) | u128::from(STREAMS[0]) << 32;
            }
            guest.push(command);
            guest.kick();
            if guest.command_error().is_some() {
                guest.poke(guest.cmdq.address(guest.read(CMDQ_CONS), 16), &words(sync()));
                guest.acknowledge();
            }
        }
        for (word0, word1) in entries {
            guest.set_ste(STREAMS[0], [word0 & !0xf | 0b1011, word1]);
        }
        let stats = guest.smmu.stats();
        prop_assert_eq!((stats.failed_invalidations, stats.installs.failed), (0, 0));
    }
}
