//! What was deleted on purpose: declared before it is, and for ever.

use serde::{Deserialize, Serialize};
use varve_format::Id;

use super::MANIFEST_MAX_BYTES;
use super::more::{More, check_more};
use super::signature::{Signable, Signature};
use super::snapshot::{RecordRef, check_before};
use crate::canonical::{Record, RecordError, V1, flaw, id_text, rule};

pub const RANGES_MAX: usize = 65_536;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PrunedRecord {
    pub varve_pruned: V1,
    #[serde(with = "id_text")]
    pub archive_id: Id,
    pub sequence: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<RecordRef>,
    pub snapshot: u64,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ranges: Vec<PrunedRange>,
    /// Snapshots whose trees are given up; their records stay.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub snapshots: Vec<SnapshotRange>,
    pub reason: String,
    pub writer: String,
    pub created_ms: i64,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub more: Vec<More>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<Signature>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PrunedRange {
    #[serde(with = "id_text")]
    pub topic_id: Id,
    pub partition: i32,
    pub branch: u32,
    pub first_offset: i64,
    pub end_offset: i64,
    pub objects: u64,
}

/// Both are in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SnapshotRange {
    pub first: u64,
    pub last: u64,
}

impl Signable for PrunedRecord {
    const CONTEXT: &'static [u8] = b"varve pruned v1";

    fn signature_mut(&mut self) -> &mut Option<Signature> {
        &mut self.signature
    }
}

impl Record for PrunedRecord {
    const NAME: &'static str = "varve_pruned";
    const MAX_BYTES: u64 = MANIFEST_MAX_BYTES;

    fn check(&self) -> Result<(), RecordError> {
        rule::sequence(self.sequence)?;
        check_before("previous", self.previous, self.sequence)?;
        rule::sequence(self.snapshot)?;
        rule::at_most("ranges", self.ranges.len(), RANGES_MAX)?;
        for range in &self.ranges {
            rule::positive("partition", range.partition)?;
            rule::range("range", range.first_offset, range.end_offset)?;
            rule::count("objects", range.objects)?;
            if range.objects == 0 {
                return Err(flaw("objects", "1 or more", 0));
            }
        }
        let place = |r: &PrunedRange| (r.topic_id, r.partition, r.branch);
        let ascending = |a: &PrunedRange, b: &PrunedRange| {
            (place(a), a.first_offset) < (place(b), b.first_offset)
                && (place(a) != place(b) || a.end_offset <= b.first_offset)
        };
        if !self.ranges.is_sorted_by(ascending) {
            return Err(flaw("ranges", "ascending, without overlaps", "others"));
        }
        rule::at_most("snapshots", self.snapshots.len(), RANGES_MAX)?;
        let legal = |r: &SnapshotRange| 0 < r.first && r.first <= r.last && r.last < self.snapshot;
        if !self.snapshots.iter().all(legal) || !self.snapshots.is_sorted_by(|a, b| a.last < b.first) {
            return Err(flaw("snapshots", "ascending, below the snapshot that is named", "others"));
        }
        if self.ranges.is_empty() && self.snapshots.is_empty() {
            return Err(flaw("pruned", "ranges or snapshots", "neither"));
        }
        rule::text("reason", &self.reason, rule::TEXT_MAX_BYTES)?;
        rule::written(&self.writer, self.created_ms)?;
        check_more(&self.more)?;
        self.signature.as_ref().map_or(Ok(()), Signature::check)
    }
}
