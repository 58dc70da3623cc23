//! What the kernel holds for a vSMMU after each step of its life, and after steps that fail.

use nestling_iommufd::fake::{FakeDevice, FakeKernel, FakeSmmu as FakeHost};
use nestling_iommufd::{AttachHwpt, Call, Ioas, Iommufd, LiveObjects};

use super::*;
use crate::smmuv3::IommufdSmmu;
use crate::smmuv3::physical::PhysicalSmmu;

struct World {
    kernel: Arc<FakeKernel>,
    iommufd: Iommufd,
    ioas: Arc<Ioas>,
    devices: [FakeDevice; 2],
}

/// What one vSMMU with two devices has, while none has a stage 1.
const COMPLETE: LiveObjects =
    LiveObjects { ioas: 1, nest_parents: 1, viommus: 1, vdevices: 2, nested_hwpts: 2, event_queues: 1 };
const EMPTY: LiveObjects = LiveObjects { ioas: 1, ..NOTHING };
const NOTHING: LiveObjects =
    LiveObjects { ioas: 0, nest_parents: 0, viommus: 0, vdevices: 0, nested_hwpts: 0, event_queues: 0 };

impl World {
    fn new() -> Self {
        let kernel = FakeKernel::new();
        let iommufd = kernel.iommufd();
        let smmu = kernel.add_smmu(FakeHost::default());
        let devices = [0, 1].map(|_| kernel.add_device(smmu, true));
        let ioas = iommufd.alloc_ioas().unwrap();
        Self { kernel, iommufd, ioas, devices }
    }

    fn smmu(&self) -> Arc<IommufdSmmu> {
        let smmu = IommufdSmmu::new(&self.iommufd, &self.ioas, &self.devices[0]).unwrap();
        for (stream, device) in STREAMS.into_iter().zip(&self.devices) {
            smmu.add_stream(stream, Arc::new(device.clone())).unwrap();
        }
        smmu
    }

    /// A guest's driver has started on it, and both devices have a stage 1.
    fn guest(&self, smmu: &Arc<IommufdSmmu>) -> Guest {
        let features = negotiate(&Wishes::default(), &PhysicalSmmu::capabilities(&**smmu)).unwrap().features;
        let guest = Guest::new();
        let config = Config { name: "vsmmu0".into(), features };
        let smmu = Smmuv3::new(config, smmu.clone(), guest.memory.clone(), guest.smmu.interrupts.clone());
        let mut guest = Guest { smmu, ..guest };
        guest.start();
        for stream in STREAMS {
            guest.set_ste(stream, stage1_ste(SCRATCH));
        }
        guest
    }

    fn live(&self) -> LiveObjects {
        self.iommufd.live_objects()
    }

    fn attached(&self) -> [bool; 2] {
        [0, 1].map(|device: usize| self.kernel.attached(self.devices[device].dev_id()).is_some())
    }

    fn end(self) {
        self.ioas.destroy().unwrap();
        assert_eq!((self.iommufd.live_objects(), self.kernel.live_objects()), (NOTHING, 0));
    }
}

#[test]
fn a_vsmmu_that_cannot_be_made_leaves_nothing() {
    for (call, before) in [
        (Call::GetHwInfo, 0),
        (Call::NestParentAlloc, 0),
        (Call::ViommuAlloc, 0),
        (Call::VeventqAlloc, 0),
        (Call::NestedAlloc, 0),
        (Call::NestedAlloc, 1),
    ] {
        let world = World::new();
        (0..=before).for_each(|_| world.kernel.fail_next(call, libc::ENOMEM));
        // The first failures hit the attempts before this one.
        for _ in 0..=before {
            assert!(IommufdSmmu::new(&world.iommufd, &world.ioas, &world.devices[0]).is_err(), "{call}");
            assert_eq!(world.live(), EMPTY, "{call}");
        }
        world.smmu().teardown().unwrap();
        world.end();
    }
}

