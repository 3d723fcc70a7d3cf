//! What is sent of an archived log, batch by batch, in order. The same each time.

use std::sync::Arc;

use bytes::Bytes;
use varve_kafka::protocol::{Batch, BatchHeader, Batches, Codec, Record, Sequence, TimestampType, batch_of};

use super::map::Run;
use super::transactions::Aborted;
use crate::error::{Error, Result};
use crate::log::Blocks;

/// Of one batch that has to be unpacked.
pub(super) const UNPACKED_MAX_BYTES: usize = 128 << 20;

/// Whether the broker gave the times.
pub(super) fn marked(header: &BatchHeader) -> bool {
    header.attributes.timestamp_type() == TimestampType::LogAppendTime
}

/// See the module.
pub(super) struct Outgoing {
    name: String,
    blocks: Blocks,
    batches: Batches,
    aborted: Arc<Aborted>,
    /// Records below are not wanted.
    from_offset: i64,
}

/// One batch of the target.
#[derive(Clone, Debug)]
pub(super) struct Sendable {
    pub(super) content: Content,
    pub(super) records: u32,
}

#[derive(Clone, Debug)]
pub(super) enum Content {
    /// Under another header.
    AsItIs(Batch),
    /// Its records, each with its offset in the source.
    Anew(Codec, Vec<Record>),
}

impl Outgoing {
    /// `blocks` begin at `from_offset`; `name` is for messages.
    pub(super) fn new(name: String, blocks: Blocks, aborted: Arc<Aborted>, from_offset: i64) -> Self {
        Self { name, blocks, batches: Batches::new(Bytes::new(), 0), aborted, from_offset }
    }

    /// `None` at the end.
    ///
    /// # Errors
    /// Of the archive.
    pub(super) async fn next(&mut self) -> Result<Option<Sendable>> {
        loop {
            let Some(batch) = self.batches.next() else {
                match self.blocks.next().await? {
                    Some(block) => self.batches = Batches::new(block.into_bytes(), 0),
                    None => return Ok(None),
                }
                continue;
            };
            let batch = batch.map_err(|source| Error::Protocol { object: self.name.clone(), source })?;
            if let Some(sendable) = self.sendable(batch)? {
                return Ok(Some(sendable));
            }
        }
    }

    fn sendable(&self, batch: Batch) -> Result<Option<Sendable>> {
        let header = &batch.header;
        if header.attributes.is_control() || header.records_count == 0 || self.aborted.has(header) {
            return Ok(None);
        }
        if header.base_offset >= self.from_offset && batch.can_be_sent_as_it_is() {
            let records = header.records_count.unsigned_abs();
            return Ok(Some(Sendable { content: Content::AsItIs(batch), records }));
        }
        let fail = |source| Error::Protocol { object: self.name.clone(), source };
        let mut records = Vec::new();
        for record in batch.records(UNPACKED_MAX_BYTES).map_err(fail)? {
            let record = record.map_err(fail)?;
            if record.offset >= self.from_offset {
                records.push(record);
            }
        }
        let count = u32::try_from(records.len()).unwrap_or(u32::MAX);
        let codec = header.attributes.codec();
        Ok((count > 0).then_some(Sendable { content: Content::Anew(codec, records), records: count }))
    }
}

impl Sendable {
    /// As it goes over the wire.
    pub(super) fn bytes(&self, name: &str, by: Sequence) -> Result<Bytes> {
        match &self.content {
            Content::AsItIs(batch) => Ok(batch.to_send(by)),
            Content::Anew(codec, records) => batch_of(*codec, records, by)
                .map_err(|source| Error::Protocol { object: name.to_owned(), source }),
        }
    }

    /// Which offsets of the source become which, if it begins at `target`.
    pub(super) fn runs(&self, target: i64) -> Vec<Run> {
        match &self.content {
            Content::AsItIs(batch) => {
                vec![Run { source: batch.header.base_offset, target, count: i64::from(self.records) }]
            }
            Content::Anew(_, records) => {
                let mut runs: Vec<Run> = Vec::new();
                for (at, record) in (target..).zip(records) {
                    let one = Run { source: record.offset, target: at, count: 1 };
                    match runs.last_mut() {
                        Some(last) if last.goes_on_with(&one) => last.count += 1,
                        _ => runs.push(one),
                    }
                }
                runs
            }
        }
    }
}
