//! Files that are being written. They stand in one reserved directory under the root and are moved to their
//! place when they are whole and synced.
//!
//! A staged file's name is `<id>=<key, with \ for />`, cut into nested directories where it is too long for one
//! name: the name alone tells, even after a crash, whose leftover it is (no key holds a backslash). An id begins
//! with the time it was made. A crash leaves staged files, which `list_uploads` shows, and at most an empty
//! directory; never a part of an object under its key.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{
    AtFlags, Dir, FileType, Mode, OFlags, RenameFlags, fsync, linkat, mkdirat, openat, renameat,
    renameat_with, statat, unlinkat,
};
use rustix::io::Errno;

use super::tree::{At, Tree, open_dir, split, stat_file};
use crate::contract::{Create, PendingUpload, Result};
use crate::error::Kind;
use crate::key::Key;

/// Reserved under the root; never listed, never part of a key.
pub(super) const DIRECTORY: &str = ".varve-uploads";

const NAME_MAX_BYTES: usize = 240;
/// So often publishing starts again when directories are pruned under it.
const PUBLISH_TRIES: usize = 100;

/// A file under its staged name, open for writing.
pub(super) struct Staged {
    pub(super) file: OwnedFd,
    dir: OwnedFd,
    name: StagedName,
}

/// Where a staged file stands: all but the last are directories.
struct StagedName(Vec<String>);

impl StagedName {
    fn new(id: &str, key: &Key) -> Self {
        let whole = format!("{id}={}", key.as_str().replace('/', "\\"));
        let (mut rest, mut names) = (whole.as_str(), Vec::new());
        while rest.len() > NAME_MAX_BYTES {
            let (name, tail) = rest.split_at(NAME_MAX_BYTES);
            names.push(if names.is_empty() { name.to_owned() } else { format!("={name}") });
            rest = tail;
        }
        names.push(if names.is_empty() { rest.to_owned() } else { format!("={rest}") });
        Self(names)
    }

    fn file(&self) -> &str {
        self.0.last().map_or("", String::as_str)
    }

    fn directory(&self) -> String {
        std::iter::once(DIRECTORY)
            .chain(self.0[..self.0.len() - 1].iter().map(String::as_str))
            .collect::<Vec<_>>()
            .join("/")
    }
}

fn parse(whole: &str) -> Option<PendingUpload> {
    let (id, escaped) = whole.split_once('=')?;
    let key = Key::new(escaped.replace('\\', "/")).ok()?;
    let started_ms = id.split_once('-').and_then(|(ms, _)| i64::from_str_radix(ms, 16).ok());
    Some(PendingUpload { key, id: id.to_owned(), started_ms })
}

pub(super) fn new_id() -> String {
    format!("{:012x}-{}", crate::memory::now_ms(), uuid::Uuid::new_v4().simple())
}

impl Tree {
    /// Makes an empty staged file.
    pub(super) fn stage(&self, id: &str, key: &Key, at: &At) -> Result<Staged> {
        let name = StagedName::new(id, key);
        let dir = match self.staging_dir(&name, at) {
            // Someone tidied an empty staging directory between our two steps: once more.
            Err(error) if error.kind == Kind::NotFound => self.staging_dir(&name, at)?,
            other => other?,
        };
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = openat(&dir, name.file(), flags, Mode::from_raw_mode(0o666))
            .map_err(|errno| at.failed("creating a staged file", errno))?;
        Ok(Staged { file, dir, name })
    }

    /// Needs no durability: what stands in it is given up after a crash.
    fn staging_dir(&self, name: &StagedName, at: &At) -> Result<OwnedFd> {
        let mut dir = self.open_root(at)?;
        for name in name.directory().split('/') {
            match mkdirat(&dir, name, Mode::from_raw_mode(0o777)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(errno) => return Err(at.failed("making the staging directory", errno)),
            }
            dir = open_dir(&dir, name).map_err(|errno| at.failed("opening the staging directory", errno))?;
        }
        Ok(dir)
    }

    /// Moves a whole, synced file to its key, durably. It is staged no more when this returns, either way.
    pub(super) fn publish(&self, staged: &Staged, key: &Key, create: Create, at: &At) -> Result<()> {
        let published = self.move_into_place(staged, key, create, at);
        self.unstage(staged);
        if published.is_err() {
            // Directories that were made for nothing; the error above is the one to tell.
            let _ = self.prune(split(key.as_str()).0, at);
        }
        published
    }

    fn move_into_place(&self, staged: &Staged, key: &Key, create: Create, at: &At) -> Result<()> {
        let (parent, name) = split(key.as_str());
        for _ in 0..PUBLISH_TRIES {
            let dir = match self.make_dir(parent, at) {
                Err(error) if error.kind == Kind::NotFound => continue,
                other => other?,
            };
            match place(staged, &dir, name, create) {
                Ok(()) => return fsync(&dir).map_err(|errno| at.failed("syncing the directory", errno)),
                Err(Errno::NOENT) => {
                    if staged.is_gone() {
                        return Err(at.error(Kind::NotFound, "no such upload: it was aborted"));
                    }
                }
                Err(errno @ (Errno::EXIST | Errno::ISDIR | Errno::NOTEMPTY)) => {
                    self.clear_way(&dir, name, errno, at)?;
                }
                Err(errno) => return Err(at.failed("moving the file into place", errno)),
            }
        }
        Err(at.error(Kind::Unavailable, "the directory keeps vanishing while the file is moved into it"))
    }

