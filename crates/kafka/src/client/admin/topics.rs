//! All topics, as the cluster lists them.

use serde::{Deserialize, Serialize};

use super::super::cluster::Client;
use super::super::metadata::TopicMetadata;
use super::error::{AdminError, AdminResult};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicDescription {
    pub name: String,
    /// In Kafka's text form.
    pub topic_id: String,
    pub is_internal: bool,
    pub partitions: Vec<PartitionDescription>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionDescription {
    pub partition: i32,
    /// `None` while there is none.
    pub leader_id: Option<i32>,
    pub leader_epoch: i32,
    /// The preferred leader first.
    pub replicas: Vec<i32>,
    pub isr: Vec<i32>,
}

impl Client {
    /// By name. Topics without the ACL Describe are not among them, and Kafka does not say that there are any.
    /// It is one answer: `receive.message.max.bytes` bounds it, which by default is room for some million
    /// replicas.
    pub async fn list_topics(&self) -> AdminResult<Vec<TopicDescription>> {
        let metadata = self.metadata(None).await.map_err(|e| AdminError::from_client("topics", e))?;
        let mut topics: Vec<TopicDescription> = metadata.topics.into_iter().map(describe).collect();
        topics.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(topics)
    }
}

fn describe(topic: TopicMetadata) -> TopicDescription {
    let partitions = topic.partitions.into_iter().map(|p| {
        let mut isr = p.isr;
        isr.sort_unstable();
        PartitionDescription {
            partition: p.partition,
            leader_id: p.leader_id,
            leader_epoch: p.leader_epoch,
            replicas: p.replicas,
            isr,
        }
    });
    TopicDescription {
        name: topic.name,
        topic_id: topic.topic_id.to_string(),
        is_internal: topic.is_internal,
        partitions: partitions.collect(),
    }
}
