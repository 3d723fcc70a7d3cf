//! Requests that fill the cache: one GET for a run of frames of one chunk, frames landing as they arrive.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use bytes::{Bytes, BytesMut};
use futures::TryStreamExt as _;
use tokio::runtime::Handle;
use varve_format::{Codec, Decoder, FrameRef, SegmentName, TAG_BYTES, segment_prefix};
use varve_store::{GetRange, GetResult, Key, SharedStore};

use crate::budget::{Budget, Permit};
use crate::config::Config;
use crate::error::{Error, Kind, Result};
use crate::keys::Keys;
use crate::metrics::Metrics;
use crate::read::cache::{Cache, Flight, Frame, no_room};
use crate::read::segment::{Opened, Segment, Segments};
use crate::read::tracker::Tracker;

/// What [`Reader::fetch`] came to.
pub struct Asked {
    /// The first flight that it took, if any frame was missing.
    pub first: Option<Arc<Flight>>,
    /// All is there or on its way; else there was no room to read ahead.
    pub all: bool,
}

const SHARE_MIN_BYTES: u64 = 128 << 10;

/// All that reading needs, shared by all streams.
pub struct Reader {
    pub config: Arc<Config>,
    pub store: SharedStore,
    pub keys: Arc<Keys>,
    pub metrics: Arc<Metrics>,
    pub runtime: Handle,
    pub cache: Cache,
    pub budget: Arc<Budget>,
    pub segments: Segments,
    pub tracker: Tracker,
    /// Streams that read on, who share what read-ahead may take.
    pub active: AtomicUsize,
    /// See [`Reader::share`].
    pub share: AtomicU64,
    /// Set before the runtime ends: nothing is asked for after it.
    pub closed: AtomicBool,
}

impl Reader {
    /// How far ahead one reader may fetch now.
    pub fn window_max(&self) -> u64 {
        let share = self.budget.total() / 2 / self.readers();
        self.config.prefetch_max_bytes.min(share).min(2 * self.share(1))
    }

    fn readers(&self) -> u64 {
        self.active.load(Ordering::Relaxed).max(1) as u64
    }

    /// How much one reader may ask for at once, in whole frames. Where readers crowd the cache, each loses what
    /// it asked for to the others before it reads it, and all is fetched many times: so less is asked for,
    /// until what is asked for is read.
    pub fn share(&self, frame_bytes: u64) -> u64 {
        let most = self.run_max().min(self.budget.total() / self.readers());
        let share = self.share.load(Ordering::Relaxed).min(most);
        (share / frame_bytes).max(1) * frame_bytes
    }

    /// What was asked for is gone unread.
    pub fn lessen_share(&self) {
        let share = self.share.load(Ordering::Relaxed).min(self.run_max());
        self.share.store((share - share / 4).max(SHARE_MIN_BYTES.min(self.run_max())), Ordering::Relaxed);
    }

    /// So much was read to its end.
    pub fn raise_share(&self, bytes: u64) {
        if self.share.load(Ordering::Relaxed) < self.run_max() {
            self.share.fetch_add(bytes / 16, Ordering::Relaxed);
        }
    }

    /// Most bytes one request may bring.
    pub fn run_max(&self) -> u64 {
        self.budget.total() / 4
    }

    pub fn check_open(&self) -> Result<()> {
        match self.closed.load(Ordering::Acquire) {
            false => Ok(()),
            true => Err(Error::new(Kind::Closed, "the RemoteStorageManager is closed")),
        }
    }

    /// Has the missing frames among `frames` fetched, all of one chunk.
    pub fn fetch(
        self: &Arc<Self>,
        segment: &Arc<Segment>,
        frames: Range<u64>,
        frame_bytes: u64,
        demand: bool,
    ) -> Asked {
        let most = (self.run_max() / frame_bytes).max(1);
        let (mut from, mut first) = (frames.start, None);
        while from < frames.end {
            let range = from..frames.end.min(from + most);
            let Some(flight) = self.cache.claim(segment.object(), range, demand) else {
                from = frames.end.min(from + most);
                continue;
            };
            from = flight.range.end;
            first.get_or_insert_with(|| flight.clone());
            let bytes = (flight.range.end - flight.range.start) * frame_bytes;
            let mut room = None;
            if !demand {
                room = self.room(bytes);
                if room.is_none() {
                    self.cache.fail(&flight, no_room());
                    return Asked { first, all: false };
                }
                self.metrics.prefetched_bytes.fetch_add(bytes, Ordering::Relaxed);
            }
            let (reader, segment) = (self.clone(), segment.clone());
            // Made before the task: one that never runs must be known to have failed.
            let landing = Landing { reader: reader.clone(), flight };
            self.runtime.spawn(async move {
                let permit = match room {
                    Some(permit) => permit,
                    None => reader.reserve(bytes).await,
                };
                let running = reader.metrics.store_get.begin();
                let outcome = reader.run(&segment, &landing.flight, permit).await;
                running.end(&outcome);
                if let Err(e) = outcome {
                    if landing.flight.demand {
                        tracing::warn!(target: "varve::read", "reading frames {:?}: {e}", landing.flight.range);
                    }
                    reader.cache.fail(&landing.flight, e);
                }
            });
        }
        Asked { first, all: true }
    }

