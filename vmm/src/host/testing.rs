//! A host made of files, for tests.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use tempfile::TempDir;

/// A PCI function of the fixture.
#[derive(Clone, Copy)]
pub struct Pci {
    pub address: &'static str,
    pub id: (u16, u16),
    pub class: u32,
    /// Header type in configuration space; none where that cannot be read.
    pub header: Option<u8>,
    pub driver: Option<&'static str>,
    pub vfio: Option<&'static str>,
    pub iommu: Option<&'static str>,
    pub group: u32,
    pub resource: &'static str,
    pub numa_node: i32,
    pub physical_function: Option<&'static str>,
}

/// The emulated NVMe drive of the lab.
pub const GRACE_NVME: Pci = Pci {
    address: "0000:11:00.0",
    id: (0x1b36, 0x0010),
    class: 0x010802,
    header: Some(0),
    driver: Some("vfio-pci"),
    vfio: Some("vfio0"),
    iommu: Some("smmu3.0x000000000c000000"),
    group: 4,
    resource: "0x0000000010000000 0x0000000010003fff 0x0000000000140204\n\
               0x0000000000000000 0x0000000000000000 0x0000000000000000\n",
    numa_node: -1,
    physical_function: None,
};

/// A folder that looks like the root of a host: 6 GiB of memory, KVM, iommufd, no PCI device yet.
pub struct Fixture(TempDir);

impl Fixture {
    pub fn new() -> Self {
        let host = Self(tempfile::tempdir().unwrap());
        host.file("proc/meminfo", "MemTotal:        6291456 kB\nMemFree: 1 kB\nMemAvailable:    5242880 kB\n");
        host.file(
            "proc/self/limits",
            "Limit                     Soft Limit           Hard Limit           Units     \n\
             Max locked memory         8388608              16777216             bytes     \n",
        );
        host.file("proc/self/status", "Name:\tnestling\nCapEff:\t0000000000000000\n");
        host.file("dev/kvm", "");
        host.file("dev/iommu", "");
        host
    }

    pub fn root(&self) -> &Path {
        self.0.path()
    }

    pub fn file(&self, path: &str, text: &str) {
        self.write(path, text.as_bytes());
    }

    fn write(&self, path: &str, bytes: &[u8]) {
        let path = self.root().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    /// Adds a device, or changes what it has.
    pub fn device(&self, device: Pci) {
        let folder = format!("sys/bus/pci/devices/{}", device.address);
        self.file(&format!("{folder}/vendor"), &format!("{:#06x}\n", device.id.0));
        self.file(&format!("{folder}/device"), &format!("{:#06x}\n", device.id.1));
        self.file(&format!("{folder}/class"), &format!("{:#08x}\n", device.class));
        self.file(&format!("{folder}/numa_node"), &format!("{}\n", device.numa_node));
        if let Some(header) = device.header {
            let mut config = [0; 64];
            config[0x0e] = header;
            self.write(&format!("{folder}/config"), &config);
        }
        self.file(&format!("{folder}/resource"), device.resource);
        let link = |name: &str, target: String| {
            let path = self.root().join(&folder).join(name);
            let _ = fs::remove_file(&path);
            symlink(target, path).unwrap();
        };
        if let Some(driver) = device.driver {
            link("driver", format!("../../../../bus/pci/drivers/{driver}"));
        }
        if let Some(physical) = device.physical_function {
            link("physfn", format!("../{physical}"));
        }
        if let Some(iommu) = device.iommu {
            link("iommu", format!("../../../virtual/iommu/{iommu}"));
            self.file(&format!("sys/class/iommu/{iommu}/uevent"), "");
        }
        link("iommu_group", format!("../../../../kernel/iommu_groups/{}", device.group));
        if let Some(vfio) = device.vfio {
            self.file(&format!("{folder}/vfio-dev/{vfio}/dev"), "511:0\n");
            self.file(&format!("dev/vfio/devices/{vfio}"), "");
        }
        self.file(
            &format!("sys/kernel/iommu_groups/{}/reserved_regions", device.group),
            "0x0000000008000000 0x00000000080fffff msi\n",
        );
    }
}
