//! Deleting segments on purpose: declared first, for ever; deleted then.
//!
//! The last object of each branch's chain stays, so that the chain's end is found by listing, now and for ever.
//! A crash leaves objects that are declared pruned: readers take them as absent, and deletion is repeated.

use std::collections::BTreeMap;

use bytes::Bytes;
use varve_format::Id;
use varve_store::Key;

use crate::archive::Archive;
use crate::canonical::{Record, V1};
use crate::error::{Error, Result};
use crate::names;
use crate::record::pruned::{PrunedRange, PrunedRecord};
use crate::record::state::PartitionState;
use crate::shelf::Created;

const TRIES_MAX: u32 = 16;
const BATCH: usize = 1000;

/// What was pruned, of all records that were read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    by_branch: BTreeMap<(Id, i32, u32), Vec<(i64, i64)>>,
}

impl Pruned {
    pub fn add(&mut self, record: &PrunedRecord) {
        for r in &record.ranges {
            let ranges = self.by_branch.entry((r.topic_id, r.partition, r.branch)).or_default();
            ranges.push((r.first_offset, r.end_offset));
        }
    }

    /// Whether the object that begins at `first_offset` is to be taken as absent.
    pub fn holds(&self, topic_id: Id, partition: i32, branch: u32, first_offset: i64) -> bool {
        let ranges = self.by_branch.get(&(topic_id, partition, branch));
        ranges.is_some_and(|r| r.iter().any(|(from, to)| (*from..*to).contains(&first_offset)))
    }

    /// Where the pruned range ends that holds `offset`.
    pub fn end_of(&self, topic_id: Id, partition: i32, branch: u32, offset: i64) -> Option<i64> {
        let ranges = self.by_branch.get(&(topic_id, partition, branch))?;
        ranges.iter().filter(|(from, to)| (*from..*to).contains(&offset)).map(|(_, to)| *to).max()
    }
}

impl Archive {
    /// Whole objects of a branch in a snapshot that end at or below `keep_from`, as one range: without the last.
    ///
    /// # Errors
    /// As [`Archive::block`].
    pub async fn prunable(
        &self,
        state: &PartitionState,
        branch: u32,
        keep_from: i64,
    ) -> Result<Option<PrunedRange>> {
        let Some(branch) = state.branches.iter().find(|b| b.branch == branch) else { return Ok(None) };
        let mut objects = self.objects(branch);
        let mut range: Option<PrunedRange> = None;
        while let Some(object) = objects.next().await? {
            if object.end_offset > keep_from || object.end_offset >= branch.end_offset {
                break;
            }
            let range = range.get_or_insert(PrunedRange {
                topic_id: state.topic_id,
                partition: state.partition,
                branch: branch.branch,
                first_offset: object.first_offset,
                end_offset: object.end_offset,
                objects: 0,
            });
            range.end_offset = object.end_offset;
            range.objects = range.objects.saturating_add(1);
        }
        Ok(range)
    }

    /// Declares `ranges`, which must be of snapshot `snapshot` and ascend, as pruned.
    ///
    /// # Errors
    /// Of the store; [`Error::Invalid`] for ranges that the snapshot does not hold, or that hold a chain's end.
    pub async fn declare_pruned(
        &self,
        snapshot: u64,
        ranges: Vec<PrunedRange>,
        reason: &str,
        writer: &str,
        now_ms: i64,
    ) -> Result<PrunedRecord> {
        let found = self.snapshot(snapshot).await?;
        let missing = || Error::Missing { object: self.shelf.place(&names::snapshot(snapshot)) };
        let root = found.ok_or_else(missing)?.record.root;
        for range in &ranges {
            let state = self.find(root.as_ref(), range.topic_id, range.partition).await?;
            let end = state
                .as_ref()
                .and_then(|s| s.branches.iter().find(|b| b.branch == range.branch))
                .map_or(0, |b| b.end_offset);
            let state = match state {
                Some(state) if range.end_offset < end => state,
                _ => {
                    return Err(Error::invalid(
                        "range to prune",
                        format!("{range:?}"),
                        format!("below {end}"),
                    ));
                }
            };
            if self.prunable_exactly(&state, range).await? != range.objects {
                return Err(Error::invalid("range to prune", format!("{range:?}"), "whole objects"));
            }
        }
        let mut record = PrunedRecord {
            varve_pruned: V1,
            archive_id: self.id(),
            sequence: self.latest_pruned(0).await?,
            snapshot,
            ranges,
            reason: reason.to_owned(),
            writer: writer.to_owned(),
            created_ms: now_ms,
        };
        for _ in 0..TRIES_MAX {
            record.sequence = record.sequence.saturating_add(1);
            let name = names::pruned(record.sequence);
            let bytes = record.encode().map_err(self.shelf.damaged(&name))?;
            if let Created::Ours = self.shelf.create(&name, Bytes::from(bytes)).await? {
                return Ok(record);
            }
        }
        Err(Error::Contended { object: self.shelf.place(names::PRUNED), tries: TRIES_MAX })
    }

