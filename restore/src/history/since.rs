//! Where in a partition's history a time begins.

use std::ops::Range;

use varve_archive::ArchivedLog;

use super::{Event, History, KeyCache};
use crate::error::{Error, Result};

/// Where the first batch of `offsets` begins that has a record of `time_ms` or later, by the records' own timestamps;
/// the end if there is none.
///
/// # Errors
/// Of the archive.
pub async fn since(log: &ArchivedLog, keys: &KeyCache, offsets: Range<i64>, time_ms: i64) -> Result<i64> {
    let mut found = offsets.end;
    let each = |event: Event| match event {
        Event::Batch { batch, .. } if batch.header.max_timestamp_ms >= time_ms => {
            found = batch.header.base_offset.max(offsets.start);
            Ok(false)
        }
        _ => Ok(true),
    };
    History { log, keys }.each::<Error>(offsets.clone(), Some(time_ms), each).await?;
    Ok(found)
}
