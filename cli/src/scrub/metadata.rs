//! What the brokers know: `__remote_log_metadata` from its beginning.

use anyhow::{Context, Result};
use indicatif::ProgressBar;
use varve_kafka::client::Client;
use varve_kafka::protocol::{Batches, RemoteLogState, decode_remote_log_record};

const TOPIC: &str = "__remote_log_metadata";
/// Metadata records are small: a batch that unpacks to more is no such batch.
const BATCH_MAX_BYTES: usize = 256 << 20;

/// The last state of everything, and what in the topic does not fit together.
pub(crate) async fn read_metadata(
    client: &Client,
    progress: &ProgressBar,
) -> Result<(RemoteLogState, Vec<String>)> {
    let mut state = RemoteLogState::new();
    let mut notes = Vec::new();
    let mut reader = client.read_topic_to_end(TOPIC).await?;
    progress.set_length(reader.total_offsets());
    while let Some(batches) = reader.next().await? {
        let place = |offset: i64| format!("{TOPIC}-{} at offset {offset}", batches.partition);
        if let Some(from) = batches.skipped_from {
            notes.push(format!("{}: deleted while it was read; objects may seem orphaned", place(from)));
        }
        for batch in Batches::new(batches.bytes.clone(), 0) {
            let batch = batch.with_context(|| place(batches.from_offset))?;
            batch.check_crc().with_context(|| place(batch.header.base_offset))?;
            if batch.header.attributes.is_control() {
                continue;
            }
            for record in batch.records(BATCH_MAX_BYTES)? {
                let record = record.with_context(|| place(batch.header.base_offset))?;
                let Some(value) = record.value.filter(|_| record.offset >= batches.from_offset) else {
                    continue;
                };
                let decoded = decode_remote_log_record(&value).with_context(|| place(record.offset))?;
                if let Err(anomaly) = state.apply(decoded) {
                    notes.push(format!("{}: {anomaly}", place(record.offset)));
                }
            }
        }
        progress.set_position(reader.total_offsets().saturating_sub(reader.remaining_offsets()));
    }
    Ok((state, notes))
}
