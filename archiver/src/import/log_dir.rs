//! A broker's log directory, and the copies of partitions in it.
//!
//! Order matters where a broker is writing: the high watermarks are read first, leader epochs and files after them.
//! So whatever is read is committed, and its epochs are known; what was cut off meanwhile shows by another epoch.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use varve_format::{EpochStart, Id};
use varve_kafka::protocol::{BATCH_HEADER_BYTES, BatchHeader, parse_leader_epochs};

use super::checkpoint::{DirectoryName, Offsets, parse_directory, parse_meta, parse_offsets, parse_topic_id};
use super::error::{ImportError, Result};
use super::files::{Blob, Files};
use super::history::History;
use super::tarball::Tarball;
use crate::branching::{Leading, Log};
use crate::clock;

const HIGH_WATERMARKS: &str = "replication-offset-checkpoint";

/// One log directory.
#[derive(Debug)]
pub(crate) struct LogDir {
    pub(crate) files: Files,
    pub(crate) cluster_id: Option<String>,
    pub(crate) broker_id: Option<i32>,
    /// As of when it is.
    pub(crate) seen_ms: i64,
    high_watermarks: Offsets,
    log_starts: Offsets,
    cleaned: Offsets,
}

/// What is not read of a log directory, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PassedOver {
    pub directory: String,
    pub why: String,
    /// It should have been read: something in it is damaged.
    pub is_wrong: bool,
}

/// One broker's copy of a partition.
#[derive(Clone, Debug)]
pub(crate) struct Replica {
    pub(crate) dir: Arc<LogDir>,
    pub(crate) directory: String,
    pub(crate) topic: String,
    pub(crate) partition: i32,
    pub(crate) topic_id: Id,
    pub(crate) high_watermark: i64,
    pub(crate) log_start_offset: i64,
    pub(crate) epochs: Vec<EpochStart>,
    /// Whether the cleaner was here: then offsets may be left out anywhere.
    pub(crate) cleaned: bool,
    /// Base offsets and sizes.
    pub(crate) segments: BTreeMap<i64, u64>,
    /// Nothing is read from here on.
    pub(crate) limit: i64,
    /// Behind the last whole batch.
    pub(crate) end_offset: i64,
}

/// All log directories that `path` is or holds.
pub(crate) fn open(path: &Path, wants: &dyn Fn(&str) -> bool, online: bool) -> Result<Vec<LogDir>> {
    let meta = std::fs::metadata(path).map_err(ImportError::io(path.display()))?;
    let none = || ImportError::NoLogDirectory { path: path.display().to_string() };
    if meta.is_dir() {
        let files = Files::Directory(path.to_owned());
        if files.modified_ms("meta.properties").is_none() && files.modified_ms(HIGH_WATERMARKS).is_none() {
            return Err(none());
        }
        if !online && is_locked(path) {
            return Err(ImportError::InUse { path: path.display().to_string() });
        }
        return Ok(vec![LogDir::read(files)?]);
    }
    let tar = Arc::new(Tarball::open(path, wants)?);
    let prefixes = tar.log_directories();
    if prefixes.is_empty() {
        return Err(none());
    }
    prefixes.into_iter().map(|prefix| LogDir::read(Files::Tar(Arc::clone(&tar), prefix))).collect()
}

/// Whether a broker of this machine has the directory.
fn is_locked(path: &Path) -> bool {
    use rustix::fs::{FlockOperation, fcntl_lock};
    let Ok(file) = std::fs::File::open(path.join(".lock")) else { return false };
    // As for the broker, the lock is gone with the file's last descriptor.
    fcntl_lock(&file, FlockOperation::NonBlockingLockShared).is_err()
}

impl LogDir {
    fn read(files: Files) -> Result<Self> {
        let (cluster_id, broker_id) = match files.small("meta.properties")? {
            Some(bytes) => parse_meta(&files.name("meta.properties"), &bytes)?,
            None => (None, None),
        };
        let mut dir = Self {
            files,
            cluster_id,
            broker_id,
            seen_ms: 0,
            high_watermarks: Offsets::new(),
            log_starts: Offsets::new(),
            cleaned: Offsets::new(),
        };
        dir.read_offsets()?;
        Ok(dir)
    }

