//! Memory of the host, limits of this process, and which files it may open.

use std::fs;
use std::path::Path;

use super::Error;
use super::spec::{Access, Memlock, Memory};

/// Bit of CAP_IPC_LOCK in a capability set (include/uapi/linux/capability.h).
const CAP_IPC_LOCK: u32 = 14;

/// Host memory, of `/proc/meminfo`.
pub fn memory(root: &Path) -> Result<Memory, Error> {
    let text = read(root, "proc/meminfo")?;
    let bytes = |name: &str| -> u64 {
        let kib = field(&text, name).and_then(|value| value.split_whitespace().next()?.parse::<u64>().ok());
        kib.unwrap_or(0).saturating_mul(1024)
    };
    Ok(Memory {
        total: bytes("MemTotal:"),
        available: bytes("MemAvailable:"),
        page_size: rustix::param::page_size() as u64,
    })
}

/// What this process may pin, of `/proc/self/limits` and `/proc/self/status`.
pub fn memlock(root: &Path) -> Result<Memlock, Error> {
    let limits = read(root, "proc/self/limits")?;
    let soft = field(&limits, "Max locked memory").and_then(|values| values.split_whitespace().next());
    let status = read(root, "proc/self/status")?;
    let effective = field(&status, "CapEff:").and_then(|value| u64::from_str_radix(value.trim(), 16).ok());
    Ok(Memlock {
        // "unlimited" is no number.
        limit: soft.and_then(|value| value.parse().ok()),
        exempt: effective.is_some_and(|set| set & 1 << CAP_IPC_LOCK != 0),
    })
}

/// Whether this process may open `path` for reading and writing.
pub fn access(root: &Path, path: &Path) -> Access {
    use rustix::fs::{Access as Mode, access};
    use rustix::io::Errno;
    let path = root.join(path.strip_prefix("/").unwrap_or(path));
    match access(&path, Mode::READ_OK | Mode::WRITE_OK) {
        Ok(()) => Access::Ok,
        Err(Errno::NOENT | Errno::NOTDIR) => Access::Missing,
        Err(_) => Access::Denied,
    }
}

fn read(root: &Path, name: &str) -> Result<String, Error> {
    let path = root.join(name);
    fs::read_to_string(&path).map_err(|source| Error::Read { path, source })
}

/// What follows `name` in the line that starts with it.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::testing::Fixture;

    #[test]
    fn memory_is_read_in_bytes() {
        let host = Fixture::new();
        let memory = memory(host.root()).unwrap();
        assert_eq!((memory.total, memory.available), (6 << 30, 5 << 30));
    }

    #[test]
    fn the_memlock_limit_is_the_soft_one_unless_the_process_is_exempt() {
        let host = Fixture::new();
        assert_eq!(memlock(host.root()).unwrap(), Memlock { limit: Some(8 << 20), exempt: false });
        host.file("proc/self/limits", "Max locked memory         unlimited            unlimited            bytes\n");
        host.file("proc/self/status", "Name:\tx\nCapEff:\t0000000000004000\n");
        assert_eq!(memlock(host.root()).unwrap(), Memlock { limit: None, exempt: true });
    }

    #[test]
    fn a_device_file_is_there_or_missing() {
        let host = Fixture::new();
        assert_eq!(access(host.root(), Path::new("/dev/kvm")), Access::Ok);
        assert_eq!(access(host.root(), Path::new("/dev/vfio/devices/vfio9")), Access::Missing);
    }

    #[test]
    fn a_host_without_proc_is_an_error_that_names_the_file() {
        let empty = tempfile::tempdir().unwrap();
        let refused = memory(empty.path()).unwrap_err().to_string();
        assert!(refused.contains("proc/meminfo"), "{refused}");
    }
}
