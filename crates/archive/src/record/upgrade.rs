//! What an archive that exists requires from now on, beyond what `archive.json` says.

use serde::{Deserialize, Serialize};
use varve_format::Id;

use super::SMALL_MAX_BYTES;
use super::archive::check_requires;
use super::more::{More, check_more};
use crate::canonical::{Record, RecordError, V1, flaw, id_text, rule};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UpgradeRecord {
    pub varve_upgrade: V1,
    #[serde(with = "id_text")]
    pub archive_id: Id,
    pub number: u32,
    pub requires: Vec<String>,
    pub writer: String,
    pub created_ms: i64,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub more: Vec<More>,
}

impl Record for UpgradeRecord {
    const NAME: &'static str = "varve_upgrade";
    const MAX_BYTES: u64 = SMALL_MAX_BYTES;

    fn check(&self) -> Result<(), RecordError> {
        if self.number == 0 || self.requires.is_empty() {
            return Err(flaw("upgrade", "a number from 1 on, and what is required", self.number));
        }
        check_requires(&self.requires)?;
        rule::written(&self.writer, self.created_ms)?;
        check_more(&self.more)
    }
}
