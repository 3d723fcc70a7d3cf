//! Reassignments under way.

use kafka_protocol::messages::ListPartitionReassignmentsRequest;

use super::super::cluster::Client;
use super::error::{AdminResult, NeededAcl};
use super::leaders::TopicPartition;
use super::routed::any_broker;

const TIMEOUT_MS: i32 = 30_000;

impl Client {
    /// Partitions whose replicas are being moved.
    pub async fn list_reassignments(&self) -> AdminResult<Vec<TopicPartition>> {
        let request =
            ListPartitionReassignmentsRequest::default().with_topics(None).with_timeout_ms(TIMEOUT_MS);
        let needs = NeededAcl::on_cluster("Describe");
        let answer = any_broker(self, "reassignments", needs, &request, |a| a.error_code).await?;
        let partitions = answer.topics.iter().flat_map(|topic| {
            let name = topic.name.0.to_string();
            topic.partitions.iter().map(move |p| TopicPartition::new(name.clone(), p.partition_index))
        });
        Ok(partitions.collect())
    }
}
