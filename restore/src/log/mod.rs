//! An archived partition as the log that followers copy.
//!
//! Followers read forward, and several of them about the same bytes at about the same time. So a partition that is read
//! has *readers*, each a stream through the archive's objects that is fetched ahead, and keeps the last few MiB of
//! whole batches, its *window*. What one follower was given, the others find there; one that is elsewhere gets a reader
//! of its own.
//!
//! Memory is bounded by a [`Budget`] over all partitions: a partition takes its share with its first read and gives it
//! back when all followers have everything, or when nobody has read from it for a while and others wait. Until there is
//! room, a read gives nothing, and the follower asks again.
//!
//! Every byte was held against its digest or its frame's checksum, and each batch against its CRC, before it is given
//! out.

mod blocks;
mod budget;
mod damage;
mod facts;
mod producer_ids;
mod what_holds;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex as Lock;
use tokio::sync::{Mutex, OwnedSemaphorePermit};
use varve_archive::ArchivedLog;
use varve_kafka::protocol::LeaderEpochs;
use varve_kafka::replica::{ReadError, ReplicaLog};

use crate::error::{Error, Result};
use crate::history::KeyCache;
pub(crate) use blocks::{Block, Blocks};

pub use budget::Budget;
pub use facts::{Facts, Hole};
pub use producer_ids::ProducerIds;

/// What a partition keeps of what was read, where several followers copy it.
const WINDOW_BYTES: usize = 4 << 20;
/// Where one does: enough for the answer that it asks for again. What is in use at once stays in the processor's cache.
const ALONE_BYTES: usize = 1 << 20;
/// Blocks that are read for one answer.
const BLOCKS_MAX: usize = 16;
/// A follower this far ahead of a reader waits for it; one farther gets a reader of its own.
const REACH_OFFSETS: i64 = 1 << 16;

/// See the module.
pub struct ArchiveLog {
    log: ArchivedLog,
    keys: Arc<KeyCache>,
    facts: Facts,
    budget: Arc<Budget>,
    window_bytes: usize,
    reading: Mutex<Reading>,
    used: Lock<Instant>,
    producer_ids: Arc<ProducerIds>,
}

#[derive(Default)]
struct Reading {
    share: Option<OwnedSemaphorePermit>,
    readers: Vec<Reader>,
    /// In the order in which they were read.
    window: VecDeque<Block>,
    window_bytes: usize,
}

struct Reader {
    blocks: Blocks,
    /// Of its own, beyond the partition's share.
    _share: Option<OwnedSemaphorePermit>,
}

impl std::fmt::Debug for ArchiveLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ArchiveLog").field("facts", &self.facts).finish_non_exhaustive()
    }
}

impl ArchiveLog {
    /// `facts` are those of the same log; `followers` copy it.
    pub fn new(
        log: ArchivedLog,
        keys: Arc<KeyCache>,
        facts: Facts,
        followers: usize,
        budget: Arc<Budget>,
        producer_ids: Arc<ProducerIds>,
    ) -> Arc<Self> {
        let new = Arc::new(Self {
            log,
            keys,
            facts,
            budget: Arc::clone(&budget),
            window_bytes: if followers > 1 { WINDOW_BYTES } else { ALONE_BYTES },
            reading: Mutex::default(),
            used: Lock::new(Instant::now()),
            producer_ids,
        });
        budget.know(&new);
        new
    }

    /// Gives back what it holds, if it has not been read from for a while.
    fn rest(&self, idle: std::time::Duration) -> bool {
        match self.reading.try_lock() {
            Ok(mut reading) if reading.share.is_some() && self.used.lock().elapsed() >= idle => {
                *reading = Reading::default();
                true
            }
            _ => false,
        }
    }

    /// A share for the partition as a whole, once.
    fn has_room(&self, reading: &mut Reading) -> bool {
        if reading.share.is_none() {
            reading.share = self.budget.share(self.facts.log_bytes);
        }
        reading.share.is_some()
    }

    /// The reader that comes to `offset` soonest, or a new one. `None` if there is no memory for one.
    fn reader(&self, reading: &mut Reading, offset: i64) -> Option<usize> {
        let places =
            reading.readers.iter().enumerate().map(|(at, reader)| (reader.blocks.given_offset(), at));
        let nearest = places.filter(|(next, _)| *next <= offset).max();
        if let Some((next, at)) = nearest
            && offset.saturating_sub(next) < REACH_OFFSETS
        {
            return Some(at);
        }
        let share = match reading.readers.is_empty() {
            true => None,
            false => match self.budget.share(self.facts.log_bytes) {
                Some(share) => Some(share),
                // The follower that is behind goes first: others wait for it.
                None if nearest.is_some() => return None,
                None => {
                    reading.readers.clear();
                    None
                }
            },
        };
        let blocks = Blocks::new(self.log.clone(), Arc::clone(&self.keys), self.facts.clone(), offset);
        reading.readers.push(Reader { blocks, _share: share });
        Some(reading.readers.len() - 1)
    }

