//! How far an archive is behind a living cluster.
//!
//! In offsets: the high watermark by the archived end. In bytes and seconds: by what the leader gives of the first
//! batches that are not archived. Of a lag that one fetch does not cover the bytes are extrapolated.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use anyhow::Result;
use futures::{StreamExt, TryStreamExt, stream};
use varve_archive::{Archive, LogReader};
use varve_format::Id;
use varve_kafka::client::{Client, FetchLimits, FetchSession, FetchTarget, OffsetSpec, TopicMetadata};
use varve_kafka::protocol::Batches;

use super::{When, topics};

const PARALLEL: usize = 16;
/// Of each partition that lags.
const FETCH_BYTES: i32 = 1 << 20;
/// What a leader does not give in this time is not known.
const FETCH_TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Clone, Debug)]
pub(crate) struct PartitionLag {
    pub(crate) topic: String,
    pub(crate) topic_id: Id,
    pub(crate) partition: i32,
    /// Where the archive ends; `None` where it has nothing of the partition.
    pub(crate) archived_end: Option<i64>,
    pub(crate) log_start: i64,
    pub(crate) log_end: i64,
    pub(crate) bytes: Option<LagBytes>,
    /// Age of the first record that is not archived.
    pub(crate) age_ms: Option<i64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LagBytes {
    pub(crate) bytes: u64,
    pub(crate) is_estimate: bool,
}

impl PartitionLag {
    /// Offsets that the log has and the archive has not.
    pub(crate) fn offsets(&self) -> u64 {
        let from = self.archived_end.unwrap_or(0).max(self.log_start);
        self.log_end.saturating_sub(from).max(0).unsigned_abs()
    }

