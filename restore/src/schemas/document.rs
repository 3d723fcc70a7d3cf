//! What a plan has of a Schema Registry. The texts of schemas are in the archive, and not in the plan.

use serde::{Deserialize, Serialize};
use varve_cluster::RegistryConfig;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlannedSchemas {
    pub url: String,
    pub ids: Ids,
    /// The global one; of a registry that has no subject.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<RegistryConfig>,
    /// The global one; of a registry that has no subject.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
    /// Those with anything to do.
    pub subjects: Vec<PlannedSubject>,
    /// In the order in which they are registered: what is referred to comes first.
    pub versions: Vec<PlannedVersion>,
    /// Versions that the registry has already, the very same.
    pub equal: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ids {
    /// By the mode IMPORT.
    Kept,
    /// The registry gives new ones, and versions too.
    Mapped,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlannedSubject {
    pub subject: String,
    /// It is deleted, softly, once its versions are there.
    #[serde(default)]
    pub deleted: bool,
    /// Its own, to be set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<RegistryConfig>,
    /// Its own, to be set at the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
    /// Its own before, which it gets back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_before: Option<RegistryConfig>,
    /// Its own before, which it gets back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode_before: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlannedVersion {
    pub subject: String,
    pub version: i32,
    pub id: i64,
    #[serde(rename = "type")]
    pub schema_type: String,
    /// Softly, once all are there.
    #[serde(default)]
    pub deleted: bool,
    /// The registry has it under some id: only the map needs it.
    #[serde(default)]
    pub is_there: bool,
}