    fn read_offsets(&mut self) -> Result<()> {
        let now_ms = clock::now_ms();
        self.seen_ms = self.files.modified_ms(HIGH_WATERMARKS).unwrap_or(0).min(now_ms);
        self.high_watermarks = self.offsets(HIGH_WATERMARKS)?;
        self.log_starts = self.offsets("log-start-offset-checkpoint")?;
        self.cleaned = self.offsets("cleaner-offset-checkpoint")?;
        Ok(())
    }

    fn offsets(&self, name: &str) -> Result<Offsets> {
        match self.files.small(name)? {
            Some(bytes) => parse_offsets(&self.files.name(name), &bytes),
            None => Ok(Offsets::new()),
        }
    }

    /// The copies of the partitions whose topics are wanted.
    pub(crate) fn replicas(
        self: &Arc<Self>,
        wants: &dyn Fn(&str) -> bool,
        include_active: bool,
    ) -> Result<(Vec<Replica>, Vec<PassedOver>)> {
        let (mut replicas, mut passed_over) = (Vec::new(), Vec::new());
        for directory in self.files.directories()? {
            let mut pass = |why: &str, is_wrong| {
                let directory = self.files.name(&directory);
                passed_over.push(PassedOver { directory, why: why.to_owned(), is_wrong });
            };
            match parse_directory(&directory) {
                DirectoryName::PassedOver(why) => pass(why, false),
                DirectoryName::Partition { topic, partition } if wants(&topic) => {
                    match self.replica(&directory, topic, partition, include_active) {
                        Ok(Ok(replica)) => replicas.push(replica),
                        Ok(Err(why)) => pass(why, false),
                        // One partition's damage is no other's.
                        Err(error) => pass(&error.to_string(), true),
                    }
                }
                _ => {}
            }
        }
        Ok((replicas, passed_over))
    }

    fn replica(
        self: &Arc<Self>,
        directory: &str,
        topic: String,
        partition: i32,
        include_active: bool,
    ) -> Result<Result<Replica, &'static str>> {
        let metadata = format!("{directory}/partition.metadata");
        let Some(metadata_bytes) = self.files.small(&metadata)? else {
            return Ok(Err("has no partition.metadata, which would tell the topic's id"));
        };
        let topic_id = parse_topic_id(&self.files.name(&metadata), &metadata_bytes)?;
        let key = (topic, partition);
        let Some(high_watermark) = self.high_watermarks.get(&key).copied() else {
            return Ok(Err("has no high watermark in replication-offset-checkpoint"));
        };
        let epochs = format!("{directory}/leader-epoch-checkpoint");
        let epochs = match self.files.small(&epochs)? {
            None => Vec::new(),
            Some(bytes) if bytes.is_empty() => Vec::new(),
            Some(bytes) => parse_leader_epochs(&bytes).map_err(|error| {
                ImportError::checkpoint(&self.files.name(&epochs), "leader epochs", error)
            })?,
        };
        let Some(segments) = self.files.logs(directory)? else { return Ok(Err("vanished")) };
        let segments: BTreeMap<i64, u64> = segments.into_iter().collect();
        let Some(active) = segments.keys().next_back().copied() else {
            return Ok(Err("holds no segment"));
        };
        let first = segments.keys().next().copied().unwrap_or(0);
        let end_offset = match self.files.open_log(directory, active)? {
            Some(blob) => end_of(&blob, active)?,
            None => active,
        };
        let known = high_watermark.min(end_offset);
        let cleaned = self.cleaned.contains_key(&key);
        let log_start_offset = self.log_starts.get(&key).copied().unwrap_or(first);
        let (topic, partition) = key;
        let epochs = epochs.iter().filter(|e| e.start_offset <= end_offset);
        Ok(Ok(Replica {
            dir: Arc::clone(self),
            directory: directory.to_owned(),
            topic,
            partition,
            topic_id,
            high_watermark,
            log_start_offset,
            epochs: epochs.map(|e| EpochStart { epoch: e.epoch, start_offset: e.start_offset }).collect(),
            cleaned,
            segments,
            limit: if include_active { known } else { known.min(active) },
            end_offset,
        }))
    }
}

