//! The aarch64 programs that run in the emulated host and in the guest, unpacked from Debian's packages.

use super::packages::{Set, Shape};

/// Programs for both worlds; [`super::images`] picks from them what goes into which image.
pub(super) const SET: Set = Set {
    kind: "userland",
    arch: "arm64",
    names: &["busybox-static", "pciutils", "nvme-cli", "e2fsprogs", "acpica-tools", "kexec-tools"],
    shape: Shape::Root,
};
