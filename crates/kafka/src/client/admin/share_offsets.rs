//! Where share groups stand: they commit no offsets, but have a first offset that is not done with.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::describe_share_group_offsets_request::DescribeShareGroupOffsetsRequestGroup;
use kafka_protocol::messages::describe_share_group_offsets_response::DescribeShareGroupOffsetsResponseGroup;
use kafka_protocol::messages::{DescribeShareGroupOffsetsRequest, GroupId};
use kafka_protocol::protocol::StrBytes;

use super::super::cluster::Client;
use super::super::connection::Connection;
use super::super::error::Result;
use super::error::{AdminResult, Found, NeededAcl};
use super::group_offsets::{CommittedOffset, Failed, GroupOffsets, gathered};
use super::groups::locate_coordinators;
use super::routed::{Answers, Located, RoutedCall, run};

impl Client {
    /// The start offsets of share groups, by group, topic and partition. Kafka leaves out topics that we may not
    /// describe, and says nothing of it.
    pub async fn share_group_offsets(&self, groups: &[String]) -> AdminResult<Found<GroupOffsets>> {
        Ok(gathered(run(self, &DescribeShareOffsets, groups.to_vec()).await?, "share group"))
    }
}

struct DescribeShareOffsets;

impl RoutedCall for DescribeShareOffsets {
    type Item = String;
    type Answer = (GroupOffsets, Failed);
    const BATCH: usize = 25;
    const WHAT: &'static str = "offsets of share groups";

    async fn locate(&self, client: &Client, items: &[String]) -> Result<Located<String>> {
        locate_coordinators(client, items).await
    }

    async fn ask(&self, connection: &Connection, items: &[String]) -> Result<Answers<Self>> {
        let groups = items.iter().map(|group| {
            DescribeShareGroupOffsetsRequestGroup::default()
                .with_group_id(GroupId(StrBytes::from_string(group.clone())))
                .with_topics(None)
        });
        let request = DescribeShareGroupOffsetsRequest::default().with_groups(groups.collect());
        let answer = connection.call(request).await?;
        Ok(answer.groups.into_iter().map(take_group).collect())
    }

    fn needs(&self, item: &String) -> NeededAcl {
        NeededAcl::on_group("Describe", item)
    }
}

fn take_group(
    group: DescribeShareGroupOffsetsResponseGroup,
) -> (String, Result<(GroupOffsets, Failed), ResponseError>) {
    let group_id = group.group_id.0.to_string();
    if let Some(code) = ResponseError::try_from_code(group.error_code) {
        return (group_id, Err(code));
    }
    let mut found = GroupOffsets { group_id: group_id.clone(), offsets: Vec::new() };
    let mut failed = Vec::new();
    for topic in group.topics {
        for p in topic.partitions {
            let name = topic.topic_name.0.to_string();
            match ResponseError::try_from_code(p.error_code) {
                Some(code) => failed.push((name, p.partition_index, code)),
                // Not initialized yet.
                None if p.start_offset < 0 => {}
                None => found.offsets.push(CommittedOffset {
                    topic: name,
                    partition: p.partition_index,
                    offset: p.start_offset,
                    leader_epoch: Some(p.leader_epoch).filter(|e| *e >= 0),
                    metadata: String::new(),
                }),
            }
        }
    }
    (group_id, Ok((found, failed)))
}
