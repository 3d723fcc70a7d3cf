//! Files that were read a moment ago, kept open.
//!
//! The kernel's read-ahead goes by the open file: one that is opened anew for each range is read in small steps,
//! at half the speed of a loop over one open file. A file is taken again only if its name still leads to it: it
//! is held open, so its inode can't be another file's by now. Idle ones are closed after some seconds, since a
//! deleted file keeps its place on the disk while somebody has it open.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use rustix::fs::Stat;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

/// More are not kept: the one unused longest is closed.
const OPEN_MAX: usize = 64;
const IDLE: Duration = Duration::from_secs(3);

pub(super) struct Handles {
    idle: Duration,
    inner: Mutex<Inner>,
}

impl Default for Handles {
    fn default() -> Self {
        Self { idle: IDLE, inner: Mutex::default() }
    }
}

#[derive(Default)]
struct Inner {
    /// In the order of their last use.
    open: Vec<Handle>,
    closer: Option<JoinHandle<()>>,
}

struct Handle {
    key: String,
    identity: (u64, u64),
    file: Arc<OwnedFd>,
    used: Instant,
}

fn identity(stat: &Stat) -> (u64, u64) {
    (stat.st_dev, stat.st_ino)
}

impl Handles {
    /// The open file of this name, if it is the one that `stat` tells of.
    pub(super) fn find(&self, key: &str, stat: &Stat) -> Option<Arc<OwnedFd>> {
        let mut inner = self.inner.lock();
        let index = inner.open.iter().position(|handle| handle.key == key)?;
        let mut handle = inner.open.remove(index);
        if handle.identity != identity(stat) {
            return None;
        }
        handle.used = Instant::now();
        let file = Arc::clone(&handle.file);
        inner.open.push(handle);
        Some(file)
    }

    /// To be called on a thread of the runtime, which closes the file in time.
    pub(super) fn keep(self: &Arc<Self>, key: &str, stat: &Stat, file: &Arc<OwnedFd>) {
        let mut inner = self.inner.lock();
        inner.open.retain(|handle| handle.key != key);
        if inner.open.len() >= OPEN_MAX {
            inner.open.remove(0);
        }
        let (key, file) = (key.to_owned(), Arc::clone(file));
        inner.open.push(Handle { key, identity: identity(stat), file, used: Instant::now() });
        if inner.closer.as_ref().is_none_or(JoinHandle::is_finished) {
            inner.closer = Some(tokio::spawn(close_idle(Arc::downgrade(self))));
        }
    }

    pub(super) fn forget(&self, key: &str) {
        self.inner.lock().open.retain(|handle| handle.key != key);
    }
}

async fn close_idle(handles: Weak<Handles>) {
    loop {
        let Some(idle) = handles.upgrade().map(|handles| handles.idle) else { return };
        sleep(idle).await;
        let Some(handles) = handles.upgrade() else { return };
        let mut inner = handles.inner.lock();
        inner.open.retain(|handle| handle.used.elapsed() < idle);
        if inner.open.is_empty() {
            inner.closer = None;
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use rustix::fs::{Mode, OFlags, fstat, open};

    use super::*;

    fn opened(path: &std::path::Path) -> (Arc<OwnedFd>, Stat) {
        let file = open(path, OFlags::RDONLY, Mode::empty()).unwrap();
        let stat = fstat(&file).unwrap();
        (Arc::new(file), stat)
    }

    #[tokio::test(start_paused = true)]
    async fn a_file_is_found_while_it_is_the_same_and_in_use() {
        let dir = tempfile::tempdir().unwrap();
        let (one, other) = (dir.path().join("one"), dir.path().join("other"));
        std::fs::write(&one, "1").unwrap();
        std::fs::write(&other, "2").unwrap();
        let idle = Duration::from_millis(100);
        let handles = Arc::new(Handles { idle, ..Handles::default() });
        let (file, stat) = opened(&one);
        handles.keep("key", &stat, &file);
        assert!(handles.find("key", &stat).is_some_and(|found| Arc::ptr_eq(&found, &file)));
        // Replaced by another file.
        assert!(handles.find("key", &opened(&other).1).is_none());
        assert!(handles.find("key", &stat).is_none(), "forgotten when it was found to be another");
        handles.keep("key", &stat, &file);
        sleep(3 * idle).await;
        assert!(handles.find("key", &stat).is_none(), "closed when idle");
        assert_eq!(Arc::strong_count(&file), 1);
        for n in 0..2 * OPEN_MAX {
            handles.keep(&n.to_string(), &stat, &file);
        }
        assert_eq!(Arc::strong_count(&file), 1 + OPEN_MAX);
        handles.forget(&(2 * OPEN_MAX - 1).to_string());
        assert_eq!(Arc::strong_count(&file), OPEN_MAX);
    }
}
