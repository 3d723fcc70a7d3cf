//! Groups: which there are, their state and members, of the classic protocol and of the new one.

use std::collections::{BTreeMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::{Buf, Bytes};
use futures::StreamExt;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::consumer_group_describe_response as new_protocol;
use kafka_protocol::messages::describe_groups_response as classic;
use kafka_protocol::messages::{
    ConsumerGroupDescribeRequest, ConsumerProtocolAssignment, ConsumerProtocolSubscription,
    DescribeGroupsRequest, FindCoordinatorRequest, GroupId, ListGroupsRequest,
};
use kafka_protocol::protocol::{Decodable, StrBytes};
use serde::{Deserialize, Serialize};
use varve_format::Id;

use super::super::cluster::Client;
use super::super::connection::Connection;
use super::super::error::{ClientError, Result};
use super::error::{AdminError, AdminResult, Found, NeededAcl};
use super::routed::{Answers, Located, RoutedCall, run};

const GROUP_KEY: i8 = 0;
/// From this version on one request finds the coordinators of many groups.
const FIRST_BATCHED_VERSION: i16 = 4;
/// Groups in one FindCoordinator request.
const FIND_AT_ONCE: usize = 1000;
const BROKERS_AT_ONCE: usize = 8;

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct GroupListing {
    pub group_id: String,
    /// `classic`, `consumer`, or what a later Kafka has added (`share`, `streams`).
    pub group_type: String,
    /// `consumer` for consumers; empty where offsets were committed without membership.
    pub protocol_type: String,
    pub state: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupDescription {
    pub group_id: String,
    pub group_type: String,
    pub protocol_type: String,
    pub state: String,
    /// The assignor.
    pub assignor: String,
    /// Of the new protocol alone.
    pub group_epoch: Option<i32>,
    /// Of the new protocol alone.
    pub assignment_epoch: Option<i32>,
    pub members: Vec<GroupMemberState>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupMemberState {
    pub member_id: String,
    pub group_instance_id: Option<String>,
    pub client_id: String,
    pub client_host: String,
    pub rack_id: Option<String>,
    /// Of the new protocol alone.
    pub member_epoch: Option<i32>,
    pub subscribed_topics: Vec<String>,
    pub subscribed_topic_regex: Option<String>,
    /// `None` if it is not of the consumers' protocol, or not decodable.
    pub assignment: Option<Vec<AssignedTopic>>,
    /// Of the new protocol alone.
    pub target_assignment: Option<Vec<AssignedTopic>>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct AssignedTopic {
    pub topic: String,
    /// Known in the new protocol alone.
    pub topic_id: Option<String>,
    pub partitions: Vec<i32>,
}

impl Client {
    /// All groups, by id: every broker is asked for those that it coordinates. Without the ACL Describe on the
    /// cluster, Kafka leaves out the groups that we may not describe: then that is named as missing.
    pub async fn list_groups(&self) -> AdminResult<Found<GroupListing>> {
        let mut found = Found::default();
        self.metadata(Some(&[])).await.map_err(|e| AdminError::from_client("groups", e))?;
        let asked =
            self.known_nodes().into_iter().map(|node| async move { (node, self.groups_of(node).await) });
        let mut asked = futures::stream::iter(asked).buffer_unordered(BROKERS_AT_ONCE);
        // A group that moves meanwhile may be listed twice.
        let mut groups: BTreeMap<String, GroupListing> = BTreeMap::new();
        while let Some((node, listed)) = asked.next().await {
            match listed {
                Ok(listed) => groups.extend(listed.into_iter().map(|g| (g.group_id.clone(), g))),
                Err(error) => found.miss(format!("groups of broker {node}"), error),
            }
        }
        if !self.may_describe_cluster().await? {
            let what = "groups without the ACL Describe of their own".to_owned();
            let needs = NeededAcl::on_cluster("Describe");
            found.miss(what.clone(), AdminError::NotAuthorized { what, needs });
        }
        found.items = groups.into_values().collect();
        Ok(found)
    }

    async fn groups_of(&self, node: i32) -> AdminResult<Vec<GroupListing>> {
        let what = format!("groups of broker {node}");
        let mut backoff = self.backoff();
        loop {
            let asked = async { self.connection(node).await?.call(ListGroupsRequest::default()).await };
            let error = match asked.await {
                Ok(answer) => match ResponseError::try_from_code(answer.error_code) {
                    None => {
                        let listed = answer.groups.into_iter().map(|g| GroupListing {
                            group_id: g.group_id.0.to_string(),
                            group_type: g.group_type.to_ascii_lowercase(),
                            protocol_type: g.protocol_type.to_string(),
                            state: g.group_state.to_string(),
                        });
                        return Ok(listed.collect());
                    }
                    Some(code) if code.is_retriable() => ClientError::kafka(&what, code),
                    Some(code) => {
                        return Err(AdminError::from_code(what, code, NeededAcl::on_cluster("Describe")));
                    }
                },
                Err(e) => e,
            };
            backoff.wait_or_fail(&what, error).await.map_err(|e| AdminError::from_client(&what, e))?;
        }
    }

    /// The broker that coordinates a group.
    pub(crate) async fn group_coordinator(&self, group: &str) -> AdminResult<i32> {
        let what = format!("coordinator of group {group}");
        let groups = [group.to_owned()];
        let mut backoff = self.backoff();
        loop {
            let error = match locate_coordinators(self, &groups).await {
                Ok(located) => match (located.by_node.into_keys().next(), located.nowhere.into_iter().next())
                {
                    (Some(node), _) => return Ok(node),
                    (None, Some((_, code))) if !code.is_retriable() => {
                        return Err(AdminError::from_code(what, code, NeededAcl::on_group("Read", group)));
                    }
                    (None, Some((_, code))) => ClientError::kafka(&what, code),
                    (None, None) => ClientError::NoLeader { what: what.clone() },
                },
                Err(e) => e,
            };
            backoff.wait_or_fail(&what, error).await.map_err(|e| AdminError::from_client(&what, e))?;
        }
    }

    /// State and members of these groups, by id. Types other than classic and consumer are named as missing.
    pub async fn describe_groups(&self, groups: &[GroupListing]) -> AdminResult<Found<GroupDescription>> {
        let of_type = |wanted: &[&str]| {
            let those = groups.iter().filter(|g| wanted.contains(&g.group_type.as_str()));
            those.map(|g| g.group_id.clone()).collect::<Vec<String>>()
        };
        // Before 3.8 a broker doesn't tell types, and has classic groups alone.
        let mut found = run(self, &DescribeClassic, of_type(&["classic", ""])).await?;
        let newer = run(self, &DescribeConsumer, of_type(&["consumer"])).await?;
        found.items.extend(newer.items);
        found.missing.extend(newer.missing);
        for group in groups.iter().filter(|g| !["classic", "", "consumer"].contains(&g.group_type.as_str())) {
            let what = format!("members of group {}", group.group_id);
            let detail = format!("groups of type {} are listed, not described", group.group_type);
            found.miss(what.clone(), AdminError::Unsupported { what, detail });
        }
        found.items.sort_by(|a, b| a.group_id.cmp(&b.group_id));
        Ok(found)
    }
}

pub(super) async fn locate_coordinators(client: &Client, groups: &[String]) -> Result<Located<String>> {
    let mut located = Located::default();
    for part in groups.chunks(FIND_AT_ONCE) {
        let connection = client.any_connection().await?;
        if connection.version::<FindCoordinatorRequest>(i16::MAX)? < FIRST_BATCHED_VERSION {
            return Err(connection.too_old::<FindCoordinatorRequest>(FIRST_BATCHED_VERSION));
        }
        let keys = part.iter().map(|g| StrBytes::from_string(g.clone())).collect();
        let request = FindCoordinatorRequest::default().with_key_type(GROUP_KEY).with_coordinator_keys(keys);
        let answer = connection.call(request).await?;
        for coordinator in answer.coordinators {
            let group = coordinator.key.to_string();
            match ResponseError::try_from_code(coordinator.error_code) {
                Some(code) => located.nowhere.push((group, code)),
                None => located.by_node.entry(coordinator.node_id.0).or_default().push(group),
            }
        }
        if let Some(code) = ResponseError::try_from_code(answer.error_code) {
            return Err(ClientError::kafka("FindCoordinator", code));
        }
    }
    let known: HashSet<i32> = client.known_nodes().into_iter().collect();
    if located.by_node.keys().any(|node| !known.contains(node)) {
        client.metadata(Some(&[])).await?;
    }
    Ok(located)
}

fn group_ids(groups: &[String]) -> Vec<GroupId> {
    groups.iter().map(|g| GroupId(StrBytes::from_string(g.clone()))).collect()
}

struct DescribeClassic;

impl RoutedCall for DescribeClassic {
    type Item = String;
    type Answer = GroupDescription;
    const BATCH: usize = 50;
    const WHAT: &'static str = "members of groups";

    async fn locate(&self, client: &Client, items: &[String]) -> Result<Located<String>> {
        locate_coordinators(client, items).await
    }

    async fn ask(&self, connection: &Connection, items: &[String]) -> Result<Answers<Self>> {
        let request = DescribeGroupsRequest::default().with_groups(group_ids(items));
        let answer = connection.call(request).await?;
        let answers = answer.groups.into_iter().map(|group| {
            let id = group.group_id.0.to_string();
            match ResponseError::try_from_code(group.error_code) {
                Some(code) => (id, Err(code)),
                None => (id, Ok(describe_classic(group))),
            }
        });
        Ok(answers.collect())
    }

    fn needs(&self, item: &String) -> NeededAcl {
        NeededAcl::on_group("Describe", item)
    }
}

fn describe_classic(group: classic::DescribedGroup) -> GroupDescription {
    let is_consumer = group.protocol_type.as_str() == "consumer";
    let members = group.members.into_iter().map(|m| {
        let (mut subscribed_topics, mut assignment) = (Vec::new(), None);
        if is_consumer {
            subscribed_topics = subscription(m.member_metadata).unwrap_or_default();
            assignment = assigned(m.member_assignment);
        }
        GroupMemberState {
            member_id: m.member_id.to_string(),
            group_instance_id: m.group_instance_id.map(|i| i.to_string()),
            client_id: m.client_id.to_string(),
            client_host: m.client_host.to_string(),
            rack_id: None,
            member_epoch: None,
            subscribed_topics,
            subscribed_topic_regex: None,
            assignment,
            target_assignment: None,
        }
    });
    let mut members: Vec<GroupMemberState> = members.collect();
    members.sort_by(|a, b| a.member_id.cmp(&b.member_id));
    GroupDescription {
        group_id: group.group_id.0.to_string(),
        group_type: "classic".to_owned(),
        protocol_type: group.protocol_type.to_string(),
        state: group.group_state.to_string(),
        assignor: group.protocol_data.to_string(),
        group_epoch: None,
        assignment_epoch: None,
        members,
    }
}

/// What members tell each other is outside bytes, and the codec is not ours: no panic of it may get through.
fn decode<T: Decodable>(mut bytes: Bytes) -> Option<T> {
    // Later versions only add fields at the end.
    let version = bytes.try_get_i16().ok()?.clamp(0, 3);
    catch_unwind(AssertUnwindSafe(|| T::decode(&mut bytes, version).ok())).ok().flatten()
}

fn subscription(bytes: Bytes) -> Option<Vec<String>> {
    let decoded: ConsumerProtocolSubscription = decode(bytes)?;
    let mut topics: Vec<String> = decoded.topics.into_iter().map(|t| t.to_string()).collect();
    topics.sort();
    Some(topics)
}

fn assigned(bytes: Bytes) -> Option<Vec<AssignedTopic>> {
    // A member without an assignment yet.
    if bytes.is_empty() {
        return Some(Vec::new());
    }
    let decoded: ConsumerProtocolAssignment = decode(bytes)?;
    let topics = decoded.assigned_partitions.into_iter().map(|t| {
        let mut partitions = t.partitions;
        partitions.sort_unstable();
        AssignedTopic { topic: t.topic.0.to_string(), topic_id: None, partitions }
    });
    let mut topics: Vec<AssignedTopic> = topics.collect();
    topics.sort();
    Some(topics)
}

struct DescribeConsumer;

impl RoutedCall for DescribeConsumer {
    type Item = String;
    type Answer = GroupDescription;
    const BATCH: usize = 50;
    const WHAT: &'static str = "members of groups of the new protocol";

    async fn locate(&self, client: &Client, items: &[String]) -> Result<Located<String>> {
        locate_coordinators(client, items).await
    }

    async fn ask(&self, connection: &Connection, items: &[String]) -> Result<Answers<Self>> {
        let request = ConsumerGroupDescribeRequest::default().with_group_ids(group_ids(items));
        let answer = connection.call(request).await?;
        let answers = answer.groups.into_iter().map(|group| {
            let id = group.group_id.0.to_string();
            match ResponseError::try_from_code(group.error_code) {
                Some(code) => (id, Err(code)),
                None => (id, Ok(describe_consumer(group))),
            }
        });
        Ok(answers.collect())
    }

    /// Kafka refuses a group too if we may not describe a topic that its members have assigned.
    fn needs(&self, item: &String) -> NeededAcl {
        NeededAcl::on_group("Describe", item)
    }
}

fn describe_consumer(group: new_protocol::DescribedGroup) -> GroupDescription {
    let members = group.members.into_iter().map(|m| {
        let mut subscribed: Vec<String> =
            m.subscribed_topic_names.into_iter().map(|t| t.0.to_string()).collect();
        subscribed.sort();
        GroupMemberState {
            member_id: m.member_id.to_string(),
            group_instance_id: m.instance_id.map(|i| i.to_string()),
            client_id: m.client_id.to_string(),
            client_host: m.client_host.to_string(),
            rack_id: m.rack_id.map(|r| r.to_string()),
            member_epoch: Some(m.member_epoch),
            subscribed_topics: subscribed,
            subscribed_topic_regex: m.subscribed_topic_regex.map(|r| r.to_string()),
            assignment: Some(topics_of(m.assignment)),
            target_assignment: Some(topics_of(m.target_assignment)),
        }
    });
    let mut members: Vec<GroupMemberState> = members.collect();
    members.sort_by(|a, b| a.member_id.cmp(&b.member_id));
    GroupDescription {
        group_id: group.group_id.0.to_string(),
        group_type: "consumer".to_owned(),
        protocol_type: "consumer".to_owned(),
        state: group.group_state.to_string(),
        assignor: group.assignor_name.to_string(),
        group_epoch: Some(group.group_epoch),
        assignment_epoch: Some(group.assignment_epoch),
        members,
    }
}

fn topics_of(assignment: new_protocol::Assignment) -> Vec<AssignedTopic> {
    let topics = assignment.topic_partitions.into_iter().map(|t| {
        let mut partitions = t.partitions;
        partitions.sort_unstable();
        AssignedTopic {
            topic: t.topic_name.0.to_string(),
            topic_id: Some(Id(*t.topic_id.as_bytes()).to_string()),
            partitions,
        }
    });
    let mut topics: Vec<AssignedTopic> = topics.collect();
    topics.sort();
    topics
}
