//! Plain, checked frames in memory, and those on their way. Each frame is fetched once, however many ask.
//!
//! Memory is accounted for by permits: a frame holds one for as long as it lives. So what is cached and what
//! is under way together never exceed the budget. What was read to its end goes first when room is needed,
//! oldest first; then what nobody has read yet.

use std::collections::{HashMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};
use varve_format::Id;

use crate::budget::Permit;
use crate::error::{Error, Kind, Result};

/// Which object ([`crate::read::segment::Segment::object`]), and the number of a frame in it.
pub type FrameKey = (Id, u64);

/// A frame's plain bytes. Frames that came in one piece share its memory and its permit.
pub struct Frame {
    bytes: Bytes,
    /// CRC32C of `bytes`: memory is checked like everything else.
    crc: u32,
    /// Checked a moment ago, when it landed: the first reader need not again.
    fresh: AtomicBool,
    _permit: Arc<Permit>,
}

impl Frame {
    /// `bytes` were just checked against `crc`.
    pub fn new(bytes: Bytes, crc: u32, permit: Arc<Permit>) -> Self {
        Self { bytes, crc, fresh: AtomicBool::new(true), _permit: permit }
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub fn is_intact(&self) -> bool {
        self.fresh.swap(false, Ordering::Relaxed) || varve_format::crc32c(&self.bytes) == self.crc
    }
}

/// Frames `range` of one object, being fetched by one request.
pub struct Flight {
    pub object: Id,
    pub range: Range<u64>,
    /// Somebody waits for it; else it is read-ahead, and its failure is nobody's.
    pub demand: bool,
    state: Mutex<FlightState>,
    changed: Condvar,
}

struct FlightState {
    /// The next frame to land.
    next: u64,
    error: Option<Error>,
}

impl Flight {
    /// Waits until `frame` has landed or the flight failed, for at most `timeout`. Whether it ended so.
    pub fn wait(&self, frame: u64, timeout: Duration) -> Result<bool> {
        let mut state = self.state.lock();
        let waits = |s: &mut FlightState| s.next <= frame && s.error.is_none();
        self.changed.wait_while_for(&mut state, waits, timeout);
        match &state.error {
            Some(e) if state.next <= frame => Err(e.clone()),
            _ => Ok(state.next > frame),
        }
    }
}

enum Slot {
    Ready { frame: Arc<Frame>, stamp: u64 },
    Pending(Arc<Flight>),
}

/// What an eviction let go of; its memory is free when nothing else shares it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Evicted {
    pub bytes: u64,
    pub unread_bytes: u64,
}

pub enum Lookup {
    Ready(Arc<Frame>),
    Pending(Arc<Flight>),
    Missing,
}

#[derive(Default)]
pub struct Cache {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    slots: HashMap<FrameKey, Slot>,
    /// Landed, not yet read to the end; then read. An entry counts while its stamp is the slot's.
    unread: VecDeque<(FrameKey, u64)>,
    read: VecDeque<(FrameKey, u64)>,
    stamp: u64,
}

impl Cache {
    pub fn lookup(&self, key: FrameKey) -> Lookup {
        match self.inner.lock().slots.get(&key) {
            Some(Slot::Ready { frame, .. }) => Lookup::Ready(frame.clone()),
            Some(Slot::Pending(flight)) => Lookup::Pending(flight.clone()),
            None => Lookup::Missing,
        }
    }

    /// Claims the first run of missing frames in `range`, for the caller to fetch and [`Cache::land`] or
    /// [`Cache::fail`]. Everything before it is there or on its way.
    pub fn claim(&self, object: Id, range: Range<u64>, demand: bool) -> Option<Arc<Flight>> {
        let mut inner = self.inner.lock();
        let start = range.clone().find(|n| !inner.slots.contains_key(&(object, *n)))?;
        let end = (start..range.end).find(|n| inner.slots.contains_key(&(object, *n))).unwrap_or(range.end);
        let flight = Arc::new(Flight {
            object,
            range: start..end,
            demand,
            state: Mutex::new(FlightState { next: start, error: None }),
            changed: Condvar::new(),
        });
        for n in start..end {
            inner.slots.insert((object, n), Slot::Pending(flight.clone()));
        }
        Some(flight)
    }

    /// The flight's next frames have arrived, the first of them `number`.
    pub fn land(&self, flight: &Arc<Flight>, number: u64, frames: Vec<Frame>) {
        let next = number + frames.len() as u64;
        {
            let mut inner = self.inner.lock();
            for (number, frame) in (number..).zip(frames) {
                let stamp = inner.next_stamp();
                let key = (flight.object, number);
                // Purged meanwhile, and perhaps claimed anew: those who wait ask again.
                if let Some(slot) = inner.slots.get_mut(&key)
                    && matches!(slot, Slot::Pending(f) if Arc::ptr_eq(f, flight))
                {
                    *slot = Slot::Ready { frame: Arc::new(frame), stamp };
                    inner.unread.push_back((key, stamp));
                }
            }
        }
        flight.state.lock().next = next;
        flight.changed.notify_all();
    }

