//! Whether the kernel and the initrd are there and what they should be, before anything is started.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use super::Error;

/// `text_offset`, `image_size` and `magic` of the arm64 Image header (Documentation/arch/arm64/booting.rst).
const IMAGE_SIZE: usize = 16;
const MAGIC: usize = 56;
const HEADER: usize = 64;

/// Checks the kernel and the initrd of a guest with `memory` bytes.
pub fn check_boot_files(kernel: &Path, initrd: Option<&Path>, memory: u64) -> Result<(), Error> {
    let (mut file, file_size) = open("kernel", kernel)?;
    let mut start = Vec::new();
    let read = file.by_ref().take(HEADER as u64).read_to_end(&mut start);
    read.map_err(|source| Error::BootFile { what: "kernel", path: kernel.into(), source })?;
    if start.get(MAGIC..MAGIC + 4) != Some(b"ARM\x64") {
        let (found, remedy) = what_it_is(&start);
        return Err(Error::NotAnImage { path: kernel.into(), found, remedy });
    }
    let declared = start.get(IMAGE_SIZE..IMAGE_SIZE + 8).and_then(|bytes| bytes.try_into().ok());
    // With its BSS the kernel takes more than the file has.
    let kernel_size = file_size.max(declared.map_or(0, u64::from_le_bytes));
    let too_large = |what, path: &Path, size| Error::BootFileTooLarge { what, path: path.into(), size, memory };
    let left = memory.checked_sub(kernel_size).ok_or_else(|| too_large("kernel", kernel, kernel_size))?;
    if let Some(initrd) = initrd {
        let (_, size) = open("initrd", initrd)?;
        if size > left {
            return Err(too_large("initrd", initrd, size));
        }
    }
    Ok(())
}

fn open(what: &'static str, path: &Path) -> Result<(File, u64), Error> {
    let opened = File::open(path).and_then(|file| {
        let metadata = file.metadata()?;
        if metadata.is_dir() { Err(std::io::ErrorKind::IsADirectory.into()) } else { Ok((file, metadata.len())) }
    });
    opened.map_err(|source| Error::BootFile { what, path: path.into(), source })
}

/// What the file looks like, and what to do with it.
fn what_it_is(start: &[u8]) -> (&'static str, &'static str) {
    const GIVE_IMAGE: &str = "give the 'Image' of an arm64 kernel (arch/arm64/boot/Image of a build)";
    match start {
        [] => ("empty", GIVE_IMAGE),
        [0x1f, 0x8b, ..] => ("compressed with gzip", "decompress it: gzip -dc FILE > Image"),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => ("compressed with zstd", "decompress it: zstd -dc FILE > Image"),
        [0xfd, b'7', b'z', b'X', b'Z', ..] => ("compressed with xz", "decompress it: xz -dc FILE > Image"),
        [b'M', b'Z', _, _, b'z', b'i', b'm', b'g', ..] => {
            ("a self-decompressing EFI image (vmlinuz.efi)", "give the 'Image' that it was made of")
        }
        [0x7f, b'E', b'L', b'F', ..] => {
            ("an ELF file", "if it is a vmlinux, make an Image of it: objcopy -O binary vmlinux Image")
        }
        _ => ("something else", GIVE_IMAGE),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    fn image(folder: &Path, size: u64) -> PathBuf {
        let mut bytes = vec![0; 128];
        bytes[IMAGE_SIZE..IMAGE_SIZE + 8].copy_from_slice(&size.to_le_bytes());
        bytes[MAGIC..MAGIC + 4].copy_from_slice(b"ARM\x64");
        write(folder, "Image", &bytes)
    }

    fn write(folder: &Path, name: &str, bytes: &[u8]) -> PathBuf {
        let path = folder.join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }

    #[test]
    fn an_image_and_an_initrd_that_fit_are_accepted() {
        let folder = tempfile::tempdir().unwrap();
        let kernel = image(folder.path(), 1 << 20);
        let initrd = write(folder.path(), "initrd", &[0; 4096]);
        check_boot_files(&kernel, None, 1 << 20).unwrap();
        check_boot_files(&kernel, Some(&initrd), 2 << 20).unwrap();
    }

    #[test]
    fn files_that_do_not_fit_name_themselves() {
        let folder = tempfile::tempdir().unwrap();
        let kernel = image(folder.path(), 1 << 20);
        let initrd = write(folder.path(), "initrd", &[0; 4096]);
        let refused = check_boot_files(&kernel, None, 4096).unwrap_err().to_string();
        assert!(refused.starts_with("guest memory of 4096 bytes cannot hold the kernel '"), "{refused}");
        let refused = check_boot_files(&kernel, Some(&initrd), 1 << 20).unwrap_err().to_string();
        assert!(refused.contains("cannot hold the initrd") && refused.contains("(4096 bytes)"), "{refused}");
    }

    #[test]
    fn missing_files_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let missing = folder.path().join("none");
        let refused = check_boot_files(&missing, None, 1 << 30).unwrap_err().to_string();
        assert!(refused.starts_with("kernel '") && refused.ends_with("none' cannot be read"), "{refused}");
        let kernel = image(folder.path(), 0);
        let refused = check_boot_files(&kernel, Some(&missing), 1 << 30).unwrap_err().to_string();
        assert!(refused.starts_with("initrd '"), "{refused}");
        assert!(check_boot_files(folder.path(), None, 1 << 30).is_err(), "a folder is no kernel");
    }

    #[test]
    fn what_is_no_image_is_called_by_its_name() {
        let folder = tempfile::tempdir().unwrap();
        for (bytes, named) in [
            (&b""[..], "is empty"),
            (b"\x1f\x8b\x08", "is compressed with gzip, not an arm64 Image; decompress it: gzip -dc"),
            (b"\x7fELF\x02", "is an ELF file, not an arm64 Image; if it is a vmlinux"),
            (b"MZ\0\0zimg", "is a self-decompressing EFI image"),
            (b"#!/bin/sh", "is something else, not an arm64 Image; give the 'Image'"),
        ] {
            let kernel = write(folder.path(), "kernel", bytes);
            let refused = check_boot_files(&kernel, None, 1 << 30).unwrap_err().to_string();
            assert!(refused.contains(named), "{refused}");
        }
    }
}
