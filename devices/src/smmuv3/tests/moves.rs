//! Devices that get other StreamIDs, or none, because the guest changed bus numbers.

use nestling_iommufd::{AttachHwpt, Call, DeviceId};

use super::nested::{ABORT, BYPASS, Host};
use super::*;
use crate::smmuv3::physical::PhysicalSmmu;
use crate::smmuv3::{IommufdError, Smmuv3};

const NEW: u32 = 0x300;

impl Host {
    fn id(&self, device: usize) -> DeviceId {
        self.devices[device].dev_id()
    }

    /// What the machine does when a device has another requester ID.
    fn renumber(&self, smmu: &Smmuv3, device: usize, to: Option<u32>) -> Result<Option<u32>, IommufdError> {
        smmu.move_stream(to, || self.physical.move_device(self.id(device), to))
    }

    fn translates(&self, device: usize) -> bool {
        self.ste(device).is_some_and(|ste| ste[0] & 0xf == 0b1011)
    }

    /// Everything goes, and nothing is left.
    fn end(self) {
        self.physical.teardown().unwrap();
        assert_eq!(self.kernel.live_objects(), 1, "the ioas");
    }
}

#[test]
fn a_device_follows_a_guest_that_renumbers_its_buses() {
    let host = Host::new();
    let mut guest = host.guest();
    let from = STREAMS[0];
    guest.set_ste(from, stage1_ste(SCRATCH));
    guest.write_ste(NEW, stage1_ste(SCRATCH));
    assert_eq!(host.renumber(&guest.smmu, 0, Some(NEW)).unwrap(), Some(from));
    assert!(host.translates(0));
    // Its events have the new StreamID, also while it is not translated by stage 1.
    for ste in [stage1_ste(SCRATCH), BYPASS_STE] {
        guest.set_ste(NEW, ste);
        assert!(host.kernel.raise_event(host.id(0), [0x10, 0, 0, 0]));
        guest.smmu.events_ready();
        assert_eq!(guest.take_events()[0][0] >> 32, u64::from(NEW));
    }
    host.executed();
    guest.run(&[cfgi_cd_all(from), cfgi_cd_all(NEW), sync()]);
    assert_eq!(host.executed(), [words(cfgi_cd_all(NEW))], "nobody is at the old one");
    host.end();
}

#[test]
fn a_device_without_an_entry_at_its_new_stream_id_aborts() {
    let host = Host::new();
    let mut guest = host.guest();
    guest.set_ste(STREAMS[0], stage1_ste(SCRATCH));
    host.renumber(&guest.smmu, 0, Some(NEW)).unwrap();
    assert_eq!(host.ste(0), ABORT);
    guest.set_ste(NEW, stage1_ste(SCRATCH));
    assert!(host.translates(0));
    host.end();
}

#[test]
fn a_device_that_nobody_reaches_aborts_until_it_has_a_stream_id_again() {
    let host = Host::new();
    let mut guest = host.guest();
    guest.set_ste(STREAMS[0], stage1_ste(SCRATCH));
    assert_eq!(host.renumber(&guest.smmu, 0, None).unwrap(), Some(STREAMS[0]));
    assert_eq!(host.ste(0), ABORT);
    host.executed();
    guest.set_ste(STREAMS[0], BYPASS_STE);
    guest.run(&[cfgi_cd_all(STREAMS[0]), atc_inv(STREAMS[0]), sync()]);
    assert_eq!(host.ste(0), ABORT, "the guest has no word for it");
    assert_eq!(host.executed(), Vec::<CommandWords>::new());
    guest.smmu.reset();
    assert_eq!((host.ste(0), host.ste(1)), (ABORT, BYPASS), "a reset smmu passes only who has a stream id");
    assert_eq!(host.renumber(&guest.smmu, 0, None).unwrap(), None, "again is no news");
    assert_eq!(host.renumber(&guest.smmu, 0, Some(STREAMS[0])).unwrap(), None);
    assert_eq!(host.ste(0), BYPASS);
    host.end();
}

#[test]
fn a_device_can_be_moved_again_and_again() {
    let host = Host::new();
    let mut guest = host.guest();
    let objects = host.kernel.live_objects();
    for to in (0x300..0x320).chain([STREAMS[0]]) {
        host.renumber(&guest.smmu, 0, Some(to)).unwrap();
        guest.set_ste(to, stage1_ste(SCRATCH));
        assert!(host.translates(0), "{to:#x}");
        assert_eq!(host.kernel.live_objects(), objects + 1, "a stage 1, and nothing of the last place");
    }
    host.end();
}

