//! Reading a cluster's state, all that a snapshot of it needs.
//!
//! Answers are plain structs in a stable order, in Kafka's words. What may not be read, and what a broker does
//! not support, is an error of its own kind or named in [`Found::missing`]: nothing is left out silently where
//! Kafka lets us know. Where it does not (topics that we may not describe are not there for us, nor the offsets
//! that a group has in them), the call's description says so; `hidden_topics` finds such topics. Nothing is changed on the cluster.

mod acls;
mod cluster_state;
mod config_resources;
mod configs;
mod error;
mod group_offsets;
mod groups;
mod hidden_topics;
mod leaders;
mod log_dirs;
mod offsets;
mod probes;
mod quotas;
mod reassignments;
mod routed;
mod share_offsets;
mod topics;
mod users;

pub use acls::AclEntry;
pub(in crate::client) use acls::acl_codes;
pub(crate) use cluster_state::lacking;
pub use cluster_state::{BrokerDescription, ClusterDescription, FeatureRange, Features};
pub use configs::{ConfigEntry, ConfigResource, ConfigSource, ResourceConfigs};
pub use error::{AdminError, AdminResult, Found, Missing, NeededAcl};
pub use group_offsets::{CommittedOffset, GroupOffsets};
pub use groups::{AssignedTopic, GroupDescription, GroupListing, GroupMemberState};
pub use leaders::TopicPartition;
pub use log_dirs::LogDir;
pub(super) use offsets::ends_of_epochs;
pub use offsets::{AskedEpoch, EpochEnd, PartitionOffset};
pub use quotas::{QuotaEntity, QuotaEntry};
pub use topics::{PartitionDescription, TopicDescription};
pub use users::{ScramCredential, ScramUser};