    /// Offsets that were deleted at the source before they were archived.
    pub(crate) fn missed(&self) -> u64 {
        self.archived_end.map_or(0, |end| self.log_start.saturating_sub(end).max(0).unsigned_abs())
    }
}

/// Of the topics that are in both; and the names of the cluster's topics that are not archived.
pub(crate) async fn lags(
    reader: &LogReader,
    client: &Client,
    now_ms: i64,
) -> Result<(Vec<PartitionLag>, Vec<String>)> {
    let archive = reader.archive();
    let archived: BTreeMap<Id, String> =
        topics(archive).await?.into_iter().map(|t| (t.id, t.name())).collect();
    let living = client.metadata(None).await?.topics;
    let (both, others): (Vec<_>, Vec<_>) =
        living.into_iter().filter(|t| t.error.is_none()).partition(|t| archived.contains_key(&t.topic_id));
    let mut others: Vec<String> = others.into_iter().filter(|t| !t.is_internal).map(|t| t.name).collect();
    others.sort();
    // The archive first: what is appended meanwhile must not make the lag negative.
    let ends = archived_ends(reader, &both).await?;
    let mut lags = Vec::new();
    for topic in &both {
        let partitions: Vec<i32> = topic.partitions.iter().map(|p| p.partition).collect();
        let starts = client.list_offsets(&topic.name, &partitions, OffsetSpec::Earliest).await?;
        let log_ends = client.list_offsets(&topic.name, &partitions, OffsetSpec::Latest).await?;
        let offset = |of: &BTreeMap<i32, Option<i64>>, p| of.get(&p).copied().flatten().unwrap_or(0);
        lags.extend(partitions.into_iter().map(|partition| PartitionLag {
            topic: topic.name.clone(),
            topic_id: topic.topic_id,
            partition,
            archived_end: ends.get(&(topic.topic_id, partition)).copied().flatten(),
            log_start: offset(&starts, partition),
            log_end: offset(&log_ends, partition),
            bytes: None,
            age_ms: None,
        }));
    }
    look_at_first(client, &both, &mut lags, now_ms).await;
    lags.sort_by(|a, b| (&a.topic, a.partition).cmp(&(&b.topic, b.partition)));
    Ok((lags, others))
}

async fn archived_ends(
    reader: &LogReader,
    living: &[TopicMetadata],
) -> Result<HashMap<(Id, i32), Option<i64>>> {
    let archive: &Archive = reader.archive();
    let journal = archive.journal(|id, _| living.iter().any(|t| t.topic_id == id)).await?;
    let when = When::of(archive, Some(crate::args::archive::AsOf::Now)).await?;
    let (journal, when) = (&journal, &when);
    let partitions = living.iter().flat_map(|t| t.partitions.iter().map(|p| (t.topic_id, p.partition)));
    let partitions: Vec<_> = partitions.collect();
    let ends = stream::iter(partitions).map(|(id, partition)| async move {
        let base = when.state(archive, id, partition).await?;
        let log = reader.now(id, partition, None, journal, base.as_ref()).await?;
        let something = base.is_some() || log.end_offset() > log.start_offset();
        Ok::<_, anyhow::Error>(((id, partition), something.then(|| log.end_offset())))
    });
    ends.buffer_unordered(PARALLEL).try_collect().await
}

/// What can't be had stays unknown: lag in offsets is what counts.
async fn look_at_first(client: &Client, living: &[TopicMetadata], lags: &mut [PartitionLag], now_ms: i64) {
    let mut by_leader: HashMap<i32, Vec<FetchTarget>> = HashMap::new();
    for lag in lags.iter_mut() {
        if lag.offsets() == 0 {
            (lag.bytes, lag.age_ms) = (Some(LagBytes { bytes: 0, is_estimate: false }), Some(0));
            continue;
        }
        let topic = living.iter().find(|t| t.topic_id == lag.topic_id);
        let found = topic.and_then(|t| t.partitions.iter().find(|p| p.partition == lag.partition));
        let Some(leader) = found.and_then(|p| p.leader_id) else { continue };
        let from = lag.archived_end.unwrap_or(0).max(lag.log_start);
        by_leader.entry(leader).or_default().push(FetchTarget::new(lag.topic_id, lag.partition, from));
    }
    let fetches = by_leader.into_iter().map(|(leader, targets)| first_batches(client, leader, targets));
    let found: HashMap<(Id, i32), First> =
        futures::future::join_all(fetches).await.into_iter().flatten().collect();
    for lag in lags {
        let Some(first) = found.get(&(lag.topic_id, lag.partition)) else { continue };
        lag.age_ms = Some(now_ms.saturating_sub(first.timestamp_ms).max(0));
        let offsets = lag.offsets();
        let is_estimate = first.offsets < offsets;
        let scaled = u128::from(first.bytes) * u128::from(offsets) / u128::from(first.offsets.max(1));
        let bytes = if is_estimate { u64::try_from(scaled).unwrap_or(u64::MAX) } else { first.bytes };
        lag.bytes = Some(LagBytes { bytes, is_estimate });
    }
}

struct First {
    timestamp_ms: i64,
    bytes: u64,
    offsets: u64,
}

async fn first_batches(client: &Client, leader: i32, targets: Vec<FetchTarget>) -> Vec<((Id, i32), First)> {
    let limits = FetchLimits { partition_max_bytes: FETCH_BYTES, ..FetchLimits::new(client.config()) };
    let mut session = FetchSession::new(client, leader, limits);
    targets.into_iter().for_each(|target| session.set(target));
    let (mut found, deadline) = (Vec::new(), Instant::now() + FETCH_TIMEOUT);
    while !session.is_empty() {
        let left = deadline.saturating_duration_since(Instant::now());
        let Ok(Ok(Some(answer))) = tokio::time::timeout(left, session.next()).await else { break };
        for part in answer {
            let Ok(batches) = part.outcome else { continue };
            let first = Batches::new(batches.records.clone(), 0).next();
            let Some(Ok(first)) = first else { continue };
            session.remove(part.topic_id, part.partition);
            let offsets = batches.next_offset.saturating_sub(part.from_offset).max(0).unsigned_abs();
            let bytes = batches.records.len() as u64;
            let timestamp_ms = first.header.base_timestamp_ms;
            found.push(((part.topic_id, part.partition), First { timestamp_ms, bytes, offsets }));
        }
    }
    session.close().await;
    found
}
