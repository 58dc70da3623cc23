//! Where an integration test finds itself: in an emulated host of the lab, or on a real aarch64 machine.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use crate::cli::SKIPPED;
use crate::setup::{self, Config, Guests, Progress};

/// PCI functions.
pub(super) const FUNCTIONS: &str = "/sys/bus/pci/devices";

/// What a test has at hand.
#[derive(Debug)]
pub struct Place {
    /// The program under test.
    pub nestling: PathBuf,
    /// An arm64 Image for guests.
    pub kernel: PathBuf,
    /// An initramfs with `resources/lab/guest-init`.
    pub initrd: PathBuf,
    /// Addresses of the functions that are bound to vfio-pci.
    pub devices: Vec<String>,
    /// The emulated host's profile; `None` on a real machine.
    pub profile: Option<String>,
}

impl Place {
    /// The place of this process. `None`, said on standard output, where nestling cannot run.
    ///
    /// # Panics
    /// In an emulated host that lacks what it should have.
    #[must_use]
    pub fn here() -> Option<&'static Self> {
        static PLACE: OnceLock<Option<Place>> = OnceLock::new();
        let place = PLACE.get_or_init(|| {
            let profile = text("NESTLING_LAB_PROFILE");
            let missing = ["/dev/kvm", "/dev/iommu"].into_iter().find(|path| !Path::new(path).exists());
            match missing {
                Some(missing) if profile.is_some() => panic!("the emulated host has no {missing}"),
                Some(_) => None,
                None => Some(Self::find(profile)),
            }
        });
        if place.is_none() {
            skip("there is no /dev/kvm or no /dev/iommu");
        }
        place.as_ref()
    }

    fn find(profile: Option<String>) -> Self {
        let path = |name| std::env::var_os(name).filter(|path| !path.is_empty()).map(PathBuf::from);
        let (kernel, initrd) = match (path("NESTLING_LAB_KERNEL"), path("NESTLING_LAB_INITRD")) {
            (Some(kernel), Some(initrd)) => (kernel, initrd),
            _ => {
                let artifacts = setup::ensure(&Progress::new(), &Config::default())
                    .expect("the lab's set-up gives a guest kernel and its initramfs");
                (artifacts.kernel, artifacts.guest_initramfs)
            }
        };
        let devices = text("NESTLING_LAB_DEVICES")
            .map_or_else(bound_to_vfio, |all| all.split_whitespace().map(str::to_owned).collect());
        Self { nestling: path("NESTLING_BIN").unwrap_or_else(beside_the_tests), kernel, initrd, devices, profile }
    }

    /// Kernels and images that only tests boot.
    ///
    /// # Panics
    /// If the set-up fails on a real machine.
    #[must_use]
    pub fn guests(&self) -> &'static Guests {
        static GUESTS: OnceLock<Guests> = OnceLock::new();
        GUESTS.get_or_init(|| match text("NESTLING_LAB_GUESTS") {
            Some(folder) => Guests::at(folder.into()),
            None => {
                setup::guests(&Progress::new(), &Config::default()).expect("the lab's set-up gives guests for tests")
            }
        })
    }

    /// The devices of this model that are bound to vfio-pci. `None`, said on standard output, if there are fewer than
    /// `count` on a real machine.
    ///
    /// # Panics
    /// If an emulated host has fewer.
    #[must_use]
    pub fn devices_of(&self, model: Model, count: usize) -> Option<Vec<&str>> {
        let found: Vec<&str> = self.devices.iter().map(String::as_str).filter(|it| model.is(it)).collect();
        if found.len() >= count {
            return Some(found);
        }
        assert!(self.profile.is_none(), "the emulated host has {} of {count} {model:?} devices", found.len());
        skip(&format!("{count} {model:?} devices bound to vfio-pci are needed"));
        None
    }

    /// All devices for a guest. `None`, said on standard output, if there are none on a real machine.
    ///
    /// # Panics
    /// If an emulated host has none.
    #[must_use]
    pub fn all_devices(&self) -> Option<Vec<&str>> {
        if self.devices.is_empty() {
            assert!(self.profile.is_none(), "the emulated host has no device for guests");
            skip("no device is bound to vfio-pci");
            return None;
        }
        Some(self.devices.iter().map(String::as_str).collect())
    }
}

/// Kinds of devices that tests ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Model {
    /// Any NVMe drive. Its content is lost.
    Nvme,
    /// Intel 82576, the whole card.
    Igb,
    /// A virtual function of an Intel 82576.
    IgbVf,
    /// Intel 82574.
    E1000e,
    /// QEMU's teaching device.
    Edu,
    /// QEMU's test device, here for its large BAR.
    PciTestdev,
}

impl Model {
    fn is(self, address: &str) -> bool {
        match self {
            Self::Nvme => attribute(address, "class").starts_with("0x0108"),
            Self::Igb => names(address, "0x8086", "0x10c9"),
            Self::IgbVf => names(address, "0x8086", "0x10ca"),
            Self::E1000e => names(address, "0x8086", "0x10d3"),
            Self::Edu => names(address, "0x1234", "0x11e8"),
            Self::PciTestdev => names(address, "0x1b36", "0x0005"),
        }
    }
}

/// The host SMMU of a device, as sysfs names it.
///
/// # Panics
/// If the device is behind none.
#[must_use]
pub fn smmu_of(address: &str) -> String {
    let link = Path::new(FUNCTIONS).join(address).join("iommu");
    let target = link.canonicalize().unwrap_or_else(|error| panic!("{}: {error}", link.display()));
    target.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// The driver that has a device.
pub(super) fn driver_of(address: &str) -> Option<String> {
    let target = Path::new(FUNCTIONS).join(address).join("driver").canonicalize().ok()?;
    Some(target.file_name()?.to_string_lossy().into_owned())
}

fn names(address: &str, vendor: &str, device: &str) -> bool {
    attribute(address, "vendor") == vendor && attribute(address, "device") == device
}

fn attribute(address: &str, name: &str) -> String {
    let text = std::fs::read_to_string(Path::new(FUNCTIONS).join(address).join(name));
    text.unwrap_or_default().trim().to_owned()
}

fn bound_to_vfio() -> Vec<String> {
    let functions = std::fs::read_dir(FUNCTIONS).into_iter().flatten().flatten();
    let addresses = functions.map(|function| function.file_name().to_string_lossy().into_owned());
    let mut addresses: Vec<_> = addresses.filter(|it| driver_of(it).as_deref() == Some("vfio-pci")).collect();
    addresses.sort();
    addresses
}

/// `target/debug/nestling` beside `target/debug/deps/<this test>`: `cargo test` of the workspace builds both.
fn beside_the_tests() -> PathBuf {
    let this = std::env::current_exe().unwrap_or_default();
    let folder = this.parent().and_then(Path::parent).unwrap_or(Path::new("."));
    folder.join("nestling")
}

fn text(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|text| !text.is_empty())
}

/// Says so past the test harness, which keeps what passing tests print to itself.
fn skip(why: &str) {
    let _ = writeln!(std::io::stdout(), "{SKIPPED}{why}");
}
