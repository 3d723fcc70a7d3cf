//! A partition's transactions, from its batches.

use std::collections::BTreeMap;
use std::ops::Range;

use varve_archive::ArchivedLog;
use varve_kafka::protocol::{Batch, ControlType, ProtocolError};

use super::fixed_point::{End, Part};
use crate::error::{Error, Result};
use crate::history::{Event, History, KeyCache};

/// What was found from some offset on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Transactions {
    /// Ended, in the order of their markers.
    pub(super) ended: Vec<Part>,
    /// By producer.
    open: BTreeMap<i64, Part>,
}

impl Transactions {
    /// With those that have no end.
    pub(super) fn parts(&self) -> Vec<Part> {
        self.ended.iter().chain(self.open.values()).copied().collect()
    }

    /// Takes one batch more.
    fn take(&mut self, batch: &Batch) -> Result<(), ProtocolError> {
        let header = &batch.header;
        if !header.attributes.is_transactional() {
            return Ok(());
        }
        let (producer_id, producer_epoch) = (header.producer_id, header.producer_epoch);
        let begun = Part { producer_id, producer_epoch, first_offset: header.base_offset, end: None };
        if !header.attributes.is_control() {
            self.open.entry(producer_id).or_insert(begun);
            return Ok(());
        }
        let Some((control, time_ms)) = batch.control()? else { return Ok(()) };
        let is_commit = match control.control_type {
            ControlType::Commit => true,
            ControlType::Abort => false,
            _ => return Ok(()),
        };
        let end = End { end_offset: header.next_offset(), producer_epoch, is_commit, time_ms };
        let part = self.open.remove(&producer_id).unwrap_or(begun);
        self.ended.push(Part { end: Some(end), ..part });
        Ok(())
    }

    fn has_open_below(&self, offset: i64) -> bool {
        self.open.values().any(|part| part.first_offset < offset)
    }
}

/// What a scan is to find, of one partition.
pub(super) struct Scan<'a> {
    pub(super) log: &'a ArchivedLog,
    pub(super) keys: &'a KeyCache,
    /// From where on, and up to where the archive has it.
    pub(super) offsets: Range<i64>,
    /// Of which nobody saw whether they were there.
    pub(super) unsure: Range<i64>,
    pub(super) time_ms: i64,
}

impl Scan<'_> {
    /// The transactions up to the end of what is unsure, and on until those have ended that were open there. And where
    /// to cut: behind those unsure batches that say that they are not younger, up to the first that does not.
    pub(super) async fn run(self) -> Result<(Transactions, i64)> {
        let (mut found, mut cut, mut is_younger) = (Transactions::default(), self.unsure.start, false);
        let end = self.unsure.end;
        let history = History { log: self.log, keys: self.keys };
        let mut take = |batch: &Batch| -> Result<bool> {
            let header = &batch.header;
            if header.base_offset >= end && !found.has_open_below(end) {
                return Ok(false);
            }
            let object = || format!("{:?}", self.log);
            found.take(batch).map_err(|source| Error::Protocol { object: object(), source })?;
            if header.base_offset < self.unsure.start {
                // It was seen as a whole, or not at all.
                cut = cut.max(header.next_offset().min(self.offsets.end));
            } else if header.base_offset < end {
                is_younger |= header.max_timestamp_ms > self.time_ms;
                cut = if is_younger { cut } else { header.next_offset() };
            }
            Ok(true)
        };
        let each = |event: Event| match event {
            Event::Batch { batch, .. } => take(&batch),
            Event::OldSet(_) | Event::Gap { .. } | Event::Pruned { .. } => Ok(true),
        };
        history.each::<Error>(self.offsets.clone(), None, each).await?;
        Ok((found, cut))
    }
}
