//! How transactions ended, for reading committed records alone.
//!
//! What a transactional batch came to is said by its producer's next marker behind it. So the history is read
//! twice: here from the range's begin until every transaction that was seen in the range has ended, at most to the
//! recovery point. What has no marker by then is undecided, and a reader stops before the first of them, as
//! consumers do at the last stable offset. Memory is a few bytes for each marker.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

use anyhow::Result;
use varve_kafka::protocol::{Batch, ControlRecord, ControlType};

use super::{Event, History};

/// A marker is one record of some bytes.
const MARKER_LIMIT_BYTES: usize = 1 << 20;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Outcomes {
    /// By producer: offsets of markers, ascending, and whether they commit.
    markers: HashMap<i64, Vec<(i64, bool)>>,
    /// By producer: where the transaction under way began.
    open: BTreeMap<i64, i64>,
    /// The first that is not decided, if any.
    undecided: Option<i64>,
}

impl Outcomes {
    /// `known_open` are transactions that began before, and are known not to have ended.
    pub(crate) async fn read(
        history: &History<'_>,
        offsets: Range<i64>,
        known_open: impl Iterator<Item = i64>,
    ) -> Result<Self> {
        let mut outcomes = Self::default();
        let end = offsets.end;
        history
            .each(offsets.start..i64::MAX, None, |event| -> Result<bool> {
                let Event::Batch { batch, .. } = event else { return Ok(true) };
                outcomes.take(&batch)?;
                let settled = outcomes.open.values().all(|first| *first >= end);
                Ok(batch.header.last_offset() < end || !settled)
            })
            .await?;
        outcomes.undecided = outcomes.open.values().copied().chain(known_open).min();
        Ok(outcomes)
    }

    fn take(&mut self, batch: &Batch) -> Result<()> {
        let header = &batch.header;
        if !header.attributes.is_transactional() {
            return Ok(());
        }
        if !header.attributes.is_control() {
            // Of a transaction whose marker is gone the cleaner may have kept an empty batch, for its sequence.
            if header.records_count > 0 {
                self.open.entry(header.producer_id).or_insert(header.base_offset);
            }
            return Ok(());
        }
        for record in batch.records(MARKER_LIMIT_BYTES)? {
            let record = record?;
            let key = record.key.unwrap_or_default();
            let commits = match ControlRecord::parse(&key, &record.value.unwrap_or_default())?.control_type {
                ControlType::Commit => true,
                ControlType::Abort => false,
                _ => continue,
            };
            self.open.remove(&header.producer_id);
            self.markers.entry(header.producer_id).or_default().push((record.offset, commits));
        }
        Ok(())
    }

    /// Where a reader of committed records must stop.
    pub(crate) fn undecided(&self) -> Option<i64> {
        self.undecided
    }

    /// Whether the records of a batch that lies below [`Outcomes::undecided`] count.
    pub(crate) fn is_committed(&self, batch: &Batch) -> bool {
        let header = &batch.header;
        if !header.attributes.is_transactional() {
            return true;
        }
        let markers = self.markers.get(&header.producer_id).map_or(&[][..], Vec::as_slice);
        let next = markers.partition_point(|(offset, _)| *offset < header.base_offset);
        markers.get(next).is_some_and(|(_, commits)| *commits)
    }
}
