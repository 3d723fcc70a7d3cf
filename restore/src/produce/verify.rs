//! The target read back, and compared record by record.

use std::sync::atomic::{AtomicU64, Ordering};

use futures::{StreamExt, TryStreamExt, stream};
use varve_kafka::client::{Client, OffsetSpec};
use varve_kafka::protocol::{Batch, Batches};

use super::compare::is_same;
use super::outgoing::Outgoing;
use super::partition::Work;
use super::reading::Reading;
use crate::error::{Error, Result};
use crate::verify::{Sum, VerifiedPartition};

/// Partitions that are read at once.
const PARALLEL: usize = 4;

/// What is the same, and what is not: a finding for each.
type Outcome = Result<Result<VerifiedPartition, String>>;

/// All of these partitions. Both sides are streamed; `told` hears how many bytes were compared.
///
/// # Errors
/// Of archive and target.
pub(crate) async fn verify(
    (reading, client): (Reading<'_>, &Client),
    works: &[Work<'_>],
    told: &(dyn Fn(u64) + Sync),
) -> Result<(Vec<VerifiedPartition>, Vec<String>)> {
    let bytes = AtomicU64::new(0);
    let compared = stream::iter(works).map(|work| one((reading, client), work, &bytes, told));
    let (mut same, mut findings) = (Vec::new(), Vec::new());
    let mut compared = std::pin::pin!(compared.buffered(PARALLEL));
    while let Some(outcome) = compared.try_next().await? {
        match outcome {
            Ok(partition) => same.push(partition),
            Err(finding) => findings.push(finding),
        }
    }
    Ok((same, findings))
}

/// Of one partition of the target.
struct Compared {
    next_offset: i64,
    sum: Sum,
}

async fn one(
    (reading, client): (Reading<'_>, &Client),
    work: &Work<'_>,
    all: &AtomicU64,
    told: &(dyn Fn(u64) + Sync),
) -> Outcome {
    let (name, partition) = (work.name(), work.planned.partition);
    let offset = async |spec| {
        let found = client.list_offsets(&work.topic.target, &[partition], spec).await?;
        Ok::<_, Error>(found.get(&partition).copied().flatten().unwrap_or(-1))
    };
    let start_offset = work.produce.filler;
    let end_offset = start_offset.saturating_add_unsigned(work.produce.records);
    let found = (offset(OffsetSpec::Earliest).await?, offset(OffsetSpec::Latest).await?);
    if found.0 != start_offset || found.1 < end_offset {
        return Ok(Err(format!(
            "{name}: expected offsets {start_offset} to {end_offset}, found {} to {}",
            found.0, found.1
        )));
    }
    let mut compared = Compared { next_offset: start_offset, sum: Sum::default() };
    if let Some(mut outgoing) = reading.outgoing(work, work.planned.start_offset).await? {
        let mut reader =
            client.read_partition(&work.topic.target, work.topic_id, partition, start_offset, end_offset);
        while let Some(bytes) = reader.next().await? {
            for batch in Batches::new(bytes, 0) {
                let batch = batch.map_err(|source| Error::Protocol { object: name.clone(), source })?;
                if batch.header.base_offset >= end_offset {
                    break;
                }
                if let Some(finding) = compared.take(&name, &mut outgoing, &batch).await? {
                    return Ok(Err(finding));
                }
                told(all.fetch_add(batch.bytes.len() as u64, Ordering::Relaxed));
            }
        }
        if outgoing.next().await?.is_some() {
            return Ok(Err(format!("{name}: the archive has more records than the target")));
        }
    }
    if compared.next_offset != end_offset {
        return Ok(Err(format!("{name}: expected offset {end_offset}, found {}", compared.next_offset)));
    }
    Ok(Ok(VerifiedPartition {
        topic: work.topic.target.clone(),
        partition,
        start_offset,
        end_offset,
        bytes: compared.sum.bytes,
        sha256: compared.sum.end(),
    }))
}

impl Compared {
    /// What is not the same, if anything is.
    async fn take(&mut self, name: &str, outgoing: &mut Outgoing, batch: &Batch) -> Result<Option<String>> {
        let at = batch.header.base_offset;
        if at != self.next_offset {
            return Ok(Some(format!("{name}: expected offset {}, found {at}", self.next_offset)));
        }
        let Some(sent) = outgoing.next().await? else {
            return Ok(Some(format!("{name}: the target has more records than the archive, at offset {at}")));
        };
        if !is_same(name, &sent, batch)? {
            let (first, count) = (sent.runs(at).first().map_or(-1, |run| run.source), sent.records);
            return Ok(Some(format!(
                "{name}: the {count} records from offset {at} on are not those of the archive from {first} on"
            )));
        }
        self.next_offset = batch.header.next_offset();
        self.sum.add(&batch.bytes);
        Ok(None)
    }
}
