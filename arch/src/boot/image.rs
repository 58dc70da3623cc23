//! The header of an arm64 Image, and what is said about files that are something else.
//!
//! Source: Documentation/arch/arm64/booting.rst, "Call the kernel image"; arch/arm64/include/asm/image.h.
#![forbid(unsafe_code)]

use std::io;

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

const MAGIC: [u8; 4] = *b"ARM\x64";
const FLAG_BIG_ENDIAN: u64 = 1;
/// Larger than any kernel; keeps sums of a damaged header's fields sane.
pub(super) const MAX_IMAGE: u64 = 1 << 30;
/// `text_offset` is below the alignment it is counted from.
const MAX_TEXT_OFFSET: u64 = 2 << 20;
/// Enough for every signature below.
pub(super) const PROBE: usize = 0x206;

/// Why a file cannot be started as a kernel.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The file cannot be read.
    #[error("the kernel file cannot be read")]
    Read(#[from] io::Error),
    /// Nothing that is known.
    #[error(
        "the kernel is not an arm64 Image: give arch/arm64/boot/Image of a kernel build, or a distribution's vmlinuz for arm64"
    )]
    NotAnImage,
    /// The gzip stream cannot be unpacked.
    #[error("the kernel is compressed with gzip and cannot be unpacked: give an intact file")]
    Unpack(#[source] io::Error),
    /// Compressed in a way that is not unpacked here.
    #[error("the kernel is compressed ({0}): unpack it first ({remedy})", remedy = .0.remedy())]
    Compressed(Compression),
    /// EFI zboot with something else than gzip.
    #[error("the kernel is an EFI zboot image (compressed with {0}): give the unpacked arch/arm64/boot/Image")]
    Zboot(String),
    /// ELF.
    #[error("the kernel is an ELF file (vmlinux): give arch/arm64/boot/Image of the same build")]
    Elf,
    /// A PE file without the arm64 magic.
    #[error(
        "the kernel is an EFI program but not an arm64 Image: give the Image itself (a unified kernel image holds it in section .linux)"
    )]
    Efi,
    /// bzImage.
    #[error("the kernel is for x86: give one for arm64")]
    X86,
    /// A big-endian kernel.
    #[error("the kernel is big-endian: give a little-endian one")]
    BigEndian,
    /// Made before Linux 3.17.
    #[error("the kernel does not say how much memory it needs (older than Linux 3.17): give a newer one")]
    NoImageSize,
    /// Fields that cannot be.
    #[error(
        "the kernel's header is damaged (image_size {image_size:#x}, text_offset {text_offset:#x}): give an intact Image"
    )]
    Damaged {
        /// Its `image_size`.
        image_size: u64,
        /// Its `text_offset`.
        text_offset: u64,
    },
}

/// How a file is compressed as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Zstandard.
    Zstd,
    /// XZ.
    Xz,
    /// LZ4, legacy frame.
    Lz4,
}

impl Compression {
    const fn remedy(self) -> &'static str {
        match self {
            Self::Zstd => "zstd -dc FILE > Image",
            Self::Xz => "xz -dc FILE > Image",
            Self::Lz4 => "lz4 -dc FILE > Image",
        }
    }
}

impl std::fmt::Display for Compression {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Zstd => "zstd",
            Self::Xz => "xz",
            Self::Lz4 => "lz4",
        })
    }
}

/// The granule that a kernel was built for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageSize {
    /// Not said.
    Unspecified,
    /// 4 KiB.
    Kib4,
    /// 16 KiB.
    Kib16,
    /// 64 KiB.
    Kib64,
}

/// What the header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Offset of the image from a 2 MiB boundary, in bytes. 0 since Linux 5.10.
    pub text_offset: u64,
    /// Memory that the kernel needs from there on, in bytes: file and .bss.
    pub image_size: u64,
    /// Its granule.
    pub page_size: PageSize,
    /// Whether it can be anywhere in RAM; else it is best near the start.
    pub anywhere: bool,
}

#[derive(FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawHeader {
    code: [U32; 2],
    text_offset: U64,
    image_size: U64,
    flags: U64,
    reserved: [U64; 3],
    magic: [u8; 4],
    pe_offset: U32,
}

impl Header {
    /// Parses the first bytes of a file; 64 are enough for an Image, 518 to name everything else.
    pub fn parse(start: &[u8]) -> Result<Self, ImageError> {
        let raw = match RawHeader::read_from_prefix(start) {
            Ok((raw, _)) if raw.magic == MAGIC => raw,
            _ => return Err(recognise(start)),
        };
        let (image_size, text_offset, flags) = (raw.image_size.get(), raw.text_offset.get(), raw.flags.get());
        if flags & FLAG_BIG_ENDIAN != 0 {
            return Err(ImageError::BigEndian);
        }
        if image_size == 0 {
            return Err(ImageError::NoImageSize);
        }
        if image_size > MAX_IMAGE || text_offset >= MAX_TEXT_OFFSET {
            return Err(ImageError::Damaged { image_size, text_offset });
        }
        let page_size = match flags >> 1 & 3 {
            1 => PageSize::Kib4,
            2 => PageSize::Kib16,
            3 => PageSize::Kib64,
            _ => PageSize::Unspecified,
        };
        Ok(Self { text_offset, image_size, page_size, anywhere: flags >> 3 & 1 != 0 })
    }
}

