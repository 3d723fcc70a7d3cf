//! Writing: whole files, parts of uploads, copies. All end in [`Tree::publish`].

use std::collections::BTreeMap;
use std::fmt;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use rustix::fs::{copy_file_range, fstat, fsync, ftruncate};
use rustix::io::{Errno, pread, pwrite};

use super::staging::Staged;
use super::tree::{At, Tree, meta_of, split};
use super::{Result, blocking, writeback};
use crate::contract::{Create, ObjectMeta, Upload};
use crate::error::Kind;
use crate::key::Key;
use crate::parts::PartPlan;

const COPY_BYTES: usize = 1 << 20;

/// The most that is written before the disk is told.
const WRITE_BYTES: usize = 8 << 20;

fn write_at(file: &OwnedFd, mut body: &[u8], mut offset: u64, at: &At) -> Result<()> {
    while !body.is_empty() {
        match pwrite(file, &body[..body.len().min(WRITE_BYTES)], offset) {
            Ok(0) => return Err(at.error(Kind::Other, format!("the file takes no bytes at {offset}"))),
            Ok(written) => {
                body = &body[written..];
                writeback::written(file, offset, offset + written as u64);
                offset += written as u64;
            }
            Err(Errno::INTR) => {}
            Err(errno) => return Err(at.failed("writing the file", errno)),
        }
    }
    Ok(())
}

impl Tree {
    pub(super) fn put(
        &self,
        id: &str,
        key: &Key,
        body: &[u8],
        create: Create,
        at: &At,
    ) -> Result<ObjectMeta> {
        // The common loser of a race is told before it writes a byte; the move decides all the same.
        if create == Create::IfAbsent && self.stat(key, at)?.is_some() {
            return Err(at.error(Kind::AlreadyExists, "the object exists"));
        }
        let staged = self.stage(id, key, at)?;
        let written = write_at(&staged.file, body, 0, at);
        self.finish(&staged, key, create, written, at)
    }

    pub(super) fn copy(&self, id: &str, from: &Key, to: &Key, create: Create, at: &At) -> Result<ObjectMeta> {
        let source = self.open_source(from, at)?;
        let staged = self.stage(id, to, at)?;
        let written = copy_bytes(&source, &staged.file, at);
        self.finish(&staged, to, create, written, at)
    }

    fn finish(
        &self,
        staged: &Staged,
        key: &Key,
        create: Create,
        written: Result<()>,
        at: &At,
    ) -> Result<ObjectMeta> {
        let synced = written.and_then(|()| sync(&staged.file, at));
        let meta = synced.and_then(|()| {
            fstat(&staged.file)
                .map_err(|errno| at.failed("examining the file", errno))
                .map(|stat| meta_of(key, &stat))
        });
        match meta {
            Ok(meta) => self.publish(staged, key, create, at).map(|()| meta),
            Err(error) => {
                self.unstage(staged);
                Err(error)
            }
        }
    }

    fn open_source(&self, key: &Key, at: &At) -> Result<OwnedFd> {
        use rustix::fs::{Mode, OFlags, openat};

        let (parent, name) = split(key.as_str());
        let dir = self.find_dir(parent, at)?.ok_or_else(|| at.absent())?;
        if super::tree::stat_file(&dir, name)
            .map_err(|errno| at.failed("examining the source", errno))?
            .is_none()
        {
            return Err(at.absent());
        }
        match openat(&dir, name, OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty()) {
            Ok(file) => Ok(file),
            Err(Errno::NOENT | Errno::LOOP) => Err(at.absent()),
            Err(errno) => Err(at.failed("opening the source", errno)),
        }
    }
}

/// An error here is final: the kernel may have dropped what it could not write, so the file is given up.
fn sync(file: &OwnedFd, at: &At) -> Result<()> {
    fsync(file).map_err(|errno| at.failed("syncing the file", errno))
}

/// In the kernel where it can (a filesystem with reflinks copies nothing at all), else through a buffer.
fn copy_bytes(source: &OwnedFd, target: &OwnedFd, at: &At) -> Result<()> {
    let size = fstat(source).map_err(|errno| at.failed("examining the source", errno))?.st_size as u64;
    let (mut from, mut to) = (0, 0);
    while from < size {
        let rest = (size - from) as usize;
        match copy_file_range(source, Some(&mut from), target, Some(&mut to), rest) {
            Ok(0) => {
                return Err(at.error(Kind::Truncated, format!("the source ends at {from}, expected {size}")));
            }
            Ok(_) | Err(Errno::INTR) => {}
            Err(Errno::NOSYS | Errno::OPNOTSUPP | Errno::XDEV | Errno::INVAL) if from == 0 => {
                return copy_through(source, target, size, at);
            }
            Err(errno) => return Err(at.failed("copying the file", errno)),
        }
    }
    Ok(())
}

