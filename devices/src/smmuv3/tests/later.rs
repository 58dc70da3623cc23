//! Devices that come when the guest has seen what its vSMMU shows already, and vSMMUs without any.

use std::error::Error;
use std::sync::Arc;

use nestling_iommufd::fake::{FakeKernel, FakeSmmu as FakeHost};

use super::*;
use crate::smmuv3::capabilities::{Values, negotiate_vacant};
use crate::smmuv3::physical::{Installed, StreamConfig};
use crate::smmuv3::{IommufdError, IommufdSmmu, PhysicalSmmu, VacantSmmu};

#[test]
fn a_later_device_must_have_what_the_guest_was_shown() {
    let kernel = FakeKernel::new();
    let host = kernel.add_smmu(FakeHost { max_pasid_log2: 16, ..FakeHost::default() });
    let iommufd = kernel.iommufd();
    let ioas = iommufd.alloc_ioas().unwrap();
    let (first, later) = (kernel.add_device(host, true), kernel.add_device(host, true));
    let smmu = IommufdSmmu::new(&iommufd, &ioas, &first).unwrap();
    smmu.add_stream(0x100, Arc::new(first)).unwrap();
    let values = negotiate(&Wishes::default(), &smmu.capabilities()).unwrap().values;
    assert_eq!(values.ssidsize, 16);
    // As if only the first could have had as many.
    smmu.freeze(Values { ssidsize: 20, ..values });
    let refused = smmu.add_stream(0x200, Arc::new(later.clone())).unwrap_err();
    assert!(matches!(refused, IommufdError::Mismatch { .. }), "{refused}");
    assert_eq!(
        refused.source().unwrap().to_string(),
        "the guest was shown ssidsize=20, but the host has ssidsize=16 here"
    );
    assert!(!smmu.has_stream(0x200));
    smmu.teardown().unwrap();
    let smmu = IommufdSmmu::new(&iommufd, &ioas, &later).unwrap();
    smmu.freeze(values);
    assert!(smmu.add_stream(0x200, Arc::new(later)).is_ok());
    smmu.teardown().unwrap();
    ioas.destroy().unwrap();
    assert_eq!(kernel.live_objects(), 0);
}

#[test]
fn a_vsmmu_without_devices_answers_every_command() {
    let vacant = VacantSmmu::new();
    let features = negotiate_vacant(&Wishes::default(), None).unwrap().features;
    assert!(!features.idr0.ats() && features.idr5.gran4k());
    assert_eq!(vacant.install(0x100, StreamConfig::Abort).unwrap(), Installed::NoDevice);
    assert!(vacant.invalidate(&[[0x30, 0]]).is_ok() && !vacant.has_stream(0x100));
    let mut streams = Vec::new();
    vacant.streams(&mut streams);
    assert_eq!((streams.len(), vacant.event_fd(), vacant.invalidation_calls()), (0, None, 0));
    assert!(!vacant.drain_events(&mut |event| panic!("{event:?}")).unwrap());
    assert_eq!(vacant.capabilities(), Default::default());
}
