//! Plain bytes of an object in order, fetched ahead.
//!
//! As many runs as asked for are under way at once, each in a task of its own where there is a runtime: fetching,
//! checking and decoding go on while the caller works, on all cores. Memory is `read_ahead` runs of 4 MiB. A
//! stream that is dropped ends its tasks.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::{BoxStream, StreamExt};
use varve_format::{Extent, Hasher};

use super::object::{OpenObject, Run};
use crate::error::{Error, Result};

/// Runs and what they hold, in order.
type RunStream = BoxStream<'static, Result<(Run, Vec<Bytes>)>>;

/// Fetches `runs` in order, `read_ahead` at once. Where nobody wants the bytes, only those are kept that their
/// extent's digest still waits for.
fn fetched(object: &OpenObject, runs: Vec<Run>, read_ahead: usize, wanted: bool) -> RunStream {
    let object = object.clone();
    let fetches = futures::stream::iter(runs).map(move |run| {
        let footer = &object.head().footer;
        let extent = footer.extents.get(run.extents.start);
        let part = run.extents.len() == 1 && extent.is_some_and(|e| !object.is_whole(&run, e));
        let fetch = object.clone().fetch(run.clone(), wanted || part);
        let task = spawned(fetch);
        async move { Ok((run, task.await?)) }
    });
    fetches.buffered(read_ahead.max(1)).boxed()
}

fn spawned(
    fetch: impl Future<Output = Result<Vec<Bytes>>> + Send + 'static,
) -> BoxFuture<'static, Result<Vec<Bytes>>> {
    match tokio::runtime::Handle::try_current() {
        Ok(runtime) => Box::pin(Task(runtime.spawn(fetch))),
        Err(_) => Box::pin(fetch),
    }
}

/// Ends with whoever waits for it.
struct Task(tokio::task::JoinHandle<Result<Vec<Bytes>>>);

impl Future for Task {
    type Output = Result<Vec<Bytes>>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(context).map(|ended| {
            ended.unwrap_or_else(|stopped| {
                let kind = varve_store::Kind::Other;
                Err(Error::Store(varve_store::Error::new(kind, "read", "a task", stopped.to_string())))
            })
        })
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The log of one object from a position on. See the module.
pub struct LogStream {
    object: OpenObject,
    runs: RunStream,
    ready: VecDeque<Bytes>,
    /// Of the next byte handed out.
    position: u64,
    /// Bytes of the first frame that lie before what was asked for.
    skip: usize,
    /// Of an extent that is longer than a run.
    hasher: Option<(usize, Hasher)>,
    offsets: (i64, i64),
}

impl std::fmt::Debug for LogStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LogStream").field("object", &self.object).finish_non_exhaustive()
    }
}

impl LogStream {
    /// `position` is at most the log's length.
    pub(crate) fn new(object: OpenObject, position: u64, read_ahead: usize, offsets: (i64, i64)) -> Self {
        let footer = &object.head().footer;
        let first = footer.frame_at(position);
        let chunks = footer.chunks();
        let from = chunks.partition_point(|c| c.first_frame.saturating_add(c.frame_count()) <= first);
        let runs = object.runs(from..chunks.len(), first);
        Self::of(object, runs, position, read_ahead, offsets)
    }

    /// In runs of one frame.
    pub(crate) fn by_frames(object: OpenObject, position: u64, offsets: (i64, i64)) -> Self {
        let footer = &object.head().footer;
        let first = footer.frame_at(position);
        let frames = |(number, chunk): (usize, &Extent)| {
            let end = chunk.first_frame.saturating_add(chunk.frame_count());
            let run = move |frame: u64| Run {
                extents: number..number.saturating_add(1),
                frames: frame..frame.saturating_add(1),
            };
            (chunk.first_frame.max(first)..end).map(run)
        };
        let runs = footer.chunks().iter().enumerate().flat_map(frames).collect();
        Self::of(object, runs, position, 1, offsets)
    }