fn copy_through(source: &OwnedFd, target: &OwnedFd, size: u64, at: &At) -> Result<()> {
    let mut buffer = vec![0; COPY_BYTES];
    let mut offset = 0;
    while offset < size {
        match pread(source, &mut buffer[..], offset) {
            Ok(0) => {
                return Err(
                    at.error(Kind::Truncated, format!("the source ends at {offset}, expected {size}"))
                );
            }
            Ok(read) => {
                write_at(target, &buffer[..read], offset, at)?;
                offset += read as u64;
            }
            Err(Errno::INTR) => {}
            Err(errno) => return Err(at.failed("reading the source", errno)),
        }
    }
    Ok(())
}

enum State {
    Open,
    Completed(ObjectMeta),
    Aborted,
}

/// One staged file that the parts are written into, each at its own offset.
pub(super) struct FileUpload {
    pub(super) tree: Arc<Tree>,
    pub(super) key: Key,
    pub(super) create: Create,
    pub(super) plan: PartPlan,
    staged: Arc<Staged>,
    sent: Mutex<BTreeMap<u32, u64>>,
    state: Mutex<State>,
}

impl FileUpload {
    pub(super) fn new(tree: Arc<Tree>, key: Key, create: Create, plan: PartPlan, staged: Staged) -> Self {
        let (sent, state) = (Mutex::default(), Mutex::new(State::Open));
        Self { tree, key, create, plan, staged: Arc::new(staged), sent, state }
    }

    fn at(&self, operation: impl Into<String>) -> At {
        self.tree.at(operation, self.key.as_str())
    }
}

impl fmt::Debug for FileUpload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileUpload").field("key", &self.key).field("plan", &self.plan).finish_non_exhaustive()
    }
}

#[async_trait]
impl Upload for FileUpload {
    async fn put_part(&self, number: u32, body: Bytes) -> Result<()> {
        let at = self.at(format!("put part {number}"));
        if !matches!(*self.state.lock(), State::Open) {
            return Err(at.error(Kind::NotFound, "no such upload: it was completed or aborted"));
        }
        self.plan.check_part(number, body.len()).map_err(|flaw| at.error(Kind::Invalid, flaw))?;
        let offset = u64::from(number - 1) * self.plan.part_bytes;
        let (staged, len) = (Arc::clone(&self.staged), body.len() as u64);
        blocking(at, move |at| write_at(&staged.file, &body, offset, at)).await?;
        self.sent.lock().insert(number, len);
        Ok(())
    }

    async fn complete(&self) -> Result<ObjectMeta> {
        let at = self.at("complete");
        match &*self.state.lock() {
            State::Open => {}
            State::Completed(meta) => return Ok(meta.clone()),
            State::Aborted => return Err(at.error(Kind::NotFound, "no such upload: it was aborted")),
        }
        let size =
            self.plan.check_complete(&self.sent.lock()).map_err(|flaw| at.error(Kind::Invalid, flaw))?;
        let (tree, staged) = (Arc::clone(&self.tree), Arc::clone(&self.staged));
        let (key, create) = (self.key.clone(), self.create);
        let done = blocking(at, move |at| {
            // A last part that was sent again, shorter, leaves bytes behind its end.
            let cut = ftruncate(&staged.file, size).map_err(|errno| at.failed("cutting the file", errno));
            tree.finish(&staged, &key, create, cut, at)
        })
        .await;
        *self.state.lock() = match &done {
            Ok(meta) => State::Completed(meta.clone()),
            Err(_) => State::Aborted,
        };
        done
    }

    async fn abort(&self) -> Result<()> {
        let was_open = {
            let mut state = self.state.lock();
            let open = matches!(*state, State::Open);
            if open {
                *state = State::Aborted;
            }
            open
        };
        if !was_open {
            return Ok(());
        }
        let (tree, staged) = (Arc::clone(&self.tree), Arc::clone(&self.staged));
        blocking(self.at("abort"), move |_| {
            tree.unstage(&staged);
            Ok(())
        })
        .await
    }
}
