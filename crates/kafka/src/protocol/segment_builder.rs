//! What a broker has beside a segment's log, built from the log's bytes alone: offset index, time index,
//! transaction index, leader epochs and producer snapshot.
//!
//! **What is reproduced.** The files that a broker's own recovery writes (it starts after a crash, with its
//! recovery point at the log start and the indexes gone), byte for byte. That is a function of the log, of
//! `index.interval.bytes` and, through the expiry of producers, of the clock. What a living broker made can
//! differ from it:
//!
//! * offset and time index: another choice of entries in the segment that was active at a restart, and before
//!   3.9.2 on followers: see `segment_indexes`;
//! * producer snapshot: recovery drops idle producers at each segment's begin, a living broker each ten minutes
//!   and when it starts; without expiry both are the same, byte for byte, up to what `hash_order` says;
//! * transaction index: a follower that appends several batches at once may note a last stable offset that is
//!   higher, but before any transactional data that is not yet decided; compaction takes the aborted data away
//!   and keeps the entry, which recovery can't make again;
//! * leader epochs: a living broker also notes epochs in which nothing was written: the newest one, at the log's
//!   end, and on compacted topics those whose data is gone.
//!
//! **What goes where.** A broker names a producer snapshot by the offset that it was taken at: the one built here
//! is the *next* segment's, and the one that a plug-in gets with this segment. So are the leader epochs: all of
//! the log from its start to this segment's end ([`LogState::leader_epochs`]).
//!
//! **What is checked.** Magic 2, CRC32C, lengths, record counts, and that offsets ascend. Records are not looked
//! at, except in transaction markers. After an error the builder is spent: nothing may be fed to it or taken
//! from it. Memory is that of the indexes and of the producers, bounded by what has been fed.

use bytes::Bytes;

use super::batch::BatchHeader;
use super::batches::Batch;
use super::error::{ProtocolError, Result};
use super::leader_epochs::LeaderEpochs;
use super::producer_snapshot::{ProducerEntry, encode_producer_snapshot};
use super::producer_state::{ProducerExpiry, ProducerStates};
use super::scanner::{BatchScanner, MARKER_LIMIT_BYTES, Scanned};
use super::segment_indexes::{DEFAULT_INDEX_INTERVAL_BYTES, SegmentIndexes};
use super::segment_summary::SegmentSummary;

/// Positions in a segment are 32 bits, signed.
const MAX_SEGMENT_BYTES: u64 = i32::MAX as u64;

/// What the files of a segment depend on, beside the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentRules {
    /// `index.interval.bytes` of the topic.
    pub index_interval_bytes: u32,
    /// None keeps every producer for ever.
    pub producer_expiry: Option<ProducerExpiry>,
}

impl Default for SegmentRules {
    fn default() -> Self {
        Self { index_interval_bytes: DEFAULT_INDEX_INTERVAL_BYTES, producer_expiry: None }
    }
}

/// What goes on from segment to segment: what a broker could read back from the files of the segment before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogState {
    /// All offsets below are in earlier segments, or gone.
    pub next_offset: i64,
    /// In the order of the snapshot file.
    pub producers: Vec<ProducerEntry>,
    /// From the log start on.
    pub leader_epochs: LeaderEpochs,
}

impl LogState {
    /// Before the first batch of a log that starts at `log_start_offset`.
    pub fn new(log_start_offset: i64) -> Self {
        Self { next_offset: log_start_offset, ..Self::default() }
    }
}

/// The files, as their bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SegmentFiles {
    /// `<base offset>.index`
    pub offset_index: Vec<u8>,
    /// `<base offset>.timeindex`
    pub time_index: Vec<u8>,
    /// `<base offset>.txnindex`; where it is empty, a broker has an empty file or none.
    pub transaction_index: Vec<u8>,
    /// `<next offset>.snapshot`
    pub producer_snapshot: Vec<u8>,
    /// `leader-epoch-checkpoint`, up to this segment's end.
    pub leader_epochs: Vec<u8>,
}

/// A segment that was built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BuiltSegment {
    pub files: SegmentFiles,
    pub summary: SegmentSummary,
    /// For the segment that follows.
    pub state: LogState,
}

/// Takes the log of one segment, in pieces cut anywhere.
#[derive(Debug)]
pub struct SegmentBuilder {
    scanner: BatchScanner,
    building: Building,
}

/// All but the cutting of batches.
#[derive(Debug)]
struct Building {
    indexes: SegmentIndexes,
    transaction_index: Vec<u8>,
    producers: ProducerStates,
    leader_epochs: LeaderEpochs,
    summary: SegmentSummary,
}

impl SegmentBuilder {
    /// The segment's name is `base_offset`; its batches begin there or later.
    pub fn new(base_offset: i64, state: LogState, rules: SegmentRules) -> Result<Self> {
        if base_offset < state.next_offset.max(0) {
            let expected = format!("at least {}", state.next_offset.max(0));
            return Err(ProtocolError::corrupt("segment (base offset)", 0, expected, base_offset));
        }
        let building = Building {
            indexes: SegmentIndexes::new(base_offset, rules.index_interval_bytes),
            transaction_index: Vec::new(),
            producers: ProducerStates::load(&state.producers, rules.producer_expiry),
            leader_epochs: state.leader_epochs,
            summary: SegmentSummary::new(base_offset),
        };
        Ok(Self { scanner: BatchScanner::new(), building })
    }

