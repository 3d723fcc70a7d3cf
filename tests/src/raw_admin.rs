//! Changes to a cluster by raw requests, and waits until brokers have heard of them: the client that is tested only
//! reads.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::messages::alter_client_quotas_request as quotas;
use kafka_protocol::messages::alter_share_group_offsets_request::{
    AlterShareGroupOffsetsRequestPartition, AlterShareGroupOffsetsRequestTopic,
};
use kafka_protocol::messages::alter_user_scram_credentials_request::ScramCredentialUpsertion;
use kafka_protocol::messages::consumer_protocol_assignment::TopicPartition as ConsumerAssigned;
use kafka_protocol::messages::create_acls_request::AclCreation;
use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::delete_acls_request::DeleteAclsFilter;
use kafka_protocol::messages::incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
use kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka_protocol::messages::{
    AlterClientQuotasRequest, AlterShareGroupOffsetsRequest, AlterUserScramCredentialsRequest,
    ConsumerGroupHeartbeatRequest, ConsumerProtocolAssignment, ConsumerProtocolSubscription,
    CreateAclsRequest, CreateTopicsRequest, DeleteAclsRequest, DescribeAclsRequest, FindCoordinatorRequest,
    GroupId, IncrementalAlterConfigsRequest, OffsetCommitRequest, ShareGroupHeartbeatRequest, TopicName,
};
use kafka_protocol::protocol::{Encodable, StrBytes};
use varve_kafka::client::{Assignor, Client, GroupEvent, GroupMember, JoinedMember, Membership, OffsetSpec};

const LIMIT: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(100);
const SHARE_MEMBER: &str = "AAAAAAAAAAAAAAAAAAAAAg";

fn text(value: &str) -> StrBytes {
    StrBytes::from_string(value.to_owned())
}

pub async fn set_quota(
    client: &Client,
    entity: &[(&str, Option<&str>)],
    key: &str,
    value: f64,
) -> Result<()> {
    let entity = entity.iter().map(|(kind, name)| {
        quotas::EntityData::default().with_entity_type(text(kind)).with_entity_name(name.map(text))
    });
    let op = quotas::OpData::default().with_key(text(key)).with_value(value);
    let entry = quotas::EntryData::default().with_entity(entity.collect()).with_ops(vec![op]);
    let request = AlterClientQuotasRequest::default().with_entries(vec![entry]);
    let answer = client.any_connection().await?.call(request).await?;
    ensure!(answer.entries.iter().all(|e| e.error_code == 0), "{answer:?}");
    Ok(())
}

/// `kind` is Kafka's code: 2 topics, 4 brokers, 16 client metrics, 32 groups.
pub async fn set_config(client: &Client, kind: i8, name: &str, pairs: &[(&str, &str)]) -> Result<()> {
    let configs =
        pairs.iter().map(|(k, v)| AlterableConfig::default().with_name(text(k)).with_value(Some(text(v))));
    let resource = AlterConfigsResource::default()
        .with_resource_type(kind)
        .with_resource_name(text(name))
        .with_configs(configs.collect());
    let request = IncrementalAlterConfigsRequest::default().with_resources(vec![resource]);
    let answer = client.any_connection().await?.call(request).await?;
    ensure!(answer.responses.iter().all(|r| r.error_code == 0), "{answer:?}");
    Ok(())
}

/// `mechanism` is Kafka's code: 1 SCRAM-SHA-256, 2 SCRAM-SHA-512.
pub async fn add_scram(client: &Client, user: &str, mechanism: i8, iterations: i32) -> Result<()> {
    let credential = ScramCredentialUpsertion::default()
        .with_name(text(user))
        .with_mechanism(mechanism)
        .with_iterations(iterations)
        .with_salt(Bytes::from_static(b"salt"))
        .with_salted_password(Bytes::from_static(&[7; 64]));
    let request = AlterUserScramCredentialsRequest::default().with_upsertions(vec![credential]);
    let answer = client.any_connection().await?.call(request).await?;
    ensure!(answer.results.iter().all(|r| r.error_code == 0), "{answer:?}");
    Ok(())
}

/// One ALLOW with a literal name, for connections from anywhere; both codes are Kafka's. All brokers know it then.
pub async fn allow(
    client: &Client,
    principal: &str,
    (resource, name): (i8, &str),
    operation: i8,
) -> Result<()> {
    let creation = AclCreation::default()
        .with_resource_type(resource)
        .with_resource_name(text(name))
        .with_resource_pattern_type(3)
        .with_principal(text(principal))
        .with_host(text("*"))
        .with_operation(operation)
        .with_permission_type(3);
    let request = CreateAclsRequest::default().with_creations(vec![creation]);
    let answer = client.any_connection().await?.call(request).await?;
    ensure!(answer.results.iter().all(|r| r.error_code == 0), "{answer:?}");
    wait_heard(client, principal, (resource, name), operation, true).await
}