/// Where a segment's log ends, by headers alone: what follows its last whole batch is no data yet, or any more.
fn end_of(blob: &Blob, base_offset: i64) -> Result<i64> {
    let (mut position, mut end_offset) = (0, base_offset);
    let mut bytes = [0_u8; BATCH_HEADER_BYTES];
    while blob.read_at(&mut bytes, position)? == bytes.len() {
        let Ok(header) = BatchHeader::parse(&bytes, position) else { break };
        let after = position + header.size_bytes();
        if after > blob.bytes || header.next_offset() <= end_offset {
            break;
        }
        (position, end_offset) = (after, header.next_offset());
    }
    Ok(end_offset)
}

impl Replica {
    pub(crate) fn name(&self) -> String {
        self.dir.files.name(&self.directory)
    }

    /// Looks again at a directory that a broker writes to; `None` if the copy is gone.
    pub(crate) fn again(&self, include_active: bool) -> Result<Option<Replica>> {
        let mut dir = LogDir {
            files: self.dir.files.clone(),
            cluster_id: self.dir.cluster_id.clone(),
            broker_id: self.dir.broker_id,
            seen_ms: 0,
            high_watermarks: Offsets::new(),
            log_starts: Offsets::new(),
            cleaned: Offsets::new(),
        };
        dir.read_offsets()?;
        let found =
            Arc::new(dir).replica(&self.directory, self.topic.clone(), self.partition, include_active)?;
        // A topic that was made again is another.
        Ok(found.ok().filter(|found| found.topic_id == self.topic_id))
    }

    pub(crate) fn history(&self) -> History {
        History::new(&self.epochs, self.log_start_offset, self.limit)
    }

    pub(crate) fn first_offset(&self) -> i64 {
        self.segments.keys().next().copied().unwrap_or(0)
    }

    pub(crate) fn log(&self) -> Log {
        Log { start_offset: self.log_start_offset, end_offset: self.end_offset }
    }

    /// Of the files that hold `from` and what follows, up to the limit.
    pub(crate) fn bytes_from(&self, from: i64) -> u64 {
        if from >= self.limit {
            return 0;
        }
        let first = self.segments.range(..=from).next_back().map_or(from, |(base, _)| *base);
        self.segments.range(first..self.limit.max(first)).map(|(_, bytes)| *bytes).sum()
    }

    /// The epoch that a batch at `offset` must have, if that is known.
    pub(crate) fn epoch_at(&self, offset: i64) -> Option<i32> {
        let at = self.epochs.iter().rev().find(|e| e.start_offset <= offset);
        at.or(self.epochs.first()).map(|e| e.epoch)
    }
}

/// A directory answers as its broker would, led it.
impl Leading for Replica {
    fn leader_epoch(&self) -> i32 {
        self.epochs.last().map_or(-1, |e| e.epoch)
    }

    async fn end_of_epoch(&self, epoch: i32) -> crate::error::Result<Option<(i32, i64)>> {
        Ok(end_of_epoch(&self.epochs, self.end_offset, epoch))
    }
}

fn end_of_epoch(epochs: &[EpochStart], end_offset: i64, epoch: i32) -> Option<(i32, i64)> {
    let (first, last) = (epochs.first()?, epochs.last()?);
    if epoch == last.epoch {
        return Some((epoch, end_offset));
    }
    if epoch > last.epoch {
        return None;
    }
    let next = epochs.iter().find(|e| e.epoch > epoch)?;
    let known = epochs.iter().rev().find(|e| e.epoch <= epoch);
    Some(known.map_or((epoch, first.start_offset), |known| (known.epoch, next.start_offset)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn epochs_end_as_for_a_leader() {
        let epochs: Vec<_> =
            [(2, 10), (4, 30)].map(|(epoch, start_offset)| EpochStart { epoch, start_offset }).into();
        let end = |epoch| end_of_epoch(&epochs, 50, epoch);
        assert_eq!(end(4), Some((4, 50)));
        assert_eq!(end(3), Some((2, 30)));
        assert_eq!(end(2), Some((2, 30)));
        assert_eq!(end(1), Some((1, 10)));
        assert_eq!(end(5), None);
        assert_eq!(end_of_epoch(&[], 50, 0), None);
    }
}