    fn of(object: OpenObject, runs: Vec<Run>, position: u64, read_ahead: usize, offsets: (i64, i64)) -> Self {
        let footer = &object.head().footer;
        let begins = footer.frame_at(position).saturating_mul(footer.frame_bytes.into());
        let skip = usize::try_from(position.saturating_sub(begins)).unwrap_or(usize::MAX);
        let runs = fetched(&object, runs, read_ahead, true);
        Self { object, runs, ready: VecDeque::new(), position, skip, hasher: None, offsets }
    }

    /// Where in the log the next byte is.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// The next bytes, of any length; `None` at the log's end.
    ///
    /// # Errors
    /// [`Error::Offsets`], about the first byte that can't be had or does not hold. It is the end.
    pub async fn next(&mut self) -> Result<Option<Bytes>> {
        loop {
            if let Some(mut piece) = self.ready.pop_front() {
                let skipped = piece.split_to(self.skip.min(piece.len()));
                self.skip = self.skip.saturating_sub(skipped.len());
                if piece.is_empty() {
                    continue;
                }
                self.position = self.position.saturating_add(piece.len() as u64);
                return Ok(Some(piece));
            }
            let Some(fetched) = self.runs.next().await else { return Ok(None) };
            let taken = match fetched {
                Ok((run, pieces)) => self.check_part(&run, &pieces).map(|()| pieces),
                Err(error) => Err(error),
            };
            match taken {
                Ok(pieces) => self.ready = pieces.into(),
                Err(error) => {
                    self.runs = futures::stream::empty().boxed();
                    return Err(error.at_offsets(self.offsets.0, self.offsets.1));
                }
            }
        }
    }

    /// Of an extent in several runs, the digest: if it is read from its beginning.
    fn check_part(&mut self, run: &Run, pieces: &[Bytes]) -> Result<()> {
        let footer = &self.object.head().footer;
        let Some(extent) = footer.extents.get(run.extents.start) else { return Ok(()) };
        if run.extents.len() != 1 || self.object.is_whole(run, extent) {
            self.hasher = None;
            return Ok(());
        }
        if run.frames.start == extent.first_frame {
            self.hasher = footer.digest.hasher().map(|h| (run.extents.start, h));
        }
        let Some((number, hasher)) = &mut self.hasher else { return Ok(()) };
        pieces.iter().for_each(|piece| hasher.update(piece));
        if run.frames.end == extent.first_frame.saturating_add(extent.frame_count()) {
            let number = *number;
            let found = self.hasher.take().map(|(_, hasher)| hasher.finish());
            return self.object.check_digest(number, found);
        }
        Ok(())
    }
}

/// Reads all of an object, sections included, and holds it against its checksums and digests.
pub(crate) async fn check_all(object: &OpenObject, read_ahead: usize) -> Result<()> {
    let footer = &object.head().footer;
    let mut runs = fetched(object, object.runs(0..footer.extents.len(), 0), read_ahead, false);
    let mut part: Option<Hasher> = None;
    while let Some(fetched) = runs.next().await {
        let (run, pieces) = fetched?;
        let Some(extent) = footer.extents.get(run.extents.start) else { continue };
        if run.extents.len() != 1 || object.is_whole(&run, extent) || object.is_sealed() {
            continue;
        }
        if run.frames.start == extent.first_frame {
            part = footer.digest.hasher();
        }
        if let Some(hasher) = &mut part {
            pieces.iter().for_each(|piece| hasher.update(piece));
        }
        if run.frames.end == extent.first_frame.saturating_add(extent.frame_count()) {
            object.check_digest(run.extents.start, part.take().map(Hasher::finish))?;
        }
    }
    for (number, _) in footer.extents.iter().enumerate().filter(|(_, e)| e.frame_count() == 0) {
        object.check_digest(number, object.digest_of(&[]))?;
    }
    Ok(())
}
