//! What vSMMUs show, decided at the latest when their devices are bound, and what their functions show of it.
#![forbid(unsafe_code)]

use nestling_devices::smmuv3::capabilities::Features;
use nestling_devices::smmuv3::physical::HostCapabilities;
use nestling_devices::smmuv3::{IommufdSmmu, PhysicalSmmu};
use nestling_devices::vfio::{Pasid, Translation};
use nestling_iommufd::{Capabilities, HwInfo};

use crate::host::KvmLimits;
use crate::plan::spec::{AssignedFunction, Expander, Window};
use crate::plan::{FeaturesError, reaches};

/// Freezes what the vSMMU shows, with all of its devices on `host`, or without any device; `ats_required` is whether one
/// of them [`requires_ats`]. Says in the log what and why.
pub fn freeze(
    expander: &mut Expander,
    host: Option<&IommufdSmmu>,
    ats_required: bool,
    memory: Window,
) -> Result<Features, FeaturesError> {
    let known = host.map(|host| HostCapabilities { ats_required, ..host.capabilities() });
    let features = expander.smmu.freeze(known.as_ref(), KvmLimits::query().map(|kvm| kvm.ipa_bits))?;
    reaches(&features.values(), memory)?;
    if let (Some(host), Some(shown)) = (host, expander.smmu.features) {
        host.freeze(shown);
    }
    for line in expander.smmu.table().lines() {
        log::info!("{}: {line}", expander.name);
    }
    Ok(features)
}

/// Whether a function works with ATS only, and its device has it here (drivers/pci/ats.c, `pci_ats_required`).
pub fn requires_ats(function: &AssignedFunction, device: &HwInfo) -> bool {
    function.requires_ats && device.ats_supported()
}

/// What a function of the vSMMU shows, by what the kernel tells of its device.
pub fn translation(expander: &Expander, device: &HwInfo) -> Translation {
    let Some(shown) = expander.smmu.features else { return Translation::default() };
    Translation {
        ats: shown.ats,
        pasid: (shown.ssidsize > 0).then(|| Pasid {
            bits: shown.ssidsize,
            execute: device.capabilities.contains(Capabilities::PCI_PASID_EXEC),
            privileged: device.capabilities.contains(Capabilities::PCI_PASID_PRIV),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::plan;
    use crate::plan::tests::host::{KIB, host, low, request};

    #[test]
    fn functions_show_what_their_vsmmu_shows() {
        let mut plan = plan(&request(1), &host(&[(0, vec![low(0, 16 * KIB)])])).unwrap();
        let expander = &mut plan.pci.expanders[0];
        let device = HwInfo { capabilities: Capabilities::PCI_PASID_EXEC, ..HwInfo::default() };
        assert_eq!(translation(expander, &device), Translation::default(), "nothing is decided yet");
        expander.smmu.wishes = "ats=on,ssidsize=8".parse().unwrap();
        freeze(expander, None, false, plan.memory).unwrap();
        let pasid = Some(Pasid { bits: 8, execute: true, privileged: false });
        assert_eq!(translation(expander, &device), Translation { ats: true, pasid });
    }

    #[test]
    fn a_host_that_does_not_reach_all_memory_is_refused_when_it_is_asked_last() {
        let mut plan = plan(&request(1), &host(&[(0, vec![low(0, 16 * KIB)])])).unwrap();
        plan.pci.expanders[0].smmu.wishes = "oas=32".parse().unwrap();
        let memory = Window { size: 4 << 30, ..plan.memory };
        let refused = freeze(&mut plan.pci.expanders[0], None, false, memory).unwrap_err().to_string();
        assert!(refused.starts_with("its oas is 32 bits, but the guest's memory ends at 0x140000000; "), "{refused}");
    }

    #[test]
    fn a_function_without_ats_does_not_require_it() {
        let mut plan = plan(&request(1), &host(&[(0, vec![low(0, 16 * KIB)])])).unwrap();
        let function = plan.pci.expanders[0].ports[0].function.as_mut().unwrap();
        let without = HwInfo { capabilities: Capabilities::PCI_ATS_NOT_SUPPORTED, ..HwInfo::default() };
        assert!(!requires_ats(function, &HwInfo::default()));
        function.requires_ats = true;
        assert!(requires_ats(function, &HwInfo::default()) && !requires_ats(function, &without));
    }
}