/// Takes away what [`allow`] gave.
pub async fn disallow(
    client: &Client,
    principal: &str,
    (resource, name): (i8, &str),
    operation: i8,
) -> Result<()> {
    let filter = DeleteAclsFilter::default()
        .with_resource_type_filter(resource)
        .with_resource_name_filter(Some(text(name)))
        .with_pattern_type_filter(3)
        .with_principal_filter(Some(text(principal)))
        .with_host_filter(None)
        .with_operation(operation)
        .with_permission_type(3);
    let request = DeleteAclsRequest::default().with_filters(vec![filter]);
    let answer = client.any_connection().await?.call(request).await?;
    ensure!(answer.filter_results.iter().all(|r| r.matching_acls.len() == 1), "{answer:?}");
    wait_heard(client, principal, (resource, name), operation, false).await
}

/// Until the authorizer of each broker has heard of it, a moment after the answer. Within a node that of the controller
/// hears first.
async fn wait_heard(
    client: &Client,
    principal: &str,
    (resource, name): (i8, &str),
    operation: i8,
    is_given: bool,
) -> Result<()> {
    let request = DescribeAclsRequest::default()
        .with_resource_type_filter(resource)
        .with_resource_name_filter(Some(text(name)))
        .with_pattern_type_filter(3)
        .with_principal_filter(Some(text(principal)))
        .with_host_filter(None)
        .with_operation(operation)
        .with_permission_type(3);
    let started = Instant::now();
    for broker in client.metadata(Some(&[])).await?.brokers {
        loop {
            let answer = client.connection(broker.node_id).await?.call(request.clone()).await?;
            if answer.error_code == 0 && answer.resources.is_empty() != is_given {
                break;
            }
            ensure!(started.elapsed() < LIMIT, "broker {}: {answer:?}", broker.node_id);
            tokio::time::sleep(PAUSE).await;
        }
    }
    Ok(())
}

/// Topics of one partition each.
pub async fn create_topics(client: &Client, names: &[String]) -> Result<()> {
    for part in names.chunks(250) {
        let topics = part.iter().map(|name| {
            let topic = CreatableTopic::default().with_name(TopicName(text(name)));
            topic.with_num_partitions(1).with_replication_factor(1)
        });
        let request = CreateTopicsRequest::default().with_topics(topics.collect()).with_timeout_ms(30_000);
        let answer = client.any_connection().await?.call(request).await?;
        ensure!(answer.topics.iter().all(|t| t.error_code == 0), "{answer:?}");
    }
    Ok(())
}

/// As a consumer without membership commits, in partition 0 of each topic.
pub async fn commit(client: &Client, group: &str, topics: &[&str], offset: i64, note: &str) -> Result<()> {
    let started = Instant::now();
    loop {
        let topics = topics.iter().map(|topic| {
            let partition = OffsetCommitRequestPartition::default()
                .with_partition_index(0)
                .with_committed_offset(offset)
                .with_committed_leader_epoch(0)
                .with_committed_metadata(Some(text(note)));
            OffsetCommitRequestTopic::default()
                .with_name(TopicName(text(topic)))
                .with_partitions(vec![partition])
        });
        let request = OffsetCommitRequest::default()
            .with_group_id(GroupId(text(group)))
            .with_generation_id_or_member_epoch(-1)
            .with_topics(topics.collect());
        let answer = client.any_connection().await?.call(request).await?;
        let mut codes = answer.topics.iter().flat_map(|t| t.partitions.iter().map(|p| p.error_code));
        if codes.all(|code| code == 0) {
            return Ok(());
        }
        ensure!(started.elapsed() < LIMIT, "commit: {answer:?}");
        // Brokers make the topic of offsets when a coordinator is looked for.
        let find = FindCoordinatorRequest::default().with_coordinator_keys(vec![text(group)]);
        client.any_connection().await?.call(find).await?;
        tokio::time::sleep(PAUSE).await;
    }
}

/// Until no transaction is open in the partition: the last one's marker comes after its answer.
pub async fn wait_stable(client: &Client, topic: &str, partition: i32) -> Result<()> {
    let started = Instant::now();
    loop {
        let stable = client.list_offsets(topic, &[partition], OffsetSpec::LatestStable).await?;
        let end = client.list_offsets(topic, &[partition], OffsetSpec::Latest).await?;
        if stable == end {
            return Ok(());
        }
        ensure!(
            started.elapsed() < LIMIT,
            "{topic}-{partition} is stable up to {stable:?}, and ends at {end:?}"
        );
        tokio::time::sleep(PAUSE).await;
    }
}

