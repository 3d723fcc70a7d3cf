//! The directory tree under a store's root: walking it without following a symbolic link, making directories
//! durably, and removing empty ones, all safe against other processes that do the same.
//!
//! Every path is walked from the root by `openat` with `O_NOFOLLOW`, so a link that someone puts into the tree
//! leads nowhere. The root itself is opened by its path each time: a root that vanished (an unmounted disk) is
//! [`Kind::Unavailable`], never "no such object".

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;
use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, Stat, fstat, fsync, mkdirat, open, openat, statat, unlinkat,
};
use rustix::io::Errno;

use super::handles::Handles;
use crate::contract::{ObjectMeta, Result};
use crate::error::{Error, Kind};
use crate::key::Key;

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);
/// So many directories are remembered as durable before all are forgotten.
const DURABLE_DIRS_MAX: usize = 4096;

/// What is done to what: the first half of an error's text.
#[derive(Clone, Debug)]
pub(super) struct At {
    pub(super) operation: String,
    pub(super) object: String,
}

impl At {
    pub(super) fn error(&self, kind: Kind, detail: impl Into<String>) -> Error {
        Error::new(kind, &self.operation, &self.object, detail)
    }

    /// An error of the operating system while doing `step`.
    pub(super) fn failed(&self, step: &str, errno: Errno) -> Error {
        self.error(kind_of(errno), format!("{step}: {errno}")).with_source(std::io::Error::from(errno))
    }

    pub(super) fn absent(&self) -> Error {
        self.error(Kind::NotFound, "no such file")
    }
}

fn kind_of(errno: Errno) -> Kind {
    match errno {
        Errno::NOENT => Kind::NotFound,
        Errno::EXIST => Kind::AlreadyExists,
        Errno::ACCESS | Errno::PERM | Errno::ROFS => Kind::Denied,
        Errno::NOSPC | Errno::DQUOT => Kind::NoSpace,
        Errno::NAMETOOLONG | Errno::NOTDIR | Errno::ISDIR | Errno::LOOP | Errno::FBIG => Kind::Invalid,
        Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::STALE | Errno::TIMEDOUT | Errno::NODEV => {
            Kind::Unavailable
        }
        Errno::OPNOTSUPP | Errno::NOSYS => Kind::Unsupported,
        _ => Kind::Other,
    }
}

/// The root of a store.
pub(super) struct Tree {
    pub(super) root: PathBuf,
    pub(super) url: String,
    /// Directories whose entry in their parent is known to outlive a crash, by path, with their identity: a
    /// directory that was removed and made again by another process is another one.
    durable: Mutex<HashMap<String, (u64, u64)>>,
    pub(super) handles: Arc<Handles>,
}

impl Tree {
    pub(super) fn new(root: PathBuf, url: String) -> Self {
        Self { root, url, durable: Mutex::default(), handles: Arc::default() }
    }

    pub(super) fn at(&self, operation: impl Into<String>, name: &str) -> At {
        At { operation: operation.into(), object: format!("{}/{name}", self.url) }
    }

    pub(super) fn open_root(&self, at: &At) -> Result<OwnedFd> {
        open(&self.root, DIRECTORY, Mode::empty()).map_err(|errno| {
            let detail = format!("the store's root {}: {errno}", self.root.display());
            let kind = if errno == Errno::NOENT { Kind::Unavailable } else { kind_of(errno) };
            at.error(kind, detail).with_source(std::io::Error::from(errno))
        })
    }

    /// The directory at `path` (`""` is the root), or `None` if there is none.
    pub(super) fn find_dir(&self, path: &str, at: &At) -> Result<Option<OwnedFd>> {
        let mut dir = self.open_root(at)?;
        for name in segments(path) {
            dir = match open_dir(&dir, name) {
                Ok(next) => next,
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(None),
                Err(errno) => return Err(at.failed("opening a directory", errno)),
            };
        }
        Ok(Some(dir))
    }

