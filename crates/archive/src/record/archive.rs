//! `archive.json`: that here is an archive, and what it takes to read it.

use serde::{Deserialize, Serialize};
use varve_format::Id;

use super::SMALL_MAX_BYTES;
use crate::canonical::{Record, RecordError, V1, flaw, id_text, rule};
use crate::hash::HashAlgorithm;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ArchiveRecord {
    pub varve_archive: V1,
    #[serde(with = "id_text")]
    pub id: Id,
    pub hash: HashAlgorithm,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub requires: Vec<String>,
    pub writer: String,
    pub created_ms: i64,
}

impl Record for ArchiveRecord {
    const NAME: &'static str = "varve_archive";
    const MAX_BYTES: u64 = SMALL_MAX_BYTES;

    fn check(&self) -> Result<(), RecordError> {
        for name in &self.requires {
            rule::text("requires", name, rule::TEXT_MAX_BYTES)?;
        }
        if !self.requires.is_sorted_by(|a, b| a < b) {
            return Err(flaw("requires", "strictly ascending names", self.requires.join(", ")));
        }
        rule::written(&self.writer, self.created_ms)
    }
}
