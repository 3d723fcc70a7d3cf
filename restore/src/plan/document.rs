//! The plan: what will be done, why, and what will be different; a file that is read by people, and applied.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::log::Hole;
use crate::rest::Rest;
use crate::schemas::PlannedSchemas;

/// Of the file.
pub const PLAN_VERSION: u32 = 1;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    pub varve_restore_plan: u32,
    /// Of this restore, also when it is resumed: the log directory that partitions remember us by.
    pub restore_id: String,
    pub created_ms: i64,
    pub archive: PlannedArchive,
    pub target: PlannedTarget,
    pub topics: Vec<PlannedTopic>,
    pub groups: Vec<PlannedGroup>,
    /// ACLs, quotas and configs that the target lacks.
    #[serde(default, skip_serializing_if = "Rest::is_empty")]
    pub rest: Rest,
    pub totals: Totals,
    /// What will not be as it was.
    pub differences: Vec<String>,
    /// What stands against it. With any, nothing is done.
    pub refusals: Vec<Refusal>,
    /// What the Schema Registry lacks, if one is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schemas: Option<PlannedSchemas>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlannedArchive {
    pub url: String,
    pub archive_id: String,
    pub snapshot: u64,
    pub snapshot_hash: String,
    pub snapshot_created_ms: i64,
    /// The cluster that it is of.
    pub cluster_id: String,
    /// The point in time, if it is not the snapshot's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub as_of_ms: Option<i64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlannedTarget {
    pub bootstrap_servers: String,
    pub controllers: String,
    pub cluster_id: String,
    pub brokers: Vec<i32>,
    /// The id that we register with, and leave again.
    pub broker_id: i32,
    pub listener_name: String,
    /// By which brokers reach each other, and us: PLAINTEXT, SSL, SASL_PLAINTEXT, SASL_SSL.
    #[serde(default = "plaintext")]
    pub listener_protocol: String,
}

fn plaintext() -> String {
    "PLAINTEXT".to_owned()
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlannedTopic {
    pub topic: String,
    pub topic_id: String,
    /// Its name on the target.
    pub target: String,
    pub mode: Mode,
    pub why: String,
    pub partitions: Vec<PlannedPartition>,
    /// Until it is released: nothing is deleted or compacted.
    pub configs: BTreeMap<String, String>,
    /// As in the archive: set by `varve restore release`.
    pub final_configs: BTreeMap<String, String>,
    /// Not of a topic that was deleted before the snapshot: its release leaves its configs alone.
    pub are_configs_known: bool,
}

impl PlannedTopic {
    /// In the archived cluster.
    pub fn was_tiered(&self) -> bool {
        self.final_configs.get("remote.storage.enable").is_some_and(|enabled| enabled == "true")
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Brokers copy from us as from a leader: byte for byte.
    Leader,
    /// A producer writes the committed records.
    Produce,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlannedPartition {
    pub partition: i32,
    /// The preferred leader first.
    pub replicas: Vec<i32>,
    /// The log start offset.
    pub start_offset: i64,
    /// Where the first batch begins.
    pub base_offset: i64,
    /// Last offset + 1.
    pub end_offset: i64,
    pub log_bytes: u64,
    pub stored_bytes: u64,
    pub objects: u64,
    /// Epoch and the offset that it begins at.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub leader_epochs: Vec<(i32, i64)>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub holes: Vec<Hole>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub open_transactions: Vec<PlannedTransaction>,
    /// Of the holes, those where the archive does not hold.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub skipped: Vec<Hole>,
    /// In mode produce.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub produce: Option<PlannedProduce>,
}

/// What a producer writes of a partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlannedProduce {
    pub offsets: Offsets,
    /// Offsets from 0 on that are taken and deleted first, so that the others stay what they are.
    pub filler: i64,
    /// That are written.
    pub records: u64,
    /// Of transactions that were aborted, or are open at the end: they are left out.
    pub aborted_records: u64,
    pub markers: u64,
    /// Batches that can't be sent in the bytes that they are in.
    pub remade_batches: u64,
    pub largest_batch_bytes: u64,
    pub first_timestamp_ms: i64,
}

/// Whether records keep their offsets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Offsets {
    Equal,
    /// They are counted anew, from 0 on.
    Mapped,
}

/// Open at the end of the log: it is aborted there, since its producer is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlannedTransaction {
    pub producer_id: i64,
    pub producer_epoch: i16,
    pub first_offset: i64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlannedGroup {
    pub group_id: String,
    pub offsets: Vec<PlannedOffset>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlannedOffset {
    /// Its name on the target.
    pub topic: String,
    pub partition: i32,
    pub offset: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leader_epoch: Option<i32>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub metadata: String,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Totals {
    pub topics: u64,
    pub partitions: u64,
    pub objects: u64,
    /// Requests for reading them, about.
    pub requests: u64,
    /// As the archive has them.
    pub stored_bytes: u64,
    /// As one replica has them.
    pub log_bytes: u64,
    /// As all replicas together have them.
    pub replica_bytes: u64,
    /// Rounds in which leader epochs are raised: 0.1 to 0.2 s each.
    pub epoch_cycles: u64,
    /// Until all is handed over, about: without a throttle, and without verifying.
    #[serde(default)]
    pub expected_seconds: u64,
    /// Of these, for the copying.
    #[serde(default)]
    pub copying_seconds: u64,
    /// Threads with which a broker copies.
    #[serde(default)]
    pub assumed_fetchers: u32,
}

/// What stands against it, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Refusal {
    pub what: String,
    pub todo: String,
}

impl Plan {
    /// Whether a producer writes it; else brokers copy it.
    pub fn is_produced(&self) -> bool {
        self.topics.iter().any(|topic| topic.mode == Mode::Produce)
    }

    /// Of all partitions, with where they go.
    pub fn partitions(&self) -> impl Iterator<Item = (&PlannedTopic, &PlannedPartition)> {
        self.topics.iter().flat_map(|topic| topic.partitions.iter().map(move |p| (topic, p)))
    }
}
