//! Partitions as the store alone has them, for a snapshot: no broker is asked for it, since their topics are gone, or
//! the cluster is.
//!
//! What is damaged is said of its partition, and stops no other. Where the newest snapshot says more than the store
//! tells (how far the log went, why it was not reached), that stays.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt, stream};
use varve_archive::record::snapshot::{Signable, Signed};
use varve_archive::record::state::{JournalEntry, OpenTransaction, PartitionEntry};
use varve_archive::{Point, Snapshot, Target};
use varve_format::Id;
use varve_kafka::protocol::Batches;

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
/// Snapshots that are looked through for one that will do.
const STEPS_MAX: u64 = 1000;
const LATE: &str = "the topic was gone before the rest of its log was read";

/// By partition, what the newest snapshot says.
pub(crate) type Bases = BTreeMap<Key, PartitionEntry>;

impl Archiver {
    /// What is ours of topics that are gone, up to the last that came. `gone` says since when.
    pub(crate) async fn departed(&self, gone: &BTreeMap<Id, i64>, share: &Share) -> Result<Vec<Target>> {
        if gone.is_empty() {
            return Ok(Vec::new());
        }
        let journal = journal::found(&self.archive).await?.0;
        let bases = self.bases(|key| gone.contains_key(&key.0)).await?;
        let mut keys = self.partitions_of(gone.keys().copied()).await?;
        keys.extend(bases.keys().chain(journal.keys()).filter(|key| gone.contains_key(&key.0)));
        keys.retain(|key| share.has(*key));
        let mut targets = self.stored(keys, &bases, &journal).await?;
        for target in &mut targets {
            target.deleted_ms = gone.get(&target.topic_id).copied();
            if target.log_end_offset.is_some() {
                target.problem.get_or_insert_with(|| LATE.to_owned());
            }
        }
        Ok(targets)
    }

    /// What the newest snapshot says of those that are wanted; of what is damaged, nothing.
    pub(crate) async fn bases(&self, is_wanted: impl Fn(&Key) -> bool) -> Result<Bases> {
        let newest = self.newest_trusted().await?;
        let mut leaves = self.archive.leaves(newest.as_ref().and_then(|s| s.record.root.as_ref()));
        let mut bases = Bases::new();
        let told = |error: &_| tracing::warn!(%error, "the newest snapshot tells nothing of some partitions");
        while let Some(leaf) = leaves.next_whole(told).await? {
            let by_key = leaf.into_iter().map(|entry| ((entry.topic_id, entry.partition), entry));
            bases.extend(by_key.filter(|(key, _)| is_wanted(key)));
        }
        Ok(bases)
    }

    /// The newest snapshot; who signs goes by what is signed so.
    pub(crate) async fn newest_trusted(&self) -> Result<Option<Snapshot>> {
        self.newest_that(async |snapshot| Ok(Some(snapshot))).await
    }

    /// What `take` makes of the newest snapshot of which it makes anything. Those that are damaged, or not signed as
    /// ours are, are passed over.
    pub(crate) async fn newest_that<T>(
        &self,
        take: impl AsyncFn(Snapshot) -> varve_archive::Result<Option<T>>,
    ) -> Result<Option<T>> {
        let ours = self.signer.as_ref().map(|signer| signer.public_key());
        let is_ours = |s: &Snapshot| ours.is_none_or(|key| s.record.signed(&[key]) == Signed::ByTrusted);
        let mut newest = self.archive.latest_snapshot(0).await?;
        let last = newest.as_ref().map_or(0, |s| s.record.sequence);
        for sequence in (last.saturating_sub(STEPS_MAX)..=last).rev() {
            let found = match newest.take() {
                Some(newest) => Ok(Some(newest)),
                None => self.archive.snapshot(sequence).await,
            };
            let taken = match found {
                Ok(Some(found)) if is_ours(&found) => take(found).await,
                other => other.map(|_| None),
            };
            match taken {
                Ok(Some(taken)) => return Ok(Some(taken)),
                Ok(None) => {}
                Err(error) if error.is_damage() => {
                    tracing::warn!(sequence, %error, "a snapshot is passed over");
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(None)
    }

    /// Those that have objects.
    pub(crate) async fn partitions_of(&self, topics: impl Iterator<Item = Id>) -> Result<BTreeSet<Key>> {
        let looks = topics.map(|topic_id| async move {
            let (mut found, mut last) = (Vec::new(), None);
            while let Some(partition) = self.archive.next_partition(topic_id, last).await? {
                found.push((topic_id, partition));
                last = Some(partition);
            }
            Ok::<_, Error>(found)
        });
        let found: Vec<Vec<Key>> =
            stream::iter(looks.collect::<Vec<_>>()).buffer_unordered(PARALLEL).try_collect().await?;
        Ok(found.into_iter().flatten().collect())
    }

    /// As far as the store has them.
    pub(crate) async fn stored(
        &self,
        keys: BTreeSet<Key>,
        bases: &Bases,
        journal: &HashMap<Key, Vec<JournalEntry>>,
    ) -> Result<Vec<Target>> {
        let looks = keys.into_iter().map(|key| async move {
            let base = bases.get(&key);
            let entries = journal.get(&key).map(Vec::as_slice).unwrap_or_default();
            match self.stored_one(key, base, entries).await {
                Err(error) if !error.is_passing() => Ok(Target {
                    log_end_offset: base.and_then(|b| b.log_end_offset),
                    deleted_ms: base.and_then(|b| b.deleted_ms),
                    open_transactions: None,
                    problem: Some(error.to_string()),
                    ..Target::new(key.0, key.1)
                }),
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
            sealing: Arc::clone(&self.sealing),
            topic: Arc::new(nameless(key.0)),
            partition: key.1,
        };
        let standing = match Standing::learn(&lane, entries).await {
            // What is beside the last object's log tells of open transactions alone.
            Err(error) if !error.is_passing() => Standing {
                state_is_whole: false,
                damaged: Some(error.to_string()),
                ..Standing::look(&lane, entries).await?
            },
            learned => learned?,
        };
        let end_offset = standing.journal.last().map_or(standing.end_offset, |last| last.end_offset);
        let point = Point { branch: standing.branch, end_offset };
        let known = self.progress.partition(key).filter(|known| known.branch == point.branch);
        let base = base.filter(|base| base.branch() == point.branch);
        let open_transactions = match open_at_end(&lane, &standing).await {
            Ok(Some(open)) => Some(open),
            Err(error) if error.is_passing() => return Err(error),
            Ok(None) | Err(_) => {
                let told = base.filter(|b| b.end() == end_offset && b.problem.is_none());
                let ours = known.as_ref().filter(|known| known.safe_end() == end_offset);
                let ours = ours.and_then(|known| known.open_transactions.clone());
                ours.or_else(|| told.map(|b| b.open_transactions.clone()))
            }
        };
        let seen = known.as_ref().map(|known| known.high_watermark);
        let log_end_offset = base.and_then(|b| b.log_end_offset).max(seen).filter(|end| *end > end_offset);
        Ok(Target {
            point: Some(point),
            journal: standing.journal,
            log_start_offset: known
                .and_then(|known| known.log_start_offset)
                .max(base.and_then(|b| b.log_start_offset)),
            log_end_offset,
            deleted_ms: base.and_then(|b| b.deleted_ms),
            open_transactions,
            problem: standing.damaged.or_else(|| {
                let holds = |b: &&PartitionEntry| log_end_offset.is_some() || b.end() == end_offset;
                base.filter(holds).and_then(|b| b.problem.clone())
            }),
            ..Target::new(key.0, key.1)
        })
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
