//! Debian's own arm64 kernels, to boot as guests: one with pages of 4 KiB, one with 16 KiB. Their drivers are modules.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::command::Tool;
use super::elf;
use super::error::{Error, io};
use super::packages::{Held, Set, Shape};

/// Debian's names of the kernels, the end of every version's name.
pub(super) const FLAVOURS: &[&str] = &["arm64", "arm64-16k"];

/// What the steps of the guest's init need and these kernels have as modules.
const MODULES: &[&str] = &["nvme", "ext4"];

/// Where the versions are.
const VERSIONS: &str = "usr/lib/modules";

/// The newest of both. The image itself is an arm64 Image.
pub(super) const SET: Set = Set {
    kind: "guest-kernels",
    arch: "arm64",
    names: &["linux-image-arm64", "linux-image-arm64-16k"],
    shape: Shape::Part(&["linux-binary-", "linux-modules-"]),
};

/// A kernel's modules: names without ending, and contents.
pub(super) type Modules = Vec<(String, Vec<u8>)>;

/// One unpacked kernel.
#[derive(Debug)]
pub(super) struct Kernel {
    folder: PathBuf,
}

impl Kernel {
    /// The kernel of this flavour.
    pub(super) fn of(flavour: &str, kernels: &Held) -> Result<Self, Error> {
        let versions = kernels.path.join(VERSIONS);
        let entries = fs::read_dir(&versions).map_err(io("read", &versions))?;
        let mut folders: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        folders.retain(|folder| is_of(flavour, &folder.file_name().unwrap_or_default().to_string_lossy()));
        folders.sort();
        let missing =
            || Error::Damaged { path: versions.clone(), why: format!("it has no kernel of flavour {flavour}") };
        Ok(Self { folder: folders.pop().ok_or_else(missing)? })
    }

    /// The arm64 Image.
    pub(super) fn image(&self) -> PathBuf {
        self.folder.join("vmlinuz")
    }

    /// What the guest loads, in this order. `room` is an empty folder to unpack in.
    pub(super) fn modules(&self, room: &Path) -> Result<Modules, Error> {
        let mut files = BTreeMap::new();
        index(&self.folder.join("kernel"), &mut files)?;
        let mut order = Order { files: &files, room, done: Vec::new() };
        for name in MODULES {
            order.add(name)?;
        }
        Ok(order.done)
    }
}

/// Whether `7.2.12+deb13-arm64-16k` is of flavour `arm64-16k`.
fn is_of(flavour: &str, version: &str) -> bool {
    version.strip_suffix(flavour).and_then(|rest| rest.strip_suffix('-')).is_some_and(|rest| !rest.contains("arm64"))
}

/// All modules below a folder, by name. The kernel takes `-` and `_` for the same.
fn index(folder: &Path, files: &mut BTreeMap<String, PathBuf>) -> Result<(), Error> {
    for entry in fs::read_dir(folder).map_err(io("read", folder))?.flatten() {
        let path = entry.path();
        if path.is_dir() {
            index(&path, files)?;
        } else if let Some(name) = entry.file_name().to_string_lossy().strip_suffix(".ko.xz") {
            files.insert(name.replace('-', "_"), path);
        }
    }
    Ok(())
}

/// Modules in an order in which each comes after those that it needs.
struct Order<'a> {
    files: &'a BTreeMap<String, PathBuf>,
    room: &'a Path,
    done: Modules,
}

impl Order<'_> {
    fn add(&mut self, name: &str) -> Result<(), Error> {
        let name = name.replace('-', "_");
        if self.done.iter().any(|(done, _)| *done == name) {
            return Ok(());
        }
        let packed = self.files.get(&name).ok_or_else(|| Error::MissingFile {
            name: format!("{name}.ko.xz"),
            by: "a guest with Debian's kernel".to_owned(),
        })?;
        let copy = self.room.join(&name).with_extension("ko.xz");
        fs::copy(packed, &copy).map_err(io("create", &copy))?;
        Tool::new(format!("unpacking {}", copy.display()), "xz").arg("-d").arg(&copy).output()?;
        let plain = self.room.join(&name).with_extension("ko");
        let bytes = fs::read(&plain).map_err(io("read", &plain))?;
        fs::remove_file(&plain).map_err(io("remove", &plain))?;
        let needs = elf::module_needs(&bytes)
            .ok_or_else(|| Error::Damaged { path: packed.clone(), why: "it is no kernel module".to_owned() })?;
        for need in needs {
            self.add(&need)?;
        }
        self.done.push((name, bytes));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flavours_are_told_apart_by_the_end_of_the_version() {
        assert!(is_of("arm64", "7.2.12+deb13-arm64"));
        assert!(is_of("arm64-16k", "7.2.12+deb13-arm64-16k"));
        assert!(!is_of("arm64", "7.2.12+deb13-arm64-16k"));
        assert!(!is_of("arm64-16k", "7.2.12+deb13-arm64"));
        assert!(!is_of("arm64", "7.2.12+deb13-rt-arm64x"));
    }
}
