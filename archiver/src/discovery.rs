//! Which topics there are, which of them are archived, and who leads them.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use varve_archive::V1;
use varve_archive::record::topic::TopicRecord;
use varve_format::Id;
use varve_kafka::client::admin::{ConfigResource, ResourceConfigs};
use varve_kafka::client::{Client, TopicMetadata};

use crate::clock;
use crate::config::{TopicPattern, TopicPatterns};
use crate::departed::Departed;
use crate::error::{Error, Result};
use crate::opening::Leader;
use crate::segment::Topic;
use crate::tail::Key;

pub(crate) const DELETE_RETENTION_DEFAULT_MS: i64 = clock::DAY_MS;
pub(crate) const INDEX_INTERVAL_DEFAULT_BYTES: u32 = 4096;

/// A partition that is to be archived.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    pub(crate) topic: Arc<Topic>,
    pub(crate) partition: i32,
    /// `None` while there is none.
    pub(crate) leader: Option<Leader>,
}

impl Wanted {
    pub(crate) fn key(&self) -> Key {
        (self.topic.topic_id, self.partition)
    }
}

/// Finds topics, and remembers what it has found out about them.
pub(crate) struct Discovery {
    client: Client,
    patterns: TopicPatterns,
    cluster_id: Option<String>,
    /// Those that have their record in the archive.
    known: HashMap<Id, Arc<Topic>>,
    pub(crate) departed: Departed,
    /// Of the archive, there, and not wanted.
    pub(crate) unread: Vec<Wanted>,
    /// Of `topics.include`, what no topic of the last look matched; `None` before the first.
    unmatched: Option<Vec<TopicPattern>>,
}

impl Discovery {
    /// `departed` are those that the archive has.
    pub(crate) fn new(client: Client, patterns: TopicPatterns, departed: Departed) -> Self {
        Self {
            client,
            patterns,
            cluster_id: None,
            known: HashMap::new(),
            departed,
            unread: Vec::new(),
            unmatched: None,
        }
    }

    /// Once it was asked.
    pub(crate) fn cluster_id(&self) -> Option<&str> {
        self.cluster_id.as_deref()
    }

    /// All partitions of all topics that are wanted, with their leaders of now. Topics that are new get their
    /// record in the archive first.
    pub(crate) async fn look(
        &mut self,
        archive: &varve_archive::Archive,
        writer: &str,
    ) -> Result<Vec<Wanted>> {
        let metadata = self.client.metadata(None).await?;
        let cluster_id =
            metadata.cluster_id.ok_or_else(|| Error::unexpected("the cluster", "an id", "none"))?;
        if self.cluster_id.get_or_insert_with(|| cluster_id.clone()) != &cluster_id {
            let expected = self.cluster_id.clone().unwrap_or_default();
            return Err(Error::AnotherCluster { expected, found: cluster_id });
        }
        let there: HashSet<Id> = metadata.topics.iter().map(|t| t.topic_id).collect();
        self.known.retain(|topic_id, topic| {
            let is_there = there.contains(topic_id);
            if !is_there {
                self.departed.left(*topic_id, clock::now_ms());
                tracing::warn!(
                    topic = topic.name, %topic_id,
                    "the brokers don't list it any more: it was deleted, or the ACL Describe on it was"
                );
            }
            is_there
        });
        self.note_unmatched(&metadata.topics);
        self.departed.compare(archive, &cluster_id, &there, clock::now_ms()).await?;
        let whole = metadata.topics.into_iter().filter(|t| t.error.is_none());
        let (topics, others): (Vec<_>, Vec<_>) =
            whole.partition(|t| self.patterns.wants(&t.name, t.is_internal));
        self.note_unread(&others, &cluster_id);
        let new: Vec<&str> = topics
            .iter()
            .filter(|t| !self.known.contains_key(&t.topic_id))
            .map(|t| t.name.as_str())
            .collect();
        let configs = self.configs(&new).await?;
        for topic in topics.iter().filter(|t| !self.known.contains_key(&t.topic_id)) {
            let record = TopicRecord {
                varve_topic: V1,
                topic_id: topic.topic_id,
                topic: topic.name.clone(),
                cluster_id: cluster_id.clone(),
                partitions: i32::try_from(topic.partitions.len()).ok().filter(|n| *n > 0),
                writer: writer.to_owned(),
                created_ms: clock::now_ms(),
                more: Vec::new(),
            };
            archive.add_topic(&record).await?;
        }
        for topic in &topics {
            self.known.entry(topic.topic_id).or_insert_with(|| {
                Arc::new(self::topic(topic.topic_id, &topic.name, &cluster_id, configs.get(&topic.name)))
            });
        }
        let mut wanted = Vec::new();
        for topic in &topics {
            let Some(known) = self.known.get(&topic.topic_id) else { continue };
            wanted.extend(partitions(known, topic));
        }
        Ok(wanted)
    }