    /// Memory for what is good to have, without waiting.
    pub fn room(&self, bytes: u64) -> Option<Permit> {
        self.budget.try_acquire(bytes).or_else(|| {
            self.cache.evict(bytes, false);
            self.budget.try_acquire(bytes)
        })
    }

    pub async fn reserve(&self, bytes: u64) -> Permit {
        self.budget
            .acquire(bytes, |n| {
                let evicted = self.cache.evict(n, true);
                self.metrics.evicted_unread_bytes.fetch_add(evicted.unread_bytes, Ordering::Relaxed);
                evicted.bytes > 0
            })
            .await
    }

    async fn run(&self, segment: &Segment, flight: &Arc<Flight>, mut permit: Permit) -> Result<()> {
        let (got, opened) = match (segment.opened(), &segment.custom) {
            // The stored bytes are the plain ones: footer and data are fetched at once.
            (None, Some(c)) if c.identity => {
                let frame = u64::from(c.frame_bytes);
                let range = flight.range.start * frame..(flight.range.end * frame).min(c.data_end);
                let (got, opened) =
                    tokio::join!(self.get(segment, range), segment.open(&*self.store, &self.keys));
                // An error of the footer says more than one of the data.
                let opened = opened?;
                (got?, opened)
            }
            _ => {
                let opened = segment.open(&*self.store, &self.keys).await?;
                (self.get(segment, stored_range(segment, &opened, flight)?).await?, opened)
            }
        };
        self.land_all(segment, &opened, flight, got, &mut permit).await
    }

    async fn get(&self, segment: &Segment, range: Range<u64>) -> Result<GetResult> {
        let got =
            self.store.get(&segment.key, GetRange::Bounded { start: range.start, end: range.end }).await?;
        if got.range != range {
            return Err(
                segment.corrupt(format!("bytes {range:?} expected, the object ends at {}", got.range.end))
            );
        }
        Ok(got)
    }

    /// Cuts the body into frames; each is checked before anyone sees it.
    async fn land_all(
        &self,
        segment: &Segment,
        opened: &Opened,
        flight: &Arc<Flight>,
        mut got: GetResult,
        permit: &mut Permit,
    ) -> Result<()> {
        let fail = |e| Error::format(&segment.place, e);
        let mut decoder = Decoder::new(&opened.footer, opened.key.as_ref()).map_err(fail)?;
        let mut cutter = Cutter::default();
        let mut number = flight.range.start;
        while number < flight.range.end {
            let ended = || segment.corrupt(format!("the body ends in frame {number}"));
            let piece = got.body.try_next().await.map_err(|e| segment.of_store(e))?;
            cutter.add(piece.ok_or_else(ended)?);
            let (first, mut landed) = (number, Vec::new());
            while number < flight.range.end {
                let frame = opened.footer.frame(number).map_err(fail)?;
                let stored_bytes = (frame.stored.end - frame.stored.start) as usize;
                let Some(stored) = cutter.cut(stored_bytes) else { break };
                self.metrics.store_get.add_bytes(stored_bytes as u64);
                landed.push((plain(&mut decoder, &frame, stored).map_err(fail)?, frame));
                number += 1;
            }
            // The connection reads on into the same memory once nobody holds a piece of it.
            cutter.let_go(opened.footer.frame_bytes as usize + TAG_BYTES);
            if !landed.is_empty() {
                self.cache.land(flight, first, frames(landed, opened, permit));
                self.budget.retry();
            }
        }
        Ok(())
    }

    /// Read-ahead over the border: finds the segment that begins at `next_offset` by one LIST, and fetches its
    /// first chunk. Where several begin there, none is followed: only the broker knows which is the one.
    pub fn fetch_next(self: &Arc<Self>, segment: &Segment, next_offset: i64) {
        let prefix =
            segment_prefix(&self.config.cluster_id, segment.topic_id, segment.partition, next_offset);
        let topic = segment.topic.clone();
        let reader = self.clone();
        self.runtime.spawn(async move {
            if let Err(e) = reader.find_next(&prefix, &topic).await {
                tracing::debug!(target: "varve::read", "read-ahead at {prefix}: {e}");
            }
        });
    }

