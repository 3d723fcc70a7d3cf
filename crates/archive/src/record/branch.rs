//! A branch: where a partition's history parted, and why.

use serde::{Deserialize, Serialize};
use varve_format::{EpochStart, Id};

use super::SMALL_MAX_BYTES;
use super::more::{More, check_more};
use crate::canonical::{Record, RecordError, V1, flaw, id_text, rule};

pub const EPOCHS_MAX: usize = 512;

/// Why a branch was started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum BranchReason {
    /// Old offsets have new contents: an unclean election, a lost disk.
    Divergence,
    /// The reader of a compacted topic fell behind `delete.retention.ms`.
    Compaction,
    /// The object at the parent's end is damaged, so that nothing can follow it.
    Damaged,
    /// Epochs came twice: a volume or the cluster's metadata were restored.
    Restored,
    /// A later writer's.
    Other(String),
}

impl BranchReason {
    pub fn name(&self) -> &str {
        match self {
            Self::Divergence => "divergence",
            Self::Compaction => "compaction",
            Self::Damaged => "damaged",
            Self::Restored => "restored",
            Self::Other(name) => name,
        }
    }
}

impl From<String> for BranchReason {
    fn from(name: String) -> Self {
        match name.as_str() {
            "divergence" => Self::Divergence,
            "compaction" => Self::Compaction,
            "damaged" => Self::Damaged,
            "restored" => Self::Restored,
            _ => Self::Other(name),
        }
    }
}

impl From<BranchReason> for String {
    fn from(reason: BranchReason) -> Self {
        reason.name().to_owned()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EpochEntry {
    pub epoch: i32,
    pub start_offset: i64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BranchRecord {
    pub varve_branch: V1,
    #[serde(with = "id_text")]
    pub topic_id: Id,
    pub partition: i32,
    pub branch: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<u32>,
    pub start_offset: i64,
    pub reason: BranchReason,
    pub leader_epoch: i32,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub leader_epochs: Vec<EpochEntry>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    pub writer: String,
    pub created_ms: i64,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub more: Vec<More>,
}

impl From<EpochStart> for EpochEntry {
    fn from(e: EpochStart) -> Self {
        Self { epoch: e.epoch, start_offset: e.start_offset }
    }
}

impl Record for BranchRecord {
    const NAME: &'static str = "varve_branch";
    const MAX_BYTES: u64 = SMALL_MAX_BYTES;

    fn check(&self) -> Result<(), RecordError> {
        rule::positive("partition", self.partition)?;
        rule::positive("start_offset", self.start_offset)?;
        if self.branch == 0 || self.parent.is_some_and(|parent| parent >= self.branch) {
            let found = format!("branch {} of {:?}", self.branch, self.parent);
            return Err(flaw("branch", "1 or more, above its parent", found));
        }
        if self.leader_epoch < -1 {
            return Err(flaw("leader_epoch", "-1 or more", self.leader_epoch));
        }
        rule::safe("reason", self.reason.name(), rule::NAME_MAX_BYTES)?;
        check_epochs(&self.leader_epochs)?;
        rule::detail(self.detail.as_ref())?;
        rule::written(&self.writer, self.created_ms)?;
        check_more(&self.more)
    }
}

pub(crate) fn check_epochs(epochs: &[EpochEntry]) -> Result<(), RecordError> {
    rule::at_most("leader_epochs", epochs.len(), EPOCHS_MAX)?;
    let ascending = |a: &EpochEntry, b: &EpochEntry| a.epoch < b.epoch && a.start_offset < b.start_offset;
    if epochs.iter().all(|e| e.epoch >= 0 && e.start_offset >= 0) && epochs.is_sorted_by(ascending) {
        return Ok(());
    }
    Err(flaw("leader_epochs", "0 or more, strictly ascending", "others"))
}

/// What a record has room for: the newest.
pub fn newest_epochs(epochs: impl IntoIterator<Item = EpochStart>) -> Vec<EpochEntry> {
    let mut all: Vec<EpochEntry> = epochs.into_iter().map(EpochEntry::from).collect();
    all.split_off(all.len().saturating_sub(EPOCHS_MAX))
}

/// The epoch of the last record before `offset`, by `epochs`.
pub fn epoch_before(epochs: &[EpochEntry], offset: i64) -> Option<i32> {
    epochs.iter().rev().find(|e| e.start_offset < offset).map(|e| e.epoch)
}
