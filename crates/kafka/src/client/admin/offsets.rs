//! Offsets of many partitions: where logs begin and end, and where leader epochs end.

use std::collections::{BTreeMap, HashMap};

use kafka_protocol::ResponseError;
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::offset_for_leader_epoch_request::{
    OffsetForLeaderPartition, OffsetForLeaderTopic,
};
use kafka_protocol::messages::{BrokerId, ListOffsetsRequest, OffsetForLeaderEpochRequest, TopicName};
use kafka_protocol::protocol::StrBytes;
use serde::{Deserialize, Serialize};

use super::super::cluster::Client;
use super::super::connection::Connection;
use super::super::error::Result;
use super::super::list_offsets::OffsetSpec;
use super::error::{AdminResult, Found, NeededAcl};
use super::leaders::{TopicPartition, by_topic, locate_leaders};
use super::routed::{Answers, Located, RoutedCall, run};

const ANY_CONSUMER: BrokerId = BrokerId(-1);

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionOffset {
    pub topic: String,
    pub partition: i32,
    /// `None`: there is no such record.
    pub offset: Option<i64>,
    /// Of the record there, where one was looked for by time.
    pub timestamp_ms: Option<i64>,
    /// Of the record there.
    pub leader_epoch: Option<i32>,
}

/// Which leader epoch's end is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AskedEpoch {
    pub partition: TopicPartition,
    pub leader_epoch: i32,
    /// If given, a broker that leads in another epoch refuses.
    pub current_leader_epoch: Option<i32>,
}

/// Where a leader epoch ends in the leader's log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EpochEnd {
    pub topic: String,
    pub partition: i32,
    /// The epoch asked for, or the last one before it that the log holds. `None` if it holds none: no data of
    /// it, or of any before it, is there.
    pub leader_epoch: Option<i32>,
    /// Behind the last record of that epoch.
    pub end_offset: Option<i64>,
}

impl Client {
    /// One offset per partition, by topic and partition; one request per leader and 1,000 partitions.
    pub async fn list_offsets_of(
        &self,
        partitions: &[TopicPartition],
        spec: OffsetSpec,
    ) -> AdminResult<Found<PartitionOffset>> {
        let mut found = run(self, &ListOffsets(spec), partitions.to_vec()).await?;
        found.items.sort_by(|a, b| (&a.topic, a.partition).cmp(&(&b.topic, b.partition)));
        Ok(found)
    }

    /// For each partition the end of a leader epoch, as its current leader has it.
    pub async fn ends_of_leader_epochs(&self, asked: &[AskedEpoch]) -> AdminResult<Found<EpochEnd>> {
        let call = EndOfEpoch(asked.iter().map(|a| (a.partition.clone(), a.clone())).collect());
        let partitions = asked.iter().map(|a| a.partition.clone()).collect();
        let mut found = run(self, &call, partitions).await?;
        found.items.sort_by(|a, b| (&a.topic, a.partition).cmp(&(&b.topic, b.partition)));
        Ok(found)
    }
}

struct ListOffsets(OffsetSpec);

impl RoutedCall for ListOffsets {
    type Item = TopicPartition;
    type Answer = PartitionOffset;
    const BATCH: usize = 1000;
    const WHAT: &'static str = "offsets";

    async fn locate(&self, client: &Client, items: &[TopicPartition]) -> Result<Located<TopicPartition>> {
        locate_leaders(client, items).await
    }

