//! Ending transactions whose coordinator knows nothing of them.

use kafka_protocol::messages::write_txn_markers_request::{WritableTxnMarker, WritableTxnMarkerTopic};
use kafka_protocol::messages::{ProducerId, TopicName, WriteTxnMarkersRequest, WriteTxnMarkersResponse};
use kafka_protocol::protocol::StrBytes;

use super::super::admin::{AdminResult, NeededAcl, TopicPartition};
use super::super::asking::Refused;
use super::super::cluster::Client;

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
        let ask = async || {
            let leader = self.leader_of(&partition.topic, partition.partition).await?;
            Ok(self.connection(leader).await?.call(request.clone()).await?)
        };
        let refused = |answer: &WriteTxnMarkersResponse| {
            let partitions = answer.markers.iter().flat_map(|m| &m.topics).flat_map(|t| &t.partitions);
            let needs = || NeededAcl::on_cluster("ClusterAction");
            Refused::worst(partitions.map(|p| Refused::by(p.error_code, needs())))
        };
        self.ask_until_done(&what, ask, refused).await.map(drop)
    }
}
