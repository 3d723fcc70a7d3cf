//! Where readers stopped, so that the next stream of the same reader goes on with its read-ahead.
//!
//! A broker opens a stream for each fetch, reads a part and closes it; a consumer that reads a partition is a
//! row of such streams, each beginning a little before the one before it ended.

use std::collections::HashMap;

use parking_lot::Mutex;
use varve_format::Id;

/// The next fetch begins at the last batch that did not fit, found by the offset index: so far back at most.
const OVERLAP_BYTES: u64 = 4 << 20;
const SEGMENTS_MAX: usize = 4096;
const READERS_MAX: usize = 16;

/// Where a reader stopped, how far ahead it had been fetching, and up to where it had asked.
#[derive(Clone, Copy, Debug)]
pub struct Stopped {
    pub position: u64,
    pub window: u64,
    pub asked: u64,
}

/// Where segments' readers stopped.
#[derive(Debug, Default)]
pub struct Tracker {
    stopped: Mutex<HashMap<Id, Vec<Stopped>>>,
    /// Readers that ran over a segment's end: by the next segment's place.
    over: Mutex<HashMap<(Id, i32, i64), u64>>,
}

impl Tracker {
    pub fn stop(&self, segment: Id, at: Stopped) {
        let mut stopped = self.stopped.lock();
        if stopped.len() >= SEGMENTS_MAX {
            stopped.clear();
        }
        let readers = stopped.entry(segment).or_default();
        if readers.len() >= READERS_MAX {
            readers.remove(0);
        }
        readers.push(at);
    }

    /// The reader that `position` continues.
    pub fn resume(&self, segment: Id, position: u64) -> Option<Stopped> {
        let mut stopped = self.stopped.lock();
        let readers = stopped.get_mut(&segment)?;
        let near = |at: u64| at >= position && at - position <= OVERLAP_BYTES;
        let near = readers.iter().enumerate().filter(|(_, reader)| near(reader.position));
        let found = near.min_by_key(|(_, reader)| reader.position)?.0;
        let reader = readers.remove(found);
        if readers.is_empty() {
            stopped.remove(&segment);
        }
        Some(reader)
    }

    /// A reader reached the end of a segment whose successor begins at `next_offset`.
    pub fn run_over(&self, topic_id: Id, partition: i32, next_offset: i64, window: u64) {
        let mut over = self.over.lock();
        if over.len() >= SEGMENTS_MAX {
            over.clear();
        }
        over.insert((topic_id, partition, next_offset), window);
    }

    pub fn resume_over(&self, topic_id: Id, partition: i32, offset: i64) -> Option<u64> {
        self.over.lock().remove(&(topic_id, partition, offset))
    }
}
