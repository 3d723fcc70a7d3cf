//! What is known of a segment after its batches have been seen.

use std::ops::Range;

use super::batch::BatchHeader;
use super::leader_epochs::EpochEntry;
use super::producer_state::OpenTransaction;
use super::time_index::TimeIndexEntry;

/// Counts and bounds of one segment. What is said of its end (greatest timestamp, open transactions, leader
/// epochs) is there once the segment is finished.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentSummary {
    pub base_offset: i64,
    /// What follows the last batch; the base offset while there is none.
    pub next_offset: i64,
    pub size_bytes: u64,
    pub batches_count: u64,
    /// As the batches count them: control records too, records that compaction took away not.
    pub records_count: u64,
    /// Of control batches that end a transaction, or are about none that is open.
    pub markers_count: u64,
    pub aborted_transactions_count: u64,
    /// Of the first batch.
    pub first_offset: Option<i64>,
    /// Offsets that a batch spans but has no record for: compaction's.
    pub missing_within_batches: u64,
    /// Offsets between batches, or between the base offset and the first batch.
    pub missing_between_batches: u64,
    /// Stretches of those.
    pub gaps_count: u64,
    pub first_gap: Option<Range<i64>>,
    /// The greatest timestamp, and the last offset of the first batch that has it.
    pub max_timestamp: Option<TimeIndexEntry>,
    /// At the segment's end, by first offset.
    pub open_transactions: Vec<OpenTransaction>,
    /// Those that batches of this segment have, the first one from the base offset on: what a broker puts into
    /// the metadata of a remote segment.
    pub leader_epochs: Vec<EpochEntry>,
}

impl SegmentSummary {
    pub(super) fn new(base_offset: i64) -> Self {
        Self {
            base_offset,
            next_offset: base_offset,
            size_bytes: 0,
            batches_count: 0,
            records_count: 0,
            markers_count: 0,
            aborted_transactions_count: 0,
            first_offset: None,
            missing_within_batches: 0,
            missing_between_batches: 0,
            gaps_count: 0,
            first_gap: None,
            max_timestamp: None,
            open_transactions: Vec::new(),
            leader_epochs: Vec::new(),
        }
    }

    pub fn last_offset(&self) -> Option<i64> {
        self.first_offset.map(|_| self.next_offset.saturating_sub(1))
    }

    /// Whether each offset from the base to the end has a record.
    pub fn is_dense(&self) -> bool {
        self.missing_within_batches == 0 && self.missing_between_batches == 0
    }

    /// The caller has checked the header against what came before.
    pub(super) fn add(&mut self, header: &BatchHeader, position: u64) {
        let records = u64::try_from(header.records_count).unwrap_or(0);
        let span = u64::try_from(header.last_offset_delta).unwrap_or(0) + 1;
        let gap = self.next_offset..header.base_offset;
        if !gap.is_empty() {
            self.gaps_count += 1;
            self.missing_between_batches =
                self.missing_between_batches.saturating_add(gap.start.abs_diff(gap.end));
            self.first_gap.get_or_insert(gap);
        }
        self.first_offset.get_or_insert(header.base_offset);
        self.next_offset = header.next_offset();
        self.size_bytes = position.saturating_add(header.size_bytes());
        self.batches_count += 1;
        self.records_count = self.records_count.saturating_add(records);
        self.missing_within_batches =
            self.missing_within_batches.saturating_add(span.saturating_sub(records));
    }
}
