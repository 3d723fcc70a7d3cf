//! Groups: read first and apart, since a recovery point must not hold offsets beyond the data that it has.
//!
//! The order is the caller's: (1) [`collect_groups`], (2) read the logs' ends, and wait until the archive reaches them,
//! or name what lags, (3) `collect_rest`.

use std::collections::{BTreeMap, BTreeSet};

use varve_kafka::client::Client;
use varve_kafka::client::admin::{
    AssignedTopic, CommittedOffset, GroupDescription, GroupListing, GroupMemberState, GroupOffsets,
};

use super::collect::StateError;
use super::document::{Assigned, Committed, Group, Member, ObservedGroup, TopicOffsets};
use super::missing::MissingList;
use super::parts::{Part, StateParts};

const SHARE: &str = "share";

/// What groups have committed, and how they were.
#[derive(Debug, Default)]
pub struct CollectedGroups {
    pub(super) groups: Vec<Group>,
    pub(super) observed: Vec<ObservedGroup>,
    pub(super) missing: MissingList,
}

impl CollectedGroups {
    pub fn groups(&self) -> &[Group] {
        &self.groups
    }
}

/// All groups with their offsets, states and members.
///
/// # Errors
/// If brokers fail; what they refuse, and single groups that fail, are among the missing.
pub async fn collect_groups(client: &Client, wanted: &StateParts) -> Result<CollectedGroups, StateError> {
    let mut collected = CollectedGroups::default();
    if !wanted.has(Part::Groups) {
        return Ok(collected);
    }
    let missing = &mut collected.missing;
    let listings = missing.allow("groups", client.list_groups().await)?;
    let listings = listings.map(|found| missing.take(found)).unwrap_or_default();
    let (share, committing): (Vec<&GroupListing>, Vec<&GroupListing>) =
        listings.iter().partition(|g| g.group_type == SHARE);
    let ids = |groups: &[&GroupListing]| groups.iter().map(|g| g.group_id.clone()).collect::<Vec<_>>();
    let (committing, share) = (ids(&committing), ids(&share));
    let (committed, shared, described) = tokio::join!(
        client.committed_offsets(&committing),
        client.share_group_offsets(&share),
        client.describe_groups(&listings),
    );
    let known: BTreeSet<&str> = listings.iter().map(|g| g.group_id.as_str()).collect();
    let what = "offsets";
    let mut offsets = Vec::new();
    for found in [missing.allow(what, committed)?, missing.allow(what, shared)?].into_iter().flatten() {
        offsets.extend(missing.take_of_groups(found, &known, what));
    }
    let what = "members";
    let described = missing.allow(what, described)?;
    let described = described.map(|found| missing.take_of_groups(found, &known, what)).unwrap_or_default();
    (collected.groups, collected.observed) = merge(listings, offsets, described);
    Ok(collected)
}

fn merge(
    mut listings: Vec<GroupListing>,
    offsets: Vec<GroupOffsets>,
    described: Vec<GroupDescription>,
) -> (Vec<Group>, Vec<ObservedGroup>) {
    let mut offsets: BTreeMap<String, GroupOffsets> =
        offsets.into_iter().map(|g| (g.group_id.clone(), g)).collect();
    let mut described: BTreeMap<String, GroupDescription> =
        described.into_iter().map(|g| (g.group_id.clone(), g)).collect();
    listings.sort();
    let (mut groups, mut observed) = (Vec::new(), Vec::new());
    for listing in listings {
        let committed = offsets.remove(&listing.group_id).map(|g| by_topic(g.offsets)).unwrap_or_default();
        let description = described.remove(&listing.group_id);
        let state = description.as_ref().map_or(&listing.state, |d| &d.state).clone();
        // It was deleted since it was listed.
        if state == "Dead" && committed.is_empty() {
            continue;
        }
        let protocol_type = match &description {
            Some(d) if !d.protocol_type.is_empty() => d.protocol_type.clone(),
            _ => listing.protocol_type,
        };
        // Before 3.8 brokers don't tell types, and have classic groups alone.
        let classic = || "classic".to_owned();
        groups.push(Group {
            group_id: listing.group_id.clone(),
            group_type: some(listing.group_type).unwrap_or_else(classic),
            protocol_type: some(protocol_type),
            offsets: committed,
        });
        observed.push(observe(listing.group_id, state, description));
    }
    (groups, observed)
}

fn by_topic(offsets: Vec<CommittedOffset>) -> Vec<TopicOffsets> {
    let mut topics: BTreeMap<String, BTreeMap<i32, Committed>> = BTreeMap::new();
    for o in offsets {
        let committed = Committed {
            partition: o.partition,
            offset: o.offset,
            leader_epoch: o.leader_epoch,
            metadata: some(o.metadata),
        };
        topics.entry(o.topic).or_default().insert(o.partition, committed);
    }
    let topics = topics.into_iter();
    topics.map(|(topic, p)| TopicOffsets { topic, partitions: p.into_values().collect() }).collect()
}

fn observe(group_id: String, state: String, description: Option<GroupDescription>) -> ObservedGroup {
    let (assignor, members) = description.map(|d| (d.assignor, d.members)).unwrap_or_default();
    let mut members: Vec<Member> = members.into_iter().map(member).collect();
    members.sort_by(|a, b| a.member_id.cmp(&b.member_id));
    members.dedup_by(|a, b| a.member_id == b.member_id);
    ObservedGroup { group_id, state, assignor: some(assignor), members }
}

fn member(member: GroupMemberState) -> Member {
    Member {
        member_id: member.member_id,
        instance_id: member.group_instance_id.and_then(some),
        client_id: member.client_id,
        host: member.client_host,
        rack: member.rack_id.and_then(some),
        subscribed: member.subscribed_topics,
        subscribed_regex: member.subscribed_topic_regex.and_then(some),
        assigned: member.assignment.map(|topics| topics.into_iter().map(assigned).collect()),
    }
}

fn assigned(topic: AssignedTopic) -> Assigned {
    Assigned { topic: topic.topic, partitions: topic.partitions }
}

pub(super) fn some(text: String) -> Option<String> {
    Some(text).filter(|t| !t.is_empty())
}
