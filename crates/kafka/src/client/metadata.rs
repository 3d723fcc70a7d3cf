//! What a cluster says of itself.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::{MetadataRequest, MetadataResponse, TopicName, metadata_request};
use kafka_protocol::protocol::StrBytes;
use varve_format::Id;

use super::config::HostPort;
use super::connection::Connection;
use super::error::{ClientError, Result};

#[derive(Clone, Debug)]
pub struct ClusterMetadata {
    pub cluster_id: Option<String>,
    pub brokers: Vec<BrokerNode>,
    pub topics: Vec<TopicMetadata>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerNode {
    pub node_id: i32,
    pub address: HostPort,
}

#[derive(Clone, Debug)]
pub struct TopicMetadata {
    pub name: String,
    pub topic_id: Id,
    pub is_internal: bool,
    /// In the order of their numbers.
    pub partitions: Vec<PartitionMetadata>,
    pub error: Option<ResponseError>,
}

#[derive(Clone, Debug)]
pub struct PartitionMetadata {
    pub partition: i32,
    /// `None` while there is none.
    pub leader_id: Option<i32>,
    pub leader_epoch: i32,
    pub replicas: Vec<i32>,
    pub isr: Vec<i32>,
}

/// `None` asks for all topics. No topic is created by asking.
pub(crate) async fn ask(connection: &Connection, topics: Option<&[&str]>) -> Result<ClusterMetadata> {
    let topics = topics.map(|names| {
        let topic = |name: &&str| {
            let name = TopicName(StrBytes::from_string((*name).to_owned()));
            metadata_request::MetadataRequestTopic::default().with_name(Some(name))
        };
        names.iter().map(topic).collect()
    });
    let request = MetadataRequest::default().with_topics(topics).with_allow_auto_topic_creation(false);
    let answer = connection.call(request).await?;
    if let Some(code) = ResponseError::try_from_code(answer.error_code) {
        return Err(ClientError::kafka("Metadata", code));
    }
    parse(answer, connection.broker())
}

fn parse(answer: MetadataResponse, broker: &str) -> Result<ClusterMetadata> {
    let mut brokers = Vec::with_capacity(answer.brokers.len());
    for node in &answer.brokers {
        let port = u16::try_from(node.port).map_err(|_| ClientError::Codec {
            broker: broker.to_owned(),
            request: "Metadata".to_owned(),
            detail: format!("node {} has port {}", node.node_id.0, node.port),
        })?;
        let address = HostPort { host: node.host.to_string(), port };
        brokers.push(BrokerNode { node_id: node.node_id.0, address });
    }
    let topics = answer.topics.into_iter().map(|topic| {
        let mut partitions: Vec<PartitionMetadata> = topic
            .partitions
            .into_iter()
            .map(|p| PartitionMetadata {
                partition: p.partition_index,
                leader_id: Some(p.leader_id.0).filter(|id| *id >= 0),
                leader_epoch: p.leader_epoch,
                replicas: p.replica_nodes.into_iter().map(|n| n.0).collect(),
                isr: p.isr_nodes.into_iter().map(|n| n.0).collect(),
            })
            .collect();
        partitions.sort_by_key(|p| p.partition);
        TopicMetadata {
            name: topic.name.map(|n| n.0.to_string()).unwrap_or_default(),
            topic_id: Id(*topic.topic_id.as_bytes()),
            is_internal: topic.is_internal,
            partitions,
            error: ResponseError::try_from_code(topic.error_code),
        }
    });
    Ok(ClusterMetadata {
        cluster_id: answer.cluster_id.map(|id| id.to_string()),
        brokers,
        topics: topics.collect(),
    })
}
