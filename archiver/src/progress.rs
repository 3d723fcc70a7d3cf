//! How far everything is, for whoever looks on: the command line, metrics, snapshots.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use varve_archive::record::state::{JournalEntry, OpenTransaction};
use varve_format::Id;
use varve_kafka::client::FetchedBatches;

use crate::error::Error;
use crate::metrics::{FailureKind, Tally};
use crate::tail::Key;
use crate::transactions::OpenTransactions;

/// Of one partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PartitionProgress {
    /// Committed up to here.
    pub archived_end: i64,
    /// The branch it is in.
    pub branch: u32,
    /// What the journal has beyond, in order.
    pub journal: Vec<JournalEntry>,
    /// Open at the end of all this, where that is known.
    pub open_transactions: Option<Vec<OpenTransaction>>,
    /// Read up to here, whatever became of it.
    pub read_end: i64,
    pub high_watermark: i64,
    /// Once it was seen.
    pub log_start_offset: Option<i64>,
    /// Why it can't go on, if it can't.
    pub trouble: Option<String>,
}

impl PartitionProgress {
    /// Safe in the store up to here.
    pub fn safe_end(&self) -> i64 {
        self.journal.last().map_or(self.archived_end, |last| last.end_offset.max(self.archived_end))
    }
}

#[derive(Debug, Default)]
pub struct Progress {
    partitions: Mutex<HashMap<Key, PartitionProgress>>,
    read_bytes: AtomicU64,
    pub(crate) tally: Tally,
}

impl Progress {
    /// So many topics are counted for themselves.
    pub(crate) fn new(topics_max: usize) -> Self {
        Self { tally: Tally::new(topics_max), ..Self::default() }
    }

    /// `open` are the transactions that are open at the end of it.
    pub(crate) fn archived(
        &self,
        key: Key,
        branch: u32,
        end_offset: i64,
        journal: Vec<JournalEntry>,
        open: Option<&OpenTransactions>,
    ) {
        let mut partitions = self.partitions.lock();
        let progress = partitions.entry(key).or_default();
        let before = (progress.branch, progress.safe_end());
        (progress.branch, progress.archived_end, progress.journal) = (branch, end_offset, journal);
        progress.trouble = None;
        let safe_end = progress.safe_end();
        // What moves from the journal into a segment opens and ends nothing.
        if open.is_some() || before != (branch, safe_end) {
            progress.open_transactions = open.map(OpenTransactions::listed);
        }
        drop(partitions);
        self.tally.archived(key, safe_end);
    }

    /// Seen in the store, by somebody who doesn't write.
    pub(crate) fn learned(
        &self,
        key: Key,
        branch: u32,
        end_offset: i64,
        journal: Vec<JournalEntry>,
        log_start_offset: i64,
    ) {
        self.archived(key, branch, end_offset, journal, None);
        self.partitions.lock().entry(key).or_default().log_start_offset = Some(log_start_offset);
    }

    /// What a fetch from `from_offset` on gave.
    pub(crate) fn seen(&self, key: Key, from_offset: i64, batches: &FetchedBatches) {
        let bytes = batches.records.len();
        self.read_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        let ends = (batches.log_start_offset, batches.high_watermark);
        let mut partitions = self.partitions.lock();
        let progress = partitions.entry(key).or_default();
        progress.read_end = progress.read_end.max(batches.next_offset);
        (progress.log_start_offset, progress.high_watermark) = (Some(ends.0), ends.1);
        drop(partitions);
        self.tally.read(key, batches.next_offset - from_offset, batches.batch_count, bytes, ends);
    }

    /// Nothing was open when the log ended there.
    pub(crate) fn nothing_open(&self, key: Key, log_end: i64) {
        if let Some(progress) = self.partitions.lock().get_mut(&key).filter(|p| p.safe_end() == log_end) {
            progress.open_transactions.get_or_insert_default();
        }
    }

    /// A number that grows as long as anything goes on.
    pub(crate) fn reached(&self) -> i64 {
        let of = |progress: &PartitionProgress| progress.read_end.saturating_add(progress.safe_end());
        self.partitions.lock().values().map(of).fold(0, i64::saturating_add)
    }

    pub(crate) fn failed(&self, key: Key, error: &Error) {
        self.failed_for(key, FailureKind::of(error), &error.to_string());
    }

    pub(crate) fn failed_for(&self, key: Key, kind: FailureKind, why: &str) {
        self.partitions.lock().entry(key).or_default().trouble = Some(why.to_owned());
        self.tally.failed(key, kind, why);
    }

    pub(crate) fn forget(&self, key: Key) {
        self.partitions.lock().remove(&key);
    }

    pub(crate) fn forget_topic(&self, topic_id: Id) {
        self.partitions.lock().retain(|(id, _), _| *id != topic_id);
    }

    /// Of one partition; `None` if it is not known here.
    pub fn partition(&self, key: Key) -> Option<PartitionProgress> {
        self.partitions.lock().get(&key).cloned()
    }

    pub fn partitions(&self) -> Vec<(Key, PartitionProgress)> {
        self.partitions.lock().iter().map(|(key, progress)| (*key, progress.clone())).collect()
    }

    /// Of record batches.
    pub fn read_bytes(&self) -> u64 {
        self.read_bytes.load(Ordering::Relaxed)
    }
}
