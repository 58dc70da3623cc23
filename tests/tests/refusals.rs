//! What bad input gets: one line that names the object and the remedy, status 2, and nothing left behind.
#![cfg(target_arch = "aarch64")]

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use nestling_lab::guest::{Driver, Launch, Model, Place, file_with, smmu_of};

/// Nobody in particular.
const USER: u32 = 65534;

fn launch() -> Option<Launch<'static>> {
    Some(Launch::new(Place::here()?))
}

/// Only where the machine is the lab's own may devices be taken away and put back.
fn emulated() -> Option<(&'static Place, String)> {
    let place = Place::here()?;
    place.profile.as_ref()?;
    Some((place, place.devices_of(Model::Nvme, 1)?.first()?.to_string()))
}

/// The line names the object and says what to do.
#[track_caller]
fn says(line: &str, parts: &[&str]) {
    for part in parts {
        assert!(line.contains(part), "'{part}' is not in: {line}");
    }
}

/// Puts a file's permissions back at the end of a test, however it ends.
struct Mode(PathBuf, u32);

impl Mode {
    fn set(path: impl Into<PathBuf>, mode: u32) -> Self {
        let path = path.into();
        let before = path.metadata().expect("the file exists").permissions().mode();
        std::fs::set_permissions(&path, Permissions::from_mode(mode)).expect("root may change it");
        Self(path, before)
    }
}

impl Drop for Mode {
    fn drop(&mut self) {
        let _ = std::fs::set_permissions(&self.0, Permissions::from_mode(self.1));
    }
}

fn cdev(address: &str) -> PathBuf {
    let folder = Path::new("/sys/bus/pci/devices").join(address).join("vfio-dev");
    let mut entries = std::fs::read_dir(folder).expect("the device is bound to vfio-pci");
    let name = entries.next().expect("it has a cdev").expect("it can be read").file_name();
    Path::new("/dev/vfio/devices").join(name)
}

#[test]
fn no_such_device() {
    let Some(launch) = launch() else { return };
    says(&launch.devices(["0000:7f:00.0"]).refused(), &["0000:7f:00.0", "lspci"]);
}

#[test]
fn a_device_of_another_driver() {
    let Some((place, drive)) = emulated() else { return };
    let _driver = Driver::set(&drive, "nvme");
    says(&Launch::new(place).devices([&drive]).refused(), &[&drive, "'nvme'", "vfio-pci"]);
}

#[test]
fn a_device_without_an_iommu() {
    let Some((place, _)) = emulated() else { return };
    // the emulated host's own virtio devices are on the root bus
    says(&Launch::new(place).devices(["0000:00:01.0"]).refused(), &["0000:00:01.0", "IOMMU"]);
}

#[test]
fn a_host_without_iommufd() {
    let Some((place, drive)) = emulated() else { return };
    struct Away;
    impl Drop for Away {
        fn drop(&mut self) {
            let _ = std::fs::rename("/dev/iommu.away", "/dev/iommu");
        }
    }
    std::fs::rename("/dev/iommu", "/dev/iommu.away").expect("root may rename it");
    let _away = Away;
    says(&Launch::new(place).devices([&drive]).refused(), &["/dev/iommu"]);
}

#[test]
fn no_permission_on_the_cdev() {
    let Some((place, drive)) = emulated() else { return };
    let cdev = cdev(&drive);
    let _modes = [Mode::set("/dev/kvm", 0o666), Mode::set("/dev/iommu", 0o666), Mode::set(&cdev, 0o600)];
    let line = Launch::new(place).devices([&drive]).user(USER).refused();
    says(&line, &["permission", &cdev.to_string_lossy(), &drive]);
}

#[test]
fn too_little_lockable_memory() {
    let Some((place, drive)) = emulated() else { return };
    let _modes = [Mode::set("/dev/kvm", 0o666), Mode::set("/dev/iommu", 0o666), Mode::set(cdev(&drive), 0o666)];
    // the kernel's default limit is 8 MiB
    let line = Launch::new(place).devices([&drive]).user(USER).refused();
    says(&line, &["RLIMIT_MEMLOCK"]);
    assert!(line.contains("1073741824") || line.contains("1 GiB") || line.contains("1048576"), "no number in: {line}");
}

#[test]
fn a_kernel_that_is_no_arm64_image() {
    let Some(launch) = launch() else { return };
    let file = file_with(&[b'x'; 4096]);
    let path = file.path().to_string_lossy().into_owned();
    says(&launch.kernel(file.path()).refused(), &[&path, "Image"]);
}

#[test]
fn a_missing_kernel() {
    let Some(launch) = launch() else { return };
    says(&launch.kernel("/nowhere/Image").refused(), &["kernel", "/nowhere/Image"]);
}

#[test]
fn a_missing_initrd() {
    let Some(launch) = launch() else { return };
    says(&launch.initrd("/nowhere/initrd").refused(), &["initrd", "/nowhere/initrd"]);
}

#[test]
fn no_memory() {
    let Some(launch) = launch() else { return };
    says(&launch.memory("0").refused(), &["memory"]);
}

#[test]
fn memory_that_is_no_number_of_pages() {
    let Some(launch) = launch() else { return };
    says(&launch.memory("1073741825").refused(), &["memory", "page"]);
}

#[test]
fn more_memory_than_the_host_has() {
    let Some(launch) = launch() else { return };
    says(&launch.memory("900G").refused(), &["memory", "host"]);
}

#[test]
fn no_processors() {
    let Some(launch) = launch() else { return };
    says(&launch.cpus("0").refused(), &["cpu"]);
}

#[test]
fn more_processors_than_kvm_gives() {
    let Some(launch) = launch() else { return };
    says(&launch.cpus("5000").refused(), &["5000"]);
}

#[test]
fn the_same_device_twice() {
    let Some((place, drive)) = emulated() else { return };
    says(&Launch::new(place).devices([&drive, &drive]).refused(), &[&drive, "twice"]);
}

#[test]
fn a_command_line_that_is_too_long() {
    let Some(launch) = launch() else { return };
    says(&launch.kernel_option(&"x".repeat(3000)).refused(), &["2048"]);
}

#[test]
fn an_unknown_option() {
    let Some(launch) = launch() else { return };
    says(&launch.arguments(["--turbo"]).refused(), &["--turbo", "--device"]);
}

#[test]
fn an_unknown_key() {
    let Some((place, drive)) = emulated() else { return };
    let line = Launch::new(place).devices([format!("{drive},solt=3")]).refused();
    says(&line, &["solt", "slot", "host"]);
}

#[test]
fn a_feature_that_the_host_has_not() {
    let Some((place, drive)) = emulated() else { return };
    let line = Launch::new(place).devices([&drive]).arguments(["--vsmmu", "ats=on"]).refused();
    says(&line, &[&smmu_of(&drive), "ats=on", "off", "ats=auto"]);
}

#[test]
fn an_smmu_that_the_host_has_not() {
    let Some(launch) = launch() else { return };
    let line = launch.arguments(["--vsmmu", "host=smmu3.0x10,ats=off"]).refused();
    says(&line, &["smmu3.0x0000000000000010", "this host has"]);
}

#[test]
fn a_refusal_leaves_the_devices_to_the_next_guest() {
    let Some((place, drive)) = emulated() else { return };
    says(&Launch::new(place).devices([&drive]).memory("0").refused(), &["memory"]);
    let finished = Launch::new(place).devices([&drive]).steps("io").run();
    assert_eq!(finished.said("drives verified"), ["1"]);
}
