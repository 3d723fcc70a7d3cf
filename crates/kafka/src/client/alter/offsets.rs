//! Committing a group's offsets from outside of it.

use std::collections::BTreeMap;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka_protocol::messages::{GroupId, OffsetCommitRequest, OffsetCommitResponse, TopicName};
use kafka_protocol::protocol::StrBytes;

use super::super::admin::{AdminResult, CommittedOffset, NeededAcl};
use super::super::asking::Refused;
use super::super::cluster::Client;

/// The last that names topics by name; the codec knows later ones.
const VERSION_MAX: i16 = 9;

impl Client {
    /// Commits these offsets for a group that has no member: with one, the broker refuses.
    pub async fn commit_offsets(&self, group: &str, offsets: &[CommittedOffset]) -> AdminResult<()> {
        let what = format!("committing offsets of group {group}");
        let mut topics: BTreeMap<&str, Vec<OffsetCommitRequestPartition>> = BTreeMap::new();
        for offset in offsets {
            let partition = OffsetCommitRequestPartition::default()
                .with_partition_index(offset.partition)
                .with_committed_offset(offset.offset)
                .with_committed_leader_epoch(offset.leader_epoch.unwrap_or(-1))
                .with_committed_metadata(Some(StrBytes::from_string(offset.metadata.clone())));
            topics.entry(&offset.topic).or_default().push(partition);
        }
        let topics = topics.into_iter().map(|(topic, partitions)| {
            OffsetCommitRequestTopic::default()
                .with_name(TopicName(StrBytes::from_string(topic.to_owned())))
                .with_partitions(partitions)
        });
        let request = OffsetCommitRequest::default()
            .with_group_id(GroupId(StrBytes::from_string(group.to_owned())))
            .with_generation_id_or_member_epoch(-1)
            .with_topics(topics.collect());
        let ask = async || {
            let coordinator = self.group_coordinator(group).await?;
            let connection = self.connection(coordinator).await?;
            let version = connection.version::<OffsetCommitRequest>(VERSION_MAX)?;
            Ok(connection.call_version(request.clone(), version).await?)
        };
        let refused = |answer: &OffsetCommitResponse| {
            let codes = answer.topics.iter().flat_map(|topic| {
                topic.partitions.iter().map(|p| {
                    let name = topic.name.0.as_str();
                    let needs = match ResponseError::try_from_code(p.error_code) {
                        Some(ResponseError::TopicAuthorizationFailed) => NeededAcl::on_topic("Read", name),
                        _ => NeededAcl::on_group("Read", group),
                    };
                    Refused::of(p.error_code, &format!("{name}-{}", p.partition_index), needs)
                })
            });
            Refused::worst(codes)
        };
        self.ask_until_done(&what, ask, refused).await.map(drop)
    }
}
