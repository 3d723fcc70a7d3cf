//! `about.json`: the name of a topic's id.

use serde::{Deserialize, Serialize};
use varve_format::Id;

use super::SMALL_MAX_BYTES;
use super::more::{More, check_more};
use crate::canonical::{Record, RecordError, V1, flaw, id_text, rule};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TopicRecord {
    pub varve_topic: V1,
    #[serde(with = "id_text")]
    pub topic_id: Id,
    pub topic: String,
    pub cluster_id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partitions: Option<i32>,
    pub writer: String,
    pub created_ms: i64,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub more: Vec<More>,
}

impl Record for TopicRecord {
    const NAME: &'static str = "varve_topic";
    const MAX_BYTES: u64 = SMALL_MAX_BYTES;

    fn check(&self) -> Result<(), RecordError> {
        rule::safe("topic", &self.topic, rule::TOPIC_MAX_BYTES)?;
        varve_format::check_cluster_id(&self.cluster_id).map_err(|_| {
            flaw("cluster_id", "safe text of 1 to 128 bytes, not keys", self.cluster_id.len())
        })?;
        if self.partitions.is_some_and(|n| n < 1) {
            return Err(flaw("partitions", "1 or more", format!("{:?}", self.partitions)));
        }
        rule::written(&self.writer, self.created_ms)?;
        check_more(&self.more)
    }
}
