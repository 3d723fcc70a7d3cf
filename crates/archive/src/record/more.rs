//! What a later writer adds to a record without a new version: kept by all, ignored by who does not know it.

use serde::{Deserialize, Serialize};

use crate::canonical::{RecordError, flaw, rule};

pub const MORE_MAX: usize = 64;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct More {
    pub name: String,
    pub value: String,
}

pub(crate) fn check_more(more: &[More]) -> Result<(), RecordError> {
    rule::at_most("more", more.len(), MORE_MAX)?;
    for member in more {
        rule::safe("name in more", &member.name, rule::NAME_MAX_BYTES)?;
        rule::text("value in more", &member.value, rule::TEXT_MAX_BYTES)?;
    }
    if more.is_sorted_by(|a, b| a.name < b.name) {
        return Ok(());
    }
    Err(flaw("more", "strictly ascending names", "others"))
}
