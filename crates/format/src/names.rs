//! Names of objects in the tier. Derivable from the broker's metadata and the configuration alone, sorted
//! by offset, without the topic's name (which may be too long for a file).

use crate::error::{Error, Result};
use crate::id::Id;

/// What a tier segment's name says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentName {
    pub cluster_id: String,
    pub topic_id: Id,
    pub partition: i32,
    pub base_offset: i64,
    pub segment_id: Id,
}

pub fn topic_prefix(cluster_id: &str, topic_id: Id) -> String {
    format!("{cluster_id}/{topic_id}/")
}

pub fn partition_prefix(cluster_id: &str, topic_id: Id, partition: i32) -> String {
    format!("{cluster_id}/{topic_id}/{partition}/")
}

/// Prefix of all segments with this base offset.
pub fn segment_prefix(cluster_id: &str, topic_id: Id, partition: i32, base_offset: i64) -> String {
    format!("{cluster_id}/{topic_id}/{partition}/{base_offset:020}-")
}

pub fn segment_name(name: &SegmentName) -> String {
    let prefix = segment_prefix(&name.cluster_id, name.topic_id, name.partition, name.base_offset);
    format!("{prefix}{}.varve", name.segment_id)
}

/// Where the data key of a (topic, period) lies.
pub fn key_record_name(cluster_id: &str, topic_id: Id, period: &str) -> String {
    format!("keys/{cluster_id}/{topic_id}/{period}.json")
}

impl SegmentName {
    /// The inverse of [`segment_name`].
    pub fn parse(key: &str) -> Result<Self> {
        let fail = || {
            Error::invalid(
                "segment name",
                format!("{key:?}"),
                "<cluster id>/<topic id>/<partition>/<base offset, 20 digits>-<segment id>.varve",
            )
        };
        let mut parts = key.split('/');
        let (Some(cluster_id), Some(topic), Some(partition), Some(file), None) =
            (parts.next(), parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(fail());
        };
        let (base, segment) =
            file.strip_suffix(".varve").and_then(|stem| stem.split_at_checked(20)).ok_or_else(fail)?;
        let name = Self {
            cluster_id: cluster_id.to_owned(),
            topic_id: Id::parse(topic)?,
            partition: partition.parse().map_err(|_| fail())?,
            base_offset: base.parse().map_err(|_| fail())?,
            segment_id: Id::parse(segment.strip_prefix('-').ok_or_else(fail)?)?,
        };
        if segment_name(&name) == key { Ok(name) } else { Err(fail()) }
    }
}
