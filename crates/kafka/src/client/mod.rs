//! A client for Kafka's brokers: connections, metadata, offsets, and reading undecoded batches.
//!
//! [`Connection`] is one authenticated connection with requests in flight on it; [`Client`] knows the
//! cluster and which broker to ask; [`TopicReader`] reads a topic from its begin to the ends it had at the
//! start; [`FetchSession`] reads many partitions of one broker for as long as one likes, [`PartitionReader`] a
//! part of one; [`ProduceLane`] writes; [`admin`] reads the cluster's state, and [`alter`] changes it; [`GroupMember`]
//! shares work with others of its kind.
//!
//! Bounds: a frame has at most `receive.message.max.bytes`, a fetch asks for at most `fetch.max.bytes`, and
//! one fetch per reader and broker is under way at a time. Whoever connects must trust the broker as far as memory
//! goes: inside a frame, array lengths are the codec's to check.

pub mod admin;
pub mod alter;
mod asking;
mod cluster;
mod config;
mod config_keys;
mod connection;
mod error;
mod fetch;
mod fetch_event;
mod fetch_session;
mod fetch_state;
mod group_member;
mod list_offsets;
mod metadata;
mod oauth;
mod partition_reader;
mod produce;
mod properties;
mod retry;
mod sasl;
mod scram;
mod secret;
mod tls;
mod topic_reader;

pub use cluster::Client;
pub(crate) use config::jaas_option;
pub use config::{ClientConfig, HostPort, Sasl, SaslMechanism, SecurityProtocol, TlsFiles};
pub use config_keys::ClientKey;
pub use connection::Connection;
pub use error::{ClientError, Result};
pub use fetch::{FetchFrom, FetchedPartition};
pub use fetch_event::{FetchProblem, FetchedBatches, LeaderAndEpoch, PartitionFetch};
pub use fetch_session::{FetchLimits, FetchSession, FetchTarget};
pub use group_member::{Assignor, GroupEvent, GroupMember, JoinedMember, Membership, Released};
pub use kafka_protocol::ResponseError as KafkaCode;
pub use list_offsets::OffsetSpec;
pub use metadata::{BrokerNode, ClusterMetadata, PartitionMetadata, TopicMetadata};
pub use oauth::Oauth;
pub use partition_reader::PartitionReader;
pub use produce::ProduceLane;
pub use properties::parse_properties;
#[cfg(test)]
pub(crate) use scram::Scram;
pub(crate) use scram::{ScramHash, attribute as scram_attribute};
pub use secret::Secret;
pub use tls::client_tls;
pub use topic_reader::{TopicBatches, TopicReader};
