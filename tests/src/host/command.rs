//! From a profile to QEMU's command line: a pure function.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::profile::{Device, Profile};

/// A channel between the lab and its host: a socket that the lab listens on and QEMU connects to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Channel {
    /// The kernel's console.
    Console,
    /// Lines with which the host's init reports how far it is.
    Control,
    /// What the program says on its standard output.
    Out,
    /// What the program says on its standard error.
    Err,
}

impl Channel {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Console, Self::Control, Self::Out, Self::Err];

    /// Its name in QEMU, in the run folder and in the host (`/sys/class/virtio-ports/*/name`).
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Console => "console",
            Self::Control => "control",
            Self::Out => "out",
            Self::Err => "err",
        }
    }

    /// Where its socket is.
    #[must_use]
    pub fn socket(self, folder: &Path) -> PathBuf {
        folder.join(self.name()).with_extension("sock")
    }
}

/// A folder of this machine that the host sees at the same path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Share {
    /// The folder, absolute.
    pub path: PathBuf,
    /// Where the host mounts it.
    pub target: PathBuf,
    /// Whether the host may write to it.
    pub writable: bool,
}

/// Everything that the command line depends on.
#[derive(Clone, Copy, Debug)]
pub struct Launch<'a> {
    /// The host to emulate.
    pub profile: &'a Profile,
    /// UEFI firmware.
    pub firmware: &'a Path,
    /// The host's kernel.
    pub kernel: &'a Path,
    /// The host's initramfs, with the mended IORT in front.
    pub initrd: &'a Path,
    /// Folder with the sockets of all channels and the disk images.
    pub folder: &'a Path,
    /// Folders for the host; number n has the mount tag `share<n>`.
    pub shares: &'a [Share],
    /// Whether the terminal of the lab becomes the host's /dev/hvc0.
    pub terminal: bool,
}

/// Disk images that have to exist before QEMU starts: path and size in bytes.
#[must_use]
pub fn disks(profile: &Profile, folder: &Path) -> Vec<(PathBuf, u64)> {
    let mut disks = Vec::new();
    for (number, smmu) in profile.smmu.iter().enumerate() {
        for (port, device) in smmu.devices.iter().enumerate() {
            let (count, mib) = device.drives();
            disks.extend((0..count).map(|function| (disk(folder, &format!("d{number}p{port}f{function}")), mib << 20)));
        }
    }
    disks
}

/// QEMU's arguments, without the program.
#[must_use]
pub fn arguments(launch: &Launch<'_>) -> Vec<OsString> {
    let profile = launch.profile;
    let mut line = Line(Vec::new());
    line.option("-M", ["virt,virtualization=on,gic-version=3,its=on"]);
    // near to Grace's cores, and quicker to emulate than `max`; real pointer authentication would cost much
    line.option("-cpu", ["neoverse-n2,pauth-impdef=on"]);
    line.option("-accel", ["tcg,thread=multi,tb-size=512"]);
    line.option("-smp", [profile.cpus.to_string()]);
    line.option("-m", [format!("{}M", profile.memory_mib)]);
    for flag in ["-no-user-config", "-nodefaults", "-no-reboot"] {
        line.flag(flag);
    }
    line.option("-display", ["none"]);
    line.path("-bios", launch.firmware);
    line.path("-kernel", launch.kernel);
    line.path("-initrd", launch.initrd);
    line.option("-append", ["console=ttyAMA0 quiet panic=-1"]);
    channels(&mut line, launch);
    shares(&mut line, launch.shares);
    for (number, smmu) in profile.smmu.iter().enumerate() {
        let bus = smmu.bus;
        line.option("-device", [format!("pxb-pcie,id=pxb{number},bus=pcie.0,bus_nr={bus}")]);
        let stage = smmu.stage.name();
        line.option("-device", [format!("arm-smmuv3,id=smmu{number},primary-bus=pxb{number},stage={stage}")]);
        for (port, device) in smmu.devices.iter().enumerate() {
            // chassis and slot together are unique in the machine; slot numbers start at 1
            let reserve = match device {
                Device::PciTestdev { bar_gib } => format!(",pref64-reserve={}G", bar_gib.next_power_of_two() * 2),
                _ => String::new(),
            };
            line.option(
                "-device",
                [format!(
                    "pcie-root-port,id=s{number}p{port},bus=pxb{number},chassis={},slot={}{reserve}",
                    number + 1,
                    port + 1
                )],
            );
            self::device(&mut line, launch.folder, &format!("d{number}p{port}"), &format!("s{number}p{port}"), device);
        }
    }
    line.0
}

