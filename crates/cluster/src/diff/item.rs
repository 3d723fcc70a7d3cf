//! What can differ, by name.

use std::fmt;

use serde::Serialize;

use crate::document::{Acl, QuotaEntity, ResourceType};
use crate::parts::Part;

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "item", rename_all = "snake_case")]
pub enum Item {
    Cluster,
    /// It is held by one of them alone, and not compared.
    Part {
        part: Part,
    },
    Broker {
        node_id: i32,
    },
    Feature {
        name: String,
    },
    /// By its id.
    Topic {
        topic: String,
    },
    PartitionCount {
        topic: String,
    },
    Replicas {
        topic: String,
        partition: usize,
    },
    TopicConfig {
        topic: String,
        name: String,
    },
    Config {
        resource: ResourceType,
        resource_name: Option<String>,
        name: String,
    },
    Group {
        group_id: String,
    },
    Offset {
        group_id: String,
        topic: String,
        partition: i32,
    },
    Acl {
        acl: Acl,
    },
    User {
        name: String,
        mechanism: String,
    },
    Quota {
        entity: Vec<QuotaEntity>,
        key: String,
    },
    RegistryCompatibility,
    RegistryMode,
    Subject {
        subject: String,
    },
    SubjectCompatibility {
        subject: String,
    },
    SubjectMode {
        subject: String,
    },
    Schema {
        subject: String,
        version: i32,
    },
    Missing {
        what: String,
    },
}

impl fmt::Display for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cluster => f.write_str("cluster"),
            Self::Part { part } => write!(f, "{part} as a part of the document"),
            Self::Broker { node_id } => write!(f, "broker {node_id}"),
            Self::Feature { name } => write!(f, "feature {name}"),
            Self::Topic { topic } => write!(f, "topic {topic}"),
            Self::PartitionCount { topic } => write!(f, "partitions of topic {topic}"),
            Self::Replicas { topic, partition } => write!(f, "replicas of {topic}-{partition}"),
            Self::TopicConfig { topic, name } => write!(f, "{name} of topic {topic}"),
            Self::Config { resource, resource_name, name } => {
                let kind = match resource {
                    ResourceType::Broker => "broker",
                    ResourceType::ClientMetrics => "client metrics",
                    ResourceType::Cluster => "the cluster",
                    ResourceType::Group => "group",
                };
                write!(f, "{name} of {kind}")?;
                resource_name.as_ref().map_or(Ok(()), |name| write!(f, " {name}"))
            }
            Self::Group { group_id } => write!(f, "group {group_id}"),
            Self::Offset { group_id, topic, partition } => {
                write!(f, "offset of group {group_id} in {topic}-{partition}")
            }
            Self::Acl { acl } => write!(
                f,
                "ACL {} {} on {} {} {} for {} from {}",
                acl.permission,
                acl.operation,
                acl.pattern_type,
                acl.resource_type,
                acl.resource_name,
                acl.principal,
                acl.host
            ),
            Self::User { name, mechanism } => write!(f, "SCRAM user {name} with {mechanism}"),
            Self::Quota { entity, key } => {
                write!(f, "quota {key} of")?;
                entity.iter().try_for_each(|e| match &e.name {
                    Some(name) => write!(f, " {} {name}", e.entity_type),
                    None => write!(f, " any {}", e.entity_type),
                })
            }
            Self::RegistryCompatibility => f.write_str("compatibility of the Schema Registry"),
            Self::RegistryMode => f.write_str("mode of the Schema Registry"),
            Self::Subject { subject } => write!(f, "subject {subject}"),
            Self::SubjectCompatibility { subject } => write!(f, "compatibility of subject {subject}"),
            Self::SubjectMode { subject } => write!(f, "mode of subject {subject}"),
            Self::Schema { subject, version } => write!(f, "version {version} of subject {subject}"),
            Self::Missing { what } => write!(f, "missing: {what}"),
        }
    }
}
