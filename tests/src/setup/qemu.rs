//! QEMU and UEFI for the emulated host: which packages, how they start out of a folder, and whether they are fit.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::Qemu;
use super::command::Tool;
use super::error::Error;
use super::packages::{Set, Shape};

/// The first QEMU with `accel=on`; earlier ones lack several user-creatable `arm-smmuv3` devices too.
const OLDEST: (u32, u32) = (11, 0);

/// Properties of `arm-smmuv3` that the lab and its comparisons use.
const PROPERTIES: &[&str] = &["stage", "accel"];

/// Names of this machine's architecture where QEMU's packages use them.
#[cfg(target_arch = "aarch64")]
mod native {
    pub(super) const DEBIAN: &str = "arm64";
    pub(super) const LOADER: &str = "lib/ld-linux-aarch64.so.1";
    pub(super) const LIBRARIES: &str = "usr/lib/aarch64-linux-gnu";
}
#[cfg(not(target_arch = "aarch64"))]
mod native {
    pub(super) const DEBIAN: &str = "amd64";
    pub(super) const LOADER: &str = "lib64/ld-linux-x86-64.so.2";
    pub(super) const LIBRARIES: &str = "usr/lib/x86_64-linux-gnu";
}

/// Folders of data that QEMU looks into: its own, and option ROMs of other packages.
const DATA: &[&str] = &["usr/share/qemu", "usr/share/seabios", "usr/lib/ipxe/qemu"];

/// QEMU with all it needs, unpacked.
pub(super) const SET: Set =
    Set { kind: "qemu", arch: native::DEBIAN, names: &["qemu-system-arm", "qemu-efi-aarch64"], shape: Shape::Root };

/// UEFI, for `-bios`.
pub(super) fn firmware(root: &Path) -> PathBuf {
    root.join("usr/share/qemu-efi-aarch64/QEMU_EFI.fd")
}

/// How QEMU starts out of `root`. It needs a newer C library than this machine may have, so it brings its own and is
/// started through that library's loader.
pub(super) fn qemu(root: &Path, version: String) -> Qemu {
    let mut args: Vec<OsString> = vec!["--library-path".into(), root.join(native::LIBRARIES).into()];
    args.push(root.join("usr/bin/qemu-system-aarch64").into());
    for folder in DATA.iter().map(|folder| root.join(folder)).filter(|folder| folder.is_dir()) {
        args.extend(["-L".into(), folder.into()]);
    }
    Qemu { program: root.join(native::LOADER), args, version }
}

/// Refuses a QEMU that is too old or cannot do what the lab asks of it.
pub(super) fn check(root: &Path) -> Result<(), Error> {
    let qemu = qemu(root, String::new());
    let ask =
        |args: &[&str]| Tool::new("asking QEMU what it can do", &qemu.program).args(&qemu.args).args(args).output();
    let said = ask(&["--version"])?;
    let version = version(&said).unwrap_or_default().to_owned();
    let unfit = |missing: &str| Err(Error::UnfitQemu { version: version.clone(), missing: missing.to_owned() });
    if !new_enough(&version) {
        return unfit("it is too old");
    }
    let help = ask(&["-M", "virt", "-device", "arm-smmuv3,help"])?;
    for property in PROPERTIES {
        if !has_property(&help, property) {
            return unfit(&format!("its arm-smmuv3 has no property '{property}'"));
        }
    }
    Ok(())
}

/// The number in `QEMU emulator version 11.1.3 (Debian ...)`.
fn version(said: &str) -> Option<&str> {
    said.split_once("version ")?.1.split_whitespace().next()
}

fn new_enough(version: &str) -> bool {
    let mut numbers = version.split('.').map_while(|number| number.parse::<u32>().ok());
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= OLDEST
}

fn has_property(help: &str, property: &str) -> bool {
    help.lines().any(|line| line.trim_start().strip_prefix(property).is_some_and(|rest| rest.starts_with('=')))
}

/// The upstream version inside a Debian one, as a file's name has it: `1%3a11.1.3+ds-1` is 11.1.3.
pub(super) fn upstream(debian: &str) -> &str {
    let version = debian.rsplit("%3a").next().unwrap_or(debian);
    version.split(['+', '-', '~']).next().unwrap_or(version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_and_compared() {
        let said = "QEMU emulator version 11.1.3 (Debian 1:11.1.3+ds-1)\nCopyright";
        assert_eq!(version(said), Some("11.1.3"));
        assert!(new_enough("11.1.3") && new_enough("11.0.0") && new_enough("12.0"));
        assert!(!new_enough("10.2.2") && !new_enough("7.2") && !new_enough(""));
        assert_eq!(upstream("1%3a11.1.3+ds-1~bpo13+1"), "11.1.3");
    }

    #[test]
    fn a_property_is_a_word_before_an_equals_sign() {
        let help = "arm-smmuv3 options:\n  accel=<bool>  - (default: off)\n  stage=<str>\n";
        assert!(has_property(help, "stage") && has_property(help, "accel"));
        assert!(!has_property(help, "acc") && !has_property(help, "cmdqv"));
    }

    #[test]
    fn qemu_starts_through_its_own_loader() {
        let qemu = qemu(Path::new("/c/qemu-1"), "11.1.3".into());
        assert!(qemu.program.starts_with("/c/qemu-1"));
        assert_eq!(qemu.args[0], "--library-path");
        assert_eq!(qemu.args[2], "/c/qemu-1/usr/bin/qemu-system-aarch64");
    }
}
