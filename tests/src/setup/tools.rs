//! Builds the C programs that guests of the tests run: the kernel's own VFIO selftests and its DMA mapping benchmark, out of
//! the same source as the kernel, and `resources/lab/guest-dma.c`. They are static, so that a guest needs nothing else.

use std::fs;
use std::path::{Path, PathBuf};

use super::cache::{self, Cache, Lock};
use super::command::Tool;
use super::error::{Error, io};
use super::kernel::SOURCE;
use super::packages::{Held, Set, Shape};
use super::progress::{Progress, Unit};

/// Counts up when this module builds the same inputs differently.
const RECIPE: &[u8] = b"1";

/// The C library for the guest, with headers and static archives.
pub(super) const SET: Set =
    Set { kind: "guest-libraries", arch: "arm64", names: &["libc6-dev", "uuid-dev"], shape: Shape::Root };

/// Our own program.
const GUEST_DMA: &str = include_str!("../../../resources/lab/guest-dma.c");

/// The programs, by the names they have in the guest.
pub(super) const PROGRAMS: &[&str] = &[
    "vfio_dma_mapping_test",
    "vfio_dma_mapping_mmio_test",
    "vfio_iommufd_setup_test",
    "vfio_pci_device_test",
    "vfio_pci_driver_test",
    "dma_map_benchmark",
    "guest-dma",
];

/// What of the source is needed: the programs, what they include, and what makes the user's headers.
const PARTS: &[&str] = &[
    "tools/testing/selftests/*.h",
    "tools/testing/selftests/lib.mk",
    "tools/testing/selftests/vfio",
    "tools/dma",
    "tools/include",
    "tools/arch",
    "tools/scripts",
    "drivers/net/ethernet/intel/igb/*.h",
    "include",
    "scripts",
    "usr",
    "arch/arm64/include",
    "arch/arm64/tools",
    "arch/arm64/Makefile",
    "Makefile",
];

/// What is built, in a shell in the source's folder. `$1` is the compiler with its options, `$2` the folder of the programs;
/// what follows goes to make. The selftests' own rules compile; they link by their rules too, since `CC` says how.
const SCRIPT: &str = r#"set -e
compiler=$1 programs=$2
shift 2
make "$@" headers
headers="-isystem $PWD/usr/include"
mkdir vfio
make -C tools/testing/selftests/vfio "$@" CC="$compiler" KHDR_INCLUDES="$headers" top_srcdir="$PWD" OUTPUT="$PWD/vfio"
tests=tools/testing/selftests
$compiler -O2 -D_GNU_SOURCE -Wall -Werror $headers -I$tests -I$tests/vfio/lib/include -Itools/include \
    guest-dma.c $(find vfio/libvfio -name '*.o') -pthread -luuid -o vfio/guest-dma
$compiler -O2 $headers tools/dma/dma_map_benchmark.c -o vfio/dma_map_benchmark
"#;

/// Lines that the build prints, for the progress bar.
const EXPECTED_LINES: u64 = 1050;

/// Where the programs are, or will be.
fn entry(cache: &Cache, source: &Held, libraries: &Held) -> PathBuf {
    let keys = [source.release.key(), libraries.release.key()];
    let inputs = [RECIPE, keys[0].as_bytes(), keys[1].as_bytes(), SCRIPT.as_bytes(), GUEST_DMA.as_bytes()];
    cache.entry("guest-tools", &cache::key(inputs.into_iter().chain(PROGRAMS.iter().map(|name| name.as_bytes()))))
}

/// The folder of the programs, if the cache has it.
pub(super) fn held(cache: &Cache, source: &Held, libraries: &Held) -> Option<PathBuf> {
    Some(entry(cache, source, libraries)).filter(|entry| entry.is_dir())
}

/// The folder of the programs, built if the cache has none.
pub(super) fn get(cache: &Cache, progress: &Progress, source: &Held, libraries: &Held) -> Result<PathBuf, Error> {
    if let Some(entry) = held(cache, source, libraries) {
        return Ok(entry);
    }
    let lock = cache.lock("guest-tools", progress)?;
    // Whoever held the lock may have built them.
    held(cache, source, libraries).map_or_else(|| make(cache, &lock, progress, source, libraries), Ok)
}

fn make(cache: &Cache, lock: &Lock, progress: &Progress, source: &Held, libraries: &Held) -> Result<PathBuf, Error> {
    let tree = unpack(lock, source)?;
    let text = tree.join("guest-dma.c");
    fs::write(&text, GUEST_DMA).map_err(io("write", &text))?;

    let stage = lock.stage("entry")?;
    let log = lock.log("tools");
    let prefix = if cfg!(target_arch = "aarch64") { "" } else { "aarch64-linux-gnu-" };
    let compiler = format!("{prefix}gcc --sysroot={} -static", libraries.path.display());
    let mut step = progress.step("building the guest's test programs", Unit::Things("files"), EXPECTED_LINES);
    Tool::new("building the guest's test programs", "sh")
        .args(["-c", SCRIPT, "sh", &compiler])
        .arg(&stage)
        .args(["-j2", "ARCH=arm64", &format!("CROSS_COMPILE={prefix}")])
        .current_dir(&tree)
        .run(&log, || step.set(super::kernel::count_lines(&log)))?;
    step.done();
    for program in PROGRAMS {
        let from = tree.join("vfio").join(program);
        fs::rename(&from, stage.join(program)).map_err(io("move", &from))?;
    }
    let entry = entry(cache, source, libraries);
    lock.publish(&stage, &entry)?;
    Ok(entry)
}

/// The [`PARTS`] of the kernel's source.
fn unpack(lock: &Lock, source: &Held) -> Result<PathBuf, Error> {
    let tree = lock.stage("linux")?;
    let archive = super::kernel::archive(source)?;
    let script = r#"source=$1 name=$2 to=$3
        shift 3
        dpkg-deb --fsys-tarfile "$source" | tar -xO --wildcards "./usr/src/$name.tar.*" | xz -T0 -dc |
            tar -x -C "$to" --strip-components=1 --wildcards "$@""#;
    Tool::new("unpacking parts of the kernel source", "sh")
        .args(["-c", script, "sh"])
        .args([archive.as_path(), Path::new(SOURCE), &tree])
        .args(PARTS.iter().map(|part| format!("{SOURCE}/{part}")))
        .output()?;
    Ok(tree)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_built_is_in_the_parts_that_are_unpacked() {
        for part in ["tools/testing/selftests/vfio", "tools/dma"] {
            assert!(PARTS.contains(&part) && SCRIPT.contains(part), "{part}");
        }
        assert!(PROGRAMS.contains(&"guest-dma") && SCRIPT.contains("-o vfio/guest-dma"));
    }
}