#[test]
fn a_device_that_cannot_be_added_leaves_nothing_and_can_be_added_later() {
    for call in [Call::GetHwInfo, Call::VdeviceAlloc, Call::Attach] {
        let world = World::new();
        let smmu = IommufdSmmu::new(&world.iommufd, &world.ioas, &world.devices[0]).unwrap();
        let before = world.live();
        world.kernel.fail_next(call, libc::ENOMEM);
        let add = || smmu.add_stream(STREAMS[0], Arc::new(world.devices[0].clone()));
        assert!(add().is_err(), "{call}");
        assert_eq!((world.live(), world.attached()), (before, [false; 2]), "{call}");
        add().unwrap();
        smmu.teardown().unwrap();
        world.end();
    }
}

#[test]
fn a_reset_leaves_what_a_new_vsmmu_has() {
    let world = World::new();
    let smmu = world.smmu();
    assert_eq!(world.live(), COMPLETE);
    let mut guest = world.guest(&smmu);
    for _ in 0..3 {
        assert_eq!(world.live(), LiveObjects { nested_hwpts: 4, ..COMPLETE }, "a stage 1 for each device");
        guest.smmu.reset();
        assert_eq!(world.live(), COMPLETE);
        guest = world.guest(&smmu);
    }
    smmu.teardown().unwrap();
    assert_eq!((world.live(), world.attached()), (EMPTY, [false; 2]));
    world.end();
}

#[test]
fn a_kernel_that_starts_another_leaves_what_a_new_vsmmu_has() {
    let world = World::new();
    let smmu = world.smmu();
    let guest = world.guest(&smmu);
    // The next kernel finds SMMUEN set (Linux: arm_smmu_device_reset).
    guest.write(GBPA, 1 << 31 | 1 << 20);
    guest.write(CR0, 0);
    assert_eq!(world.live(), COMPLETE, "streams abort by the entry that all share");
    for device in &world.devices {
        assert_eq!(world.kernel.attached_ste(device.dev_id()), Some([0x1, 0]));
    }
    drop(guest);
    smmu.teardown().unwrap();
    world.end();
}

#[test]
fn a_reset_of_the_vsmmu_while_a_device_is_in_reset_leaves_nothing() {
    let world = World::new();
    let smmu = world.smmu();
    let mut guest = world.guest(&smmu);
    let device = world.devices[0].dev_id();
    world.kernel.set_in_reset(device, true);
    guest.smmu.reset();
    assert_eq!(world.attached(), [false, true], "neither what it had nor anything else");
    world.kernel.set_in_reset(device, false);
    guest.smmu.stream_added(STREAMS[0]);
    assert_eq!(world.kernel.attached_ste(device), Some([0x9, 0]), "bypass as after any reset");
    assert_eq!(world.live(), COMPLETE);
    guest.start();
    smmu.teardown().unwrap();
    world.end();
}

#[test]
fn the_end_goes_on_after_a_failure_and_tells_the_first() {
    for failing in 0..9 {
        let world = World::new();
        let smmu = world.smmu();
        let _guest = world.guest(&smmu);
        let before = world.kernel.live_objects();
        // What comes before the failure works: only the next calls of that kind fail, so they are made to by number.
        world.kernel.fail_destroy_after(failing, libc::EIO);
        assert!(smmu.teardown().is_err(), "{failing}");
        let left = world.kernel.live_objects();
        assert!(left < before && left >= 2, "{failing}: {left} of {before}");
        let live = world.live();
        let counted =
            live.ioas + live.nest_parents + live.viommus + live.vdevices + live.nested_hwpts + live.event_queues;
        assert_eq!(counted, left, "what is left is counted");
        assert_eq!(world.attached(), [false; 2], "whatever else fails");
    }
}

#[test]
fn a_device_that_cannot_be_detached_does_not_keep_the_others() {
    let world = World::new();
    let smmu = world.smmu();
    let _guest = world.guest(&smmu);
    world.kernel.fail_next(Call::Detach, libc::EIO);
    assert!(smmu.teardown().is_err());
    assert_eq!(world.attached(), [true, false]);
    // Its stage 1 and what that is made from.
    let left = LiveObjects { vdevices: 0, event_queues: 0, ..COMPLETE };
    assert_eq!(world.live(), LiveObjects { nested_hwpts: 1, ..left });
}
