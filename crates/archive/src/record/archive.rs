//! `archive.json`: that here is an archive, and what it takes to read it.

use serde::{Deserialize, Serialize};
use varve_format::Id;

use super::SMALL_MAX_BYTES;
use super::more::{More, check_more};
use crate::canonical::{Record, RecordError, V1, flaw, id_text, rule};
use crate::hash::HashAlgorithm;

const REQUIRES_MAX: usize = 256;

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
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub more: Vec<More>,
}

impl Record for ArchiveRecord {
    const NAME: &'static str = "varve_archive";
    const MAX_BYTES: u64 = SMALL_MAX_BYTES;

    fn check(&self) -> Result<(), RecordError> {
        check_requires(&self.requires)?;
        rule::written(&self.writer, self.created_ms)?;
        check_more(&self.more)
    }
}

pub(crate) fn check_requires(requires: &[String]) -> Result<(), RecordError> {
    rule::at_most("requires", requires.len(), REQUIRES_MAX)?;
    for name in requires {
        rule::safe("requires", name, rule::NAME_MAX_BYTES)?;
    }
    if requires.is_sorted_by(|a, b| a < b) {
        return Ok(());
    }
    Err(flaw("requires", "strictly ascending names", requires.join(", ")))
}
