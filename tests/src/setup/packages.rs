//! Which Debian packages the lab is made of, and which versions of them this cache holds.
//!
//! Versions are not pinned: they would vanish from the mirror. A *release* file in the cache says which files the names
//! stood for when they were fetched, with their digests; the digest of that list is the name of every entry made from it.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::apt::Apt;
use super::cache::{self, Cache, Lock};
use super::command::Tool;
use super::error::{Error, io};
use super::mirror;
use super::progress::{Progress, Unit};

/// Debian's suites, the one to prefer last.
pub(super) const SUITES: &[&str] = &["trixie", "trixie-backports"];

/// Packages that are fetched together and live in one entry.
#[derive(Clone, Copy, Debug)]
pub(super) struct Set {
    /// Kind of the entry.
    pub(super) kind: &'static str,
    /// Debian's name of the architecture.
    pub(super) arch: &'static str,
    /// What is asked for; what that depends on comes along.
    pub(super) names: &'static [&'static str],
    /// What to make of the archives.
    pub(super) shape: Shape,
}

/// What an entry of packages holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// One root folder with merged `/usr`, all archives unpacked into it.
    Root,
    /// As [`Shape::Root`], with nothing but the packages whose names begin with one of these.
    Part(&'static [&'static str]),
    /// The archives of the packages asked for, as fetched.
    Archives,
}

/// One file of the mirror.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Package {
    /// Name, version and architecture, as Debian names its files.
    pub(super) file: String,
    /// In bytes.
    pub(super) size: u64,
    /// Algorithm and digest.
    pub(super) digest: String,
}

impl Package {
    /// Debian's name of the package.
    pub(super) fn name(&self) -> &str {
        self.file.split('_').next().unwrap_or_default()
    }

    /// Debian's version, its epoch's colon written as in the file: `1%3a11.1`.
    pub(super) fn version(&self) -> &str {
        self.file.split('_').nth(1).unwrap_or_default()
    }

    /// Name and version, to be read by people.
    pub(super) fn title(&self) -> String {
        format!("{} {}", self.name(), self.version().replace("%3a", ":"))
    }
}

/// What the names of a [`Set`] stand for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Release {
    pub(super) packages: Vec<Package>,
}

impl Release {
    /// The same for the same files, in whichever order apt lists them.
    pub(super) fn key(&self) -> String {
        let mut lines: Vec<String> =
            self.packages.iter().map(|package| format!("{} {}", package.file, package.digest)).collect();
        lines.sort();
        cache::key(lines.iter().map(|line| line.as_bytes()))
    }

    fn size(&self) -> u64 {
        self.packages.iter().map(|package| package.size).sum()
    }

    /// The package of this name; its version is what people ask about.
    pub(super) fn get(&self, name: &str) -> Option<&Package> {
        self.packages.iter().find(|package| package.name() == name)
    }
}

/// An entry of packages that is complete in the cache.
#[derive(Clone, Debug)]
pub(super) struct Held {
    pub(super) release: Release,
    pub(super) path: PathBuf,
}

impl Set {
    fn release_file(&self, cache: &Cache) -> PathBuf {
        let asked = cache::key(self.names.iter().chain(SUITES).chain([&self.arch]).map(|name| name.as_bytes()));
        cache.root().join(format!("release-{}-{asked}.toml", self.kind))
    }

    /// The entry, if the cache has it.
    pub(super) fn held(&self, cache: &Cache) -> Option<Held> {
        let release: Release = toml::from_str(&fs::read_to_string(self.release_file(cache)).ok()?).ok()?;
        let path = cache.entry(self.kind, &release.key());
        path.is_dir().then_some(Held { release, path })
    }

    /// The entry. Without one in the cache, or to `refresh` it, the newest packages are fetched; `check` may refuse them.
    pub(super) fn get(
        &self,
        cache: &Cache,
        progress: &Progress,
        refresh: bool,
        check: impl FnOnce(&Path) -> Result<(), Error>,
    ) -> Result<Held, Error> {
        let held = || self.held(cache).filter(|_| !refresh);
        if let Some(held) = held() {
            return Ok(held);
        }
        let lock = cache.lock(self.kind, progress)?;
        // Whoever held the lock may have made it.
        held().map_or_else(|| self.fetch(cache, &lock, progress, check), Ok)
    }

