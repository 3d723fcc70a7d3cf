//! Partitions as the store alone has them, for a snapshot: no broker is asked for it, since their topics are gone, or
//! the cluster is.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt, stream};
use varve_archive::record::state::{JournalEntry, OpenTransaction, PartitionEntry};
use varve_archive::{Point, Target};
use varve_format::Id;
use varve_kafka::protocol::Batches;

use crate::departed::Departed;
use crate::discovery::INDEX_INTERVAL_DEFAULT_BYTES;
use crate::error::{Error, Result};
use crate::journal;
use crate::rescue;
use crate::segment::{Lane, Topic};
use crate::service::Archiver;
use crate::sharing::Share;
use crate::standing::Standing;
use crate::tail::Key;

/// Partitions that are looked at at once.
const PARALLEL: usize = 16;
const LATE: &str = "the topic was gone before the rest of its log was read";

impl Archiver {
    /// What is ours of topics that are gone, up to the last that came.
    pub(crate) async fn departed(&self, departed: &Departed, share: &Share) -> Result<Vec<Target>> {
        if departed.is_empty() {
            return Ok(Vec::new());
        }
        let journal = journal::found(&self.archive).await?.0;
        let mut partitions: BTreeSet<Key> =
            journal.keys().filter(|(id, _)| departed.since_ms(*id).is_some()).copied().collect();
        for topic_id in departed.topics() {
            partitions.extend(self.partitions_of(topic_id).await?);
        }
        partitions.retain(|key| share.has(*key));
        let newest = self.archive.latest_snapshot(0).await?;
        let root = newest.as_ref().and_then(|s| s.record.root.as_ref());
        let mut based = Vec::new();
        for key in partitions {
            based.push((key, self.archive.entry(root, key.0, key.1).await?));
        }
        let mut targets = self.stored(based, &journal).await?;
        for target in &mut targets {
            target.deleted_ms = departed.since_ms(target.topic_id);
            let known = self.progress.partition((target.topic_id, target.partition));
            let seen = known.map_or(0, |known| known.high_watermark);
            if target.point.is_some_and(|point| point.end_offset < seen) {
                target.log_end_offset = Some(seen);
                target.problem.get_or_insert_with(|| LATE.to_owned());
            }
        }
        Ok(targets)
    }

    /// Those that its record and its objects tell of.
    pub(crate) async fn partitions_of(&self, topic_id: Id) -> Result<Vec<Key>> {
        let record = self.archive.topic(topic_id).await?;
        let mut found: Vec<Key> = (0..record.and_then(|r| r.partitions).unwrap_or(0))
            .map(|partition| (topic_id, partition))
            .collect();
        let mut last = None;
        while let Some(partition) = self.archive.next_partition(topic_id, last).await? {
            found.push((topic_id, partition));
            last = Some(partition);
        }
        found.sort_unstable();
        found.dedup();
        Ok(found)
    }

    /// As far as the store has them; what the newest snapshot says of each stands beside it.
    pub(crate) async fn stored(
        &self,
        partitions: Vec<(Key, Option<PartitionEntry>)>,
        journal: &HashMap<Key, Vec<JournalEntry>>,
    ) -> Result<Vec<Target>> {
        let looks = partitions.into_iter().map(|(key, base)| async move {
            let entries = journal.get(&key).map(Vec::as_slice).unwrap_or_default();
            match self.stored_one(key, base.as_ref(), entries).await {
                Err(error) if !error.is_passing() => {
                    Ok(Target { problem: Some(error.to_string()), ..Target::new(key.0, key.1) })
                }
                target => target,
            }
        });
        stream::iter(looks).buffered(PARALLEL).try_collect().await
    }

    async fn stored_one(
        &self,
        key: Key,
        base: Option<&PartitionEntry>,
        entries: &[JournalEntry],
    ) -> Result<Target> {
        let lane = Lane {
            archive: self.archive.clone(),
            store: Arc::clone(&self.store),
            topic: Arc::new(nameless(key.0)),
            partition: key.1,
        };
        let standing = Standing::learn(&lane, entries).await?;
        let end_offset = standing.journal.last().map_or(standing.end_offset, |last| last.end_offset);
        let point = Point { branch: standing.branch, end_offset };
        let open_transactions = match open_at_end(&lane, &standing).await? {
            Some(open) => Some(open),
            None => self.known_open(key, point, base),
        };
        Ok(Target {
            point: Some(point),
            journal: standing.journal,
            log_start_offset: self
                .progress
                .partition(key)
                .map(|p| p.log_start_offset)
                .or(base.and_then(|b| b.log_start_offset)),
            deleted_ms: base.and_then(|b| b.deleted_ms),
            open_transactions,
            problem: standing.damaged,
            ..Target::new(key.0, key.1)
        })
    }

    /// Where the store does not tell: what we read ourselves, or what was told of this very point.
    fn known_open(
        &self,
        key: Key,
        point: Point,
        base: Option<&PartitionEntry>,
    ) -> Option<Vec<OpenTransaction>> {
        let known = self
            .progress
            .partition(key)
            .filter(|k| (k.branch, k.safe_end()) == (point.branch, point.end_offset));
        let told =
            base.filter(|b| (b.branch(), b.end()) == (point.branch, point.end_offset) && b.problem.is_none());
        known.and_then(|known| known.open_transactions).or_else(|| told.map(|b| b.open_transactions.clone()))
    }
}

/// Followed from the chain's end through the journal; `None` where the chain does not tell.
async fn open_at_end(lane: &Lane, standing: &Standing) -> Result<Option<Vec<OpenTransaction>>> {
    let Some(mut open) = standing.begin().open_transactions() else { return Ok(None) };
    let mut end_offset = standing.end_offset;
    for entry in &standing.journal {
        let Some(log) = rescue::journal_log(lane, entry).await? else { return Ok(None) };
        for batch in Batches::new(log, 0) {
            let batch = batch.map_err(|source| Error::Batches { what: lane.to_string(), source })?;
            if batch.header.next_offset() > end_offset {
                open.feed(&batch.header);
                end_offset = batch.header.next_offset();
            }
        }
    }
    Ok(Some(open.listed()))
}

/// Nothing is written in its name.
fn nameless(topic_id: Id) -> Topic {
    Topic {
        topic_id,
        name: topic_id.to_string(),
        cluster_id: String::new(),
        delete_retention_ms: None,
        index_interval_bytes: INDEX_INTERVAL_DEFAULT_BYTES,
    }
}
