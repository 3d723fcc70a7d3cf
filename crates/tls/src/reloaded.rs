//! A value made of files, and made anew when they change.
//!
//! * Files are looked at when the value is asked for, at most every 10 s: no task runs for it. A look costs a `stat`
//!   of each file; without files there is none.
//! * Who asks while another looks gets the value of before, and waits for nothing.
//! * Content that is no good changes nothing: the value of before stays, one warning says what is wrong, and each
//!   further look tries again. So a certificate that was replaced a moment before its key is taken with it.
//! * Stamps are taken before files are read: what is written in between is seen by the next look.

use std::fmt::{self, Display};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use tokio::time::Instant;

const LOOK_EVERY: Duration = Duration::from_secs(10);

pub struct Reloaded<T> {
    files: Vec<PathBuf>,
    make: Box<Make<T>>,
    value: RwLock<T>,
    looked: Mutex<Looked>,
}

type Make<T> = dyn Fn() -> Result<T, String> + Send + Sync;

/// What the last look saw.
struct Looked {
    at: Instant,
    stamps: Vec<Option<Stamp>>,
    /// Why the files are not what the value is made of.
    flaw: Option<String>,
}

impl<T: Clone> Reloaded<T> {
    /// `make` reads `files`, and names the one that it can't use.
    ///
    /// # Errors
    /// What `make` fails with, this first time.
    pub fn new<E: Display>(
        files: impl IntoIterator<Item = PathBuf>,
        make: impl Fn() -> Result<T, E> + Send + Sync + 'static,
    ) -> Result<Self, E> {
        let files: Vec<_> = files.into_iter().collect();
        let looked = Looked { at: Instant::now(), stamps: stamps(&files), flaw: None };
        let value = RwLock::new(make()?);
        let make = Box::new(move || make().map_err(|error| error.to_string()));
        Ok(Self { files, make, value, looked: Mutex::new(looked) })
    }

    /// The value of the files as they were 10 s ago at the earliest, or of the last that were good.
    pub fn current(&self) -> T {
        if !self.files.is_empty()
            && let Some(mut looked) = self.looked.try_lock()
            && looked.at.elapsed() >= LOOK_EVERY
        {
            self.look(&mut looked);
        }
        self.value.read().clone()
    }

    fn look(&self, looked: &mut Looked) {
        looked.at = Instant::now();
        let stamps = stamps(&self.files);
        if stamps == looked.stamps && looked.flaw.is_none() {
            return;
        }
        looked.stamps = stamps;
        match (self.make)() {
            Ok(value) => {
                *self.value.write() = value;
                looked.flaw = None;
                tracing::info!(files = ?self.files, "certificates have changed: connections from now on use them");
            }
            Err(flaw) if looked.flaw.as_ref() == Some(&flaw) => {}
            Err(flaw) => {
                tracing::warn!(%flaw, "certificates have changed and can't be used: those of before stay in use");
                looked.flaw = Some(flaw);
            }
        }
    }
}

impl<T> fmt::Debug for Reloaded<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reloaded").field("files", &self.files).finish_non_exhaustive()
    }
}

/// What differs when a file was written, replaced, or is another behind a link. The time of its status changes also
/// where who wrote it has set its time back.
#[derive(PartialEq)]
struct Stamp {
    device: u64,
    inode: u64,
    size_bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// `None`: it can't be looked at.
fn stamps(files: &[PathBuf]) -> Vec<Option<Stamp>> {
    let stamp = |path: &PathBuf| {
        let found = std::fs::metadata(path).ok()?;
        Some(Stamp {
            device: found.dev(),
            inode: found.ino(),
            size_bytes: found.size(),
            modified: (found.mtime(), found.mtime_nsec()),
            changed: (found.ctime(), found.ctime_nsec()),
        })
    };
    files.iter().map(stamp).collect()
}

#[cfg(test)]
mod tests;