    fn fetch(
        &self,
        cache: &Cache,
        lock: &Lock,
        progress: &Progress,
        check: impl FnOnce(&Path) -> Result<(), Error>,
    ) -> Result<Held, Error> {
        let apt = Apt::create(&lock.stage("apt")?, self.arch, &mirror::find()?)?;
        let log = lock.log("apt");
        progress.say(&format!("asking the mirror for the newest {}", self.names.join(", ")));
        apt.update(&log)?;
        let mut release = Release { packages: apt.resolve(self.names)? };
        release.packages.retain(|package| self.wants(package.name()));
        let path = cache.entry(self.kind, &release.key());
        if !path.is_dir() {
            let stage = lock.stage("entry")?;
            let count = release.packages.len() as u64;
            let mut step =
                progress.step(&format!("fetching {} ({count} packages)", self.kind), Unit::Bytes, release.size());
            apt.download(self.names, &log, |bytes| step.set(bytes.min(release.size())))?;
            step.done();
            self.unpack(&apt.archives(), &release, &stage, progress)?;
            check(&stage)?;
            lock.publish(&stage, &path)?;
        }
        let text =
            toml::to_string(&release).map_err(|error| Error::Damaged { path: path.clone(), why: error.to_string() })?;
        lock.publish_text(&text, &self.release_file(cache))?;
        Ok(Held { release, path })
    }

    /// Whether a package that comes along belongs into the entry. Some ask for a whole compiler, or for a boot loader.
    fn wants(&self, package: &str) -> bool {
        match self.shape {
            Shape::Root => true,
            Shape::Part(beginnings) => beginnings.iter().any(|beginning| package.starts_with(beginning)),
            Shape::Archives => self.names.contains(&package),
        }
    }

    fn unpack(&self, archives: &Path, release: &Release, stage: &Path, progress: &Progress) -> Result<(), Error> {
        if self.shape != Shape::Archives {
            merged_usr(stage)?;
        }
        let title = format!("unpacking {}", self.kind);
        let mut step = progress.step(&title, Unit::Things("packages"), release.packages.len() as u64);
        for (count, package) in release.packages.iter().enumerate() {
            step.set(count as u64);
            let archive = archives.join(&package.file);
            match self.shape {
                Shape::Archives => {
                    let to = stage.join(&package.file);
                    fs::rename(&archive, &to).map_err(io("create", &to))?;
                }
                Shape::Root | Shape::Part(_) => {
                    let what = format!("unpacking {}", package.title());
                    Tool::new(what, "dpkg-deb").arg("-x").arg(&archive).arg(stage).output()?;
                    // Space for the next: all archives together are a third of what they unpack to.
                    fs::remove_file(&archive).map_err(io("remove", &archive))?;
                }
            }
        }
        step.done();
        Ok(())
    }
}

/// The links of a merged `/usr`, which Debian's packages expect to be there before they are unpacked.
fn merged_usr(root: &Path) -> Result<(), Error> {
    for name in ["bin", "sbin", "lib", "lib64"] {
        let target = root.join("usr").join(name);
        fs::create_dir_all(&target).map_err(io("create", &target))?;
        let link = root.join(name);
        std::os::unix::fs::symlink(format!("usr/{name}"), &link).map_err(io("create", &link))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(file: &str, digest: &str) -> Package {
        Package { file: file.into(), size: 10, digest: digest.into() }
    }

    #[test]
    fn a_release_is_named_by_its_files_not_by_their_order() {
        let (a, b) = (package("a_1_arm64.deb", "x"), package("b_2_arm64.deb", "y"));
        let one = Release { packages: vec![a.clone(), b.clone()] };
        let two = Release { packages: vec![b, a.clone()] };
        assert_eq!(one.key(), two.key());
        let newer = Release { packages: vec![a, package("b_3_arm64.deb", "z")] };
        assert_ne!(one.key(), newer.key());
        assert_eq!(one.size(), 20);
        assert_eq!(newer.get("b").map(Package::title).as_deref(), Some("b 3"));
    }

    #[test]
    fn titles_are_for_people() {
        assert_eq!(package("qemu-system-arm_1%3a11.1.3+ds-1_amd64.deb", "").title(), "qemu-system-arm 1:11.1.3+ds-1");
    }

    #[test]
    fn a_part_leaves_out_what_else_comes_along() {
        let set =
            Set { kind: "k", arch: "arm64", names: &["linux-image-arm64"], shape: Shape::Part(&["linux-binary-"]) };
        assert!(set.wants("linux-binary-7.2-arm64"));
        assert!(!set.wants("linux-image-arm64") && !set.wants("dracut"));
    }

    #[test]
    fn a_release_survives_its_file() {
        let release = Release { packages: vec![package("a_1_arm64.deb", "SHA256:1")] };
        assert_eq!(toml::from_str::<Release>(&toml::to_string(&release).unwrap()).unwrap(), release);
    }
}