    /// The directory at `path`, made if need be, its whole way durable.
    pub(super) fn make_dir(&self, path: &str, at: &At) -> Result<OwnedFd> {
        let mut dir = self.open_root(at)?;
        let mut end = 0;
        for name in segments(path) {
            end += name.len() + usize::from(end > 0);
            let (next, made) = self.open_or_make(&dir, name, &path[..end], at)?;
            let stat = fstat(&next).map_err(|errno| at.failed("examining a directory", errno))?;
            let identity = (stat.st_dev, stat.st_ino);
            if made || self.durable.lock().get(&path[..end]) != Some(&identity) {
                fsync(&dir).map_err(|errno| at.failed("syncing a directory", errno))?;
                let mut durable = self.durable.lock();
                if durable.len() >= DURABLE_DIRS_MAX {
                    durable.clear();
                }
                durable.insert(path[..end].to_owned(), identity);
            }
            dir = next;
        }
        Ok(dir)
    }

    fn open_or_make(&self, dir: &OwnedFd, name: &str, path: &str, at: &At) -> Result<(OwnedFd, bool)> {
        let mut made = false;
        // A directory may be pruned by another between being made and being opened; not for ever.
        for _ in 0..100 {
            match open_dir(dir, name) {
                Ok(next) => return Ok((next, made)),
                Err(Errno::NOENT) => {}
                Err(Errno::NOTDIR | Errno::LOOP) => {
                    let detail =
                        format!("{path} is a file or a symbolic link, where the key needs a directory");
                    return Err(at.error(Kind::Invalid, detail));
                }
                Err(errno) => return Err(at.failed("opening a directory", errno)),
            }
            match mkdirat(dir, name, Mode::from_raw_mode(0o777)) {
                Ok(()) => made = true,
                Err(Errno::EXIST) => {}
                // The parent itself was pruned: the caller starts again from the root.
                Err(errno) => return Err(at.failed("making a directory", errno)),
            }
        }
        Err(at.error(Kind::Unavailable, format!("directory {path} keeps vanishing")))
    }

    /// Removes `path` and its parents as far as they are empty. Returns the deepest one that stays.
    pub(super) fn prune<'p>(&self, mut path: &'p str, at: &At) -> Result<&'p str> {
        while !path.is_empty() {
            let (parent, name) = split(path);
            let Some(dir) = self.find_dir(parent, at)? else {
                path = parent;
                continue;
            };
            match unlinkat(&dir, name, AtFlags::REMOVEDIR) {
                Ok(()) => drop(self.durable.lock().remove(path)),
                Err(Errno::NOENT) => {}
                // Not empty, or not ours to remove: an empty directory is no harm.
                Err(_) => break,
            }
            path = parent;
        }
        Ok(path)
    }
}

fn segments(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter(|name| !name.is_empty())
}

/// Directory and file name of a path.
pub(super) fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('/').unwrap_or(("", path))
}

pub(super) fn open_dir(dir: impl AsFd, name: &str) -> rustix::io::Result<OwnedFd> {
    openat(dir, name, DIRECTORY | OFlags::NOFOLLOW, Mode::empty())
}

/// The state of a regular file; `None` if there is none of that name, whatever else there is.
pub(super) fn stat_file(dir: impl AsFd, name: &str) -> rustix::io::Result<Option<Stat>> {
    match statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(is_file(&stat).then_some(stat)),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        Err(errno) => Err(errno),
    }
}

pub(super) fn is_file(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
}

pub(super) fn etag_of(stat: &Stat) -> String {
    // Every write makes a new file, so the inode alone tells most changes; time and size tell its reuse.
    format!("{:x}-{:x}-{:x}-{:x}", stat.st_ino, stat.st_mtime, stat.st_mtime_nsec, stat.st_size)
}

pub(super) fn meta_of(key: &Key, stat: &Stat) -> ObjectMeta {
    ObjectMeta {
        key: key.clone(),
        size_bytes: stat.st_size as u64,
        etag: Some(etag_of(stat)),
        version: None,
        last_modified_ms: stat.st_mtime.saturating_mul(1000)
            + i64::try_from(stat.st_mtime_nsec / 1_000_000).unwrap_or(0),
        storage_class: None,
    }
}
