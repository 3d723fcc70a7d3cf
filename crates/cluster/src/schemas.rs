//! What a Schema Registry holds, as the document has it.

use serde::{Deserialize, Serialize};

use super::document::is_false;

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SchemaState {
    /// The global one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<RegistryConfig>,
    /// The global one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
    /// By name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub subjects: Vec<Subject>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegistryConfig {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compatibility: Option<String>,
    /// All else that the registry told, as one JSON object, its members by name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub more: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subject {
    pub subject: String,
    /// Softly: listed no more, and still readable.
    #[serde(default, skip_serializing_if = "is_false")]
    pub deleted: bool,
    /// Of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<RegistryConfig>,
    /// Of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
    /// By number.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub versions: Vec<SchemaVersion>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SchemaVersion {
    pub version: i32,
    pub id: i64,
    /// `AVRO`, `JSON`, `PROTOBUF`.
    #[serde(rename = "type")]
    pub schema_type: String,
    #[serde(default, skip_serializing_if = "is_false")]
    pub deleted: bool,
    pub schema: String,
    /// In the registry's order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub references: Vec<SchemaReference>,
    /// All else that the registry told (metadata, rules), as one JSON object, its members by name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub more: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SchemaReference {
    pub name: String,
    pub subject: String,
    pub version: i32,
}
