//! The document, version 1, as docs/CLUSTER-STATE.md specifies it.
//!
//! Members stand in the order in which they are written, and lists in one order, so that equal states are equal
//! bytes. Nothing in it says when it was collected. What changes while nothing is done to a cluster, the members of
//! its groups, stands apart in [`Observed`]. Decoding is safe on any bytes.

use std::fmt;

use serde::{Deserialize, Serialize};
use varve_archive::record::snapshot::CLUSTER_STATE;
use varve_archive::{Archive, Record, RecordError, Snapshot, V1};

use super::check;
use super::parts::StateParts;
use super::schemas::SchemaState;

pub const MAX_BYTES: u64 = 256 * 1024 * 1024;

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterState {
    pub varve_cluster_state: V1,
    pub cluster_id: String,
    /// What was wanted: a part that is not named here was not looked at.
    pub parts: StateParts,
    /// By id: those that were registered.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub brokers: Vec<Broker>,
    /// Finalized ones, by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub features: Vec<Feature>,
    /// By name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub topics: Vec<Topic>,
    /// Dynamic configs of all but topics, by type and name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub configs: Vec<ResourceConfigs>,
    /// By id.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<Group>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub acls: Vec<Acl>,
    /// SCRAM users, by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub users: Vec<User>,
    /// By entity.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub quotas: Vec<Quota>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schemas: Option<SchemaState>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<MissingEntry>,
    #[serde(default, skip_serializing_if = "Observed::is_empty")]
    pub observed: Observed,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Broker {
    pub node_id: i32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rack: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Feature {
    pub name: String,
    pub min: i16,
    pub max: i16,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Topic {
    pub name: String,
    pub topic_id: String,
    #[serde(default, skip_serializing_if = "is_false")]
    pub internal: bool,
    /// Of partition 0, 1, …: broker ids, the preferred leader first.
    pub replicas: Vec<Vec<i32>>,
    /// By name; those that it inherits from its brokers too.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub configs: Vec<Config>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResourceConfigs {
    pub resource: ResourceType,
    /// Left out for the cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// By name, at least one.
    pub configs: Vec<Config>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ResourceType {
    Broker,
    ClientMetrics,
    /// The dynamic default of all brokers.
    Cluster,
    Group,
}

/// One that is not Kafka's default.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    pub name: String,
    /// Sensitive values are told to nobody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// In Kafka's words, as `DYNAMIC_TOPIC_CONFIG`.
    pub source: String,
    #[serde(default, skip_serializing_if = "is_false")]
    pub sensitive: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    pub group_id: String,
    /// `classic`, `consumer`, `share`, `streams`.
    #[serde(rename = "type")]
    pub group_type: String,
    /// Left out if it never had a member that told one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol_type: Option<String>,
    /// By topic.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub offsets: Vec<TopicOffsets>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicOffsets {
    pub topic: String,
    /// By number, at least one.
    pub partitions: Vec<Committed>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Committed {
    pub partition: i32,
    /// The next to be read; of share groups the first that is not done with.
    pub offset: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leader_epoch: Option<i32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<String>,
}

/// In the words of Kafka's own tools.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Acl {
    pub resource_type: String,
    pub resource_name: String,
    pub pattern_type: String,
    pub principal: String,
    pub host: String,
    pub operation: String,
    pub permission: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    pub name: String,
    /// By mechanism.
    pub credentials: Vec<Credential>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Credential {
    pub mechanism: String,
    pub iterations: i32,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quota {
    /// By type, at least one.
    pub entity: Vec<QuotaEntity>,
    /// By key, at least one.
    pub values: Vec<QuotaValue>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct QuotaEntity {
    /// `client-id`, `ip`, `user`.
    #[serde(rename = "type")]
    pub entity_type: String,
    /// Left out for the default of its type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuotaValue {
    pub key: String,
    /// The shortest decimal that reads back as the same double.
    pub value: String,
}

/// What the document does not hold, and why.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct MissingEntry {
    pub what: String,
    pub reason: Reason,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub needs: Option<Needs>,
    pub error: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// We lack the permission.
    Denied,
    /// It could not be read this time.
    Failed,
    /// The cluster is without it, or too old to tell it.
    Unsupported,
    /// Kafka tells it to nobody.
    Withheld,
}

/// The ACL that is lacking.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Needs {
    pub operation: String,
    pub resource_type: String,
    pub resource_name: String,
}

impl fmt::Display for Needs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} on {} {}", self.operation, self.resource_type, self.resource_name)
    }
}

/// As it happened to be at that moment: no part of what is compared or restored.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Observed {
    /// By id.
    pub groups: Vec<ObservedGroup>,
}

impl Observed {
    fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObservedGroup {
    pub group_id: String,
    pub state: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub assignor: Option<String>,
    /// By id.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub members: Vec<Member>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    pub member_id: String,
    /// Of static members.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance_id: Option<String>,
    pub client_id: String,
    pub host: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rack: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub subscribed: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subscribed_regex: Option<String>,
    /// Left out if it is not of the consumers' protocol.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub assigned: Option<Vec<Assigned>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assigned {
    pub topic: String,
    pub partitions: Vec<i32>,
}

impl ClusterState {
    /// Of a snapshot; `None` if it has none.
    ///
    /// # Errors
    /// Of the archive, and for what is no such record.
    pub async fn of(archive: &Archive, snapshot: &Snapshot) -> varve_archive::Result<Option<Self>> {
        document_of(archive, snapshot, CLUSTER_STATE).await
    }
}

/// A document of a snapshot that is a record.
pub(crate) async fn document_of<T: Record>(
    archive: &Archive,
    snapshot: &Snapshot,
    name: &str,
) -> varve_archive::Result<Option<T>> {
    let Some(document) = snapshot.record.document(name) else { return Ok(None) };
    let decoded = T::decode(&archive.document(document).await?);
    let object = format!("{name} of snapshot {}", snapshot.record.sequence);
    decoded.map(Some).map_err(|source| varve_archive::Error::Record { object, source })
}

impl Record for ClusterState {
    const NAME: &'static str = "varve_cluster_state";
    const MAX_BYTES: u64 = MAX_BYTES;

    fn check(&self) -> Result<(), RecordError> {
        check::document(self)
    }
}

pub(crate) fn is_false(flag: &bool) -> bool {
    !flag
}

#[cfg(test)]
pub(crate) mod tests;
