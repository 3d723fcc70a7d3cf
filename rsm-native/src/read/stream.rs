//! A stream over a segment's log, as the broker reads it: opened at a position, read in part, closed.
//!
//! The stream never waits on its own: it asks the reader for frames, copies those that are there, and tells
//! the caller when nothing is there yet. Closing it early loses nothing: what was fetched stays in the cache,
//! and what is under way lands there.

use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::error::{Error, Kind, Result};
use crate::metrics::TopicNumbers;
use crate::read::cache::{Frame, Lookup};
use crate::read::fetch::Reader;
use crate::read::segment::Segment;
use crate::read::tracker::Stopped;

pub struct LogStream {
    reader: Arc<Reader>,
    segment: Arc<Segment>,
    topic: Arc<TopicNumbers>,
    state: Mutex<State>,
}

struct State {
    position: u64,
    /// Exclusive.
    end: u64,
    log_bytes: u64,
    /// Known from the metadata, or once the footer is there.
    shape: Option<Shape>,
    /// The frame that `position` lies in, checked; while the cache has it, so that a stream at rest keeps
    /// nobody from memory.
    current: Option<(u64, Weak<Frame>)>,
    /// Whether it reads on, and how far ahead it fetches.
    sequential: bool,
    window: u64,
    /// Fetched or asked for up to here (position).
    asked: u64,
    opening: Option<Receiver<Result<()>>>,
    crossed: bool,
    counted: bool,
    opened_at: Instant,
    first_byte: bool,
    closed: bool,
}

/// Asked for at once where a read begins at a segment's beginning.
const FIRST_CHUNKS: u64 = 4;

#[derive(Clone, Copy)]
struct Shape {
    frame: u64,
    chunk: u64,
}

/// What a read came to.
#[derive(Debug, PartialEq, Eq)]
pub enum Progress {
    Bytes(usize),
    End,
    /// Nothing yet.
    Waiting,
}

impl LogStream {
    /// `end` is exclusive; both are clamped to the log. Nothing is fetched yet.
    pub fn new(reader: Arc<Reader>, segment: Arc<Segment>, start: u64, end: u64) -> Self {
        let log_bytes = segment.log_bytes.unwrap_or(0);
        let topic = reader.metrics.topic(&segment.topic);
        let mut state = State {
            position: start,
            end: end.min(log_bytes),
            log_bytes,
            shape: None,
            current: None,
            sequential: false,
            window: 0,
            asked: start,
            opening: None,
            crossed: false,
            counted: false,
            opened_at: Instant::now(),
            first_byte: false,
            closed: false,
        };
        if start == 0 {
            state.sequential = true;
            // Who begins at the beginning reads on: no round trips are spent on finding out.
            let resumed =
                reader.tracker.resume_over(segment.topic_id, segment.partition, segment.start_offset);
            let chunk = u64::from(reader.config.policy(&segment.topic).chunk_bytes);
            state.window = resumed.unwrap_or((FIRST_CHUNKS * chunk).min(reader.config.prefetch_max_bytes));
        }
        if let Some(stopped) = reader.tracker.resume(segment.id, start) {
            state.sequential = true;
            state.window = state.window.max(stopped.window);
            state.asked = state.asked.max(stopped.asked);
        }
        Self { reader, segment, topic, state: Mutex::new(state) }
    }

    /// Hands up to `max` bytes to `sink` (where in the destination, bytes), waiting for at most `timeout`.
    pub fn read(
        &self,
        max: usize,
        timeout: Duration,
        mut sink: impl FnMut(usize, &[u8]) -> Result<()>,
    ) -> Result<Progress> {
        let state = &mut *self.state.lock();
        if state.closed {
            return Err(Error::new(Kind::Closed, format!("{}: the stream is closed", self.segment.place)));
        }
        let outcome =
            self.reader.check_open().and_then(|()| self.read_locked(state, max, timeout, &mut sink));
        match &outcome {
            Ok(Progress::Bytes(n)) => {
                self.reader.metrics.fetch_log.add_bytes(*n as u64);
                self.topic.fetched_bytes.fetch_add(*n as u64, Ordering::Relaxed);
                if !state.first_byte {
                    state.first_byte = true;
                    self.reader.metrics.fetch_log.first_byte(state.opened_at.elapsed());
                }
            }
            Err(_) => {
                self.reader.metrics.fetch_log.errors.fetch_add(1, Ordering::Relaxed);
                self.topic.fetch_errors.fetch_add(1, Ordering::Relaxed);
            }
            _ => {}
        }
        outcome
    }

