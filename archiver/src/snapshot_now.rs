//! A recovery point without an archiver of one's own: what others have archived is learned from the store.
//!
//! The order is that of every snapshot: the groups' offsets, then the logs' ends, then the wait until chains and
//! journal have reached them. Nothing is read from the brokers' logs, and nothing but the snapshot is written
//! (and the records of topics that nobody has archived yet).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::{StreamExt, TryStreamExt, stream};
use varve_archive::Snapshot;
use varve_kafka::client::OffsetSpec;

use crate::discovery::Wanted;
use crate::error::Result;
use crate::journal;
use crate::recovery_point::Pending;
use crate::segment::Lane;
use crate::service::{Archiver, WRITER};
use crate::sharing::Share;
use crate::standing::Standing;
use crate::tail::Key;

/// Partitions looked at at once.
const PARALLEL: usize = 16;
/// Between two looks at the store.
const LOOK: Duration = Duration::from_secs(2);

/// What a snapshot found.
#[derive(Debug)]
pub struct SnapshotOutcome {
    pub snapshot: Snapshot,
    pub partitions: usize,
    /// Those that the archive has not to the ends that their logs had.
    pub lagging: Vec<Lagging>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lagging {
    pub topic: String,
    pub partition: i32,
    /// In the archive, journal included, up to here.
    pub archived_end: i64,
    pub log_end: i64,
}

impl Archiver {
    /// Makes a recovery point of what running archivers have brought into the archive, waiting for them at most
    /// `wait`; what has not come by then is named as lagging.
    ///
    /// # Errors
    /// Of the cluster and the store: no snapshot was written then.
    pub async fn snapshot_now(&self, wait: Duration) -> Result<SnapshotOutcome> {
        let found = journal::found(&self.archive).await?.0;
        let mut discovery = self.discovery(&found).await?;
        let wanted = discovery.look(&self.archive, WRITER).await?;
        let pending = self.begin_snapshot(&wanted, &discovery.unread).await?;
        let (starts, _) = self.ends(&wanted, OffsetSpec::Earliest).await?;
        let by_key: HashMap<Key, &Wanted> = wanted.iter().map(|w| (w.key(), w)).collect();
        let until = Instant::now() + wait;
        loop {
            let behind: Vec<&Wanted> =
                self.behind(&pending).into_iter().filter_map(|key| by_key.get(&key).copied()).collect();
            self.learn(&behind, &starts).await?;
            if self.is_reached(&pending) || Instant::now() >= until {
                break;
            }
            tokio::time::sleep(LOOK.min(until.saturating_duration_since(Instant::now()))).await;
        }
        let mut lagging: Vec<Lagging> = self
            .behind(&pending)
            .into_iter()
            .filter_map(|key| {
                Some(Lagging {
                    topic: by_key.get(&key)?.topic.name.clone(),
                    partition: key.1,
                    archived_end: self.progress.partition(key).unwrap_or_default().safe_end(),
                    log_end: *pending.ends.get(&key)?,
                })
            })
            .collect();
        lagging.sort_by(|a, b| (&a.topic, a.partition).cmp(&(&b.topic, b.partition)));
        let partitions = pending.ends.len();
        let gone = self.departed(&discovery.departed.due(), &Share::All).await?;
        let snapshot = self.finish_snapshot(pending, gone, discovery.cluster_id()).await?;
        Ok(SnapshotOutcome { snapshot, partitions, lagging })
    }

    fn behind(&self, pending: &Pending) -> Vec<Key> {
        let reached = |(key, end): (&Key, &i64)| {
            let known = self.progress.partition(*key);
            known.is_none_or(|known| known.safe_end() < *end).then_some(*key)
        };
        pending.ends.iter().filter_map(reached).collect()
    }

    /// Looks in the store for how far these are.
    async fn learn(&self, partitions: &[&Wanted], starts: &HashMap<Key, i64>) -> Result<()> {
        // Before the chains: what moves from the journal into a chain meanwhile is seen in both, or in the chain.
        let journal = journal::found(&self.archive).await?.0;
        let (journal, starts) = (&journal, starts);
        let looks = partitions.iter().map(|wanted| async move {
            let lane = Lane {
                archive: self.archive.clone(),
                store: Arc::clone(&self.store),
                sealing: Arc::clone(&self.sealing),
                topic: Arc::clone(&wanted.topic),
                partition: wanted.partition,
            };
            let key = wanted.key();
            let entries = journal.get(&key).map(Vec::as_slice).unwrap_or_default();
            let standing = Standing::look(&lane, entries).await?;
            let start = starts.get(&key).copied().unwrap_or(0);
            self.progress.learned(key, standing.branch, standing.end_offset, standing.journal, start);
            Ok::<_, crate::error::Error>(())
        });
        stream::iter(looks).buffer_unordered(PARALLEL).try_collect::<()>().await
    }
}
