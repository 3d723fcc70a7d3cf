//! The state of a cluster, as a document that snapshots hold: all that a restored cluster needs beside its topics.
//!
//! docs/CLUSTER-STATE.md specifies the document and the permissions that collecting it needs. [`collect_groups`]
//! comes first, then the log ends that a snapshot waits for are read, [`collect_rest`] comes last. Equal states
//! are equal bytes ([`varve_archive::Record::encode`]). What can't be read is in the document's `missing`, never
//! silently absent. Nothing is changed on a cluster, so a crash leaves nothing behind; a [`SchemaRegistry`] also takes
//! back what a document has of it.

mod check;
mod collect;
mod diff;
mod document;
mod earlier;
mod groups;
mod missing;
mod parts;
mod read_schemas;
mod schema_registry;
mod schemas;
mod write_schemas;

pub use collect::{StateError, collect, collect_rest};
pub use diff::{Difference, Item, Kind, diff};
pub use document::{
    Acl, Assigned, Broker, ClusterState, Committed, Config, Credential, Feature, Group, MAX_BYTES, Member,
    MissingEntry, Needs, Observed, ObservedGroup, Quota, QuotaEntity, QuotaValue, Reason, ResourceConfigs,
    ResourceType, Topic, TopicOffsets, User,
};
pub use earlier::EarlierState;
pub use groups::{CollectedGroups, collect_groups};
pub use parts::{Part, StateParts};
pub use read_schemas::read_registry;
pub use schema_registry::{RegistryError, RegistryLogin, RegistrySettings, SchemaRegistry};
pub use schemas::{RegistryConfig, SchemaReference, SchemaState, SchemaVersion, Subject};
pub use write_schemas::{IMPORT, NewSchema, Registered};
