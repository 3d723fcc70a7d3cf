//! Topics that the cluster has no more. Snapshots go on to say what the archive has of them, and since when they are
//! gone, until nobody can bring anything more: what came in their last minutes is in no earlier snapshot.
//!
//! Those that went while no archiver ran are told by what the archive has and the cluster has not. A topic that came
//! and went between two snapshots, and whose archiver was killed, is found by the journal if that has any of it.

use std::collections::{BTreeMap, HashMap, HashSet};

use futures::{StreamExt, TryStreamExt, stream};
use varve_archive::record::state::{JournalEntry, PartitionEntry};
use varve_archive::record::topic::TopicRecord;
use varve_archive::{Archive, Kind, Snapshot};
use varve_format::Id;

use crate::error::Result;
use crate::tail::Key;

/// Whoever read one of them has put what he held into the store by then.
const SETTLED_MS: i64 = 60 * 60 * 1000;
/// A snapshot tells of so many; the others come with the next.
const TOPICS_MAX: usize = 200;
/// Records of topics that are read at once.
const PARALLEL: usize = 16;

/// When each was found to be gone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Departed {
    topics: BTreeMap<Id, Gone>,
    /// Of the archive, and not held against the cluster yet; with when a snapshot found it gone.
    archived: BTreeMap<Id, Option<i64>>,
    /// Of the archive, and listed when they were held against the cluster.
    living: HashSet<Id>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Gone {
    since_ms: i64,
    /// When a snapshot has said so last.
    told_ms: Option<i64>,
}

/// What is known of a topic before the cluster is asked.
#[derive(Clone, Copy, Debug, Default)]
struct Archived {
    since_ms: Option<i64>,
    /// Some of it is in no snapshot, or not marked.
    is_open: bool,
}

impl Departed {
    /// With what the `newest` snapshot and the journal have.
    pub(crate) async fn look_back(
        archive: &Archive,
        newest: Option<&Snapshot>,
        journal: &HashMap<Key, Vec<JournalEntry>>,
        now_ms: i64,
    ) -> Result<Self> {
        let mut found: BTreeMap<Id, Archived> = BTreeMap::new();
        let mut in_tree: HashSet<Key> = HashSet::new();
        let mut leaves = archive.leaves(newest.and_then(|s| s.record.root.as_ref()));
        let told = |error: &_| tracing::warn!(%error, "topics that are gone may not be known as such");
        while let Some(leaf) = leaves.next_whole(told).await? {
            for entry in &leaf {
                in_tree.insert((entry.topic_id, entry.partition));
                let known = found.entry(entry.topic_id).or_default();
                known.since_ms = known.since_ms.into_iter().chain(entry.deleted_ms).min();
                known.is_open |= entry.deleted_ms.is_none() || has_more(journal, entry);
            }
        }
        for key in journal.keys().filter(|key| !in_tree.contains(*key)) {
            found.entry(key.0).or_default().is_open = true;
        }
        let is_open = |a: &Archived| a.is_open || a.since_ms.is_none_or(|since| !is_settled(since, now_ms));
        let archived =
            found.into_iter().filter(|(_, a)| is_open(a)).map(|(id, a)| (id, a.since_ms)).collect();
        Ok(Self { archived, ..Self::default() })
    }

    /// Holds all against what the cluster lists.
    pub(crate) async fn compare(
        &mut self,
        archive: &Archive,
        cluster_id: &str,
        listed: &HashSet<Id>,
        now_ms: i64,
    ) -> Result<()> {
        self.topics.retain(|id, _| !listed.contains(id));
        self.living.extend(self.archived.extract_if(.., |id, _| listed.contains(id)).map(|(id, _)| id));
        let records = self.archived.iter().map(|(id, since)| (*id, *since)).map(|(id, since)| async move {
            let record = match archive.topic(id).await {
                Err(error) if error.kind() == Kind::Corrupt => None,
                record => record?,
            };
            Ok::<_, varve_archive::Error>((id, since, record))
        });
        let records: Vec<(Id, Option<i64>, Option<TopicRecord>)> =
            stream::iter(records.collect::<Vec<_>>()).buffer_unordered(PARALLEL).try_collect().await?;
        for (id, since, record) in records {
            if record.is_some_and(|record| record.cluster_id == cluster_id) {
                self.left(id, since.unwrap_or(now_ms));
            }
        }
        self.archived.clear();
        Ok(())
    }