    /// The flight ends with what has landed; the rest is missing again.
    pub fn fail(&self, flight: &Arc<Flight>, error: Error) {
        let mut inner = self.inner.lock();
        let mut state = flight.state.lock();
        for n in state.next..flight.range.end {
            if matches!(inner.slots.get(&(flight.object, n)), Some(Slot::Pending(f)) if Arc::ptr_eq(f, flight))
            {
                inner.slots.remove(&(flight.object, n));
            }
        }
        // The first error is the one to tell.
        state.error.get_or_insert(error);
        flight.changed.notify_all();
    }

    /// A reader went past the frame's end: it is the first to go when room is needed.
    pub fn mark_read(&self, key: FrameKey) {
        let mut inner = self.inner.lock();
        let fresh = inner.next_stamp();
        if let Some(Slot::Ready { stamp, .. }) = inner.slots.get_mut(&key) {
            *stamp = fresh;
            inner.read.push_back((key, fresh));
        }
        inner.compact();
    }

    /// Lets go of frames of `bytes`, where it can; those that nobody has read yet only if `also_unread`.
    pub fn evict(&self, bytes: u64, also_unread: bool) -> Evicted {
        let mut gone = Vec::new();
        let (mut freed, mut unread) = (0_u64, 0_u64);
        {
            let mut inner = self.inner.lock();
            while freed < bytes {
                let (key, stamp, was_unread) = match inner.read.pop_front() {
                    Some((key, stamp)) => (key, stamp, false),
                    None if also_unread => match inner.unread.pop_front() {
                        Some((key, stamp)) => (key, stamp, true),
                        None => break,
                    },
                    None => break,
                };
                if matches!(inner.slots.get(&key), Some(Slot::Ready { stamp: now, .. }) if *now == stamp)
                    && let Some(Slot::Ready { frame, .. }) = inner.slots.remove(&key)
                {
                    freed += frame.bytes.len() as u64;
                    unread += if was_unread { frame.bytes.len() as u64 } else { 0 };
                    gone.push(frame);
                }
            }
        }
        drop(gone);
        Evicted { bytes: freed, unread_bytes: unread }
    }

    /// Forgets an object (deleted, or changed in memory). What is under way for it is of no use then.
    pub fn purge(&self, object: Id) {
        self.inner.lock().slots.retain(|(id, _), _| *id != object);
    }

    pub fn clear(&self) {
        *self.inner.lock() = Inner::default();
    }
}

impl Inner {
    fn next_stamp(&mut self) -> u64 {
        self.stamp += 1;
        self.stamp
    }

    /// Queues hold stale entries; more of them than slots are thrown out.
    fn compact(&mut self) {
        if self.unread.len() + self.read.len() <= 2 * self.slots.len() + 1024 {
            return;
        }
        let slots = &self.slots;
        let valid = |(key, stamp): &(FrameKey, u64)| matches!(slots.get(key), Some(Slot::Ready { stamp: now, .. }) if now == stamp);
        self.unread.retain(valid);
        self.read.retain(valid);
    }
}

/// What a read-ahead that found no room ends with; who joined it asks again.
pub fn no_room() -> Error {
    Error::new(Kind::Cancelled, "read-ahead found no room")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::Budget;

    fn frame(budget: &Arc<Budget>, byte: u8) -> Frame {
        let bytes = Bytes::from(vec![byte; 100]);
        let crc = varve_format::crc32c(&bytes);
        Frame::new(bytes, crc, Arc::new(budget.try_acquire(100).unwrap()))
    }

    #[test]
    fn a_frame_is_claimed_once_and_read_frames_go_first() {
        let (cache, budget, id) = (Cache::default(), Budget::new(1000), Id([1; 16]));
        let flight = cache.claim(id, 0..3, true).unwrap();
        assert_eq!(flight.range, 0..3);
        assert!(cache.claim(id, 0..3, true).is_none());
        assert_eq!(cache.claim(id, 0..5, false).unwrap().range, 3..5);
        for n in 0..2 {
            cache.land(&flight, n, vec![frame(&budget, n as u8)]);
        }
        assert!(flight.wait(1, Duration::ZERO).unwrap());
        cache.fail(&flight, Error::new(Kind::Retry, "reset"));
        assert!(flight.wait(1, Duration::ZERO).unwrap());
        assert!(flight.wait(2, Duration::ZERO).is_err());
        assert!(matches!(cache.lookup((id, 2)), Lookup::Missing));
        cache.mark_read((id, 1));
        assert_eq!(budget.used(), 200);
        assert_eq!(cache.evict(1, false).unread_bytes, 0);
        assert!(matches!(cache.lookup((id, 1)), Lookup::Missing));
        assert_eq!(cache.evict(100, false).bytes, 0);
        assert!(matches!(cache.lookup((id, 0)), Lookup::Ready(_)));
        assert_eq!(cache.evict(100, true).unread_bytes, 100);
        assert_eq!(budget.used(), 0);
    }
}
