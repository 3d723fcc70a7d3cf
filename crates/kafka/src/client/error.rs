//! What can go wrong between here and a broker.

use kafka_protocol::ResponseError;

use crate::protocol::ProtocolError;

pub type Result<T, E = ClientError> = std::result::Result<T, E>;

#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("configuration: {key}: {problem}")]
    Config { key: String, problem: String },

    #[error("cannot connect to {broker}: {source}")]
    Connect { broker: String, source: std::io::Error },

    #[error("TLS with {broker}: {detail}")]
    Tls { broker: String, detail: String },

    #[error("{broker} did not let us in ({mechanism}): {detail}")]
    Authentication { broker: String, mechanism: &'static str, detail: String },

    #[error("{broker} did not answer {request} within {timeout_ms} ms")]
    Timeout { broker: String, request: String, timeout_ms: u64 },

    #[error("the connection to {broker} ended: {detail}")]
    Closed { broker: String, detail: String },

    #[error("{broker} sent a frame of {found} bytes; at most {limit} are taken (receive.message.max.bytes)")]
    FrameTooLarge { broker: String, found: i64, limit: usize },

    #[error("{request} with {broker}: {detail}")]
    Codec { broker: String, request: String, detail: String },

    #[error("{broker} speaks {request} in versions {theirs}, this build in {ours}")]
    UnsupportedVersion { broker: String, request: String, ours: String, theirs: String },

    /// A broker's own error code.
    #[error("{what}: {code} ({explanation})")]
    Kafka { what: String, code: ResponseError, explanation: String },

    #[error("no topic {topic:?} on this cluster")]
    NoSuchTopic { topic: String },

    /// What is no answer to what was asked, or no log that can be led.
    #[error("{what}: {detail}")]
    Log { what: String, detail: String },

    /// Brokers that are to copy from us.
    #[error("brokers can't copy from us: {detail}")]
    NotReached { detail: String },

    #[error("{what}: no leader is known")]
    NoLeader { what: String },

    #[error("{what}: replicas in sync have it up to offset {high_watermark}, the leader up to {end}")]
    NotInSync { what: String, end: i64, high_watermark: i64 },

    #[error("{what}: the log ends at offset {end}, and had {expected} already")]
    Behind { what: String, end: i64, expected: i64 },

    /// It has batches that we don't know of, or an older state.
    #[error("{what}: the leader expects another sequence ({code})")]
    OutOfSequence { what: String, code: ResponseError },

    /// Somebody else writes there, or a broker that forgot the producer has taken a batch twice.
    #[error("{what}: other records than what was sent are at offset {offset}")]
    OffsetTaken { what: String, offset: i64 },

    #[error("{what} made no progress for {waited_ms} ms; last: {last}")]
    GaveUp { what: String, waited_ms: u64, last: Box<ClientError> },

    #[error("{what}: {source}")]
    Protocol { what: String, source: ProtocolError },
}

impl ClientError {
    pub(crate) fn kafka(what: impl Into<String>, code: ResponseError) -> Self {
        Self::Kafka { what: what.into(), explanation: explain(code), code }
    }

    pub(crate) fn config(key: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::Config { key: key.into(), problem: problem.into() }
    }

    /// Whether the same call may succeed in a moment, on this or another broker.
    pub fn is_retriable(&self) -> bool {
        match self {
            ClientError::Connect { .. }
            | ClientError::Timeout { .. }
            | ClientError::Closed { .. }
            | ClientError::NoLeader { .. }
            | ClientError::NotInSync { .. }
            | ClientError::Behind { .. }
            | ClientError::OutOfSequence { .. } => true,
            ClientError::Kafka { code, .. } => code.is_retriable(),
            _ => false,
        }
    }
}

/// In a person's words, for the codes that a reader meets.
fn explain(code: ResponseError) -> String {
    let text = match code {
        ResponseError::TopicAuthorizationFailed => {
            "not allowed to describe or read this topic: check the ACLs"
        }
        ResponseError::ClusterAuthorizationFailed => "not allowed to do this on the cluster: check the ACLs",
        ResponseError::GroupAuthorizationFailed => {
            "not allowed to use this group: it needs the ACL Read on it"
        }
        ResponseError::NotLeaderOrFollower => "the leader moved",
        ResponseError::UnknownTopicOrPartition => "the topic or partition is not there, or not visible to us",
        ResponseError::OffsetOutOfRange => "the offset is before the log's start or after its end",
        ResponseError::KafkaStorageError => "a disk of the broker failed",
        _ => return format!("error code {}", code.code()),
    };
    text.to_owned()
}
