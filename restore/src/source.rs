//! What is restored from: an archive as of one of its snapshots.

use std::collections::{BTreeMap, BTreeSet};

use varve_archive::record::state::PartitionState;
use varve_archive::{Archive, JournalView, LogReader, Snapshot};
use varve_cluster::{ClusterState, EarlierState, Group, Part, Topic, TopicOffsets};
use varve_format::Id;

use crate::error::{Error, Result};

/// See the module. Holds what the snapshot says of the wanted partitions, and the cluster's state.
#[derive(Debug)]
pub struct Source {
    pub archive: Archive,
    pub snapshot: Snapshot,
    pub state: ClusterState,
    pub topics: Vec<SourceTopic>,
    /// Of all topics that the archive has, wanted or not.
    pub names: BTreeSet<String>,
    /// Whose `state` is, where the snapshot's own could not be collected.
    pub state_of: Option<EarlierState>,
}

/// A topic of the archive.
#[derive(Clone, Debug)]
pub struct SourceTopic {
    pub name: String,
    pub topic_id: Id,
    /// As the cluster's state has it.
    pub described: Option<Topic>,
    /// Of one that was deleted before the snapshot: the snapshot that describes it.
    pub described_by: Option<u64>,
    pub is_deleted: bool,
    /// When an archiver found it gone, if any did.
    pub deleted_ms: Option<i64>,
    /// Groups' offsets in it, by the snapshot that describes it.
    pub recalled: Vec<(Group, TopicOffsets)>,
    /// By number. One without a state has nothing in the archive.
    pub partitions: BTreeMap<i32, PartitionState>,
}

impl SourceTopic {
    /// One of which nothing else is known.
    fn new(name: &str, topic_id: Id) -> Self {
        Self {
            name: name.to_owned(),
            topic_id,
            described: None,
            described_by: None,
            is_deleted: false,
            deleted_ms: None,
            recalled: Vec::new(),
            partitions: BTreeMap::new(),
        }
    }

    /// As described; else those that the archive knows of.
    pub fn partition_count(&self) -> usize {
        let known = self.partitions.keys().next_back().map_or(0, |last| last.unsigned_abs() as usize + 1);
        known.max(self.described.as_ref().map_or(0, |t| t.replicas.len()))
    }
}

impl Source {
    /// `sequence` is the latest if it is not given; `wanted` says which topics are looked at.
    ///
    /// # Errors
    /// Of the archive; a snapshot that does not exist, or holds no state of the cluster.
    pub async fn open(
        archive: &Archive,
        sequence: Option<u64>,
        wanted: impl Fn(&str) -> bool,
    ) -> Result<Self> {
        let snapshot = match sequence {
            Some(sequence) => archive.snapshot(sequence).await?,
            None => archive.latest_snapshot(0).await?,
        };
        let snapshot = snapshot.ok_or_else(|| {
            let which = sequence.map_or_else(|| "a snapshot".to_owned(), |n| format!("snapshot {n}"));
            Error::refused(
                format!("the archive has not got {which}"),
                "varve snapshots lists those that there are; varve archive snapshot makes one",
            )
        })?;
        let state = ClusterState::of(archive, &snapshot).await?.ok_or_else(|| {
            let what = format!("snapshot {} holds no state of the cluster", snapshot.record.sequence);
            let todo = "take one that an archiver made of a cluster, or let varve archive snapshot --without-cluster \
                        make one with the last state that is known";
            Error::refused(what, todo)
        })?;
        let earlier = EarlierState::of(archive, &snapshot).await?;
        let (mut topics, mut names) = (BTreeMap::<Id, SourceTopic>::new(), BTreeSet::new());
        for topic in state.topics.iter().filter(|topic| wanted(&topic.name) && !topic.internal) {
            let topic_id = Id::parse(&topic.topic_id)
                .map_err(|_| Error::unexpected("a topic's id", "an id", &topic.topic_id))?;
            let described = Some(topic.clone());
            topics.insert(topic_id, SourceTopic { described, ..SourceTopic::new(&topic.name, topic_id) });
        }
        let mut walk = archive.partitions(snapshot.record.root.as_ref());
        while let Some(partition) = walk.next().await? {
            let name = match &partition.topic {
                Some(name) => name.clone(),
                None => archive
                    .topic(partition.topic_id)
                    .await?
                    .map_or_else(|| partition.topic_id.to_string(), |record| record.topic),
            };
            let is_wanted = wanted(&name);
            names.insert(name.clone());
            if !is_wanted {
                continue;
            }
            let topic_id = partition.topic_id;
            let topic = topics.entry(topic_id).or_insert_with(|| SourceTopic::new(&name, topic_id));
            topic.deleted_ms = topic.deleted_ms.max(partition.deleted_ms);
            topic.partitions.insert(partition.partition, partition);
        }
        // Of topics that are in the cluster's state, those that nobody archived have nothing here.
        topics.retain(|_, topic| !topic.partitions.is_empty());
        let older = match &earlier {
            Some(earlier) if topics.values().any(|t| t.described.is_none() && t.deleted_ms.is_none()) => {
                topics_of(archive, earlier.snapshot).await?
            }
            _ => BTreeSet::new(),
        };
        for topic in topics.values_mut() {
            topic.is_deleted = match (&topic.described, &earlier) {
                (Some(_), None) => false,
                (None, None) if state.parts.has(Part::Topics) => true,
                // Where the cluster was not asked, an archiver has seen it, or it was gone before already.
                (described, _) => {
                    topic.deleted_ms.is_some() || (described.is_none() && older.contains(&topic.topic_id))
                }
            };
        }
        let mut topics: Vec<SourceTopic> = topics.into_values().collect();
        topics.sort_by(|a, b| (&a.name, a.topic_id).cmp(&(&b.name, b.topic_id)));
        Ok(Self { archive: archive.clone(), snapshot, state, topics, names, state_of: earlier })
    }

    /// Of all topics.
    pub fn partitions(&self) -> Vec<(Id, i32)> {
        let of = |t: &SourceTopic| t.partitions.keys().map(|p| (t.topic_id, *p)).collect::<Vec<_>>();
        self.topics.iter().flat_map(of).collect()
    }

    /// By its id in Kafka's text form.
    pub fn topic(&self, topic_id: &str) -> Option<&SourceTopic> {
        let id = Id::parse(topic_id).ok()?;
        self.topics.iter().find(|topic| topic.topic_id == id)
    }

    /// For reading the logs of these topics.
    ///
    /// # Errors
    /// Of the archive.
    pub async fn reader(&self) -> Result<(LogReader, JournalView)> {
        let ids: Vec<Id> = self.topics.iter().map(|topic| topic.topic_id).collect();
        let journal = self.archive.journal_of(&self.snapshot.record, |id, _| ids.contains(&id)).await?;
        Ok((self.archive.log_reader(Some(&self.snapshot.record)).await?, journal))
    }
}

/// Those that were archived when a snapshot was made; of what is gone or damaged, none.
async fn topics_of(archive: &Archive, sequence: u64) -> Result<BTreeSet<Id>> {
    let snapshot = match archive.snapshot(sequence).await {
        Err(error) if error.is_damage() => None,
        snapshot => snapshot?,
    };
    let mut leaves = archive.leaves(snapshot.as_ref().and_then(|s| s.record.root.as_ref()));
    let mut found = BTreeSet::new();
    while let Some(leaf) = leaves.next_whole(|_| {}).await? {
        found.extend(leaf.iter().map(|entry| entry.topic_id));
    }
    Ok(found)
}