    async fn ask(&self, connection: &Connection, items: &[TopicPartition]) -> Result<Answers<Self>> {
        let version = connection.version::<ListOffsetsRequest>(i16::MAX)?;
        if version < self.0.first_version() {
            return Err(connection.too_old::<ListOffsetsRequest>(self.0.first_version()));
        }
        let topics = by_topic(items).into_iter().map(|(topic, partitions)| {
            let partitions = partitions.into_iter().map(|p| {
                ListOffsetsPartition::default()
                    .with_partition_index(p)
                    .with_current_leader_epoch(-1)
                    .with_timestamp(self.0.timestamp())
            });
            ListOffsetsTopic::default()
                .with_name(TopicName(StrBytes::from_string(topic.to_owned())))
                .with_partitions(partitions.collect())
        });
        let timeout_ms = i32::try_from(connection.request_timeout().as_millis()).unwrap_or(i32::MAX);
        let request = ListOffsetsRequest::default()
            .with_replica_id(ANY_CONSUMER)
            .with_isolation_level(self.0.isolation_level())
            .with_timeout_ms(timeout_ms)
            .with_topics(topics.collect());
        let answer = connection.call_version(request, version).await?;
        let mut answers = Vec::with_capacity(items.len());
        for topic in answer.topics {
            for p in topic.partitions {
                let item = TopicPartition::new(topic.name.0.as_str(), p.partition_index);
                let outcome = match ResponseError::try_from_code(p.error_code) {
                    Some(code) => Err(code),
                    None => Ok(PartitionOffset {
                        topic: item.topic.clone(),
                        partition: item.partition,
                        offset: Some(p.offset).filter(|o| *o >= 0),
                        timestamp_ms: Some(p.timestamp).filter(|t| *t >= 0),
                        leader_epoch: Some(p.leader_epoch).filter(|e| *e >= 0),
                    }),
                };
                answers.push((item, outcome));
            }
        }
        Ok(answers)
    }

    fn needs(&self, item: &TopicPartition) -> NeededAcl {
        NeededAcl::on_topic("Describe", &item.topic)
    }
}

struct EndOfEpoch(HashMap<TopicPartition, AskedEpoch>);

impl RoutedCall for EndOfEpoch {
    type Item = TopicPartition;
    type Answer = EpochEnd;
    const BATCH: usize = 1000;
    const WHAT: &'static str = "ends of leader epochs";

    async fn locate(&self, client: &Client, items: &[TopicPartition]) -> Result<Located<TopicPartition>> {
        locate_leaders(client, items).await
    }

    async fn ask(&self, connection: &Connection, items: &[TopicPartition]) -> Result<Answers<Self>> {
        let asked: Vec<AskedEpoch> = items.iter().filter_map(|item| self.0.get(item).cloned()).collect();
        ends_of_epochs(connection, &asked).await
    }

    fn needs(&self, item: &TopicPartition) -> NeededAcl {
        NeededAcl::on_topic("Describe", &item.topic)
    }
}

/// Of one broker, each of another partition.
pub(in crate::client) async fn ends_of_epochs(
    connection: &Connection,
    asked: &[AskedEpoch],
) -> Result<Vec<(TopicPartition, Result<EpochEnd, ResponseError>)>> {
    let mut topics: BTreeMap<&str, Vec<OffsetForLeaderPartition>> = BTreeMap::new();
    for one in asked {
        let partition = OffsetForLeaderPartition::default()
            .with_partition(one.partition.partition)
            .with_current_leader_epoch(one.current_leader_epoch.unwrap_or(-1))
            .with_leader_epoch(one.leader_epoch);
        topics.entry(&one.partition.topic).or_default().push(partition);
    }
    let topics = topics.into_iter().map(|(topic, partitions)| {
        OffsetForLeaderTopic::default()
            .with_topic(TopicName(StrBytes::from_string(topic.to_owned())))
            .with_partitions(partitions)
    });
    let request =
        OffsetForLeaderEpochRequest::default().with_replica_id(ANY_CONSUMER).with_topics(topics.collect());
    let answer = connection.call(request).await?;
    let mut answers = Vec::with_capacity(asked.len());
    for topic in answer.topics {
        for p in topic.partitions {
            let item = TopicPartition::new(topic.topic.0.as_str(), p.partition);
            let outcome = match ResponseError::try_from_code(p.error_code) {
                Some(code) => Err(code),
                None => Ok(EpochEnd {
                    topic: item.topic.clone(),
                    partition: item.partition,
                    leader_epoch: Some(p.leader_epoch).filter(|e| *e >= 0),
                    end_offset: Some(p.end_offset).filter(|o| *o >= 0),
                }),
            };
            answers.push((item, outcome));
        }
    }
    Ok(answers)
}