#[test]
fn two_devices_can_swap_their_stream_ids() {
    let host = Host::new();
    let mut guest = host.guest();
    guest.set_ste(STREAMS[0], stage1_ste(SCRATCH));
    guest.set_ste(STREAMS[1], BYPASS_STE);
    // A hierarchy in which two ports have the same bus reaches one device only.
    host.renumber(&guest.smmu, 1, None).unwrap();
    host.renumber(&guest.smmu, 0, Some(STREAMS[1])).unwrap();
    host.renumber(&guest.smmu, 1, Some(STREAMS[0])).unwrap();
    assert_eq!(host.ste(0), BYPASS);
    assert!(host.translates(1));
    assert!(host.kernel.raise_event(host.id(1), [0x10, 0, 0, 0]));
    guest.smmu.events_ready();
    assert_eq!(guest.take_events()[0][0] >> 32, u64::from(STREAMS[0]));
    host.end();
}

#[test]
fn who_wants_a_stream_id_that_is_taken_has_none() {
    let host = Host::new();
    let mut guest = host.guest();
    guest.set_ste(STREAMS[0], stage1_ste(SCRATCH));
    guest.set_ste(STREAMS[1], BYPASS_STE);
    let refused = host.renumber(&guest.smmu, 0, Some(STREAMS[1]));
    assert!(matches!(refused, Err(IommufdError::StreamTaken(_))), "{refused:?}");
    assert_eq!((host.ste(0), host.ste(1)), (ABORT, BYPASS));
    host.renumber(&guest.smmu, 0, Some(STREAMS[0])).unwrap();
    assert!(host.translates(0));
    host.end();
}

#[test]
fn a_device_that_the_kernel_does_not_renumber_is_detached_and_can_be_moved_later() {
    for call in [Call::VdeviceAlloc, Call::NestedAlloc] {
        let host = Host::new();
        let mut guest = host.guest();
        guest.set_ste(STREAMS[0], stage1_ste(SCRATCH));
        guest.write_ste(NEW, stage1_ste(SCRATCH));
        host.kernel.fail_next(call, libc::ENOMEM);
        let refused = host.renumber(&guest.smmu, 0, Some(NEW));
        assert!(matches!(refused, Err(IommufdError::Stream { .. })), "{call}: {refused:?}");
        assert_eq!(host.kernel.attached(host.id(0)), None, "{call}");
        assert!(!host.physical.has_stream(STREAMS[0]) && !host.physical.has_stream(NEW));
        host.renumber(&guest.smmu, 0, Some(NEW)).unwrap();
        assert!(host.translates(0), "{call}");
        host.end();
    }
}

#[test]
fn a_device_can_be_renumbered_during_its_reset() {
    let host = Host::new();
    let mut guest = host.guest();
    guest.set_ste(STREAMS[0], stage1_ste(SCRATCH));
    guest.write_ste(NEW, stage1_ste(SCRATCH));
    host.kernel.set_in_reset(host.id(0), true);
    host.renumber(&guest.smmu, 0, Some(NEW)).unwrap();
    assert_eq!(host.kernel.attached(host.id(0)), None);
    host.kernel.set_in_reset(host.id(0), false);
    guest.run(&[sync()]);
    assert!(host.translates(0));
    host.end();
}

#[test]
fn a_device_that_is_lost_during_its_reset_stays_without_a_page_table() {
    let host = Host::new();
    let mut guest = host.guest();
    guest.set_ste(STREAMS[0], stage1_ste(SCRATCH));
    host.kernel.set_in_reset(host.id(0), true);
    host.renumber(&guest.smmu, 0, None).unwrap();
    host.kernel.set_in_reset(host.id(0), false);
    guest.run(&[sync()]);
    assert_eq!(host.kernel.attached(host.id(0)), None);
    host.renumber(&guest.smmu, 0, Some(STREAMS[0])).unwrap();
    assert!(host.translates(0));
    host.end();
}

#[test]
fn only_devices_behind_the_vsmmu_are_moved() {
    let host = Host::new();
    let guest = host.guest();
    let stranger = host.kernel.add_device(0, true);
    let moved = guest.smmu.move_stream(None, || host.physical.move_device(stranger.dev_id(), None));
    assert!(matches!(moved, Err(IommufdError::NoDevice(_))), "{moved:?}");
    host.physical.teardown().unwrap();
    let moved = host.renumber(&guest.smmu, 0, Some(NEW));
    assert!(matches!(moved, Err(IommufdError::Gone)), "{moved:?}");
}
