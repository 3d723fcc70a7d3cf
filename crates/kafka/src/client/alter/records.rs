//! Moving the start of a log.

use kafka_protocol::messages::delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
use kafka_protocol::messages::{DeleteRecordsRequest, DeleteRecordsResponse, TopicName};
use kafka_protocol::protocol::StrBytes;

use super::super::admin::{AdminResult, NeededAcl, TopicPartition};
use super::super::asking::Refused;
use super::super::cluster::Client;

const TIMEOUT_MS: i32 = 60_000;

impl Client {
    /// Deletes what is before `offset`: the log starts there then.
    pub async fn delete_records(&self, place: &TopicPartition, offset: i64) -> AdminResult<()> {
        let what = format!("deleting the records of {place} before offset {offset}");
        let partition =
            DeleteRecordsPartition::default().with_partition_index(place.partition).with_offset(offset);
        let topic = DeleteRecordsTopic::default()
            .with_name(TopicName(StrBytes::from_string(place.topic.clone())))
            .with_partitions(vec![partition]);
        let request = DeleteRecordsRequest::default().with_topics(vec![topic]).with_timeout_ms(TIMEOUT_MS);
        let ask = async || {
            let leader = self.leader_of(&place.topic, place.partition).await?;
            Ok(self.connection(leader).await?.call(request.clone()).await?)
        };
        let refused = |answer: &DeleteRecordsResponse| {
            let codes = answer.topics.iter().flat_map(|t| &t.partitions).map(|p| p.error_code);
            let needs = || NeededAcl::on_topic("Delete", &place.topic);
            Refused::worst(codes.map(|code| Refused::by(code, needs())))
        };
        self.ask_until_done(&what, ask, refused).await.map(drop)
    }
}