/// One member of the new protocol, which stays as long as its session.
pub async fn join_new_protocol(client: &Client, group: &str, topic: &str) -> Result<()> {
    let mut request = ConsumerGroupHeartbeatRequest::default()
        .with_group_id(GroupId(text(group)))
        .with_member_id(text("AAAAAAAAAAAAAAAAAAAAAQ"))
        .with_instance_id(Some(text("static-1")))
        .with_rebalance_timeout_ms(60_000)
        .with_subscribed_topic_names(Some(vec![TopicName(text(topic))]))
        .with_topic_partitions(Some(Vec::new()));
    let started = Instant::now();
    loop {
        let answer = client.any_connection().await?.call(request.clone()).await?;
        if answer.assignment.as_ref().is_some_and(|a| !a.topic_partitions.is_empty()) {
            return Ok(());
        }
        if answer.error_code == 0 {
            request = ConsumerGroupHeartbeatRequest::default()
                .with_group_id(GroupId(text(group)))
                .with_member_id(text("AAAAAAAAAAAAAAAAAAAAAQ"))
                .with_instance_id(Some(text("static-1")))
                .with_member_epoch(answer.member_epoch)
                .with_rebalance_timeout_ms(-1)
                .with_subscribed_topic_names(None)
                .with_topic_partitions(None);
        }
        ensure!(started.elapsed() < LIMIT, "{answer:?}");
        tokio::time::sleep(PAUSE).await;
    }
}

/// One member of a share group, which stays as long as its session.
pub async fn join_share(client: &Client, group: &str, topic: &str) -> Result<()> {
    let mut request = ShareGroupHeartbeatRequest::default()
        .with_group_id(GroupId(text(group)))
        .with_member_id(text(SHARE_MEMBER))
        .with_subscribed_topic_names(Some(vec![TopicName(text(topic))]));
    let started = Instant::now();
    loop {
        let answer = client.any_connection().await?.call(request.clone()).await?;
        if answer.assignment.as_ref().is_some_and(|a| !a.topic_partitions.is_empty()) {
            return Ok(());
        }
        if answer.error_code == 0 {
            request.member_epoch = answer.member_epoch;
            request.subscribed_topic_names = None;
        }
        ensure!(started.elapsed() < LIMIT, "{answer:?}");
        let find = FindCoordinatorRequest::default().with_coordinator_keys(vec![text(group)]);
        client.any_connection().await?.call(find).await?;
        tokio::time::sleep(PAUSE).await;
    }
}

/// Of the member that [`join_share`] made.
pub async fn leave_share(client: &Client, group: &str) -> Result<()> {
    let request = ShareGroupHeartbeatRequest::default()
        .with_group_id(GroupId(text(group)))
        .with_member_id(text(SHARE_MEMBER))
        .with_member_epoch(-1);
    let answer = client.any_connection().await?.call(request).await?;
    ensure!(answer.error_code == 0, "{answer:?}");
    Ok(())
}

/// In partition 0, of a group without members.
pub async fn set_share_offset(client: &Client, group: &str, topic: &str, offset: i64) -> Result<()> {
    let partition =
        AlterShareGroupOffsetsRequestPartition::default().with_partition_index(0).with_start_offset(offset);
    let topic = AlterShareGroupOffsetsRequestTopic::default()
        .with_topic_name(TopicName(text(topic)))
        .with_partitions(vec![partition]);
    let request =
        AlterShareGroupOffsetsRequest::default().with_group_id(GroupId(text(group))).with_topics(vec![topic]);
    let answer = client.any_connection().await?.call(request).await?;
    let mut codes = answer.responses.iter().flat_map(|t| t.partitions.iter().map(|p| p.error_code));
    ensure!(answer.error_code == 0 && codes.all(|code| code == 0), "{answer:?}");
    Ok(())
}

fn versioned<T: Encodable>(message: &T) -> Result<Bytes> {
    let mut bytes = BytesMut::new();
    bytes.put_i16(0);
    message.encode(&mut bytes, 0)?;
    Ok(bytes.freeze())
}

/// A member as Java's consumers are, which has partitions 0 and 1 of the topic.
pub async fn join_classic(client: &Client, group: &str, topic: &str) -> Result<GroupMember> {
    let subscription = versioned(&ConsumerProtocolSubscription::default().with_topics(vec![text(topic)]))?;
    let share = versioned(&ConsumerProtocolAssignment::default().with_assigned_partitions(vec![
        ConsumerAssigned::default().with_topic(TopicName(text(topic))).with_partitions(vec![1, 0]),
    ]))?;
    let assignor: Assignor = Arc::new(move |members: &[JoinedMember]| {
        members.iter().map(|m| (m.member_id.clone(), share.clone())).collect()
    });
    let membership = Membership::new(group, "consumer", "range", subscription);
    let mut member = GroupMember::join(client, membership, assignor);
    match tokio::time::timeout(LIMIT, member.next()).await? {
        Some(GroupEvent::Assigned { .. }) => Ok(member),
        other => bail!("{other:?}"),
    }
}
