//! Topics that the cluster has no more. Snapshots go on to say what the archive has of them, and since when they are
//! gone, until nobody can bring anything more: what came in their last minutes is in no earlier snapshot.
//!
//! Those that went while no archiver ran are told by what the archive has and the cluster has not. A topic that came
//! and went between two snapshots, and whose archiver was killed, is found by the journal if that has any of it.

use std::collections::{BTreeMap, HashSet};

use futures::{StreamExt, TryStreamExt, stream};
use varve_archive::record::topic::TopicRecord;
use varve_archive::{Archive, Kind};
use varve_format::Id;

use crate::error::Result;

/// Whoever read one of them has put what he held into the store by then.
const SETTLED_MS: i64 = 60 * 60 * 1000;
/// Records of topics that are read at once.
const PARALLEL: usize = 16;

/// When each was found to be gone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Departed {
    since_ms: BTreeMap<Id, i64>,
    /// Of the archive, and not held against the cluster yet; with when a snapshot found it gone.
    archived: BTreeMap<Id, Option<i64>>,
}

impl Departed {
    /// With what the newest snapshot and the journal have.
    pub(crate) async fn look_back(
        archive: &Archive,
        journal: impl Iterator<Item = Id>,
        now_ms: i64,
    ) -> Result<Self> {
        let mut archived: BTreeMap<Id, Option<i64>> = journal.map(|id| (id, None)).collect();
        let snapshot = archive.latest_snapshot(0).await?;
        let mut leaves = archive.leaves(snapshot.as_ref().and_then(|s| s.record.root.as_ref()));
        loop {
            let leaf = match leaves.next().await {
                Ok(Some(leaf)) => leaf,
                Ok(None) => break,
                Err(error) if matches!(error.kind(), Kind::Corrupt | Kind::NotFound) => {
                    tracing::warn!(%error, "topics that are gone may not be known as such");
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            for entry in leaf {
                let known = archived.entry(entry.topic_id).or_default();
                *known = (*known).max(entry.deleted_ms);
            }
        }
        archived.retain(|_, since| since.is_none_or(|since| !is_settled(since, now_ms)));
        Ok(Self { since_ms: BTreeMap::new(), archived })
    }

    /// Holds all against what the cluster lists.
    pub(crate) async fn compare(
        &mut self,
        archive: &Archive,
        cluster_id: &str,
        listed: &HashSet<Id>,
        now_ms: i64,
    ) -> Result<()> {
        self.since_ms.retain(|id, _| !listed.contains(id));
        self.archived.retain(|id, _| !listed.contains(id));
        let unknown: Vec<(Id, Option<i64>)> = self.archived.iter().map(|(id, since)| (*id, *since)).collect();
        let records = unknown.into_iter().map(|(id, since)| async move {
            let record = match archive.topic(id).await {
                Err(error) if error.kind() == Kind::Corrupt => None,
                record => record?,
            };
            Ok::<_, varve_archive::Error>((id, since, record))
        });
        let records: Vec<(Id, Option<i64>, Option<TopicRecord>)> =
            stream::iter(records).buffer_unordered(PARALLEL).try_collect().await?;
        for (id, since, _) in
            records.iter().filter(|(.., r)| r.as_ref().is_some_and(|r| r.cluster_id == cluster_id))
        {
            self.left(*id, since.unwrap_or(now_ms));
        }
        self.archived.clear();
        Ok(())
    }

    pub(crate) fn left(&mut self, topic_id: Id, now_ms: i64) {
        self.since_ms.entry(topic_id).or_insert(now_ms);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.since_ms.is_empty()
    }

    pub(crate) fn since_ms(&self, topic_id: Id) -> Option<i64> {
        self.since_ms.get(&topic_id).copied()
    }

    pub(crate) fn topics(&self) -> impl Iterator<Item = Id> {
        self.since_ms.keys().copied()
    }

    /// A snapshot of now has been made: forgets those of which nothing more can come, and tells which.
    pub(crate) fn settle(&mut self, now_ms: i64) -> Vec<Id> {
        let settled = self.since_ms.extract_if(.., |_, since| is_settled(*since, now_ms));
        settled.map(|(id, _)| id).collect()
    }
}

pub(crate) fn is_settled(since_ms: i64, now_ms: i64) -> bool {
    now_ms.saturating_sub(since_ms) >= SETTLED_MS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_is_told_of_until_nothing_more_can_come() {
        let (a, b) = (Id([1; 16]), Id([2; 16]));
        let mut departed = Departed::default();
        departed.left(a, 1_000);
        departed.left(a, 9_000);
        departed.left(b, 5_000);
        assert_eq!((departed.since_ms(a), departed.topics().collect::<Vec<_>>()), (Some(1_000), vec![a, b]));
        assert_eq!(departed.settle(1_000 + SETTLED_MS - 1), []);
        assert_eq!(departed.settle(1_000 + SETTLED_MS), [a]);
        assert!(departed.since_ms(a).is_none() && !departed.is_empty());
    }
}
