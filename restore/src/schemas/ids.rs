//! Old and new ids of schemas: a file beside the plan, for whoever has to read records with the old ones.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// One version, there and here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MappedId {
    pub subject: String,
    pub version: i32,
    pub id: i64,
    pub new_version: i32,
    pub new_id: i64,
}

/// Its path, of the plan's.
pub fn ids_file(plan: &Path) -> PathBuf {
    let mut name = plan.as_os_str().to_owned();
    name.push(".schema-ids.json");
    name.into()
}

pub(super) fn write(plan: &Path, ids: &[MappedId]) -> Result<()> {
    let path = ids_file(plan);
    let fail = |source| Error::File { what: path.display().to_string(), source };
    let text = serde_json::to_vec_pretty(ids).map_err(|e| fail(e.into()))?;
    std::fs::write(&path, text).map_err(fail)
}

/// None if there is no such file.
pub(super) fn read(plan: &Path) -> Result<Vec<MappedId>> {
    let path = ids_file(plan);
    let fail = |source| Error::File { what: path.display().to_string(), source };
    match std::fs::read(&path) {
        Ok(text) => serde_json::from_slice(&text).map_err(|e| fail(e.into())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(fail(error)),
    }
}
