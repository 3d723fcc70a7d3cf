//! Names of an archive's objects, relative to its root. Built from numbers, ids and safe text alone.

use varve_format::Id;

use crate::hash::Hash;

pub const ARCHIVE: &str = "archive.json";
pub const TOPICS: &str = "topics/";
pub const SNAPSHOTS: &str = "snapshots/";
pub const MANIFESTS: &str = "manifests/";
pub const JOURNAL: &str = "journal/";
pub const PRUNED: &str = "pruned/";
pub const UPGRADES: &str = "upgrades/";
pub const RESTORES: &str = "restores/";
pub const PROBE: &str = "probe/";
pub const KEYS: &str = "keys/";
/// Sorts behind every character of a name: to list from it is to skip all that begins with what stands before.
pub(crate) const SKIP: char = '~';

pub fn topic(topic_id: Id) -> String {
    format!("{TOPICS}{topic_id}/about.json")
}

pub fn partition_prefix(topic_id: Id, partition: i32) -> String {
    format!("{TOPICS}{topic_id}/{partition}/")
}

pub fn chain_prefix(topic_id: Id, partition: i32, branch: u32) -> String {
    format!("{TOPICS}{topic_id}/{partition}/{branch}/")
}

pub fn object(topic_id: Id, partition: i32, branch: u32, first_offset: i64) -> String {
    format!("{TOPICS}{topic_id}/{partition}/{branch}/{first_offset:020}.varve")
}

pub fn branches_prefix(topic_id: Id, partition: i32) -> String {
    format!("{TOPICS}{topic_id}/{partition}/branches/")
}

pub fn branch(topic_id: Id, partition: i32, branch: u32) -> String {
    format!("{TOPICS}{topic_id}/{partition}/branches/{branch:010}.json")
}

pub fn snapshot(sequence: u64) -> String {
    format!("{SNAPSHOTS}{sequence:020}.json")
}

pub fn manifest(hash: Hash) -> String {
    format!("{MANIFESTS}{hash}")
}

pub fn journal_prefix(archiver: &str) -> String {
    format!("{JOURNAL}{archiver}/")
}

pub fn bundle(archiver: &str, sequence: u64) -> String {
    format!("{JOURNAL}{archiver}/{sequence:020}.bundle")
}

pub fn pruned(sequence: u64) -> String {
    format!("{PRUNED}{sequence:020}.json")
}

pub fn upgrade(number: u32) -> String {
    format!("{UPGRADES}{number:010}.json")
}

/// Of a restore that gave records other offsets.
pub fn restore(restore_id: Id) -> String {
    format!("{RESTORES}{restore_id}/about.json")
}

pub fn restore_map(restore_id: Id, part: u32) -> String {
    format!("{RESTORES}{restore_id}/{part:010}.map")
}

/// What a store is tried with before it is written to.
pub(crate) fn probe(id: Id) -> String {
    format!("{PROBE}{id}")
}

/// What an archiver calls itself in the journal: another with each start, so that no name of a bundle comes back.
pub fn archiver(name: &str, start: Id) -> String {
    let room = crate::canonical::rule::NAME_MAX_BYTES.saturating_sub(23);
    let name: String =
        name.chars().filter(|c| c.is_ascii_alphanumeric() || ".-_".contains(*c)).take(room).collect();
    format!("{name}-{start}")
}

/// The number in `name`, which has exactly `digits` digits between `prefix` and `suffix`.
pub(crate) fn number(name: &str, prefix: &str, digits: usize, suffix: &str) -> Option<u64> {
    let text = name.strip_prefix(prefix)?.strip_suffix(suffix)?;
    let legal = text.len() == digits && text.bytes().all(|b| b.is_ascii_digit());
    if legal { text.parse().ok() } else { None }
}

/// The first offset that an object's name in the chain of `prefix` says.
pub(crate) fn first_offset(name: &str, prefix: &str) -> Option<i64> {
    number(name, prefix, 20, ".varve").and_then(|n| i64::try_from(n).ok())
}

/// What stands under [`TOPICS`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum TopicName {
    About(Id),
    /// Anything of a partition.
    Partition(Id, i32),
}

/// `None` for a name that is no part of an archive.
pub(crate) fn parse_topic_name(name: &str) -> Option<TopicName> {
    let (topic, rest) = name.strip_prefix(TOPICS)?.split_once('/')?;
    let topic_id = Id::parse(topic).ok()?;
    if rest == "about.json" {
        return Some(TopicName::About(topic_id));
    }
    let (partition, rest) = rest.split_once('/')?;
    let number: i32 = partition.parse().ok()?;
    let canonical = number >= 0 && number.to_string() == partition && !rest.is_empty();
    canonical.then_some(TopicName::Partition(topic_id, number))
}

/// Topic, partition, branch and first offset of an object's name.
pub(crate) fn parse_object(name: &str) -> Option<(Id, i32, u32, i64)> {
    let TopicName::Partition(topic_id, partition) = parse_topic_name(name)? else { return None };
    let rest = name.strip_prefix(&partition_prefix(topic_id, partition))?;
    let (branch, _) = rest.split_once('/')?;
    let number: u32 = branch.parse().ok().filter(|number: &u32| number.to_string() == branch)?;
    let first_offset = first_offset(name, &chain_prefix(topic_id, partition, number))?;
    Some((topic_id, partition, number, first_offset))
}

/// Archiver and sequence of a bundle's name.
pub(crate) fn parse_bundle(name: &str) -> Option<(&str, u64)> {
    let (archiver, file) = name.strip_prefix(JOURNAL)?.split_once('/')?;
    crate::canonical::rule::safe("archiver", archiver, 64).ok()?;
    Some((archiver, number(file, "", 20, ".bundle")?))
}