    async fn next(&self, offset: i64, max_bytes: usize) -> Result<Option<Vec<Bytes>>> {
        let mut reading = self.reading.lock().await;
        *self.used.lock() = Instant::now();
        let reading = &mut *reading;
        let mut found =
            Found { parts: Vec::new(), next_offset: offset, left_bytes: max_bytes, is_full: false };
        while reading.window.iter().any(|block| found.add(block)) {}
        if found.is_full || !self.has_room(reading) {
            return Ok(found.some());
        }
        for _ in 0..BLOCKS_MAX {
            if found.is_full || found.next_offset >= self.facts.end_offset {
                break;
            }
            // Only for what is asked for a reader is begun, or drawn away from others.
            let goes_on = |r: &Reader| r.blocks.given_offset() == found.next_offset;
            if !found.parts.is_empty() && !reading.readers.iter().any(goes_on) {
                break;
            }
            let Some(at) = self.reader(reading, found.next_offset) else { break };
            match self.read_block(reading, at, found.next_offset).await {
                Ok(true) => reading.window.back().is_some_and(|block| found.add(block)),
                Ok(false) => break,
                // It comes again when the follower asks for what is behind these.
                Err(_) if !found.parts.is_empty() => break,
                Err(error) => return Err(error),
            };
        }
        // Without any, the follower asks again, and the reader goes on from here.
        Ok(found.some())
    }

    /// The next block of one reader becomes the window's last. Whether there is one.
    async fn read_block(&self, reading: &mut Reading, at: usize, offset: i64) -> Result<bool> {
        let Some(reader) = reading.readers.get_mut(at) else { return Ok(false) };
        let next = reader.blocks.next().await;
        if !matches!(next, Ok(Some(_))) {
            // One that has failed knows no more where it is.
            reading.readers.remove(at);
        }
        let Some(block) = next? else {
            if offset < self.facts.end_offset {
                let expected = format!("a batch up to offset {}", self.facts.end_offset - 1);
                return Err(Error::unexpected(
                    format!("{:?}", self.log),
                    expected,
                    format!("none from {offset} on"),
                ));
            }
            return Ok(false);
        };
        self.producer_ids.note(block.last_producer_id)?;
        reading.window_bytes += block.len();
        reading.window.push_back(block);
        while reading.window_bytes > self.window_bytes && reading.window.len() > 1 {
            if let Some(oldest) = reading.window.pop_front() {
                reading.window_bytes -= oldest.len();
            }
        }
        Ok(true)
    }
}

/// What is gathered for an answer.
struct Found {
    parts: Vec<Bytes>,
    next_offset: i64,
    left_bytes: usize,
    is_full: bool,
}

impl Found {
    /// Whether the block had what comes next.
    fn add(&mut self, block: &Block) -> bool {
        if self.is_full {
            return false;
        }
        let least = usize::from(self.parts.is_empty());
        let Some(cut) = block.from(self.next_offset, self.left_bytes, least) else { return false };
        self.parts.extend(cut.parts);
        self.left_bytes = self.left_bytes.saturating_sub(cut.bytes);
        self.next_offset = cut.end_offset;
        self.is_full = !cut.is_rest || self.left_bytes == 0;
        true
    }

    fn some(self) -> Option<Vec<Bytes>> {
        Some(self.parts).filter(|parts| !parts.is_empty())
    }
}

#[async_trait]
impl ReplicaLog for ArchiveLog {
    fn start_offset(&self) -> i64 {
        self.facts.start_offset
    }

    fn base_offset(&self) -> i64 {
        self.facts.base_offset
    }

    fn end_offset(&self) -> i64 {
        self.facts.end_offset
    }

    fn leader_epochs(&self) -> &LeaderEpochs {
        &self.facts.leader_epochs
    }

    fn last_producer_id(&self) -> i64 {
        self.producer_ids.last()
    }

    async fn read(&self, offset: i64, max_bytes: usize) -> Result<Option<Vec<Bytes>>, ReadError> {
        self.next(offset, max_bytes)
            .await
            .map_err(|error| ReadError { detail: error.to_string(), is_lasting: !error.may_pass() })
    }

    async fn done(&self) {
        *self.reading.lock().await = Reading::default();
    }
}