    /// An empty directory in the key's place is a leftover and goes; anything else is an error.
    fn clear_way(&self, dir: &OwnedFd, name: &str, errno: Errno, at: &At) -> Result<()> {
        let stat = match statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => return Ok(()),
            Err(errno) => return Err(at.failed("examining the key's place", errno)),
        };
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile if errno == Errno::EXIST => {
                Err(at.error(Kind::AlreadyExists, "the object exists"))
            }
            FileType::RegularFile => Ok(()),
            FileType::Directory => match unlinkat(dir, name, AtFlags::REMOVEDIR) {
                Ok(()) | Err(Errno::NOENT) => Ok(()),
                Err(_) => Err(at.error(Kind::Invalid, "a directory with other objects has this key's name")),
            },
            _ => Err(at.error(Kind::Invalid, "something that is no regular file has this key's name")),
        }
    }

    /// Removes a staged file. Best effort: what stays is shown by `list_uploads`.
    pub(super) fn unstage(&self, staged: &Staged) {
        let _ = unlinkat(&staged.dir, staged.name.file(), AtFlags::empty());
        self.tidy(&staged.name);
    }

    fn tidy(&self, name: &StagedName) {
        let mut path = name.directory();
        while path != DIRECTORY {
            let (parent, leaf) = split(&path);
            let at = self.at("tidy", DIRECTORY);
            let removed = match self.find_dir(parent, &at) {
                Ok(Some(dir)) => unlinkat(&dir, leaf, AtFlags::REMOVEDIR).is_ok(),
                _ => false,
            };
            if !removed {
                return;
            }
            path = parent.to_owned();
        }
    }

    pub(super) fn list_staged(&self, prefix: &str) -> Result<Vec<PendingUpload>> {
        let at = self.at("list uploads", prefix);
        let mut found = Vec::new();
        if let Some(dir) = self.find_dir(DIRECTORY, &at)? {
            collect(dir, "", &mut found, &at)?;
        }
        found.retain(|upload| upload.key.as_str().starts_with(prefix));
        found.sort_by(|a, b| (&a.key, &a.id).cmp(&(&b.key, &b.id)));
        Ok(found)
    }

    pub(super) fn abort_staged(&self, upload: &PendingUpload) -> Result<()> {
        let at = self.at("abort upload", upload.key.as_str());
        if upload.id.is_empty() || !upload.id.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-') {
            return Err(at.error(Kind::Invalid, format!("{:?} is no upload id of this store", upload.id)));
        }
        let name = StagedName::new(&upload.id, &upload.key);
        if let Some(dir) = self.find_dir(&name.directory(), &at)? {
            match unlinkat(&dir, name.file(), AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => self.tidy(&name),
                Err(errno) => return Err(at.failed("removing a staged file", errno)),
            }
        }
        Ok(())
    }
}

impl Staged {
    pub(super) fn is_gone(&self) -> bool {
        matches!(stat_file(&self.dir, self.name.file()), Ok(None))
    }
}

fn place(staged: &Staged, dir: &OwnedFd, name: &str, create: Create) -> rustix::io::Result<()> {
    let from = staged.name.file();
    if create == Create::Overwrite {
        return renameat(&staged.dir, from, dir, name);
    }
    match renameat_with(&staged.dir, from, dir, name, RenameFlags::NOREPLACE) {
        // Filesystems that cannot refuse to replace (NFS, some FUSE) have hard links, which never replace.
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
            linkat(&staged.dir, from, dir, name, AtFlags::empty())
        }
        other => other,
    }
}

fn collect(dir: impl AsFd, before: &str, found: &mut Vec<PendingUpload>, at: &At) -> Result<()> {
    let entries = Dir::read_from(&dir).map_err(|errno| at.failed("listing the staging directory", errno))?;
    for entry in entries {
        let entry = entry.map_err(|errno| at.failed("listing the staging directory", errno))?;
        let Ok(name) = entry.file_name().to_str() else { continue };
        let continues = name.strip_prefix('=');
        let whole = match (before, continues) {
            (_, _) if name == "." || name == ".." => continue,
            ("", None) => name.to_owned(),
            (before, Some(more)) if !before.is_empty() => format!("{before}{more}"),
            _ => continue,
        };
        match stat_file(&dir, name).map_err(|errno| at.failed("examining a staged file", errno))? {
            Some(_) => found.extend(parse(&whole)),
            None if whole.len() <= 2 * Key::MAX_BYTES => {
                if let Ok(inner) = open_dir(&dir, name) {
                    collect(inner, &whole, found, at)?;
                }
            }
            None => {}
        }
    }
    Ok(())
}
