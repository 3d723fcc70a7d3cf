//! What was deleted on purpose: declared before it is, and for ever.

use serde::{Deserialize, Serialize};
use varve_format::Id;

use super::MANIFEST_MAX_BYTES;
use crate::canonical::{Record, RecordError, V1, flaw, id_text, rule};

pub const RANGES_MAX: usize = 65_536;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PrunedRecord {
    pub varve_pruned: V1,
    #[serde(with = "id_text")]
    pub archive_id: Id,
    pub sequence: u64,
    pub snapshot: u64,
    pub ranges: Vec<PrunedRange>,
    pub reason: String,
    pub writer: String,
    pub created_ms: i64,
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

impl Record for PrunedRecord {
    const NAME: &'static str = "varve_pruned";
    const MAX_BYTES: u64 = MANIFEST_MAX_BYTES;

    fn check(&self) -> Result<(), RecordError> {
        rule::sequence(self.sequence)?;
        rule::sequence(self.snapshot)?;
        rule::at_most("ranges", self.ranges.len(), RANGES_MAX)?;
        for range in &self.ranges {
            rule::positive("partition", range.partition)?;
            rule::range("range", range.first_offset, range.end_offset)?;
            rule::count("objects", range.objects)?;
        }
        let place = |r: &PrunedRange| (r.topic_id, r.partition, r.branch);
        let ascending = |a: &PrunedRange, b: &PrunedRange| {
            (place(a), a.first_offset) < (place(b), b.first_offset)
                && (place(a) != place(b) || a.end_offset <= b.first_offset)
        };
        if self.ranges.is_empty() || !self.ranges.is_sorted_by(ascending) {
            return Err(flaw("ranges", "1 or more, ascending, without overlaps", self.ranges.len()));
        }
        rule::text("reason", &self.reason, rule::TEXT_MAX_BYTES)?;
        rule::written(&self.writer, self.created_ms)
    }
}