fn channels(line: &mut Line, launch: &Launch<'_>) {
    // every device names its bus: QEMU may otherwise plug it into an expander
    line.option("-device", ["virtio-serial-pci,id=ports,bus=pcie.0"]);
    if launch.terminal {
        line.option("-chardev", ["stdio,id=terminal,signal=off"]);
        line.option("-device", ["virtconsole,bus=ports.0,chardev=terminal"]);
    }
    for channel in Channel::ALL {
        let name = channel.name();
        line.with_path("-chardev", &format!("socket,id={name},path="), &channel.socket(launch.folder));
        if channel == Channel::Console {
            line.option("-serial", [format!("chardev:{name}")]);
        } else {
            line.option("-device", [format!("virtserialport,bus=ports.0,chardev={name},name={name}")]);
        }
    }
}

fn shares(line: &mut Line, shares: &[Share]) {
    for (number, share) in shares.iter().enumerate() {
        let readonly = if share.writable { "" } else { ",readonly=on" };
        line.with_path(
            "-fsdev",
            &format!("local,id=share{number},security_model=none,multidevs=remap{readonly},path="),
            &share.path,
        );
        line.option("-device", [format!("virtio-9p-pci,bus=pcie.0,fsdev=share{number},mount_tag=share{number}")]);
    }
}

fn device(line: &mut Line, folder: &Path, id: &str, port: &str, device: &Device) {
    match device {
        Device::Nvme { .. } | Device::NvmePair { .. } => {
            let (count, _) = device.drives();
            for function in 0..count {
                let id = format!("{id}f{function}");
                line.with_path(
                    "-drive",
                    &format!("if=none,id={id}disk,format=raw,cache=unsafe,discard=unmap,file="),
                    &disk(folder, &id),
                );
                let several = if count > 1 { ",multifunction=on" } else { "" };
                line.option(
                    "-device",
                    [format!("nvme,id={id},bus={port},addr=0.{function}{several},drive={id}disk,serial=LAB-{id}")],
                );
            }
        }
        Device::Igb { .. } | Device::E1000e => {
            let model = if matches!(device, Device::E1000e) { "e1000e" } else { "igb" };
            line.option("-netdev", [format!("user,id={id}net,restrict=on")]);
            line.option("-device", [format!("{model},id={id},bus={port},netdev={id}net,romfile=")]);
        }
        // all 64 address bits: guests choose their own DMA addresses
        Device::Edu => line.option("-device", [format!("edu,id={id},bus={port},dma_mask=0xffffffffffffffff")]),
        Device::PciTestdev { bar_gib } => {
            line.option("-device", [format!("pci-testdev,id={id},bus={port},membar={bar_gib}G")]);
        }
    }
}

fn disk(folder: &Path, id: &str) -> PathBuf {
    folder.join(id).with_extension("img")
}

/// A command line under construction.
struct Line(Vec<OsString>);

impl Line {
    fn flag(&mut self, flag: &str) {
        self.0.push(flag.into());
    }

    fn option<const N: usize>(&mut self, option: &str, values: [impl Into<OsString>; N]) {
        self.flag(option);
        self.0.extend(values.map(Into::into));
    }

    fn path(&mut self, option: &str, path: &Path) {
        self.option(option, [path.as_os_str()]);
    }

    /// `path` as the last part of a comma-separated value, in which a comma is written twice.
    fn with_path(&mut self, option: &str, before: &str, path: &Path) {
        use std::os::unix::ffi::{OsStrExt, OsStringExt};
        let mut value = before.as_bytes().to_vec();
        for byte in path.as_os_str().as_bytes() {
            value.push(*byte);
            if *byte == b',' {
                value.push(b',');
            }
        }
        self.option(option, [OsString::from_vec(value)]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(name: &str, terminal: bool) -> Vec<String> {
        let profile = Profile::named(name).expect("it exists");
        let shares = [
            Share { path: "/work,1/src".into(), target: "/work,1/src".into(), writable: false },
            Share { path: "/tmp/run".into(), target: "/lab".into(), writable: true },
        ];
        let launch = Launch {
            profile: &profile,
            firmware: Path::new("/fw"),
            kernel: Path::new("/Image"),
            initrd: Path::new("/initrd"),
            folder: Path::new("/tmp/run"),
            shares: &shares,
            terminal,
        };
        arguments(&launch).into_iter().map(|argument| argument.into_string().expect("ASCII")).collect()
    }

    fn having<'a>(line: &'a [String], part: &str) -> Vec<&'a str> {
        line.iter().map(String::as_str).filter(|argument| argument.contains(part)).collect()
    }

