//! Records that only take offsets: they are deleted before the first real one comes.

use bytes::Bytes;
use varve_kafka::protocol::{Codec, Record, Sequence, batch_of};

use crate::error::{Error, Result};

/// Of one batch.
const AT_ONCE: i64 = 10_000;

/// The batch that begins at `offset`, and how many offsets it takes, of those up to `end`.
pub(super) fn filler(offset: i64, end: i64, timestamp_ms: i64, by: Sequence) -> Result<(Bytes, i64)> {
    let count = end.saturating_sub(offset).clamp(1, AT_ONCE);
    let one = Record { offset: 0, timestamp_ms, key: None, value: None, headers: Vec::new() };
    let records = vec![one; usize::try_from(count).unwrap_or(1)];
    let batch = batch_of(Codec::Gzip, &records, by)
        .map_err(|source| Error::Protocol { object: "filler".to_owned(), source })?;
    Ok((batch, count))
}
