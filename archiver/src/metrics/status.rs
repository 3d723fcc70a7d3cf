//! What an archiver says of itself at `/status`: JSON, with each partition.

use std::collections::BTreeMap;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::Watch;
use super::view::View;

/// Of one archiver. Members may be added in later versions.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Status {
    pub version: String,
    pub archive_id: String,
    pub archive_url: String,
    pub now_ms: i64,
    pub uptime_ms: u64,
    pub rpo_ms: u64,
    pub healthy: bool,
    pub unhealthy: Vec<String>,
    pub ready: bool,
    pub not_ready: Vec<String>,
    pub read_bytes: u64,
    pub segments: u64,
    pub bundles: u64,
    pub branches: u64,
    pub lost_races: u64,
    /// Offsets by reason.
    pub gap_offsets: BTreeMap<String, u64>,
    /// By kind.
    pub errors: BTreeMap<String, u64>,
    pub memory_used_bytes: u64,
    pub memory_limit_bytes: u64,
    pub resident_bytes: Option<u64>,
    pub store_requests: u64,
    pub store_cost_dollars: f64,
    pub snapshot: Option<SnapshotStatus>,
    /// By topic and number.
    pub partitions: Vec<PartitionStatus>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotStatus {
    pub sequence: u64,
    pub created_ms: i64,
    /// When the cluster was asked for its state: earlier, if it was away then. `None` if there is no state.
    #[serde(default)]
    pub cluster_asked_ms: Option<i64>,
    /// `None` for one that another archiver wrote, or this one before it was started.
    pub duration_ms: Option<u64>,
    pub lagging_partitions: Option<usize>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionStatus {
    pub topic: String,
    pub topic_id: String,
    pub partition: i32,
    /// `waiting`, `opening`, `reading`, `resting` or `done`.
    pub state: String,
    pub branch: Option<u32>,
    /// In segments up to here.
    pub chain_end_offset: Option<i64>,
    /// In segments or the journal up to here.
    pub archived_end_offset: Option<i64>,
    pub log_start_offset: i64,
    pub log_end_offset: Option<i64>,
    pub lag_records: Option<u64>,
    /// An estimate by what was read of the topic.
    pub lag_bytes: Option<u64>,
    pub lag_ms: u64,
    pub trouble: Option<Trouble>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trouble {
    pub kind: String,
    pub text: String,
}

pub(super) fn of(watch: &Watch) -> Status {
    let view = View::of(watch);
    let (unhealthy, not_ready) = (watch.unhealthy(), watch.not_ready());
    Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        archive_id: watch.archive.id().to_string(),
        archive_url: watch.archive_url.clone(),
        now_ms: view.now_ms,
        uptime_ms: ms(view.uptime),
        rpo_ms: ms(view.rpo),
        healthy: unhealthy.is_empty(),
        unhealthy,
        ready: not_ready.is_empty(),
        not_ready,
        read_bytes: view.topics.values().map(|t| t.read_bytes).sum(),
        segments: view.topics.values().map(|t| t.segments).sum(),
        bundles: view.bundles,
        branches: view.branches,
        lost_races: view.lost_races,
        gap_offsets: view.gaps.iter().map(|(reason, (_, n))| ((*reason).to_owned(), *n)).collect(),
        errors: view.errors.iter().map(|(kind, n)| (kind.name().to_owned(), *n)).collect(),
        memory_used_bytes: view.memory_used_bytes,
        memory_limit_bytes: view.memory_limit_bytes,
        resident_bytes: view.resident_bytes,
        store_requests: view.store.iter().map(|c| c.calls).sum(),
        store_cost_dollars: view.dollars.iter().map(|(_, dollars)| dollars).sum(),
        snapshot: view.snapshot.map(|s| SnapshotStatus {
            sequence: s.sequence,
            created_ms: s.created_ms,
            cluster_asked_ms: s.cluster_asked_ms,
            duration_ms: s.duration.map(ms),
            lagging_partitions: s.duration.map(|_| s.lagging),
        }),
        partitions: partitions(watch),
    }
}

fn partitions(watch: &Watch) -> Vec<PartitionStatus> {
    let (now, mut all) = (Instant::now(), Vec::new());
    let known = watch.progress.partitions();
    let known: std::collections::HashMap<_, _> = known.into_iter().collect();
    let inner = watch.progress.tally.inner.lock();
    for (key, watched) in &inner.partitions {
        let lag = watched.lag();
        let chain = known.get(key).filter(|_| watched.safe_end.is_some());
        all.push(PartitionStatus {
            topic: watched.topic.to_string(),
            topic_id: key.0.to_string(),
            partition: key.1,
            state: watched.state.name().to_owned(),
            branch: chain.map(|c| c.branch),
            chain_end_offset: chain.map(|c| c.archived_end),
            archived_end_offset: watched.safe_end,
            log_start_offset: watched.log_start,
            log_end_offset: watched.log_end,
            lag_records: lag,
            lag_bytes: lag.and_then(|lag| watched.totals.estimate(lag)),
            lag_ms: if lag.is_some_and(|lag| lag > 0) { ms(watched.waiting(now)) } else { 0 },
            trouble: watched
                .trouble
                .as_ref()
                .map(|(kind, text)| Trouble { kind: kind.name().to_owned(), text: text.clone() }),
        });
    }
    drop(inner);
    all.sort_by(|a, b| (&a.topic, a.partition, &a.topic_id).cmp(&(&b.topic, b.partition, &b.topic_id)));
    all
}

fn ms(time: std::time::Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
