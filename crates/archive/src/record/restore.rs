//! `restores/<restore id>/about.json`: a restore that gave records other offsets, and how many parts its map has.

use serde::{Deserialize, Serialize};
use varve_format::Id;

use super::SMALL_MAX_BYTES;
use super::more::{More, check_more};
use crate::canonical::{Record, RecordError, V1, flaw, id_text, rule};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RestoreRecord {
    pub varve_restore: V1,
    #[serde(with = "id_text")]
    pub restore_id: Id,
    #[serde(with = "id_text")]
    pub archive_id: Id,
    /// What was restored.
    pub snapshot: u64,
    pub target_cluster_id: String,
    pub parts: u32,
    pub writer: String,
    pub created_ms: i64,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub more: Vec<More>,
}

impl Record for RestoreRecord {
    const NAME: &'static str = "varve_restore";
    const MAX_BYTES: u64 = SMALL_MAX_BYTES;

    fn check(&self) -> Result<(), RecordError> {
        if self.snapshot == 0 {
            return Err(flaw("snapshot", "1 or more", self.snapshot));
        }
        rule::safe("target_cluster_id", &self.target_cluster_id, rule::TOPIC_MAX_BYTES)?;
        rule::written(&self.writer, self.created_ms)?;
        check_more(&self.more)
    }
}
