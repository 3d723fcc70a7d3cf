//! Committing a group's offsets from outside of it.

use std::collections::BTreeMap;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka_protocol::messages::{GroupId, OffsetCommitRequest, TopicName};
use kafka_protocol::protocol::StrBytes;

use super::super::admin::{AdminError, AdminResult, CommittedOffset, NeededAcl};
use super::super::cluster::Client;
use super::super::error::ClientError;

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
        let mut backoff = self.backoff();
        loop {
            let coordinator = self.group_coordinator(group).await?;
            let asked = async {
                let connection = self.connection(coordinator).await?;
                let version = connection.version::<OffsetCommitRequest>(VERSION_MAX)?;
                connection.call_version(request.clone(), version).await
            };
            let error = match asked.await {
                Ok(answer) => {
                    let codes = answer.topics.iter().flat_map(|topic| {
                        let name = topic.name.0.as_str();
                        topic.partitions.iter().map(move |p| (name, p.partition_index, p.error_code))
                    });
                    let refused = codes.filter_map(|(topic, partition, code)| {
                        Some((topic, partition, ResponseError::try_from_code(code)?))
                    });
                    match refused.last() {
                        None => return Ok(()),
                        Some((topic, partition, code)) if !code.is_retriable() => {
                            let what = format!("{what}, {topic}-{partition}");
                            let needs = match code {
                                ResponseError::TopicAuthorizationFailed => NeededAcl::on_topic("Read", topic),
                                _ => NeededAcl::on_group("Read", group),
                            };
                            return Err(AdminError::refused(what, code, needs));
                        }
                        Some((_, _, code)) => ClientError::kafka(&what, code),
                    }
                }
                Err(e) => e,
            };
            backoff.wait_or_fail(&what, error).await?;
        }
    }
}
