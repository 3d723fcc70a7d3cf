//! What keeps one who asks or changes a cluster from an answer: told apart, since a snapshot must say what it lacks.

use std::fmt;

use kafka_protocol::ResponseError;
use serde::{Deserialize, Serialize};

use super::super::error::ClientError;

pub type AdminResult<T> = std::result::Result<T, AdminError>;

#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    #[error("{what}: not authorized; it needs {needs}")]
    NotAuthorized { what: String, needs: NeededAcl },

    /// The broker is too old for it, or runs without what it asks about.
    #[error("{what}: not supported by this broker: {detail}")]
    Unsupported { what: String, detail: String },

    #[error(transparent)]
    Client(#[from] ClientError),
}

impl AdminError {
    pub(in crate::client) fn from_code(
        what: impl Into<String>,
        code: ResponseError,
        needs: NeededAcl,
    ) -> Self {
        let what = what.into();
        match code {
            // A group that is refused for a topic that its members have: Kafka doesn't tell which.
            ResponseError::TopicAuthorizationFailed if needs.resource_type == "Group" => {
                Self::NotAuthorized { what, needs: NeededAcl::on_topic("Describe", "*") }
            }
            ResponseError::ClusterAuthorizationFailed
            | ResponseError::TopicAuthorizationFailed
            | ResponseError::GroupAuthorizationFailed => Self::NotAuthorized { what, needs },
            ResponseError::SecurityDisabled => {
                Self::Unsupported { what, detail: "it runs without an authorizer".to_owned() }
            }
            ResponseError::UnsupportedVersion => {
                Self::Unsupported { what, detail: "the version, or the feature, is not enabled".to_owned() }
            }
            code => Self::Client(ClientError::kafka(what, code)),
        }
    }

    /// A version that can't be agreed on is a property of the broker, not a failure.
    pub(in crate::client) fn from_client(what: impl Into<String>, error: ClientError) -> Self {
        match error {
            ClientError::UnsupportedVersion { .. } => {
                Self::Unsupported { what: what.into(), detail: error.to_string() }
            }
            error => Self::Client(error),
        }
    }

    pub fn is_not_authorized(&self) -> bool {
        matches!(self, Self::NotAuthorized { .. })
    }

    /// The broker leads in a newer epoch than the one that was named.
    pub fn is_fenced(&self) -> bool {
        matches!(self, Self::Client(ClientError::Kafka { code: ResponseError::FencedLeaderEpoch, .. }))
    }

    /// What was asked for is not there: deleted since it was listed, perhaps.
    pub fn is_gone(&self) -> bool {
        let Self::Client(ClientError::Kafka { code, .. }) = self else { return false };
        matches!(
            code,
            ResponseError::UnknownTopicOrPartition
                | ResponseError::UnknownTopicId
                | ResponseError::GroupIdNotFound
        )
    }
}

/// The ACL that a reader lacks: `operation` on a resource, in Kafka's words.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct NeededAcl {
    pub operation: String,
    pub resource_type: String,
    pub resource_name: String,
}

impl NeededAcl {
    fn new(operation: &str, resource_type: &str, resource_name: &str) -> Self {
        Self {
            operation: operation.to_owned(),
            resource_type: resource_type.to_owned(),
            resource_name: resource_name.to_owned(),
        }
    }

    pub fn on_cluster(operation: &str) -> Self {
        Self::new(operation, "Cluster", "kafka-cluster")
    }

    pub fn on_topic(operation: &str, topic: &str) -> Self {
        Self::new(operation, "Topic", topic)
    }

    pub fn on_group(operation: &str, group: &str) -> Self {
        Self::new(operation, "Group", group)
    }
}

impl fmt::Display for NeededAcl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} on {} {}", self.operation, self.resource_type, self.resource_name)
    }
}

/// What was found, and what was not, by name: nothing is missing silently.
#[derive(Debug)]
pub struct Found<T> {
    pub items: Vec<T>,
    pub missing: Vec<Missing>,
}

impl<T> Default for Found<T> {
    fn default() -> Self {
        Self { items: Vec::new(), missing: Vec::new() }
    }
}

impl<T> Found<T> {
    /// All of it, or the first reason why not.
    pub fn whole(self) -> AdminResult<Vec<T>> {
        match self.missing.into_iter().next() {
            None => Ok(self.items),
            Some(missing) => Err(missing.error),
        }
    }

    /// All that we are allowed to see, or the first other reason why something lacks.
    pub fn allowed(self) -> AdminResult<Vec<T>> {
        match self.missing.into_iter().find(|missing| !missing.error.is_not_authorized()) {
            None => Ok(self.items),
            Some(missing) => Err(missing.error),
        }
    }

    pub(super) fn miss(&mut self, what: impl Into<String>, error: AdminError) {
        self.missing.push(Missing { what: what.into(), error });
    }
}

#[derive(Debug)]
pub struct Missing {
    pub what: String,
    pub error: AdminError,
}