    /// Snapshots say how far these are behind, since nobody else may.
    fn note_unread(&mut self, others: &[TopicMetadata], cluster_id: &str) {
        let before: HashSet<Id> = self.unread.drain(..).map(|unread| unread.topic.topic_id).collect();
        for other in others.iter().filter(|other| self.departed.is_living(other.topic_id)) {
            let topic = Arc::new(topic(other.topic_id, &other.name, cluster_id, None));
            if !before.contains(&topic.topic_id) {
                tracing::warn!(
                    topic = topic.name,
                    "of the archive, and left out here: another archiver must read it"
                );
            }
            self.unread.extend(partitions(&topic, other));
        }
    }

    /// Names of single topics that are to be archived, and that the brokers have not got.
    pub(crate) fn missing(&self) -> Vec<String> {
        let unmatched = self.unmatched.iter().flatten();
        unmatched.filter(|pattern| pattern.is_exact()).map(ToString::to_string).collect()
    }

    fn note_unmatched(&mut self, topics: &[TopicMetadata]) {
        let names: Vec<(&str, bool)> = topics.iter().map(|t| (t.name.as_str(), t.is_internal)).collect();
        let unmatched: Vec<TopicPattern> = self.patterns.unmatched(&names).into_iter().cloned().collect();
        if self.unmatched.is_none() {
            let archived =
                names.iter().filter(|(name, internal)| self.patterns.wants(name, *internal)).count();
            tracing::info!(
                cluster_id = self.cluster_id.as_deref().unwrap_or_default(),
                topics = archived,
                "archiving"
            );
        }
        let before = self.unmatched.replace(unmatched.clone()).unwrap_or_default();
        for pattern in unmatched.iter().filter(|p| !before.iter().any(|b| b.to_string() == p.to_string())) {
            tracing::warn!(
                %pattern,
                "topics.include: the brokers have no topic of this name, or don't show it for want of the ACL Describe"
            );
        }
    }

    async fn configs(&self, topics: &[&str]) -> Result<HashMap<String, ResourceConfigs>> {
        if topics.is_empty() {
            return Ok(HashMap::new());
        }
        let resources: Vec<_> = topics.iter().map(|t| ConfigResource::Topic((*t).to_owned())).collect();
        let found = self.client.describe_configs(&resources).await?;
        for missing in &found.missing {
            tracing::warn!(
                what = %missing.what, error = %missing.error,
                "taken for a topic that is not compacted, since its configuration can't be read"
            );
        }
        let named = found.items.into_iter().filter_map(|item| match &item.resource {
            ConfigResource::Topic(name) => Some((name.clone(), item)),
            _ => None,
        });
        Ok(named.collect())
    }
}

fn partitions<'a>(topic: &'a Arc<Topic>, found: &'a TopicMetadata) -> impl Iterator<Item = Wanted> + 'a {
    found.partitions.iter().map(|p| Wanted {
        topic: Arc::clone(topic),
        partition: p.partition,
        leader: p.leader_id.map(|node_id| Leader { node_id, epoch: p.leader_epoch }),
    })
}

fn topic(topic_id: Id, name: &str, cluster_id: &str, configs: Option<&ResourceConfigs>) -> Topic {
    let value = |name: &str| {
        let entry = configs?.entries.iter().find(|entry| entry.name == name)?;
        entry.value.as_deref()
    };
    let number = |name: &str| value(name).and_then(|text| text.parse::<i64>().ok());
    let compacted = value("cleanup.policy").is_some_and(|policy| policy.contains("compact"));
    let retention_ms = number("delete.retention.ms").unwrap_or(DELETE_RETENTION_DEFAULT_MS);
    let interval = number("index.interval.bytes").and_then(|n| u32::try_from(n).ok());
    Topic {
        topic_id,
        name: name.to_owned(),
        cluster_id: cluster_id.to_owned(),
        delete_retention_ms: compacted.then_some(retention_ms),
        index_interval_bytes: interval.unwrap_or(INDEX_INTERVAL_DEFAULT_BYTES),
    }
}
