//! A kernel file, unpacked if need be: an Image, an Image.gz, or an EFI zboot image with gzip in it.
#![forbid(unsafe_code)]

use std::io::{self, Read};

use flate2::read::GzDecoder;

use super::Source;
use super::image::{self, Header, ImageError, MAX_IMAGE};

/// A kernel that can be started.
#[derive(Debug)]
pub struct Kernel<'a> {
    header: Header,
    content: Content<'a>,
}

#[derive(Debug)]
enum Content<'a> {
    Plain(Source<'a>),
    Unpacked(Vec<u8>),
}

impl<'a> Kernel<'a> {
    /// Reads what says whether and how `source` can be started; unpacks it if it is compressed with gzip.
    pub fn open(source: Source<'a>) -> Result<Self, ImageError> {
        let mut start = [0; image::PROBE];
        let count = source.read_at(&mut start, 0)?;
        let start = start.get(..count).unwrap_or_default();
        let Some(stream) = image::gzip_stream(start) else {
            return Ok(Self { header: Header::parse(start)?, content: Content::Plain(source) });
        };
        let image = unpack(source, stream)?;
        Ok(Self { header: Header::parse(&image)?, content: Content::Unpacked(image) })
    }

    /// Its header.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The Image.
    pub(super) fn image(&self) -> Source<'_> {
        match &self.content {
            Content::Plain(source) => *source,
            Content::Unpacked(image) => Source::Bytes(image),
        }
    }
}

fn unpack(source: Source<'_>, offset: u64) -> Result<Vec<u8>, ImageError> {
    let mut image = Vec::new();
    let mut reader = GzDecoder::new(Reader { source, offset }).take(MAX_IMAGE + 1);
    reader.read_to_end(&mut image).map_err(ImageError::Unpack)?;
    match image.len() as u64 {
        size if size > MAX_IMAGE => Err(ImageError::Damaged { image_size: size, text_offset: 0 }),
        _ => Ok(image),
    }
}

/// The bytes of a source from `offset` on.
struct Reader<'a> {
    source: Source<'a>,
    offset: u64,
}

impl Read for Reader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.source.read_at(buffer, self.offset)?;
        self.offset += count as u64;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    fn image() -> Vec<u8> {
        let mut bytes = vec![0x42; 100_000];
        bytes[..64].fill(0);
        bytes[16..24].copy_from_slice(&0x2_0000u64.to_le_bytes());
        bytes[56..60].copy_from_slice(b"ARM\x64");
        bytes
    }

    fn packed() -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(&image()).unwrap();
        encoder.finish().unwrap()
    }

    fn unpacked(file: &[u8]) -> Vec<u8> {
        let kernel = Kernel::open(Source::Bytes(file)).unwrap();
        assert_eq!(kernel.header().image_size, 0x2_0000);
        let Source::Bytes(bytes) = kernel.image() else { panic!("a file") };
        bytes.to_vec()
    }

    #[test]
    fn an_image_is_taken_as_it_is_and_a_packed_one_is_unpacked() {
        assert_eq!(unpacked(&image()), image());
        assert_eq!(unpacked(&packed()), image());
    }

    #[test]
    fn the_gzip_stream_of_a_zboot_image_is_found() {
        let mut file = vec![0; 0x1000];
        file[..8].copy_from_slice(b"MZ\0\0zimg");
        file[8..12].copy_from_slice(&0x1000u32.to_le_bytes());
        file[24..28].copy_from_slice(b"gzip");
        file.extend(packed());
        assert_eq!(unpacked(&file), image());
    }

    #[test]
    fn a_cut_stream_and_a_packed_something_are_refused() {
        let packed = packed();
        let error = Kernel::open(Source::Bytes(&packed[..packed.len() / 2])).unwrap_err();
        assert!(matches!(error, ImageError::Unpack(_)));
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(b"\x7fELF").unwrap();
        let error = Kernel::open(Source::Bytes(&encoder.finish().unwrap())).unwrap_err();
        assert!(matches!(error, ImageError::Elf));
    }
}