    fn read_locked(
        &self,
        state: &mut State,
        max: usize,
        timeout: Duration,
        sink: &mut impl FnMut(usize, &[u8]) -> Result<()>,
    ) -> Result<Progress> {
        let deadline = Instant::now() + timeout;
        let mut copied = 0;
        while copied < max {
            if state.position >= state.end {
                return Ok(if copied > 0 { Progress::Bytes(copied) } else { Progress::End });
            }
            let Some(shape) = self.shape(state, deadline)? else { break };
            let number = state.position / shape.frame;
            let Some(frame) = self.frame(state, shape, number, copied > 0, deadline)? else { break };
            let offset = (state.position - number * shape.frame) as usize;
            let left = (state.end - state.position).min((max - copied) as u64) as usize;
            let bytes = frame.bytes().get(offset..).unwrap_or_default();
            let bytes = bytes.get(..left.min(bytes.len())).unwrap_or_default();
            if bytes.is_empty() {
                return Err(self
                    .segment
                    .corrupt(format!("log byte {} expected, the log ends before it", state.position)));
            }
            sink(copied, bytes)?;
            copied += bytes.len();
            state.position += bytes.len() as u64;
            if state.position == (number + 1) * shape.frame || state.position == state.log_bytes {
                self.leave(state, shape, number);
            }
        }
        Ok(if copied > 0 {
            Progress::Bytes(copied)
        } else if max == 0 {
            Progress::Bytes(0)
        } else {
            Progress::Waiting
        })
    }

    /// Frame and chunk sizes: at once where the metadata or a footer in memory tells, else from the store.
    fn shape(&self, state: &mut State, deadline: Instant) -> Result<Option<Shape>> {
        if state.shape.is_some() {
            return Ok(state.shape);
        }
        if let Some(opened) = self.segment.opened() {
            let footer = &opened.footer;
            state.shape = Some(Shape { frame: footer.frame_bytes.into(), chunk: footer.chunk_bytes.into() });
        } else if let Some(c) = self.segment.custom.as_ref().filter(|c| c.identity) {
            let frame = u64::from(c.frame_bytes);
            let chunk = u64::from(self.reader.config.policy(&self.segment.topic).chunk_bytes);
            state.shape = Some(Shape { frame, chunk: chunk.max(frame) / frame * frame });
        } else {
            return self.opening(state, deadline);
        }
        Ok(state.shape)
    }