/// Where in a file the gzip stream with the Image begins, if there is one: Image.gz or EFI zboot.
pub(super) fn gzip_stream(start: &[u8]) -> Option<u64> {
    if start.starts_with(&[0x1f, 0x8b]) {
        return Some(0);
    }
    let is_zboot = start.starts_with(b"MZ") && start.get(4..8) == Some(b"zimg") && zboot_compression(start) == "gzip";
    let offset = start.get(8..12).filter(|_| is_zboot)?;
    Some(u32::from_le_bytes(offset.try_into().ok()?).into())
}

/// Says what a file is that is no Image.
fn recognise(start: &[u8]) -> ImageError {
    let at = |offset: usize, bytes: &[u8]| start.get(offset..).is_some_and(|rest| rest.starts_with(bytes));
    match () {
        _ if at(0, &[0x28, 0xb5, 0x2f, 0xfd]) => ImageError::Compressed(Compression::Zstd),
        _ if at(0, &[0xfd, b'7', b'z', b'X', b'Z', 0]) => ImageError::Compressed(Compression::Xz),
        _ if at(0, &[0x02, 0x21, 0x4c, 0x18]) => ImageError::Compressed(Compression::Lz4),
        // drivers/firmware/efi/libstub/zboot-header.S
        _ if at(0, b"MZ") && at(4, b"zimg") => ImageError::Zboot(zboot_compression(start)),
        _ if at(0, b"\x7fELF") => ImageError::Elf,
        // Documentation/arch/x86/boot.rst
        _ if at(0x202, b"HdrS") => ImageError::X86,
        _ if at(0, b"MZ") => ImageError::Efi,
        _ => ImageError::NotAnImage,
    }
}

/// The name in a zboot header: up to 32 bytes at 24.
fn zboot_compression(start: &[u8]) -> String {
    let name = start.get(24..).unwrap_or_default().iter().take(32);
    name.take_while(|byte| byte.is_ascii_alphanumeric()).map(|&byte| char::from(byte)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(image_size: u64, flags: u64) -> Vec<u8> {
        let mut bytes = vec![0; 64];
        bytes[16..24].copy_from_slice(&image_size.to_le_bytes());
        bytes[24..32].copy_from_slice(&flags.to_le_bytes());
        bytes[56..60].copy_from_slice(&MAGIC);
        bytes
    }

    #[test]
    fn a_kernel_of_today_is_understood() {
        let header = Header::parse(&image(0x102_0000, 0b1010)).unwrap();
        assert_eq!(
            header,
            Header { text_offset: 0, image_size: 0x102_0000, page_size: PageSize::Kib4, anywhere: true }
        );
    }

    #[test]
    fn page_sizes_are_told_apart() {
        let size = |flags| Header::parse(&image(1, flags)).unwrap().page_size;
        assert_eq!(size(0), PageSize::Unspecified);
        assert_eq!(size(0b100), PageSize::Kib16);
        assert_eq!(size(0b110), PageSize::Kib64);
    }

    #[test]
    fn big_endian_old_and_damaged_kernels_are_refused() {
        assert!(matches!(Header::parse(&image(1, 1)), Err(ImageError::BigEndian)));
        assert!(matches!(Header::parse(&image(0, 0)), Err(ImageError::NoImageSize)));
        assert!(matches!(Header::parse(&image(u64::MAX, 0)), Err(ImageError::Damaged { .. })));
        let mut bytes = image(1, 0);
        bytes[8..16].copy_from_slice(&MAX_TEXT_OFFSET.to_le_bytes());
        assert!(matches!(Header::parse(&bytes), Err(ImageError::Damaged { .. })));
    }

    #[test]
    fn other_files_are_named_with_their_remedy() {
        let text = |start: &[u8]| Header::parse(start).unwrap_err().to_string();
        assert!(text(&[0x28, 0xb5, 0x2f, 0xfd]).contains("(zstd): unpack it first (zstd -dc"));
        assert!(text(b"\x7fELF").contains("vmlinux"));
        assert!(text(b"").contains("not an arm64 Image"));
        assert!(text(&[0; 600]).contains("not an arm64 Image"));
        let mut zboot = *b"MZ\0\0zimg----------------zstd22\0\0";
        zboot[8..24].fill(0);
        assert!(text(&zboot).contains("zboot image (compressed with zstd22)"));
        let mut pe = [0; 600];
        pe[..2].copy_from_slice(b"MZ");
        assert!(text(&pe).contains("EFI program"));
        pe[0x202..0x206].copy_from_slice(b"HdrS");
        assert!(text(&pe).contains("x86"));
    }
}
