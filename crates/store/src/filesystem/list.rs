//! Listing: a directory tree read in the byte order of whole keys.
//!
//! In that order a directory sorts as its name with `/` behind it: `a-b`, `a.b`, `a/b`, `a0`. Directories are
//! not held in memory whole: of each, the smallest names that still fit the page are kept, and it is read again
//! if they were not enough.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;

use rustix::fs::{Dir, FileType};

use super::staging;
use super::tree::{At, Tree, is_file, meta_of, open_dir, split, stat_file};
use crate::contract::{ListPage, Result};
use crate::key::Key;

/// Names of one directory that are kept at once, at the least.
const BATCH_MIN: usize = 1024;

struct Walk<'a> {
    prefix: &'a str,
    after: &'a str,
    max_keys: usize,
    page: ListPage,
    at: At,
}

impl Tree {
    pub(super) fn list(&self, prefix: &str, after: Option<&Key>, max_keys: usize) -> Result<ListPage> {
        let at = self.at("list", prefix);
        let (start, _) = split(prefix);
        let after = after.map_or("", Key::as_str);
        let mut walk = Walk { prefix, after, max_keys: max_keys.max(1), page: ListPage::default(), at };
        if let Some(dir) = self.find_dir(start, &walk.at)? {
            let path = if start.is_empty() { String::new() } else { format!("{start}/") };
            walk.directory(&dir, &path)?;
        }
        Ok(walk.page)
    }
}

impl Walk<'_> {
    /// Adds what lies under `path` (empty, or ending with `/`). Stops when the page is full.
    fn directory(&mut self, dir: &OwnedFd, path: &str) -> Result<()> {
        let mut floor = String::new();
        loop {
            let (batch, cut) = self.batch(dir, path, &floor)?;
            let Some((last, _)) = batch.last_key_value() else { return Ok(()) };
            floor = last.clone();
            for (full, is_dir) in batch {
                if is_dir {
                    let name = &full[path.len()..full.len() - 1];
                    // Gone, or a link now: nothing to list.
                    if let Ok(inner) = open_dir(dir, name) {
                        self.directory(&inner, &full)?;
                    }
                } else {
                    self.file(dir, &full, path.len())?;
                }
                if self.page.more {
                    return Ok(());
                }
            }
            if !cut {
                return Ok(());
            }
        }
    }

    fn file(&mut self, dir: &OwnedFd, full: &str, name_at: usize) -> Result<()> {
        let Ok(key) = Key::new(full) else { return Ok(()) };
        if self.page.objects.len() == self.max_keys {
            self.page.more = true;
            return Ok(());
        }
        let stat =
            stat_file(dir, &full[name_at..]).map_err(|errno| self.at.failed("examining a file", errno))?;
        if let Some(stat) = stat {
            self.page.objects.push(meta_of(&key, &stat));
        }
        Ok(())
    }

    /// The smallest names of a directory above `floor`, as full paths (directories with `/` behind), and whether
    /// there are more.
    fn batch(&self, dir: &OwnedFd, path: &str, floor: &str) -> Result<(BTreeMap<String, bool>, bool)> {
        let most = (self.max_keys - self.page.objects.len() + 1).max(BATCH_MIN);
        let (mut batch, mut cut) = (BTreeMap::new(), false);
        let entries = Dir::read_from(dir).map_err(|errno| self.at.failed("listing a directory", errno))?;
        for entry in entries {
            let entry = entry.map_err(|errno| self.at.failed("listing a directory", errno))?;
            let Ok(name) = entry.file_name().to_str() else { continue };
            if name == "." || name == ".." || (path.is_empty() && name == staging::DIRECTORY) {
                continue;
            }
            let is_dir = match entry.file_type() {
                FileType::Directory => true,
                FileType::RegularFile => false,
                FileType::Unknown => {
                    match rustix::fs::statat(dir, name, rustix::fs::AtFlags::SYMLINK_NOFOLLOW) {
                        Ok(stat) if is_file(&stat) => false,
                        Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => true,
                        _ => continue,
                    }
                }
                _ => continue,
            };
            let full = format!("{path}{name}{}", if is_dir { "/" } else { "" });
            if full.as_str() <= floor || !self.wanted(&full, is_dir) {
                continue;
            }
            batch.insert(full, is_dir);
            if batch.len() > most {
                batch.pop_last();
                cut = true;
            }
        }
        Ok((batch, cut))
    }

    fn wanted(&self, full: &str, is_dir: bool) -> bool {
        let under_prefix = full.starts_with(self.prefix) || (is_dir && self.prefix.starts_with(full));
        under_prefix && (full > self.after || (is_dir && self.after.starts_with(full)))
    }
}