    #[test]
    fn each_smmu_has_an_expander_of_its_own() {
        let line = line("grace", false);
        let expanders = having(&line, "pxb-pcie,");
        let smmus = having(&line, "arm-smmuv3,");
        assert_eq!((expanders.len(), smmus.len()), (5, 5));
        assert_eq!(expanders[2], "pxb-pcie,id=pxb2,bus=pcie.0,bus_nr=48");
        assert_eq!(smmus[2], "arm-smmuv3,id=smmu2,primary-bus=pxb2,stage=nested");
    }

    #[test]
    fn an_smmu_has_the_stages_of_its_profile() {
        let line = line("no-nesting", false);
        let stages: Vec<_> = having(&line, "arm-smmuv3,").iter().filter_map(|smmu| smmu.split_once("stage=")).collect();
        assert_eq!(stages.iter().map(|(_, stage)| *stage).collect::<Vec<_>>(), ["nested", "1", "2"]);
    }

    #[test]
    fn each_device_has_a_root_port_of_its_own() {
        let line = line("grace", false);
        let ports = having(&line, "pcie-root-port,");
        assert_eq!(ports.len(), 7);
        assert_eq!(ports[4], "pcie-root-port,id=s3p0,bus=pxb3,chassis=4,slot=1");
        assert_eq!(ports[5], "pcie-root-port,id=s3p1,bus=pxb3,chassis=4,slot=2");
        assert_eq!(having(&line, "edu,"), ["edu,id=d3p0,bus=s3p0,dma_mask=0xffffffffffffffff"]);
        assert_eq!(having(&line, "e1000e,"), ["e1000e,id=d3p1,bus=s3p1,netdev=d3p1net,romfile="]);
    }

    #[test]
    fn a_large_bar_has_a_port_with_room_for_it() {
        let line = line("grace", false);
        assert_eq!(having(&line, "pref64-reserve").len(), 1);
        assert!(having(&line, "pref64-reserve")[0].ends_with("slot=1,pref64-reserve=32G"));
        assert_eq!(having(&line, "pci-testdev,"), ["pci-testdev,id=d4p0,bus=s4p0,membar=16G"]);
    }

    #[test]
    fn every_device_of_the_root_bus_says_so() {
        let line = line("grace", false);
        for pair in line.windows(2).filter(|pair| pair[0] == "-device") {
            assert!(pair[1].contains("bus="), "{}", pair[1]);
        }
    }

    #[test]
    fn a_drive_is_as_large_as_the_profile_says() {
        let profile = Profile::named("two-nvme").expect("it exists");
        let disks = disks(&profile, Path::new("/tmp/run"));
        assert_eq!(disks, [("/tmp/run/d0p0f0.img".into(), 256 << 20), ("/tmp/run/d1p0f0.img".into(), 256 << 20)]);
        let line = line("two-nvme", false);
        assert!(having(&line, "file=/tmp/run/d1p0f0.img")[0].starts_with("if=none,id=d1p0f0disk"));
    }

    #[test]
    fn a_card_with_two_drives_has_two_functions_in_one_slot() {
        let line = line("shared-group", false);
        let drives = having(&line, "nvme,");
        assert_eq!(drives.len(), 2);
        assert!(drives[1].starts_with("nvme,id=d0p0f1,bus=s0p0,addr=0.1,multifunction=on,drive=d0p0f1disk"));
    }

    #[test]
    fn shares_are_read_only_unless_they_say_otherwise_and_commas_survive() {
        let line = line("two-nvme", false);
        let shares = having(&line, "local,");
        assert!(shares[0].ends_with("readonly=on,path=/work,,1/src"), "{}", shares[0]);
        assert!(shares[1].ends_with("multidevs=remap,path=/tmp/run"), "{}", shares[1]);
    }

    #[test]
    fn only_a_shell_takes_the_terminal() {
        assert!(having(&line("two-nvme", false), "stdio").is_empty());
        assert_eq!(having(&line("two-nvme", true), "stdio"), ["stdio,id=terminal,signal=off"]);
    }
}
