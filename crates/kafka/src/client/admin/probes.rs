//! Which ACLs we lack, found out by requests that change nothing. What is asked about need not exist: Kafka looks at
//! ACLs first.

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::produce_response::TopicProduceResponse;
use kafka_protocol::messages::{
    BrokerId, DeleteRecordsRequest, DescribeGroupsRequest, DescribeTransactionsRequest, FetchRequest,
    GroupId, HeartbeatRequest, IncrementalAlterConfigsRequest, ProduceRequest, TopicName, TransactionalId,
};
use kafka_protocol::protocol::StrBytes;

use super::super::cluster::Client;
use super::super::error::{ClientError, Result};
use super::configs::ConfigResource;
use super::error::NeededAcl;

/// The last versions that name topics.
const FETCH_BY_NAME: i16 = 12;
const PRODUCE_BY_NAME: i16 = 12;
/// No topic has a partition of this number.
const NOWHERE: i32 = i32::MAX;
const TIMEOUT_MS: i32 = 10_000;
const AT_ONCE: usize = 500;
const REQUESTS_AT_ONCE: usize = 16;
/// Of a config's change.
const DELETE: i8 = 1;

impl Client {
    /// Read on these topics: fetches of nothing.
    pub async fn lacking_read_on_topics(&self, topics: &[&str]) -> Result<Vec<NeededAcl>> {
        let connection = self.any_connection().await?;
        let version = connection.version::<FetchRequest>(FETCH_BY_NAME)?;
        let denied = ResponseError::TopicAuthorizationFailed.code();
        let mut lacking = Vec::new();
        for some in topics.chunks(AT_ONCE) {
            let topic = |name: &&str| {
                let partition = FetchPartition::default().with_partition_max_bytes(1);
                FetchTopic::default().with_topic(TopicName(text(name))).with_partitions(vec![partition])
            };
            let request = FetchRequest::default()
                .with_replica_id(BrokerId(-1))
                .with_max_bytes(1)
                .with_topics(some.iter().map(topic).collect());
            let answer = connection.call_version(request, version).await?;
            let refused =
                answer.responses.iter().filter(|t| t.partitions.iter().any(|p| p.error_code == denied));
            lacking.extend(refused.map(|t| NeededAcl::on_topic("Read", t.topic.0.as_str())));
        }
        Ok(lacking)
    }

    /// Write on these topics: batches of nothing, for a partition that there is not.
    pub async fn lacking_write_on_topics(&self, topics: &[&str]) -> Result<Vec<NeededAcl>> {
        let connection = self.any_connection().await?;
        let version = connection.version::<ProduceRequest>(PRODUCE_BY_NAME)?;
        let denied = ResponseError::TopicAuthorizationFailed.code();
        let mut lacking = Vec::new();
        for some in topics.chunks(AT_ONCE) {
            let topic = |name: &&str| {
                let partition = PartitionProduceData::default().with_index(NOWHERE);
                TopicProduceData::default()
                    .with_name(TopicName(text(name)))
                    .with_partition_data(vec![partition.with_records(Some(Bytes::new()))])
            };
            let request = ProduceRequest::default()
                .with_acks(-1)
                .with_timeout_ms(TIMEOUT_MS)
                .with_topic_data(some.iter().map(topic).collect());
            let answer = connection.call_version(request, version).await?;
            let is_denied = |t: &&TopicProduceResponse| {
                t.partition_responses.iter().any(|partition| partition.error_code == denied)
            };
            let refused = answer.responses.iter().filter(is_denied);
            lacking.extend(refused.map(|t| NeededAcl::on_topic("Write", t.name.as_str())));
        }
        Ok(lacking)
    }

    /// Delete on these topics: up to no offset, of a partition that there is not.
    pub async fn lacking_delete_on_topics(&self, topics: &[&str]) -> Result<Vec<NeededAcl>> {
        let connection = self.any_connection().await?;
        let denied = ResponseError::TopicAuthorizationFailed.code();
        let mut lacking = Vec::new();
        for some in topics.chunks(AT_ONCE) {
            let topic = |name: &&str| {
                let partition = DeleteRecordsPartition::default().with_partition_index(NOWHERE);
                DeleteRecordsTopic::default()
                    .with_name(TopicName(text(name)))
                    .with_partitions(vec![partition.with_offset(0)])
            };
            let request = DeleteRecordsRequest::default()
                .with_timeout_ms(TIMEOUT_MS)
                .with_topics(some.iter().map(topic).collect());
            let answer = connection.call(request).await?;
            let refused =
                answer.topics.iter().filter(|t| t.partitions.iter().any(|p| p.error_code == denied));
            lacking.extend(refused.map(|t| NeededAcl::on_topic("Delete", t.name.as_str())));
        }
        Ok(lacking)
    }

