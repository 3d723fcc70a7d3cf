//! Whether a batch of the target is the one that was sent.

use varve_kafka::protocol::{BATCH_HEADER_BYTES, Batch, Record};

use super::outgoing::{Content, Sendable, UNPACKED_MAX_BYTES};
use crate::error::{Error, Result};

/// Record by record: time, key, value, headers. What is in the same bytes is not unpacked.
///
/// # Errors
/// A batch that can't be unpacked.
pub(super) fn is_same(name: &str, sent: &Sendable, found: &Batch) -> Result<bool> {
    if found.header.attributes.is_control() || found.header.attributes.is_transactional() {
        return Ok(false);
    }
    if i64::from(found.header.records_count) != i64::from(sent.records) {
        return Ok(false);
    }
    let fail = |source| Error::Protocol { object: name.to_owned(), source };
    found.check_crc().map_err(fail)?;
    match &sent.content {
        Content::AsItIs(batch) if has_same_bytes(batch, found) => Ok(true),
        Content::AsItIs(batch) => {
            let sent = batch.records(UNPACKED_MAX_BYTES).map_err(fail)?.collect::<Result<Vec<_>, _>>();
            same_records(name, &sent.map_err(fail)?, found)
        }
        Content::Anew(_, records) => same_records(name, records, found),
    }
}

fn has_same_bytes(sent: &Batch, found: &Batch) -> bool {
    let of = |batch: &Batch| {
        let h = &batch.header;
        (h.attributes.codec(), h.attributes.timestamp_type(), h.base_timestamp_ms, h.last_offset_delta)
    };
    of(sent) == of(found) && sent.bytes.get(BATCH_HEADER_BYTES..) == found.bytes.get(BATCH_HEADER_BYTES..)
}

fn same_records(name: &str, sent: &[Record], found: &Batch) -> Result<bool> {
    let fail = |source| Error::Protocol { object: name.to_owned(), source };
    let mut records = found.records(UNPACKED_MAX_BYTES).map_err(fail)?;
    for expected in sent {
        let Some(record) = records.next().transpose().map_err(fail)? else { return Ok(false) };
        if (Record { offset: expected.offset, ..record }) != *expected {
            return Ok(false);
        }
    }
    Ok(records.next().is_none())
}
