//! Writes newc cpio archives, the form of an initramfs (the kernel's `Documentation/driver-api/early-userspace/buffer-format.rst`).
//!
//! The same calls give the same bytes: no clocks, no inode numbers of this machine, everything belongs to root.

use std::io::{self, Write};

const TYPE_DIRECTORY: u32 = 0o040_000;
const TYPE_FILE: u32 = 0o100_000;
const TYPE_LINK: u32 = 0o120_000;
const TYPE_CHARACTER_DEVICE: u32 = 0o020_000;

/// An archive under construction. Names are relative to the root and have no leading slash; a folder must be written
/// before what lies in it, or the kernel drops the latter.
#[derive(Debug)]
pub struct Writer<W: Write> {
    to: W,
    written: u64,
    inode: u32,
}

impl<W: Write> Writer<W> {
    /// Begins an archive.
    pub fn new(to: W) -> Self {
        Self { to, written: 0, inode: 0 }
    }

    /// Adds a folder with mode 0755.
    ///
    /// # Errors
    /// Those of the underlying writer; the same holds for the other methods.
    pub fn directory(&mut self, name: &str) -> io::Result<()> {
        self.entry(name, TYPE_DIRECTORY | 0o755, (0, 0), &[])
    }

    /// Adds a file with these permission bits.
    ///
    /// # Errors
    /// As above, and for more than 4 GiB of content, which the format cannot say.
    pub fn file(&mut self, name: &str, mode: u32, content: &[u8]) -> io::Result<()> {
        self.entry(name, TYPE_FILE | (mode & 0o7777), (0, 0), content)
    }

    /// Adds a symbolic link.
    ///
    /// # Errors
    /// As above.
    pub fn symlink(&mut self, name: &str, target: &str) -> io::Result<()> {
        self.entry(name, TYPE_LINK | 0o777, (0, 0), target.as_bytes())
    }

    /// Adds a character device. An init without `/dev/console` has no standard input and output.
    ///
    /// # Errors
    /// As above.
    pub fn character_device(&mut self, name: &str, mode: u32, major: u32, minor: u32) -> io::Result<()> {
        self.entry(name, TYPE_CHARACTER_DEVICE | (mode & 0o7777), (major, minor), &[])
    }

    /// Ends the archive. It is padded to 512 bytes, so that another may follow.
    ///
    /// # Errors
    /// As above.
    pub fn finish(mut self) -> io::Result<W> {
        self.inode = 0;
        self.header("TRAILER!!!", 0, (0, 0), 0)?;
        self.pad(512)?;
        self.to.flush()?;
        Ok(self.to)
    }

    fn entry(&mut self, name: &str, mode: u32, device: (u32, u32), content: &[u8]) -> io::Result<()> {
        self.inode += 1;
        let size = u32::try_from(content.len()).map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))?;
        self.header(name, mode, device, size)?;
        self.put(content)?;
        self.pad(4)
    }

    fn header(&mut self, name: &str, mode: u32, device: (u32, u32), size: u32) -> io::Result<()> {
        let (inode, links) = (self.inode, 1);
        let name_size = name.len() + 1;
        let (uid, gid, time, check) = (0, 0, 0, 0);
        let (major, minor) = (0, 0);
        let (device_major, device_minor) = device;
        let header = format!(
            "070701{inode:08x}{mode:08x}{uid:08x}{gid:08x}{links:08x}{time:08x}{size:08x}{major:08x}{minor:08x}\
             {device_major:08x}{device_minor:08x}{name_size:08x}{check:08x}{name}\0"
        );
        self.put(header.as_bytes())?;
        self.pad(4)
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.written += bytes.len() as u64;
        self.to.write_all(bytes)
    }

    fn pad(&mut self, to: u64) -> io::Result<()> {
        let missing = self.written.next_multiple_of(to) - self.written;
        self.put(&vec![0; missing as usize])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(bytes: &[u8], index: usize) -> u32 {
        let from = 6 + 8 * index;
        u32::from_str_radix(std::str::from_utf8(&bytes[from..from + 8]).unwrap(), 16).unwrap()
    }

    #[test]
    fn a_file_has_its_mode_size_name_and_content_at_aligned_places() {
        let mut writer = Writer::new(Vec::new());
        writer.file("init", 0o755, b"hello").unwrap();
        let bytes = writer.finish().unwrap();
        assert_eq!(&bytes[..6], b"070701");
        assert_eq!(field(&bytes, 1), 0o100_755);
        assert_eq!(field(&bytes, 6), 5);
        assert_eq!(field(&bytes, 11), 5);
        assert_eq!(&bytes[110..115], b"init\0");
        assert_eq!(&bytes[116..121], b"hello");
        assert_eq!(&bytes[124..130], b"070701");
    }

    #[test]
    fn an_archive_ends_with_a_trailer_and_full_blocks() {
        let mut writer = Writer::new(Vec::new());
        writer.directory("dev").unwrap();
        writer.character_device("dev/console", 0o600, 5, 1).unwrap();
        writer.symlink("bin", "usr/bin").unwrap();
        let bytes = writer.finish().unwrap();
        assert_eq!(bytes.len() % 512, 0);
        let text = String::from_utf8_lossy(&bytes);
        assert!(text.contains("TRAILER!!!") && text.contains("usr/bin"));
    }

    #[test]
    fn the_same_calls_give_the_same_bytes() {
        let make = || {
            let mut writer = Writer::new(Vec::new());
            writer.file("a", 0o644, b"1").unwrap();
            writer.finish().unwrap()
        };
        assert_eq!(make(), make());
    }
}
