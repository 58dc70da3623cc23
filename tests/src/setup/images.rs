//! Packs the two initramfs images: programs out of the unpacked userland, the libraries they need, and an init script.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs::{self, File};
use std::io::BufWriter;
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};

use super::cache::{self, Cache, Lock};
use super::error::{Error, io};
use super::packages::Held;
use super::progress::Progress;
use super::{cpio, elf};

/// Counts up when this module packs the same inputs differently.
pub(super) const RECIPE: &[u8] = b"1";

/// Where Debian keeps the aarch64 libraries.
const LIBRARIES: &str = "usr/lib/aarch64-linux-gnu";

/// Folders that are there before init runs.
const FOLDERS: &[&str] = &["dev", "etc", "proc", "root", "run", "sys", "tmp", "usr", "var"];

/// An initramfs.
#[derive(Debug)]
pub(super) struct Image {
    name: &'static str,
    init: &'static str,
    /// Programs and data files, as paths in the userland.
    files: &'static [&'static str],
    /// What init reads, by its path in the image.
    scripts: &'static [(&'static str, &'static str)],
}

const HOST: Image = Image {
    name: "host.cpio",
    init: include_str!("../../../resources/lab/host-init"),
    files: &[
        "usr/bin/busybox",
        "usr/bin/lspci",
        "usr/bin/setpci",
        "usr/share/misc/pci.ids",
        "usr/bin/iasl",
        "usr/sbin/nvme",
        "usr/sbin/mke2fs",
        "etc/mke2fs.conf",
        "usr/sbin/kexec",
    ],
    scripts: &[],
};

impl Image {
    /// All that makes it differ from another image of the same userland.
    pub(super) fn inputs(&self) -> impl Iterator<Item = &[u8]> {
        let scripts = self.scripts.iter().flat_map(|(path, script)| [path.as_bytes(), script.as_bytes()]);
        let files = self.files.iter().map(|file| file.as_bytes());
        [self.name.as_bytes(), self.init.as_bytes()].into_iter().chain(scripts).chain(files)
    }
}

/// A file that is not of the userland: its path in the image, its mode and its content.
pub(super) type Extra = (String, u32, Vec<u8>);

/// Steps of the guest, in `resources/lab/guest-steps`.
macro_rules! steps {
    ($name:literal) => {
        (concat!("steps/", $name), include_str!(concat!("../../../resources/lab/guest-steps/", $name)))
    };
}

/// Smaller than the host's: it is read through two levels of emulation.
pub(super) const GUEST: Image = Image {
    name: "guest.cpio",
    init: include_str!("../../../resources/lab/guest-init"),
    files: &[
        "usr/bin/busybox",
        "usr/bin/lspci",
        "usr/bin/setpci",
        "usr/share/misc/pci.ids",
        "usr/bin/iasl",
        "usr/sbin/mke2fs",
        "etc/mke2fs.conf",
        "usr/sbin/kexec",
    ],
    scripts: &[
        steps!("benchmark"),
        steps!("drives"),
        steps!("faults"),
        steps!("inventory"),
        steps!("life"),
        steps!("network"),
        steps!("vfio"),
    ],
};

/// Where the images for this userland are, or will be.
fn entry(cache: &Cache, userland: &Held) -> PathBuf {
    let key = userland.release.key();
    let inputs = [&HOST, &GUEST].into_iter().flat_map(Image::inputs);
    cache.entry("images", &cache::key([RECIPE, key.as_bytes()].into_iter().chain(inputs)))
}

/// The images of host and guest, if the cache has them.
pub(super) fn held(cache: &Cache, userland: &Held) -> Option<(PathBuf, PathBuf)> {
    let entry = entry(cache, userland);
    entry.is_dir().then(|| (entry.join(HOST.name), entry.join(GUEST.name)))
}

/// The images of host and guest, packed if the cache has none.
pub(super) fn get(cache: &Cache, progress: &Progress, userland: &Held) -> Result<(PathBuf, PathBuf), Error> {
    if let Some(images) = held(cache, userland) {
        return Ok(images);
    }
    let lock = cache.lock("images", progress)?;
    // Whoever held the lock may have packed them.
    held(cache, userland).map_or_else(|| make(cache, &lock, progress, userland), Ok)
}

fn make(cache: &Cache, lock: &Lock, progress: &Progress, userland: &Held) -> Result<(PathBuf, PathBuf), Error> {
    let stage = lock.stage("entry")?;
    for image in [&HOST, &GUEST] {
        pack(image, &userland.path, Vec::new(), &stage.join(image.name))?;
    }
    let entry = entry(cache, userland);
    lock.publish(&stage, &entry)?;
    progress.say("packed the initramfs images of host and guest");
    Ok((entry.join(HOST.name), entry.join(GUEST.name)))
}

/// Packs an image with further files.
pub(super) fn pack(image: &Image, userland: &Path, extras: Vec<Extra>, to: &Path) -> Result<(), Error> {
    let mut contents = Contents::collect(userland, image.files)?;
    let scripts = image.scripts.iter().map(|&(path, script)| (path.into(), 0o644, script.into()));
    for (name, mode, bytes) in scripts.chain(extras) {
        contents.add_parents(&name);
        contents.files.insert(name, (mode, bytes));
    }
    let file = File::create(to).map_err(io("create", to))?;
    contents.write(image.init, cpio::Writer::new(BufWriter::new(file))).map_err(io("write", to))
}

/// What goes into an image, by its path there.
#[derive(Debug, Default, PartialEq, Eq)]
struct Contents {
    folders: BTreeSet<String>,
    links: BTreeMap<String, String>,
    files: BTreeMap<String, (u32, Vec<u8>)>,
}

