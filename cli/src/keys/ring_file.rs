//! A key ring's file, replaced as a whole.
//!
//! The new text is written beside it, with the file's own mode and owner, synced, and renamed over it. The name beside
//! it exists only while somebody is at it, so that two don't add a key each, of which one is lost. A crash leaves the
//! old file or the new one, and maybe the file beside it, which holds keys: the next call asks for its removal.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, fchown};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use varve_format::KeyRing;
use zeroize::Zeroizing;

pub(crate) fn read(path: &Path) -> Result<KeyRing> {
    let place = || format!("key ring {}", path.display());
    let text = fs::read_to_string(path).map(Zeroizing::new).with_context(place)?;
    KeyRing::parse(&text).with_context(place)
}

/// Reads the ring, changes it and replaces the file.
pub(crate) fn replace(path: &Path, change: impl FnOnce(KeyRing) -> Result<KeyRing>) -> Result<KeyRing> {
    // The file itself is replaced, not a link to it.
    let path = fs::canonicalize(path).with_context(|| format!("key ring {}", path.display()))?;
    let beside = beside(&path);
    let mut options = OpenOptions::new();
    let file = match options.write(true).create_new(true).mode(0o600).open(&beside) {
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => bail!(
            "{} is there: somebody else changes this ring now, or was broken off: then remove that file, and repeat this",
            beside.display()
        ),
        opened => opened.with_context(|| beside.display().to_string())?,
    };
    let replaced = write(file, &beside, &path, change);
    if replaced.is_err() {
        // It is of no use; that it can't be removed doesn't matter more.
        let _ = fs::remove_file(&beside);
    }
    replaced
}

fn beside(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    path.with_file_name(name)
}

fn write(
    mut file: File,
    beside: &Path,
    path: &Path,
    change: impl FnOnce(KeyRing) -> Result<KeyRing>,
) -> Result<KeyRing> {
    let ring = change(read(path)?)?;
    let before = fs::metadata(path)?;
    let ours = file.metadata()?;
    if (before.uid(), before.gid()) != (ours.uid(), ours.gid()) {
        fchown(&file, Some(before.uid()), Some(before.gid())).with_context(|| {
            format!("{}: giving it the owner of the ring: run this as that user", beside.display())
        })?;
    }
    file.set_permissions(before.permissions())?;
    file.write_all(ring.encode().as_bytes())?;
    file.sync_all()?;
    fs::rename(beside, path).with_context(|| path.display().to_string())?;
    if let Some(folder) = path.parent() {
        File::open(folder)?.sync_all()?;
    }
    Ok(ring)
}
