//! What groups have committed.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::offset_fetch_request::OffsetFetchRequestGroup;
use kafka_protocol::messages::offset_fetch_response::OffsetFetchResponseGroup;
use kafka_protocol::messages::{GroupId, OffsetFetchRequest};
use kafka_protocol::protocol::StrBytes;
use serde::{Deserialize, Serialize};

use super::super::cluster::Client;
use super::super::connection::Connection;
use super::super::error::Result;
use super::error::{AdminError, AdminResult, Found, NeededAcl};
use super::groups::locate_coordinators;
use super::routed::{Answers, Located, RoutedCall, run};

/// From this version on one request asks for many groups.
const FIRST_BATCHED_VERSION: i16 = 8;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupOffsets {
    pub group_id: String,
    pub offsets: Vec<CommittedOffset>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct CommittedOffset {
    pub topic: String,
    pub partition: i32,
    /// The next to be read.
    pub offset: i64,
    /// Of the last record that was read, if the committer told.
    pub leader_epoch: Option<i32>,
    pub metadata: String,
}

impl Client {
    /// All that these groups have committed, by group, topic and partition. A group with nothing committed has
    /// no offsets. Kafka leaves out topics that we may not describe, and says nothing of it; a commit that is
    /// part of an open transaction does not count yet.
    pub async fn committed_offsets(&self, groups: &[String]) -> AdminResult<Found<GroupOffsets>> {
        Ok(gathered(run(self, &FetchOffsets, groups.to_vec()).await?, "group"))
    }
}

/// Partitions of a group whose offset was refused.
pub(super) type Failed = Vec<(String, i32, ResponseError)>;

/// By group, topic and partition; what was refused is among the missing. `kind` of group, in words.
pub(super) fn gathered(fetched: Found<(GroupOffsets, Failed)>, kind: &str) -> Found<GroupOffsets> {
    let mut found = Found { items: Vec::new(), missing: fetched.missing };
    for (mut group, failed) in fetched.items {
        for (topic, partition, code) in failed {
            let what = format!("{topic}-{partition} in {kind} {}", group.group_id);
            let needs = NeededAcl::on_topic("Describe", &topic);
            found.miss(what.clone(), AdminError::from_code(what, code, needs));
        }
        group.offsets.sort();
        found.items.push(group);
    }
    found.items.sort_by(|a, b| a.group_id.cmp(&b.group_id));
    found
}

struct FetchOffsets;

impl RoutedCall for FetchOffsets {
    type Item = String;
    type Answer = (GroupOffsets, Failed);
    const BATCH: usize = 25;
    const WHAT: &'static str = "committed offsets";

    async fn locate(&self, client: &Client, items: &[String]) -> Result<Located<String>> {
        locate_coordinators(client, items).await
    }

    async fn ask(&self, connection: &Connection, items: &[String]) -> Result<Answers<Self>> {
        if connection.version::<OffsetFetchRequest>(i16::MAX)? < FIRST_BATCHED_VERSION {
            return Err(connection.too_old::<OffsetFetchRequest>(FIRST_BATCHED_VERSION));
        }
        let groups = items.iter().map(|group| {
            OffsetFetchRequestGroup::default()
                .with_group_id(GroupId(StrBytes::from_string(group.clone())))
                .with_member_id(None)
                .with_member_epoch(-1)
                .with_topics(None)
        });
        let request = OffsetFetchRequest::default().with_groups(groups.collect());
        let answer = connection.call(request).await?;
        Ok(answer.groups.into_iter().map(take_group).collect())
    }

    fn needs(&self, item: &String) -> NeededAcl {
        NeededAcl::on_group("Describe", item)
    }
}

fn take_group(group: OffsetFetchResponseGroup) -> (String, Result<(GroupOffsets, Failed), ResponseError>) {
    let group_id = group.group_id.0.to_string();
    if let Some(code) = ResponseError::try_from_code(group.error_code) {
        return (group_id, Err(code));
    }
    let mut found = GroupOffsets { group_id: group_id.clone(), offsets: Vec::new() };
    let mut failed = Vec::new();
    for topic in group.topics {
        for p in topic.partitions {
            let committed = CommittedOffset {
                topic: topic.name.0.to_string(),
                partition: p.partition_index,
                offset: p.committed_offset,
                leader_epoch: Some(p.committed_leader_epoch).filter(|e| *e >= 0),
                metadata: p.metadata.map(|m| m.to_string()).unwrap_or_default(),
            };
            match ResponseError::try_from_code(p.error_code) {
                Some(code) => failed.push((committed.topic, committed.partition, code)),
                None if committed.offset < 0 => {}
                None => found.offsets.push(committed),
            }
        }
    }
    (group_id, Ok((found, failed)))
}
