//! The offset and the time index of one segment, as a broker's recovery makes them.
//!
//! * A batch gets an entry in the offset index (its *last* offset → where it begins) when more than
//!   `index.interval.bytes` lie between its begin and the begin of the batch that got the last entry, or the
//!   segment's begin. So the first batch never gets one, and a segment of one batch has an empty index.
//! * With each such entry goes one of the time index, if the greatest timestamp so far has grown since the last
//!   one: that timestamp → the *last* offset of the first batch that has it (not the record's offset). The
//!   batch itself counts.
//! * A time index entry for the segment's greatest timestamp comes at its end, so a segment with timestamps has
//!   at least one entry. Batches without a timestamp (-1) leave no trace.
//!
//! What a *living* broker has made is the same, except that the counting begins anew whenever the broker starts
//! or truncates the log: the choice of entries in the segment that was active then differs, and each is as
//! valid. Up to Kafka 3.9.0 brokers counted per append, not per batch (3.9.2 and 4.1 to 4.3 don't): a follower
//! made at most one entry for all batches that came with one fetch (their last offset → the begin of the first).

use super::batch::BatchHeader;
use super::error::{ProtocolError, Result};
use super::offset_index::OffsetIndexEntry;
use super::time_index::TimeIndexEntry;

const NO_TIMESTAMP: i64 = -1;

/// Kafka's default of `index.interval.bytes`.
pub const DEFAULT_INDEX_INTERVAL_BYTES: u32 = 4096;

#[derive(Clone, Debug)]
pub(super) struct SegmentIndexes {
    base_offset: i64,
    interval_bytes: u64,
    last_indexed_position: u64,
    /// The greatest timestamp so far, and the last offset of the first batch with it.
    max_timestamp: TimeIndexEntry,
    last_timestamp_indexed_ms: i64,
    offset_index: Vec<u8>,
    time_index: Vec<u8>,
}

impl SegmentIndexes {
    pub(super) fn new(base_offset: i64, interval_bytes: u32) -> Self {
        Self {
            base_offset,
            interval_bytes: u64::from(interval_bytes),
            last_indexed_position: 0,
            max_timestamp: TimeIndexEntry { timestamp_ms: NO_TIMESTAMP, offset: base_offset },
            last_timestamp_indexed_ms: NO_TIMESTAMP,
            offset_index: Vec::new(),
            time_index: Vec::new(),
        }
    }

    /// The batch begins at `position` of the segment. The caller has seen to it that offsets ascend.
    pub(super) fn push(&mut self, header: &BatchHeader, position: u64) -> Result<()> {
        let last_offset = header.last_offset();
        let relative = last_offset.checked_sub(self.base_offset);
        let fits = relative.is_some_and(|relative| (0..=i64::from(i32::MAX)).contains(&relative));
        if !fits {
            return Err(ProtocolError::corrupt(
                "record batch (last offset)",
                position,
                format!("at most {} after the segment's base offset {}", i32::MAX, self.base_offset),
                last_offset,
            ));
        }
        if header.max_timestamp_ms > self.max_timestamp.timestamp_ms {
            self.max_timestamp =
                TimeIndexEntry { timestamp_ms: header.max_timestamp_ms, offset: last_offset };
        }
        if position.saturating_sub(self.last_indexed_position) > self.interval_bytes {
            let Ok(file_position) = u32::try_from(position) else {
                let expected = format!("at most {}", i32::MAX);
                return Err(ProtocolError::corrupt("segment (position)", position, expected, position));
            };
            OffsetIndexEntry { offset: last_offset, position: file_position }
                .encode(self.base_offset, &mut self.offset_index);
            self.time_entry();
            self.last_indexed_position = position;
        }
        Ok(())
    }

    /// -1 where no batch has a timestamp.
    pub(super) fn max_timestamp(&self) -> TimeIndexEntry {
        self.max_timestamp
    }

    /// The offset index and the time index of the segment as it is, closed.
    pub(super) fn finish(mut self) -> (Vec<u8>, Vec<u8>) {
        self.time_entry();
        (self.offset_index, self.time_index)
    }

    fn time_entry(&mut self) {
        if self.max_timestamp.timestamp_ms > self.last_timestamp_indexed_ms {
            self.max_timestamp.encode(self.base_offset, &mut self.time_index);
            self.last_timestamp_indexed_ms = self.max_timestamp.timestamp_ms;
        }
    }
}
