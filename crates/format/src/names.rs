//! Names of objects in the tier. Derivable from the broker's metadata and the configuration alone, sorted
//! by offset, without the topic's name (which may be too long for a file).
//!
//! The functions that build names do not fail: cluster id and period must have been checked where they came
//! from ([`check_cluster_id`] for the configuration; footers and key records are checked when decoded).

use crate::error::{Error, Flaw, Result};
use crate::id::Id;
use crate::text::check_safe;

/// First part of the names of key records, and so no cluster id.
const KEYS: &str = "keys";
const CLUSTER_ID_MAX_BYTES: usize = 128;

/// What a tier segment's name says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentName {
    pub cluster_id: String,
    pub topic_id: Id,
    pub partition: i32,
    pub base_offset: i64,
    pub segment_id: Id,
}

/// Whether `cluster_id` may stand in names and footers.
///
/// # Errors
/// [`Error::Invalid`] unless it is 1 to 128 of `A–Z a–z 0–9 . _ -`, neither `.`, `..` nor `keys`.
pub fn check_cluster_id(cluster_id: &str) -> Result<()> {
    cluster_id_flaw(cluster_id).map_err(Flaw::invalid)
}

pub(crate) fn cluster_id_flaw(cluster_id: &str) -> Result<(), Flaw> {
    check_safe("cluster id", cluster_id, CLUSTER_ID_MAX_BYTES)?;
    if cluster_id == KEYS {
        return Err(Flaw::new("cluster id", "\"keys\"", "any other name: keys are stored under this one"));
    }
    Ok(())
}

/// Prefix of all segments of a topic: `<cluster id>/<topic id>/`.
pub fn topic_prefix(cluster_id: &str, topic_id: Id) -> String {
    format!("{cluster_id}/{topic_id}/")
}

/// Prefix of all segments of a partition: `<cluster id>/<topic id>/<partition>/`.
pub fn partition_prefix(cluster_id: &str, topic_id: Id, partition: i32) -> String {
    format!("{cluster_id}/{topic_id}/{partition}/")
}

/// Prefix of all segments with this base offset: `<partition prefix><base offset, 20 digits>-`.
pub fn segment_prefix(cluster_id: &str, topic_id: Id, partition: i32, base_offset: i64) -> String {
    format!("{cluster_id}/{topic_id}/{partition}/{base_offset:020}-")
}

/// A segment's name: `<segment prefix><segment id>.varve`.
pub fn segment_name(name: &SegmentName) -> String {
    let prefix = segment_prefix(&name.cluster_id, name.topic_id, name.partition, name.base_offset);
    format!("{prefix}{}.varve", name.segment_id)
}

/// Where the record of a data key lies: `keys/<cluster id>/<topic id>/<period>/<data key id>.json`.
pub fn key_record_name(cluster_id: &str, topic_id: Id, period: &str, id: Id) -> String {
    format!("{}{id}.json", key_prefix(cluster_id, topic_id, period))
}

/// Prefix of the records of a topic's period.
pub fn key_prefix(cluster_id: &str, topic_id: Id, period: &str) -> String {
    format!("{KEYS}/{cluster_id}/{topic_id}/{period}/")
}

/// Prefix of all that is under `keys/`.
pub const KEYS_PREFIX: &str = "keys/";

/// Where a record of version 1 lies: one for a (topic, period).
pub fn key_record_1_name(cluster_id: &str, topic_id: Id, period: &str) -> String {
    format!("{KEYS}/{cluster_id}/{topic_id}/{period}.json")
}

/// What says that a data key was destroyed on purpose: a record of it that comes up again counts for nothing.
/// `record` is the record's name.
pub fn tombstone_name(record: &str) -> String {
    format!("{}.destroyed", record.strip_suffix(".json").unwrap_or(record))
}

/// What the name of a key record, or of a tombstone, says.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeyRecordName {
    pub cluster_id: String,
    pub topic_id: Id,
    pub period: String,
    /// `None` of version 1.
    pub id: Option<Id>,
    /// It says that the key was destroyed.
    pub is_tombstone: bool,
}

impl KeyRecordName {
    /// The inverse of [`key_record_name`], [`key_record_1_name`] and [`tombstone_name`]; `None` for any other name.
    pub fn parse(key: &str) -> Option<Self> {
        let rest = key.strip_prefix(KEYS_PREFIX)?;
        let (stem, is_tombstone) = match rest.strip_suffix(".destroyed") {
            Some(stem) => (stem, true),
            None => (rest.strip_suffix(".json")?, false),
        };
        let mut parts = stem.split('/');
        let (cluster_id, topic_id, period) = (parts.next()?, Id::parse(parts.next()?).ok()?, parts.next()?);
        let id = parts.next().map(Id::parse).transpose().ok()?;
        cluster_id_flaw(cluster_id).ok()?;
        crate::footer::check_period(period).ok()?;
        let name =
            Self { cluster_id: cluster_id.to_owned(), topic_id, period: period.to_owned(), id, is_tombstone };
        (parts.next().is_none() && name.name() == key).then_some(name)
    }

    /// The record's name.
    pub fn record(&self) -> String {
        match self.id {
            Some(id) => key_record_name(&self.cluster_id, self.topic_id, &self.period, id),
            None => key_record_1_name(&self.cluster_id, self.topic_id, &self.period),
        }
    }

    fn name(&self) -> String {
        if self.is_tombstone { tombstone_name(&self.record()) } else { self.record() }
    }
}

impl SegmentName {
    /// The inverse of [`segment_name`].
    ///
    /// # Errors
    /// [`Error::Invalid`] for what [`segment_name`] would not have given for a legal segment.
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
            topic_id: Id::parse(topic).map_err(|_| fail())?,
            partition: partition.parse().map_err(|_| fail())?,
            base_offset: base.parse().map_err(|_| fail())?,
            segment_id: segment.strip_prefix('-').and_then(|text| Id::parse(text).ok()).ok_or_else(fail)?,
        };
        let legal = cluster_id_flaw(cluster_id).is_ok() && name.partition >= 0 && name.base_offset >= 0;
        if legal && segment_name(&name) == key { Ok(name) } else { Err(fail()) }
    }
}
