//! Moving the start of a log.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
use kafka_protocol::messages::{DeleteRecordsRequest, TopicName};
use kafka_protocol::protocol::StrBytes;

use super::super::admin::{AdminError, AdminResult, NeededAcl, TopicPartition};
use super::super::cluster::Client;
use super::super::error::ClientError;

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
        let mut backoff = self.backoff();
        loop {
            let asked = async {
                let topic = self.topic(&place.topic).await?;
                let known = topic.partitions.iter().find(|p| p.partition == place.partition);
                let leader = known.and_then(|p| p.leader_id);
                let leader = leader.ok_or_else(|| ClientError::NoLeader { what: place.to_string() })?;
                self.connection(leader).await?.call(request.clone()).await
            };
            let error = match asked.await {
                Ok(answer) => {
                    let mut codes = answer.topics.iter().flat_map(|t| &t.partitions).map(|p| p.error_code);
                    match codes.find_map(ResponseError::try_from_code) {
                        None => return Ok(()),
                        Some(code) if code.is_retriable() => ClientError::kafka(&what, code),
                        Some(code) => {
                            let needs = NeededAcl::on_topic("Delete", &place.topic);
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