    pub(crate) fn left(&mut self, topic_id: Id, now_ms: i64) {
        self.topics.entry(topic_id).or_insert(Gone { since_ms: now_ms, told_ms: None });
    }

    /// Whether the archive had it already, and the cluster too.
    pub(crate) fn is_living(&self, topic_id: Id) -> bool {
        self.living.contains(&topic_id)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.topics.is_empty()
    }

    /// All, and since when.
    pub(crate) fn all(&self) -> impl Iterator<Item = (Id, i64)> {
        self.topics.iter().map(|(id, gone)| (*id, gone.since_ms))
    }

    /// Those that the next snapshot tells of: the longest untold first.
    pub(crate) fn due(&self) -> BTreeMap<Id, i64> {
        let mut due: Vec<_> = self.topics.iter().collect();
        due.sort_by_key(|(_, gone)| gone.told_ms);
        due.into_iter().take(TOPICS_MAX).map(|(id, gone)| (*id, gone.since_ms)).collect()
    }

    /// A snapshot has told of these. Forgets those of which nothing more can come, and says which.
    pub(crate) fn told(&mut self, due: &BTreeMap<Id, i64>, now_ms: i64) -> Vec<Id> {
        for id in due.keys() {
            if let Some(gone) = self.topics.get_mut(id) {
                gone.told_ms = Some(now_ms);
            }
        }
        let settled =
            self.topics.extract_if(.., |id, gone| due.contains_key(id) && is_settled(gone.since_ms, now_ms));
        settled.map(|(id, _)| id).collect()
    }
}

/// A partition of a topic that has been gone for long, and of which the snapshot has all.
pub(crate) fn is_closed(
    entry: &PartitionEntry,
    journal: &HashMap<Key, Vec<JournalEntry>>,
    now_ms: i64,
) -> bool {
    entry.deleted_ms.is_some_and(|since| is_settled(since, now_ms)) && !has_more(journal, entry)
}

/// Whether the journal has what the snapshot has not.
fn has_more(journal: &HashMap<Key, Vec<JournalEntry>>, entry: &PartitionEntry) -> bool {
    let entries = journal.get(&(entry.topic_id, entry.partition)).map(Vec::as_slice).unwrap_or_default();
    entries.iter().any(|e| e.branch >= entry.branch() && e.end_offset > entry.end())
}

fn is_settled(since_ms: i64, now_ms: i64) -> bool {
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
        let due = departed.due();
        assert_eq!(due, BTreeMap::from([(a, 1_000), (b, 5_000)]));
        assert_eq!(departed.told(&due, 1_000 + SETTLED_MS - 1), []);
        assert_eq!(departed.told(&due, 1_000 + SETTLED_MS), [a]);
        assert_eq!(departed.due(), BTreeMap::from([(b, 5_000)]));
        // However long ago: it must have been told.
        departed.left(a, 0);
        assert_eq!(departed.told(&BTreeMap::new(), SETTLED_MS), []);
    }

    #[test]
    fn those_that_no_snapshot_has_come_first() {
        let id = |n: usize| Id(u128::to_be_bytes(n as u128));
        let mut departed = Departed::default();
        (0..TOPICS_MAX + 3).for_each(|n| departed.left(id(n), 0));
        let first = departed.due();
        assert_eq!(first.len(), TOPICS_MAX);
        departed.told(&first, 1);
        let rest: Vec<Id> = (TOPICS_MAX..TOPICS_MAX + 3).map(id).collect();
        let second = departed.due();
        assert!(second.len() == TOPICS_MAX && rest.iter().all(|id| second.contains_key(id)));
    }
}
