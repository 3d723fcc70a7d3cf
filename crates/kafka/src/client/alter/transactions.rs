//! Ending transactions whose coordinator knows nothing of them.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::write_txn_markers_request::{WritableTxnMarker, WritableTxnMarkerTopic};
use kafka_protocol::messages::{ProducerId, TopicName, WriteTxnMarkersRequest};
use kafka_protocol::protocol::StrBytes;

use super::super::admin::{AdminError, AdminResult, NeededAcl, TopicPartition};
use super::super::cluster::Client;
use super::super::error::ClientError;

/// A producer with an open transaction in a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenProducer {
    pub producer_id: i64,
    pub producer_epoch: i16,
}

impl Client {
    /// Writes the marker that aborts it, at the end of the partition's log, as `kafka-transactions abort` does.
    pub async fn abort_open(&self, partition: &TopicPartition, producer: OpenProducer) -> AdminResult<()> {
        let what =
            format!("aborting the open transaction of producer {} in {partition}", producer.producer_id);
        let topic = WritableTxnMarkerTopic::default()
            .with_name(TopicName(StrBytes::from_string(partition.topic.clone())))
            .with_partition_indexes(vec![partition.partition]);
        let marker = WritableTxnMarker::default()
            .with_producer_id(ProducerId(producer.producer_id))
            .with_producer_epoch(producer.producer_epoch)
            .with_transaction_result(false)
            .with_topics(vec![topic])
            .with_coordinator_epoch(0);
        let request = WriteTxnMarkersRequest::default().with_markers(vec![marker]);
        let mut backoff = self.backoff();
        loop {
            let asked = async {
                let metadata = self.metadata(Some(&[&partition.topic])).await?;
                let known = metadata.topics.iter().flat_map(|t| &t.partitions);
                let leader = known.filter(|p| p.partition == partition.partition).find_map(|p| p.leader_id);
                let leader = leader.ok_or_else(|| ClientError::NoLeader { what: partition.to_string() })?;
                self.connection(leader).await?.call(request.clone()).await
            };
            let error = match asked.await {
                Ok(answer) => {
                    let partitions =
                        answer.markers.iter().flat_map(|m| &m.topics).flat_map(|t| &t.partitions);
                    match partitions.map(|p| p.error_code).find_map(ResponseError::try_from_code) {
                        None => return Ok(()),
                        Some(code) if code.is_retriable() => ClientError::kafka(&what, code),
                        Some(code) => {
                            let needs = NeededAcl::on_cluster("ClusterAction");
                            return Err(AdminError::refused(what, code, needs));
                        }
                    }
                }
                Err(e) => e,
            };
            backoff.wait_or_fail(&what, error).await?;
        }
    }
}