    async fn find_next(self: &Arc<Self>, prefix: &str, topic: &str) -> Result<()> {
        let page = self.store.list(prefix, None, 2).await?;
        let [object] = page.objects.as_slice() else { return Ok(()) };
        if page.more {
            return Ok(());
        }
        let name = SegmentName::parse(object.key.as_str()).map_err(|e| Error::format(prefix, e))?;
        let found = Segment::found(&self.config, &name, topic, Key::new(object.key.as_str())?);
        let Some(segment) = self.segments.add_found(found) else { return Ok(()) };
        let opened = segment.open(&*self.store, &self.keys).await?;
        if let Some(chunk) = opened.footer.chunk_at(0) {
            let frames = 0..chunk.frame_count();
            self.fetch(&segment, frames, opened.footer.frame_bytes.into(), false);
        }
        Ok(())
    }
}

/// However a fetch ends, also by a panic or by the runtime's end, nobody waits for it for ever.
struct Landing {
    reader: Arc<Reader>,
    flight: Arc<Flight>,
}

impl Drop for Landing {
    fn drop(&mut self) {
        let error = match self.reader.check_open() {
            Err(closed) => closed,
            Ok(()) => Error::internal("reading from the store", "the fetch stopped"),
        };
        self.reader.cache.fail(&self.flight, error);
    }
}

fn stored_range(segment: &Segment, opened: &Opened, flight: &Flight) -> Result<Range<u64>> {
    let fail = |e| Error::format(&segment.place, e);
    let first = opened.footer.frame(flight.range.start).map_err(fail)?;
    let last = opened.footer.frame(flight.range.end.saturating_sub(1)).map_err(fail)?;
    Ok(first.stored.start..last.stored.end)
}

/// A frame's plain bytes, checked; in the memory of the stored ones where it can be.
pub fn plain(
    decoder: &mut Decoder<'_>,
    frame: &FrameRef,
    mut stored: BytesMut,
) -> Result<Bytes, varve_format::Error> {
    if frame.codec == Codec::None {
        let plain_bytes = decoder.decode_in_place(frame, &mut stored)?;
        stored.truncate(plain_bytes);
        return Ok(stored.freeze());
    }
    let mut plain = vec![0; frame.plain_bytes as usize];
    decoder.decode(frame, &stored, &mut plain)?;
    Ok(Bytes::from(plain))
}

/// Frames that came together share a permit, as they may share memory.
pub fn frames(landed: Vec<(Bytes, FrameRef)>, opened: &Opened, permit: &mut Permit) -> Vec<Frame> {
    let bytes = landed.iter().map(|(plain, _)| plain.len() as u64).sum();
    let shared = Arc::new(permit.split(bytes));
    let with_crc = |(plain, frame): (Bytes, FrameRef)| {
        let as_stored = opened.key.is_none() && frame.codec == Codec::None;
        let crc = if as_stored { frame.crc } else { varve_format::crc32c(&plain) };
        Frame::new(plain, crc, shared.clone())
    };
    landed.into_iter().map(with_crc).collect()
}

/// Cuts stored frames out of a body's pieces: without a copy where a piece's memory is its own and holds all
/// of the frame. Others are parts of a buffer of unknown size, which a small frame must not keep alive.
#[derive(Default)]
struct Cutter {
    /// The piece, if its memory is its own; else it is `shared`.
    owned: BytesMut,
    shared: Bytes,
    /// The beginning of a frame that goes on in the next piece.
    begun: BytesMut,
}

impl Cutter {
    fn add(&mut self, piece: Bytes) {
        match piece.try_into_mut() {
            Ok(owned) => self.owned = owned,
            Err(shared) => self.shared = shared,
        }
    }

    /// Keeps the beginning of the next frame, of at most `frame_bytes`, and nothing of the piece.
    fn let_go(&mut self, frame_bytes: usize) {
        let (owned, shared) = (std::mem::take(&mut self.owned), std::mem::take(&mut self.shared));
        for rest in [&owned[..], &shared[..]].into_iter().filter(|rest| !rest.is_empty()) {
            self.begun.reserve(frame_bytes.max(rest.len()));
            self.begun.extend_from_slice(rest);
        }
    }

    fn cut(&mut self, bytes: usize) -> Option<BytesMut> {
        if self.begun.len() + self.owned.len() + self.shared.len() < bytes {
            return None;
        }
        if self.begun.is_empty() && self.shared.is_empty() {
            return Some(self.owned.split_to(bytes));
        }
        let mut whole = std::mem::take(&mut self.begun);
        let rest = bytes.saturating_sub(whole.len());
        whole.reserve(rest);
        match self.shared.is_empty() {
            true => whole.extend_from_slice(&self.owned.split_to(rest)),
            false => whole.extend_from_slice(&self.shared.split_to(rest)),
        }
        Some(whole)
    }
}