    /// The next bytes of the log.
    pub fn feed(&mut self, piece: &[u8]) -> Result<()> {
        let building = &mut self.building;
        self.scanner.feed_with_markers(piece, &mut |scanned, marker| building.batch(scanned, marker))
    }

    /// Of the whole batches so far.
    pub fn summary(&self) -> &SegmentSummary {
        &self.building.summary
    }

    /// The log must end with a whole batch.
    pub fn finish(self) -> Result<BuiltSegment> {
        self.scanner.finish()?;
        let Building { indexes, transaction_index, producers, leader_epochs, mut summary } = self.building;
        let entries = producers.entries();
        summary.max_timestamp = Some(indexes.max_timestamp()).filter(|max| max.timestamp_ms >= 0);
        summary.open_transactions = producers.open_transactions();
        summary.leader_epochs = leader_epochs.in_range(summary.base_offset, summary.next_offset);
        let (offset_index, time_index) = indexes.finish();
        let files = SegmentFiles {
            offset_index,
            time_index,
            transaction_index,
            producer_snapshot: encode_producer_snapshot(&entries),
            leader_epochs: leader_epochs.to_string().into_bytes(),
        };
        let state = LogState { next_offset: summary.next_offset, producers: entries, leader_epochs };
        Ok(BuiltSegment { files, summary, state })
    }
}

impl Building {
    fn batch(&mut self, scanned: Scanned, marker: &[u8]) -> Result<()> {
        let (header, position, crc_found) = match scanned {
            Scanned::Batch { header, position, crc_found } => (header, position, crc_found),
            Scanned::OldMessageSet(set) => {
                return Err(ProtocolError::OldMagic {
                    position: set.position,
                    magic: set.magic,
                    last_offset: set.last_offset,
                    size_bytes: set.size_bytes,
                });
            }
        };
        Batch::compare_crc(&header, position, crc_found)?;
        self.check(&header, position)?;
        self.indexes.push(&header, position)?;
        self.leader_epochs.note(header.partition_leader_epoch, header.base_offset);
        if header.attributes.is_control() {
            self.control(&header, position, marker)?;
        } else {
            self.producers.data(&header, position)?;
        }
        self.summary.add(&header, position);
        Ok(())
    }

    /// What a broker has made sure of before it wrote the batch.
    fn check(&self, header: &BatchHeader, position: u64) -> Result<()> {
        let refuse =
            |what, expected: String, found: i64| Err(ProtocolError::corrupt(what, position, expected, found));
        let next_offset = self.summary.next_offset;
        // A log that was cut by DeleteRecords may begin in the midst of its first batch, which is whole.
        let first = self.summary.first_offset.is_none() && header.next_offset() > next_offset;
        if header.base_offset < next_offset && !first {
            return refuse(
                "record batch (base offset)",
                format!("at least {next_offset}"),
                header.base_offset,
            );
        }
        let delta = i64::from(header.last_offset_delta);
        if delta < 0 || header.base_offset.checked_add(delta).is_none_or(|last| last == i64::MAX) {
            return refuse("record batch (last offset delta)", "a delta that fits".to_owned(), delta);
        }
        let count = i64::from(header.records_count);
        if !(0..=delta + 1).contains(&count) {
            return refuse("record batch (record count)", format!("0 to {}", delta + 1), count);
        }
        let end = position.saturating_add(header.size_bytes());
        if end > MAX_SEGMENT_BYTES {
            let expected = format!("an end at {MAX_SEGMENT_BYTES} or before");
            return refuse("segment", expected, i64::try_from(end).unwrap_or(i64::MAX));
        }
        Ok(())
    }

    fn control(&mut self, header: &BatchHeader, position: u64, bytes: &[u8]) -> Result<()> {
        // Markers have a producer; what brokers write for themselves has none.
        if header.producer_id < 0 {
            return Ok(());
        }
        if bytes.is_empty() {
            let expected = format!("at most {MARKER_LIMIT_BYTES} bytes");
            let found = header.size_bytes();
            return Err(ProtocolError::corrupt("transaction marker", position, expected, found));
        }
        let batch = Batch { header: *header, position, bytes: Bytes::copy_from_slice(bytes) };
        let Some((marker, timestamp_ms)) = batch.control().map_err(whole_but_wrong)? else {
            return Ok(());
        };
        let aborted = self.producers.marker(header, marker, timestamp_ms, position)?;
        self.summary.markers_count += 1;
        if let Some(aborted) = aborted {
            aborted.encode(&mut self.transaction_index);
            self.summary.aborted_transactions_count += 1;
        }
        Ok(())
    }
}

/// The batch is all there: no more bytes will mend it.
fn whole_but_wrong(error: ProtocolError) -> ProtocolError {
    match error {
        ProtocolError::Truncated { what, position, needed, available } => {
            ProtocolError::corrupt(what, position, format!("{needed} more bytes"), available)
        }
        other => other,
    }
}
