//! Where a log ends for good.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::offset_for_leader_epoch_request::{
    OffsetForLeaderPartition, OffsetForLeaderTopic,
};
use kafka_protocol::messages::{BrokerId, OffsetForLeaderEpochRequest, TopicName};
use kafka_protocol::protocol::StrBytes;
use varve_format::Id;

use super::super::cluster::Client;
use super::super::connection::Connection;
use super::super::error::{ClientError, Result};
use super::super::list_offsets::{self, OffsetSpec};

const ANY_CONSUMER: BrokerId = BrokerId(-1);

/// See [`Client::settled_end`].
#[derive(Clone, Copy, Debug)]
pub(super) struct SettledEnd {
    pub(super) leader: i32,
    pub(super) offset: i64,
}

impl Client {
    /// The end of the leader's log, if all replicas in sync have all of it: consumers can read up to there, and nothing
    /// that was appended before is behind it.
    ///
    /// # Errors
    /// [`ClientError::NotInSync`], and what else may pass; another topic of that name.
    pub(super) async fn settled_end(&self, topic: &str, topic_id: Id, partition: i32) -> Result<SettledEnd> {
        let found = self.topic(topic).await?;
        if found.topic_id != topic_id {
            return Err(ClientError::NoSuchTopic { topic: format!("{topic} with id {topic_id}") });
        }
        let what = format!("{topic}-{partition}");
        let known = found.partitions.iter().find(|p| p.partition == partition);
        let Some((leader, epoch)) = known.and_then(|p| Some((p.leader_id?, p.leader_epoch))) else {
            return Err(ClientError::NoLeader { what });
        };
        let connection = self.connection(leader).await?;
        let end = end_of_log(&connection, topic, partition, epoch).await?;
        let answers = list_offsets::ask(&connection, topic, &[partition], OffsetSpec::Latest).await?;
        let high_watermark = match answers.into_iter().find(|(p, _)| *p == partition) {
            Some((_, answer)) => answer?.unwrap_or(0),
            None => return Err(ClientError::Log { what, detail: "an answer about nothing".to_owned() }),
        };
        match high_watermark < end {
            true => Err(ClientError::NotInSync { what, end, high_watermark }),
            false => Ok(SettledEnd { leader, offset: high_watermark }),
        }
    }
}

/// Of the leader that has this epoch: that is where its own epoch ends.
async fn end_of_log(connection: &Connection, topic: &str, partition: i32, epoch: i32) -> Result<i64> {
    let asked = OffsetForLeaderPartition::default()
        .with_partition(partition)
        .with_current_leader_epoch(epoch)
        .with_leader_epoch(epoch);
    let asked = OffsetForLeaderTopic::default()
        .with_topic(TopicName(StrBytes::from_string(topic.to_owned())))
        .with_partitions(vec![asked]);
    let request =
        OffsetForLeaderEpochRequest::default().with_replica_id(ANY_CONSUMER).with_topics(vec![asked]);
    let answer = connection.call(request).await?;
    let what = format!("{topic}-{partition}");
    let Some(found) = answer.topics.into_iter().flat_map(|t| t.partitions).next() else {
        return Err(ClientError::Log { what, detail: "an answer about nothing".to_owned() });
    };
    match ResponseError::try_from_code(found.error_code) {
        Some(code) => Err(ClientError::kafka(what, code)),
        // It has not begun its epoch yet.
        None if found.leader_epoch != epoch || found.end_offset < 0 => Err(ClientError::NoLeader { what }),
        None => Ok(found.end_offset),
    }
}
