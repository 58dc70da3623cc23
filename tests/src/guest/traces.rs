//! What a refused guest could leave behind: a process, an open kernel object, a device without its driver, pinned memory.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::Place;
use super::place::driver_of;

/// Counters of pages come from several processors, and each holds some back.
const UNCOUNTED_PAGES: u64 = 2048;

/// What can be seen of guests from outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Traces {
    /// Processes that run the program under test.
    running: BTreeSet<String>,
    /// Who has opened KVM, iommufd or a VFIO device: process and path.
    open: BTreeSet<(String, PathBuf)>,
    /// The driver of each of the place's devices.
    drivers: BTreeMap<String, Option<String>>,
    /// Pages that are pinned for DMA.
    pinned: u64,
}

impl Traces {
    pub(super) fn of(place: &Place) -> Self {
        let (mut running, mut open) = (BTreeSet::new(), BTreeSet::new());
        let nestling = place.nestling.canonicalize().unwrap_or_else(|_| place.nestling.clone());
        for process in entries(Path::new("/proc")) {
            let name = process.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if !name.bytes().all(|byte| byte.is_ascii_digit()) {
                continue;
            }
            if process.join("exe").read_link().is_ok_and(|program| program == nestling) {
                running.insert(name.clone());
            }
            let files = entries(&process.join("fd")).filter_map(|file| file.read_link().ok());
            open.extend(files.filter(|path| is_kernel_object(path)).map(|path| (name.clone(), path)));
        }
        let drivers = place.devices.iter().map(|device| (device.clone(), driver_of(device))).collect();
        Self { running, open, drivers, pinned: pinned() }
    }

    /// # Panics
    /// Unless everything is as it was `before`.
    #[track_caller]
    pub(super) fn expect_none_since(&self, before: &Self) {
        assert_eq!(self.running, before.running, "nestling still runs");
        assert_eq!(self.open, before.open, "somebody still holds kernel objects of a guest");
        assert_eq!(self.drivers, before.drivers, "devices have other drivers than before");
        let more = self.pinned.saturating_sub(before.pinned);
        assert!(more < UNCOUNTED_PAGES, "{more} pages of guest memory are still pinned for DMA");
    }
}

fn is_kernel_object(path: &Path) -> bool {
    path == Path::new("/dev/kvm") || path == Path::new("/dev/iommu") || path.starts_with("/dev/vfio")
}

/// The entries of a folder, as far as this process may see it: processes come and go.
fn entries(folder: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path())
}

fn pinned() -> u64 {
    let counters = std::fs::read_to_string("/proc/vmstat").unwrap_or_default();
    counter(&counters, "nr_foll_pin_acquired").saturating_sub(counter(&counters, "nr_foll_pin_released"))
}

/// A line of `/proc/vmstat`; 0 if the kernel does not count it.
fn counter(counters: &str, name: &str) -> u64 {
    let value = counters.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.and_then(|value| value.trim().parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_is_found_by_its_whole_name() {
        let text = "nr_foll_pin_acquired_slow 7\nnr_foll_pin_acquired 12\nnr_foll_pin_released 5\n";
        assert_eq!(counter(text, "nr_foll_pin_acquired"), 12);
        assert_eq!(counter(text, "nr_pages"), 0);
    }

    #[test]
    fn only_kernel_objects_of_guests_count() {
        for path in ["/dev/kvm", "/dev/iommu", "/dev/vfio/devices/vfio0"] {
            assert!(is_kernel_object(Path::new(path)), "{path}");
        }
        for path in ["/dev/null", "/dev/vfio-other", "anon_inode:kvm-vcpu:0"] {
            assert!(!is_kernel_object(Path::new(path)), "{path}");
        }
    }
}