    /// Has the footer fetched by a task of its own: the wait may end before it, and the next call goes on.
    fn opening(&self, state: &mut State, deadline: Instant) -> Result<Option<Shape>> {
        let opening = state.opening.get_or_insert_with(|| {
            let (reader, segment) = (self.reader.clone(), self.segment.clone());
            let (tell, told) = channel();
            self.reader.runtime.spawn(async move {
                // A stream that was closed meanwhile does not listen.
                let _ = tell.send(segment.open(&*reader.store, &reader.keys).await.map(|_| ()));
            });
            told
        });
        let outcome = match opening.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(outcome) => outcome,
            Err(RecvTimeoutError::Timeout) => return Ok(None),
            Err(RecvTimeoutError::Disconnected) => self
                .reader
                .check_open()
                .and_then(|()| Err(Error::internal("opening a segment", "it stopped"))),
        };
        state.opening = None;
        outcome?;
        self.shape(state, deadline)
    }

    /// The frame that the position lies in, if it is there before the deadline.
    fn frame(
        &self,
        state: &mut State,
        shape: Shape,
        number: u64,
        have_bytes: bool,
        deadline: Instant,
    ) -> Result<Option<Arc<Frame>>> {
        if let Some((current, frame)) = &state.current
            && *current == number
            && let Some(frame) = frame.upgrade()
        {
            return Ok(Some(frame));
        }
        self.read_ahead(state, shape);
        let object = self.segment.object();
        let mut missed = false;
        loop {
            let flight = match self.reader.cache.lookup((object, number)) {
                Lookup::Ready(frame) => {
                    if !frame.is_intact() {
                        self.reader.cache.purge(object);
                        tracing::error!(target: "varve::read", "{}: frame {number} changed in memory; fetching it again", self.segment.place);
                        continue;
                    }
                    let counter = if missed {
                        &self.reader.metrics.cache_misses
                    } else {
                        &self.reader.metrics.cache_hits
                    };
                    counter.fetch_add(1, Ordering::Relaxed);
                    state.current = Some((number, Arc::downgrade(&frame)));
                    return Ok(Some(frame));
                }
                Lookup::Pending(flight) => flight,
                Lookup::Missing => {
                    self.reader.check_open()?;
                    if number * shape.frame < state.asked {
                        self.reader.lessen_share();
                    }
                    let run = self.demand(state, shape, number);
                    match self.reader.fetch(&self.segment, run, shape.frame, true).first {
                        Some(flight) if flight.range.contains(&number) => flight,
                        // Another one was quicker.
                        _ => continue,
                    }
                }
            };
            missed = true;
            if have_bytes {
                return Ok(None);
            }
            match flight.wait(number, deadline.saturating_duration_since(Instant::now())) {
                // Under pressure it may be gone again, and is asked for anew.
                Ok(true) => {}
                Ok(false) => return Ok(None),
                // It was only read-ahead: ask for it in earnest.
                Err(_) if !flight.demand => {}
                Err(e) => return Err(e),
            }
        }
    }

    /// Which frames are asked for where `number` is missing: to the chunk's end for one who reads on, else a
    /// small run; never beyond what the stream may deliver.
    fn demand(&self, state: &mut State, shape: Shape, number: u64) -> std::ops::Range<u64> {
        let start = number * shape.frame;
        let chunk_end = (start / shape.chunk + 1) * shape.chunk;
        let mut end = chunk_end.min(state.end).min(start + self.reader.share(shape.frame));
        if !state.sequential {
            let initial = self.reader.config.prefetch_initial_bytes.max(shape.frame);
            end = end.min(start + initial);
        }
        state.asked = state.asked.max(end);
        number..end.div_ceil(shape.frame)
    }

    /// Keeps up to `window` bytes ahead of the position on their way.
    fn read_ahead(&self, state: &mut State, shape: Shape) {
        if !state.sequential {
            // Half of the first small run was read: it reads on.
            let initial = state.asked.saturating_sub(state.position);
            if !state.crossed || state.position + initial / 2 < state.asked {
                return;
            }
            state.sequential = true;
        }
        if !state.counted {
            state.counted = true;
            self.reader.active.fetch_add(1, Ordering::Relaxed);
        }
        let window = state.window.max(shape.chunk).min(self.reader.window_max());
        let until = (state.position + window).min(state.end);
        let mut at = state.asked.max(state.position);
        if state.asked <= state.position && self.reader.config.prefetch_max_bytes == 0 {
            return;
        }
        // The chunk at the position itself is asked for by demand.
        if at == state.position {
            let run = self.demand(state, shape, state.position / shape.frame);
            at = state.asked;
            self.reader.fetch(&self.segment, run, shape.frame, true);
        }
        while at < until {
            let chunk_end = (at / shape.chunk + 1) * shape.chunk;
            let end = chunk_end.min(state.end).min(at + self.reader.share(shape.frame));
            let frames = at / shape.frame..end.div_ceil(shape.frame);
            if !self.reader.fetch(&self.segment, frames, shape.frame, false).all {
                break;
            }
            at = end;
        }
        state.asked = state.asked.max(at);
        // Over the border, for one who is well under way.
        if at >= state.log_bytes
            && state.window > FIRST_CHUNKS * shape.chunk
            && !self.segment.asked_next.swap(true, Ordering::Relaxed)
        {
            self.reader.fetch_next(&self.segment, self.segment.end_offset.saturating_add(1));
        }
    }

    /// The position went past a frame's end.
    fn leave(&self, state: &mut State, shape: Shape, number: u64) {
        state.current = None;
        state.crossed = true;
        self.reader.raise_share(shape.frame);
        self.reader.cache.mark_read((self.segment.object(), number));
        if state.position.is_multiple_of(shape.chunk) {
            state.window = (state.window.max(shape.chunk) * 2).min(self.reader.config.prefetch_max_bytes);
        }
        if state.position == state.log_bytes {
            let next = self.segment.end_offset.saturating_add(1);
            self.reader.tracker.run_over(self.segment.topic_id, self.segment.partition, next, state.window);
        }
    }

    /// Moves on without reading; returns by how much.
    pub fn skip(&self, n: u64) -> u64 {
        let mut state = self.state.lock();
        let n = n.min(state.end.saturating_sub(state.position));
        state.position += n;
        state.current = None;
        n
    }

    /// Bytes that can be read without waiting: those of the frame at hand.
    pub fn available(&self) -> usize {
        let state = self.state.lock();
        let (Some((number, frame)), Some(shape)) = (&state.current, state.shape) else { return 0 };
        let Some(frame) = frame.upgrade() else { return 0 };
        let offset = state.position.saturating_sub(number * shape.frame);
        (frame.bytes().len() as u64).saturating_sub(offset).min(state.end - state.position) as usize
    }

    /// Closing twice is fine.
    pub fn close(&self) {
        let mut state = self.state.lock();
        if std::mem::replace(&mut state.closed, true) {
            return;
        }
        state.current = None;
        if state.counted {
            self.reader.active.fetch_sub(1, Ordering::Relaxed);
        }
        if state.sequential || state.crossed {
            let stopped = Stopped { position: state.position, window: state.window, asked: state.asked };
            self.reader.tracker.stop(self.segment.id, stopped);
        }
    }
}

impl Drop for LogStream {
    fn drop(&mut self) {
        self.close();
    }
}
