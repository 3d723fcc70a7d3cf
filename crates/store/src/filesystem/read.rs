//! Reading in pieces: what the page cache has by the reader itself, the rest on blocking threads, one piece ahead
//! of the reader.
//!
//! No thread waits for a slow reader: a piece is read when the one before it is handed out. Files are replaced
//! by rename and never changed in place, so an open file stays whole while others overwrite or delete it; one
//! that is cut short from outside is [`Kind::Truncated`].

use std::ops::Range;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures::stream::{self, BoxStream, StreamExt};
use rustix::buffer::spare_capacity;
use rustix::fs::{Mode, OFlags, Stat, fstat, openat};
use rustix::io::{Errno, pread};
use tokio::task::JoinHandle;

use super::cached;
use super::tree::{At, Tree, etag_of, is_file, split, stat_file};
use crate::contract::{GetRange, GetResult, Result};
use crate::error::Kind;
use crate::key::Key;

pub(super) const PIECE_BYTES: u64 = 512 << 10;

/// What the first visit to a blocking thread brings back.
pub(super) struct Opened {
    file: Arc<OwnedFd>,
    /// Nothing where the reader finds it in the page cache.
    first: Bytes,
    range: Range<u64>,
    size_bytes: u64,
    etag: String,
}

impl Tree {
    /// Opens a file, and reads its first piece if that has to come from the disk, or is all.
    pub(super) fn open_file(&self, key: &Key, range: GetRange, at: &At) -> Result<Opened> {
        let (parent, name) = split(key.as_str());
        let dir = self.find_dir(parent, at)?.ok_or_else(|| at.absent())?;
        // A little of a file, at some place in it, is no sequence that the kernel should read ahead of.
        let sequence =
            !matches!(range, GetRange::Bounded { start, end } if end.saturating_sub(start) <= PIECE_BYTES);
        let (file, stat) = self.open_or_find(key, name, &dir, sequence, at)?;
        let size_bytes = stat.st_size as u64;
        let Some(range) = range.resolve(size_bytes) else {
            return Err(at.error(Kind::InvalidRange, format!("{range:?} of a file of {size_bytes} bytes")));
        };
        // The kernel reads ahead, but hardly to the end.
        let is_there = |position| cached::append(&file, &mut BytesMut::new(), 1, position);
        let long = range.end - range.start > PIECE_BYTES;
        let first = match long && is_there(range.start) && is_there(range.end - 1) {
            true => Bytes::new(),
            false => read_piece(&file, range.start, range.end, at)?,
        };
        Ok(Opened { file, first, range, size_bytes, etag: etag_of(&stat) })
    }

    /// A file that was read a moment ago, if it is still what the name leads to; else it is opened.
    fn open_or_find(
        &self,
        key: &Key,
        name: &str,
        dir: &OwnedFd,
        sequence: bool,
        at: &At,
    ) -> Result<(Arc<OwnedFd>, Stat)> {
        if sequence
            && let Some(stat) =
                stat_file(dir, name).map_err(|errno| at.failed("examining the file", errno))?
            && let Some(file) = self.handles.find(key.as_str(), &stat)
        {
            return Ok((file, stat));
        }
        // NONBLOCK: a named pipe in the tree must not hang us.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = match openat(dir, name, flags, Mode::empty()) {
            Ok(file) => Arc::new(file),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::NXIO) => return Err(at.absent()),
            Err(errno) => return Err(at.failed("opening the file", errno)),
        };
        let stat = fstat(&file).map_err(|errno| at.failed("examining the file", errno))?;
        if !is_file(&stat) {
            return Err(at.absent());
        }
        if sequence {
            self.handles.keep(key.as_str(), &stat, &file);
        }
        Ok((file, stat))
    }
}

/// One piece at `position`, shorter than a piece only at `end`.
fn read_piece(file: &OwnedFd, position: u64, end: u64, at: &At) -> Result<Bytes> {
    let wanted = (end - position).min(PIECE_BYTES) as usize;
    let mut piece: Vec<u8> = Vec::with_capacity(wanted);
    while piece.len() < wanted {
        // The allocator may give more room than was asked for: never read past the piece.
        let position = position + piece.len() as u64;
        let read = if piece.capacity() == wanted {
            pread(file, spare_capacity(&mut piece), position)
        } else {
            let start = piece.len();
            piece.resize(wanted, 0);
            let read = pread(file, &mut piece[start..], position);
            piece.truncate(start + read.unwrap_or(0));
            read
        };
        match read {
            Ok(0) => {
                let detail = format!("the file ends at byte {position}, expected {end}");
                return Err(at.error(Kind::Truncated, detail));
            }
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(at.failed("reading the file", errno)),
        }
    }
    Ok(Bytes::from(piece))
}

struct Pieces {
    file: Arc<OwnedFd>,
    at: At,
    /// The first, where it came from the disk.
    ready: Option<Bytes>,
    next: Option<JoinHandle<Result<Bytes>>>,
    /// Of the piece after `next`.
    position: u64,
    end: u64,
    /// Handed out. Once its reader has let go of it, its memory, still in the core's cache, serves again.
    last: Bytes,
}

impl Pieces {
    fn cached(&mut self) -> Option<Bytes> {
        let wanted = (self.end - self.position).min(PIECE_BYTES);
        let mut buffer = std::mem::take(&mut self.last).try_into_mut().unwrap_or_else(|_| BytesMut::new());
        buffer.clear();
        if !cached::append(&self.file, &mut buffer, wanted as usize, self.position) {
            return None;
        }
        self.position += wanted;
        self.last = buffer.freeze();
        Some(self.last.clone())
    }

    fn read_ahead(&mut self) {
        if self.position < self.end {
            let (file, at, position, end) =
                (Arc::clone(&self.file), self.at.clone(), self.position, self.end);
            self.next = Some(tokio::task::spawn_blocking(move || read_piece(&file, position, end, &at)));
            self.position = end.min(position + PIECE_BYTES);
        }
    }

    async fn step(mut self) -> Option<(Result<Bytes>, Self)> {
        if let Some(ready) = self.ready.take() {
            self.read_ahead();
            return Some((Ok(ready), self));
        }
        if self.next.is_none() && self.position < self.end {
            // A reader that never waits lets others have their turn.
            tokio::task::coop::consume_budget().await;
            if let Some(piece) = self.cached() {
                return Some((Ok(piece), self));
            }
            self.read_ahead();
        }
        let joined = self.next.as_mut()?.await;
        self.next = None;
        let piece = joined.unwrap_or_else(|stopped| Err(super::stopped(&self.at, &stopped)));
        match &piece {
            // What was not in the page cache is followed by more of the kind.
            Ok(_) => self.read_ahead(),
            Err(_) => self.position = self.end,
        }
        Some((piece, self))
    }
}

/// The opened file as the caller gets it.
pub(super) fn deliver(opened: Opened, at: At) -> GetResult {
    let Opened { file, first, range, size_bytes, etag } = opened;
    let position = range.start + first.len() as u64;
    let ready = Some(first).filter(|first| !first.is_empty());
    let body: BoxStream<'static, Result<Bytes>> = if position == range.end {
        stream::iter(ready.map(Ok)).boxed()
    } else {
        let pieces = Pieces { file, at, ready, next: None, position, end: range.end, last: Bytes::new() };
        stream::unfold(pieces, Pieces::step).boxed()
    };
    GetResult { range, object_size_bytes: Some(size_bytes), etag: Some(etag), version: None, body }
}
