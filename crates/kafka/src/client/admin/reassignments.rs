//! Reassignments under way.

use kafka_protocol::messages::ListPartitionReassignmentsRequest;

use super::super::asking::Refused;
use super::super::cluster::Client;
use super::error::{AdminResult, NeededAcl};
use super::leaders::TopicPartition;

const TIMEOUT_MS: i32 = 30_000;

impl Client {
    /// Partitions whose replicas are being moved.
    pub async fn list_reassignments(&self) -> AdminResult<Vec<TopicPartition>> {
        let request =
            ListPartitionReassignmentsRequest::default().with_topics(None).with_timeout_ms(TIMEOUT_MS);
        let needs = NeededAcl::on_cluster("Describe");
        let answer = self
            .ask_any_broker("reassignments", &request, |a| Refused::by(a.error_code, needs.clone()))
            .await?;
        let partitions = answer.topics.iter().flat_map(|topic| {
            let name = topic.name.0.to_string();
            topic.partitions.iter().map(move |p| TopicPartition::new(name.clone(), p.partition_index))
        });
        Ok(partitions.collect())
    }
}
