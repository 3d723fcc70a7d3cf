//! Which broker leads a partition, for many at once.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;

use kafka_protocol::ResponseError;
use serde::{Deserialize, Serialize};

use super::super::cluster::Client;
use super::super::error::Result;
use super::routed::Located;

/// Topics in one metadata request.
const TOPICS_AT_ONCE: usize = 500;

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TopicPartition {
    pub topic: String,
    pub partition: i32,
}

impl TopicPartition {
    pub fn new(topic: impl Into<String>, partition: i32) -> Self {
        Self { topic: topic.into(), partition }
    }
}

impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.topic, self.partition)
    }
}

pub(super) async fn locate_leaders(
    client: &Client,
    items: &[TopicPartition],
) -> Result<Located<TopicPartition>> {
    let topics: BTreeSet<&str> = items.iter().map(|i| i.topic.as_str()).collect();
    let topics: Vec<&str> = topics.into_iter().collect();
    let mut leaders: HashMap<(String, i32), Option<i32>> = HashMap::new();
    let mut errors: HashMap<String, ResponseError> = HashMap::new();
    for part in topics.chunks(TOPICS_AT_ONCE) {
        for topic in client.metadata(Some(part)).await?.topics {
            if let Some(code) = topic.error {
                errors.insert(topic.name.clone(), code);
            }
            for p in topic.partitions {
                leaders.insert((topic.name.clone(), p.partition), p.leader_id);
            }
        }
    }
    let mut located = Located::default();
    for item in items {
        let key = (item.topic.clone(), item.partition);
        match (errors.get(&item.topic), leaders.get(&key)) {
            (Some(code), _) => located.nowhere.push((item.clone(), *code)),
            (None, Some(Some(leader))) => located.by_node.entry(*leader).or_default().push(item.clone()),
            (None, Some(None)) => located.nowhere.push((item.clone(), ResponseError::LeaderNotAvailable)),
            (None, None) => located.nowhere.push((item.clone(), ResponseError::UnknownTopicOrPartition)),
        }
    }
    Ok(located)
}

/// By topic, as requests have it.
pub(super) fn by_topic(items: &[TopicPartition]) -> BTreeMap<&str, Vec<i32>> {
    let mut topics: BTreeMap<&str, Vec<i32>> = BTreeMap::new();
    for item in items {
        topics.entry(&item.topic).or_default().push(item.partition);
    }
    topics
}
