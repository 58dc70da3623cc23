//! The cache folder: entries named by the content they were made from, published whole or not at all, one maker at a time.

use std::env;
use std::fs::{self, File, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

use super::error::{Error, io};
use super::progress::Progress;

/// Under the cache root: what is being made right now, a folder per kind. It belongs to the holder of the kind's lock.
const WORK: &str = "work";

/// How long to wait for somebody else's work. The longest takes 8 minutes on two processors.
const LOCK_LIMIT: Duration = Duration::from_secs(60 * 60);
/// How often a lock is tried meanwhile.
const TRY_EVERY: Duration = Duration::from_millis(100);

/// The cache folder of one user.
#[derive(Clone, Debug)]
pub(super) struct Cache {
    root: PathBuf,
    limit: Duration,
}

impl Cache {
    /// The folder that was asked for, else the one of the environment. Nothing is created yet.
    pub(super) fn open(asked: Option<PathBuf>) -> Result<Self, Error> {
        let root = asked.or_else(|| folder(|name| env::var_os(name).map(PathBuf::from))).ok_or(Error::NoCacheFolder)?;
        let root = std::path::absolute(&root).map_err(io("find", &root))?;
        Ok(Self { root, limit: LOCK_LIMIT })
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// Where the entry of this kind and key is, or will be.
    pub(super) fn entry(&self, kind: &str, key: &str) -> PathBuf {
        self.root.join(format!("{kind}-{key}"))
    }

    /// Waits until nobody else is making an entry of this kind, and says for whom it waits.
    /// What an interrupted maker has left half-made is removed.
    pub(super) fn lock(&self, kind: &str, progress: &Progress) -> Result<Lock, Error> {
        let work = self.root.join(WORK);
        fs::create_dir_all(&work).map_err(io("create", &work))?;
        let path = work.join(format!("{kind}.lock"));
        let open = File::options().read(true).write(true).create(true).truncate(false).open(&path);
        let mut file = open.map_err(io("open", &path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                file.read_to_string(&mut holder).map_err(io("read", &path))?;
                let holder = if holder.is_empty() { "another process" } else { holder.trim() };
                progress.say(&format!("waiting for {holder}, which is making {kind} in {}", self.root.display()));
                self.wait(&file, &path, kind, holder)?;
            }
            Err(TryLockError::Error(source)) => return Err(io("lock", &path)(source)),
        }
        let write = |mut file: &File| {
            file.set_len(0)?;
            file.seek(SeekFrom::Start(0))?;
            writeln!(file, "process {}", std::process::id())
        };
        write(&file).map_err(io("write", &path))?;
        let work = work.join(kind);
        if work.exists() {
            progress.say(&format!("removing what an interrupted run left of {kind}"));
            remove(&work)?;
        }
        fs::create_dir(&work).map_err(io("create", &work))?;
        Ok(Lock { work, _file: file })
    }

    fn wait(&self, file: &File, path: &Path, kind: &str, holder: &str) -> Result<(), Error> {
        let end = Instant::now() + self.limit;
        while Instant::now() < end {
            std::thread::sleep(TRY_EVERY);
            match file.try_lock() {
                Err(TryLockError::WouldBlock) => {}
                locked => return locked.map_err(|error| io("lock", path)(error.into())),
            }
        }
        let (holder, kind, path) = (holder.to_owned(), kind.to_owned(), self.root.clone());
        Err(Error::Locked { holder, kind, path, limit: self.limit })
    }
}

/// The right to make entries of one kind; held until dropped. The kernel releases it when the process dies.
#[derive(Debug)]
pub(super) struct Lock {
    work: PathBuf,
    _file: File,
}

impl Lock {
    /// An empty folder to make something in.
    pub(super) fn stage(&self, name: &str) -> Result<PathBuf, Error> {
        let path = self.work.join(name);
        remove(&path)?;
        fs::create_dir(&path).map_err(io("create", &path))?;
        Ok(path)
    }

    /// Where the output of the program of this name goes.
    pub(super) fn log(&self, name: &str) -> PathBuf {
        self.work.join(format!("{name}.log"))
    }

    /// Makes a finished stage visible under its entry's name, in one step.
    pub(super) fn publish(&self, stage: &Path, entry: &Path) -> Result<(), Error> {
        if !entry.exists() {
            fs::rename(stage, entry).map_err(io("create", entry))?;
        }
        Ok(())
    }

    /// Replaces a small file of the cache in one step.
    pub(super) fn publish_text(&self, text: &str, path: &Path) -> Result<(), Error> {
        let staged = self.work.join("text");
        fs::write(&staged, text).map_err(io("write", &staged))?;
        fs::rename(&staged, path).map_err(io("write", path))
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // What stays behind costs space only; the next holder tries again and says so if it cannot.
        let _ = fs::remove_dir_all(&self.work);
    }
}

fn remove(path: &Path) -> Result<(), Error> {
    match fs::remove_dir_all(path) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => Err(io("remove", path)(source)),
        _ => Ok(()),
    }
}

/// The cache folder that the environment names: ours, else the user's (XDG base directory specification).
fn folder(var: impl Fn(&str) -> Option<PathBuf>) -> Option<PathBuf> {
    let set = |name| var(name).filter(|path| !path.as_os_str().is_empty());
    set("NESTLING_LAB_CACHE").or_else(|| {
        let user = set("XDG_CACHE_HOME").or_else(|| set("HOME").map(|home| home.join(".cache")))?;
        Some(user.join("nestling-lab"))
    })
}

/// The name of a content: inputs in order, each with its length, so that no two lists look the same.
pub(super) fn key<'a>(inputs: impl IntoIterator<Item = &'a [u8]>) -> String {
    let mut hash = Sha256::new();
    for input in inputs {
        hash.update((input.len() as u64).to_le_bytes());
        hash.update(input);
    }
    hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread;

    use super::*;

    fn cache() -> (tempfile::TempDir, Cache) {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(Some(folder.path().to_owned())).unwrap();
        (folder, cache)
    }

    #[test]
    fn the_lab_variable_wins_then_the_user_cache_then_home() {
        let var = |names: &'static [&'static str]| {
            move |name: &str| names.contains(&name).then(|| PathBuf::from(format!("/{name}")))
        };
        assert_eq!(folder(var(&["NESTLING_LAB_CACHE", "HOME"])), Some("/NESTLING_LAB_CACHE".into()));
        assert_eq!(folder(var(&["XDG_CACHE_HOME", "HOME"])), Some("/XDG_CACHE_HOME/nestling-lab".into()));
        assert_eq!(folder(var(&["HOME"])), Some("/HOME/.cache/nestling-lab".into()));
        assert_eq!(folder(var(&[])), None);
    }

    #[test]
    fn the_key_tells_lists_apart_that_join_alike() {
        let one = key([b"ab".as_slice(), b"c"]);
        assert_eq!(one.len(), 16);
        assert_eq!(one, key([b"ab".as_slice(), b"c"]));
        assert_ne!(one, key([b"a".as_slice(), b"bc"]));
        assert_ne!(one, key([b"abc".as_slice()]));
    }

    #[test]
    fn an_interrupted_stage_is_gone_and_never_an_entry() {
        let (_folder, cache) = cache();
        let entry = cache.entry("kernel", "0123");
        let stage = cache.root().join(WORK).join("kernel/stage");
        fs::create_dir_all(&stage).unwrap();
        fs::write(stage.join("Image"), "half").unwrap();
        let lock = cache.lock("kernel", &Progress::silent()).unwrap();
        assert!(!stage.exists() && !entry.exists());

        let stage = lock.stage("kernel").unwrap();
        fs::write(stage.join("Image"), "whole").unwrap();
        lock.publish(&stage, &entry).unwrap();
        assert_eq!(fs::read_to_string(entry.join("Image")).unwrap(), "whole");
    }

    #[test]
    fn the_second_of_two_runs_waits_for_the_first() {
        let (_folder, cache) = cache();
        let first = cache.lock("kernel", &Progress::silent()).unwrap();
        let (tell, told) = mpsc::channel();
        let second = cache.clone();
        let waiter = thread::spawn(move || {
            let _lock = second.lock("kernel", &Progress::silent()).unwrap();
            tell.send(()).unwrap();
        });
        assert!(told.recv_timeout(Duration::from_millis(100)).is_err());
        drop(first);
        told.recv_timeout(Duration::from_secs(10)).unwrap();
        waiter.join().unwrap();
    }

    #[test]
    fn nobody_waits_for_ever_and_everybody_knows_for_whom() {
        let (_folder, cache) = cache();
        let _first = cache.lock("kernel", &Progress::silent()).unwrap();
        let hasty = Cache { limit: Duration::from_millis(1), ..cache };
        let error = hasty.lock("kernel", &Progress::silent()).unwrap_err().to_string();
        assert!(error.contains(&format!("process {}, which is making kernel", std::process::id())), "{error}");
    }

    #[test]
    fn who_makes_another_kind_need_not_wait() {
        let (_folder, cache) = cache();
        let _kernel = cache.lock("kernel", &Progress::silent()).unwrap();
        let _images = cache.lock("images", &Progress::silent()).unwrap();
    }
}