    /// Read on these groups: heartbeats of a member that nobody knows.
    pub async fn lacking_read_on_groups(&self, groups: &[&str]) -> Result<Vec<NeededAcl>> {
        let connection = self.any_connection().await?;
        let denied = ResponseError::GroupAuthorizationFailed.code();
        let asked = stream::iter(groups.iter().map(|group| {
            let request = HeartbeatRequest::default()
                .with_group_id(GroupId(text(group)))
                .with_generation_id(-1)
                .with_member_id(text("nobody"));
            let connection = &connection;
            async move {
                let refused = connection.call(request).await?.error_code == denied;
                Ok::<_, ClientError>(refused.then(|| NeededAcl::on_group("Read", group)))
            }
        }));
        let found: Vec<Option<NeededAcl>> = asked.buffered(REQUESTS_AT_ONCE).try_collect().await?;
        Ok(found.into_iter().flatten().collect())
    }

    /// Describe on a group and on a transactional id of the same name.
    pub async fn lacking_describe_of(&self, name: &str) -> Result<Vec<NeededAcl>> {
        let connection = self.any_connection().await?;
        let mut lacking = Vec::new();
        let request = DescribeGroupsRequest::default().with_groups(vec![GroupId(text(name))]);
        let denied = ResponseError::GroupAuthorizationFailed.code();
        if connection.call(request).await?.groups.iter().any(|group| group.error_code == denied) {
            lacking.push(NeededAcl::on_group("Describe", name));
        }
        let request =
            DescribeTransactionsRequest::default().with_transactional_ids(vec![TransactionalId(text(name))]);
        let denied = ResponseError::TransactionalIdAuthorizationFailed.code();
        if connection.call(request).await?.transaction_states.iter().any(|state| state.error_code == denied) {
            lacking.push(NeededAcl {
                operation: "Describe".to_owned(),
                resource_type: "TransactionalId".to_owned(),
                resource_name: name.to_owned(),
            });
        }
        Ok(lacking)
    }

    /// AlterConfigs on these: changes that are only validated.
    pub async fn lacking_alter_configs(&self, resources: &[ConfigResource]) -> Result<Vec<NeededAcl>> {
        let connection = self.any_connection().await?;
        let denied =
            [ResponseError::TopicAuthorizationFailed.code(), ResponseError::GroupAuthorizationFailed.code()];
        let mut lacking = Vec::new();
        for some in resources.chunks(AT_ONCE) {
            let altered = |resource: &ConfigResource| {
                let name = match resource {
                    ConfigResource::Group(_) => "consumer.session.timeout.ms",
                    _ => "retention.ms",
                };
                let config = AlterableConfig::default().with_name(text(name)).with_config_operation(DELETE);
                AlterConfigsResource::default()
                    .with_resource_type(resource.code())
                    .with_resource_name(StrBytes::from_string(resource.name()))
                    .with_configs(vec![config.with_value(None)])
            };
            let request = IncrementalAlterConfigsRequest::default()
                .with_validate_only(true)
                .with_resources(some.iter().map(altered).collect());
            let answer = connection.call(request).await?;
            for refused in answer.responses.iter().filter(|r| denied.contains(&r.error_code)) {
                let of = |resource: &&ConfigResource| {
                    resource.code() == refused.resource_type
                        && resource.name() == refused.resource_name.as_str()
                };
                lacking.extend(some.iter().find(of).map(|resource| match resource {
                    ConfigResource::Group(name) => NeededAcl::on_group("AlterConfigs", name),
                    other => NeededAcl::on_topic("AlterConfigs", &other.name()),
                }));
            }
        }
        Ok(lacking)
    }
}

fn text(value: &str) -> StrBytes {
    StrBytes::from_string(value.to_owned())
}