impl Contents {
    /// The files asked for, what their links point to, and what their programs need to start.
    fn collect(root: &Path, asked: &[&str]) -> Result<Self, Error> {
        let mut contents = Self::default();
        contents.folders.extend(FOLDERS.iter().map(ToString::to_string));
        for name in ["bin", "sbin", "lib"] {
            contents.folders.insert(format!("usr/{name}"));
            contents.links.insert(name.to_owned(), format!("usr/{name}"));
        }
        let mut queue: VecDeque<(String, String)> =
            asked.iter().map(|name| ((*name).to_owned(), "an image of the lab".to_owned())).collect();
        while let Some((name, by)) = queue.pop_front() {
            if contents.files.contains_key(&name) || contents.links.contains_key(&name) {
                continue;
            }
            let path = root.join(&name);
            let missing = || Error::MissingFile { name: name.clone(), by: by.clone() };
            let metadata = path.symlink_metadata().map_err(|_| missing())?;
            contents.add_parents(&name);
            if metadata.is_symlink() {
                let target = fs::read_link(&path).map_err(io("read", &path))?;
                queue.push_back((resolve(&name, &target), name.clone()));
                contents.links.insert(name, target.to_string_lossy().into_owned());
                continue;
            }
            let bytes = fs::read(&path).map_err(io("read", &path))?;
            let needs = elf::needs(&bytes).unwrap_or_default();
            queue.extend(needs.libraries.into_iter().map(|library| (format!("{LIBRARIES}/{library}"), name.clone())));
            queue.extend(needs.interpreter.map(|loader| (in_usr(&loader), name.clone())));
            contents.files.insert(name, (metadata.permissions().mode() & 0o777, bytes));
        }
        Ok(contents)
    }

    fn add_parents(&mut self, name: &str) {
        let parents = Path::new(name).ancestors().skip(1).filter_map(Path::to_str).filter(|parent| !parent.is_empty());
        self.folders.extend(parents.map(str::to_owned));
    }

    fn write(&self, init: &str, mut to: cpio::Writer<impl std::io::Write>) -> std::io::Result<()> {
        // Sorted, so every folder comes before what is in it.
        for folder in &self.folders {
            to.directory(folder)?;
        }
        // The kernel opens it as init's standard input and output before anything is mounted.
        to.character_device("dev/console", 0o600, 5, 1)?;
        to.character_device("dev/null", 0o666, 1, 3)?;
        for (name, target) in &self.links {
            to.symlink(name, target)?;
        }
        to.symlink("usr/bin/sh", "busybox")?;
        for (name, (mode, bytes)) in &self.files {
            to.file(name, *mode, bytes)?;
        }
        to.file("init", 0o755, init.as_bytes())?;
        to.finish().map(drop)
    }
}

/// The path in the root that a link at `name` to `target` leads to.
fn resolve(name: &str, target: &Path) -> String {
    let base =
        if target.is_absolute() { PathBuf::new() } else { Path::new(name).parent().unwrap_or(Path::new("")).into() };
    let mut path = PathBuf::new();
    for component in base.join(target).components() {
        match component {
            Component::ParentDir => drop(path.pop()),
            Component::Normal(part) => path.push(part),
            _ => {}
        }
    }
    in_usr(&path.to_string_lossy())
}

/// The path without the links of a merged `/usr`: `/lib/ld.so` is `usr/lib/ld.so`.
fn in_usr(path: &str) -> String {
    let path = path.trim_start_matches('/');
    let merged = ["bin/", "sbin/", "lib/", "lib64/"].iter().any(|prefix| path.starts_with(prefix));
    if merged { format!("usr/{path}") } else { path.to_owned() }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_lead_where_the_kernel_would_go() {
        assert_eq!(resolve("usr/sbin/mkfs.ext4", Path::new("mke2fs")), "usr/sbin/mke2fs");
        assert_eq!(resolve("usr/lib/ld.so.1", Path::new("aarch64/ld.so.1")), "usr/lib/aarch64/ld.so.1");
        assert_eq!(resolve("usr/bin/x", Path::new("../lib/y")), "usr/lib/y");
        assert_eq!(resolve("usr/bin/x", Path::new("/lib/z")), "usr/lib/z");
        assert_eq!(in_usr("/etc/mke2fs.conf"), "etc/mke2fs.conf");
    }

    #[test]
    fn an_image_holds_what_was_asked_for_and_what_links_point_to() {
        let root = tempfile::tempdir().unwrap();
        let sbin = root.path().join("usr/sbin");
        fs::create_dir_all(&sbin).unwrap();
        fs::write(sbin.join("mke2fs"), "#!/bin/sh\n").unwrap();
        symlink("mke2fs", sbin.join("mkfs.ext4")).unwrap();
        let contents = Contents::collect(root.path(), &["usr/sbin/mkfs.ext4"]).unwrap();
        assert_eq!(contents.links["usr/sbin/mkfs.ext4"], "mke2fs");
        assert_eq!(contents.files.keys().collect::<Vec<_>>(), ["usr/sbin/mke2fs"]);
        assert!(contents.folders.contains("usr/sbin"));

        let error = Contents::collect(root.path(), &["usr/bin/nothing"]).unwrap_err();
        assert!(error.to_string().contains("usr/bin/nothing"));
    }

    #[test]
    fn programs_bring_their_libraries_and_loader() {
        let root = tempfile::tempdir().unwrap();
        let program = root.path().join("usr/bin/program");
        fs::create_dir_all(program.parent().unwrap()).unwrap();
        fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
        let needs = elf::needs(&fs::read(&program).unwrap()).unwrap();
        match Contents::collect(root.path(), &["usr/bin/program"]) {
            Ok(_) => assert_eq!(needs, elf::Needs::default()),
            Err(error) => assert!(error.to_string().contains("needed by usr/bin/program")),
        }
    }
}