    /// Objects of the snapshot that fill `range` exactly; 0 if none do.
    async fn prunable_exactly(&self, state: &PartitionState, range: &PrunedRange) -> Result<u64> {
        let Some(branch) = state.branches.iter().find(|b| b.branch == range.branch) else { return Ok(0) };
        let (mut objects, mut count, mut begins, mut ends) = (self.objects(branch), 0_u64, false, false);
        while let Some(object) = objects.next().await? {
            begins |= object.first_offset == range.first_offset;
            ends |= object.end_offset == range.end_offset;
            if object.first_offset >= range.first_offset && object.end_offset <= range.end_offset {
                count = count.saturating_add(1);
            }
            if object.end_offset >= range.end_offset {
                break;
            }
        }
        Ok(if begins && ends { count } else { 0 })
    }

    async fn latest_pruned(&self, known: u64) -> Result<u64> {
        let parse = |name: &str| names::number(name, names::PRUNED, 20, ".json");
        self.shelf.highest(names::PRUNED, known, names::pruned, parse).await
    }

    /// A pruning record.
    ///
    /// # Errors
    /// Of the store; [`Error::Record`], [`Error::Mistaken`] for a record of another place.
    pub async fn pruned_record(&self, sequence: u64) -> Result<Option<PrunedRecord>> {
        let name = names::pruned(sequence);
        let Some((record, _)) = self.shelf.record::<PrunedRecord>(&name).await? else { return Ok(None) };
        let (expected, found) = ((self.id(), sequence), (record.archive_id, record.sequence));
        if expected == found {
            return Ok(Some(record));
        }
        Err(Error::mistaken(self.shelf.place(&name), format!("{expected:?}"), format!("{found:?}")))
    }

    /// All that was declared pruned.
    ///
    /// # Errors
    /// As [`Archive::pruned_record`].
    pub async fn pruned(&self) -> Result<Pruned> {
        let (mut pruned, mut sequence) = (Pruned::default(), 1_u64);
        while let Some(record) = self.pruned_record(sequence).await? {
            pruned.add(&record);
            sequence = sequence.saturating_add(1);
        }
        Ok(pruned)
    }

    /// Deletes what a record declares, as far as it is there. To be repeated after an error.
    ///
    /// # Errors
    /// Of the store: a lock that holds an object is one.
    pub async fn delete_pruned(&self, record: &PrunedRecord) -> Result<u64> {
        let mut deleted = 0_u64;
        for range in &record.ranges {
            let partition = self.partition(range.topic_id, range.partition);
            let mut from = range.first_offset;
            while from < range.end_offset {
                let (names, more) = partition.page(range.branch, from).await?;
                let keys: Vec<Key> = names
                    .iter()
                    .take_while(|(first, _)| *first < range.end_offset)
                    .map(|(_, meta)| meta.key.clone())
                    .collect();
                for batch in keys.chunks(BATCH) {
                    for outcome in self.shelf.store().delete_many(batch).await? {
                        outcome?;
                        deleted = deleted.saturating_add(1);
                    }
                }
                match names.last() {
                    Some((first, _)) if more => from = first.saturating_add(1),
                    _ => break,
                }
            }
        }
        Ok(deleted)
    }
}
