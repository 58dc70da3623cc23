//! The host's initramfs with the mended IORT in front, made once per kind of host.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::io::Write;
use std::path::{Path, PathBuf};

use super::error::file;
use super::profile::Profile;
use super::{Error, iort};
use crate::setup::Artifacts;
use crate::setup::cpio;

/// Where the cache keeps the mended IORT of hosts like this one: the table depends on QEMU and on the SMMUs alone.
pub fn cached(profile: &Profile, artifacts: &Artifacts) -> PathBuf {
    let mut hasher = DefaultHasher::new();
    (&artifacts.qemu.version, &artifacts.firmware, profile.cpus).hash(&mut hasher);
    for smmu in &profile.smmu {
        (smmu.bus, smmu.devices.len()).hash(&mut hasher);
    }
    artifacts.cache.join(format!("iort-{}-{:016x}.aml", profile.name, hasher.finish()))
}

/// Mends a dumped table and keeps it in the cache, all at once.
pub fn keep(dumped: &Path, cached: &Path) -> Result<(), Error> {
    let table = std::fs::read(dumped).map_err(file("reading the dumped table", dumped))?;
    let mended = iort::with_canwbs(&table)?;
    let folder = cached.parent().unwrap_or(Path::new("/"));
    let mut new = tempfile::NamedTempFile::new_in(folder).map_err(file("writing to", folder))?;
    new.write_all(&mended).map_err(file("writing", cached))?;
    new.persist(cached).map_err(|error| file("writing", cached)(error.error))?;
    Ok(())
}

/// Writes an initramfs with the table at `iort` in front of the one at `initramfs`.
pub fn with_iort(iort: &Path, initramfs: &Path, to: &Path) -> Result<(), Error> {
    let table = std::fs::read(iort).map_err(file("reading", iort))?;
    let archive = archive(&table).map_err(file("writing", to))?;
    let mut rest = std::fs::File::open(initramfs).map_err(file("reading", initramfs))?;
    let mut whole = std::fs::File::create(to).map_err(file("writing", to))?;
    whole.write_all(&archive).map_err(file("writing", to))?;
    std::io::copy(&mut rest, &mut whole).map_err(file("writing", to))?;
    Ok(())
}

/// The kernel looks for the table before it unpacks anything, so the archive must be the first and uncompressed.
fn archive(table: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut writer = cpio::Writer::new(Vec::new());
    let mut folder = String::new();
    for part in Path::new(iort::PATH).parent().into_iter().flat_map(Path::iter) {
        folder.push_str(&part.to_string_lossy());
        writer.directory(&folder)?;
        folder.push('/');
    }
    writer.file(iort::PATH, 0o644, table)?;
    writer.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_comes_first_and_below_its_folders() {
        let archive = archive(b"IORT and more").expect("memory takes it");
        assert!(archive.starts_with(b"070701"));
        let at = |text: &[u8]| archive.windows(text.len()).position(|window| window == text).expect("it is there");
        assert!(at(b"kernel\0") < at(b"kernel/firmware\0"));
        assert!(at(b"kernel/firmware/acpi\0") < at(b"kernel/firmware/acpi/iort.aml\0"));
        assert!(at(b"kernel/firmware/acpi/iort.aml\0") < at(b"IORT and more"));
    }

    #[test]
    fn the_rest_of_the_initramfs_follows() {
        let folder = tempfile::tempdir().expect("there is a temporary folder");
        let path = |name| folder.path().join(name);
        std::fs::write(path("iort"), "table").expect("it can be written");
        std::fs::write(path("initramfs"), "070701 the rest").expect("it can be written");
        with_iort(&path("iort"), &path("initramfs"), &path("whole")).expect("both can be read");
        let whole = std::fs::read(path("whole")).expect("it was written");
        assert!(whole.ends_with(b"070701 the rest"));
        assert_eq!((whole.len() - b"070701 the rest".len()) % 512, 0);
    }
}
