//! Deleting on purpose: declared first, for ever; deleted then.
//!
//! The last object of each branch's chain stays, so that the chain's end is found by listing, now and for ever.
//! A crash leaves objects that are declared pruned: they may be absent, and deletion is repeated.

use std::collections::BTreeMap;

use bytes::Bytes;
use varve_format::Id;
use varve_store::Key;

use crate::archive::Archive;
use crate::canonical::{Record, V1};
use crate::error::{Error, Kind, Result};
use crate::names;
use crate::record::chains::BranchState;
use crate::record::pruned::{PrunedRange, PrunedRecord, SnapshotRange};
use crate::record::snapshot::{RecordRef, Signable, Signed, Signer};
use crate::record::state::PartitionState;
use crate::shelf::Created;

const TRIES_MAX: u32 = 16;
const BATCH: usize = 1000;

/// What was declared by all records that were read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    by_branch: BTreeMap<(Id, i32, u32), Vec<(i64, i64)>>,
    ranges: Vec<PrunedRange>,
    snapshots: Vec<SnapshotRange>,
    last: Option<RecordRef>,
    /// Records that don't count: not signed by a key that is trusted, or none at all.
    refused: Vec<u64>,
}

/// What is to be declared.
#[derive(Debug)]
pub struct NewPruned<'a> {
    /// Whose tree lists all that is named.
    pub snapshot: u64,
    pub ranges: Vec<PrunedRange>,
    /// Whose trees are given up.
    pub snapshots: Vec<SnapshotRange>,
    pub reason: &'a str,
    pub writer: &'a str,
    pub now_ms: i64,
    pub signer: Option<&'a Signer>,
}

impl Pruned {
    pub(crate) fn add(&mut self, record: &PrunedRecord, reference: RecordRef) {
        for r in &record.ranges {
            self.range(r.topic_id, r.partition, r.branch, (r.first_offset, r.end_offset));
        }
        self.ranges.extend(record.ranges.iter().cloned());
        self.snapshots.extend(&record.snapshots);
        self.last = Some(reference);
    }

    fn range(&mut self, topic_id: Id, partition: i32, branch: u32, range: (i64, i64)) {
        self.by_branch.entry((topic_id, partition, branch)).or_default().push(range);
    }

    /// With what a snapshot's state of a partition has.
    pub(crate) fn add_state(&mut self, state: &PartitionState) {
        for branch in &state.branches {
            for r in &branch.pruned {
                let range = (r.first_offset, r.end_offset);
                self.range(state.topic_id, state.partition, branch.branch, range);
            }
        }
    }

    pub(crate) fn ranges(&self) -> &[PrunedRange] {
        &self.ranges
    }

    pub(crate) fn last(&self) -> Option<RecordRef> {
        self.last
    }

    pub(crate) fn refused(&self) -> &[u64] {
        &self.refused
    }

    pub(crate) fn gave_up_any(&self) -> bool {
        !self.snapshots.is_empty()
    }

    /// Whether the tree of a snapshot was given up.
    pub fn gave_up(&self, snapshot: u64) -> bool {
        self.snapshots.iter().any(|r| (r.first..=r.last).contains(&snapshot))
    }

    /// Whether the object that begins at `first_offset` may be absent.
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

    /// Declares ranges, which must ascend, as pruned, and snapshots' trees as given up.
    ///
    /// # Errors
    /// Of the store; [`Error::Invalid`] for ranges that the snapshot does not hold, or that hold a chain's end.
    pub async fn declare_pruned(&self, new: NewPruned<'_>) -> Result<PrunedRecord> {
        let mut record = PrunedRecord {
            varve_pruned: V1,
            archive_id: self.id(),
            sequence: 1,
            previous: None,
            snapshot: new.snapshot,
            ranges: new.ranges,
            snapshots: new.snapshots,
            reason: new.reason.to_owned(),
            writer: new.writer.to_owned(),
            created_ms: new.now_ms,
            more: Vec::new(),
            signature: None,
        };
        if let Some(what) = self.undeclarable(&record).await? {
            return Err(Error::invalid("what to prune", what, "whole objects below their chain's last"));
        }
        record.previous = self.pruned(0, &[]).await?.last;
        record.sequence = record.previous.map_or(0, |p| p.sequence);
        for _ in 0..TRIES_MAX {
            record.sequence = record.sequence.saturating_add(1);
            let name = names::pruned(record.sequence);
            let damaged = self.shelf.damaged(&name);
            if let Some(signer) = new.signer {
                record.sign(signer).map_err(&damaged)?;
            }
            let bytes = record.encode().map_err(damaged)?;
            if let Created::Ours = self.shelf.create(&name, Bytes::from(bytes)).await? {
                return Ok(record);
            }
            if let Ok(Some((_, reference))) = self.pruned_record(record.sequence).await {
                record.previous = Some(reference);
            }
        }
        Err(Error::Contended { object: self.shelf.place(names::PRUNED), tries: TRIES_MAX })
    }

    /// What a record names that the tree of its snapshot does not hold, or holds as the end of a chain.
    pub(crate) async fn undeclarable(&self, record: &PrunedRecord) -> Result<Option<String>> {
        let found = self.snapshot(record.snapshot).await?;
        let missing = || Error::Missing { object: self.shelf.place(&names::snapshot(record.snapshot)) };
        let root = found.ok_or_else(missing)?.record.root;
        for range in &record.ranges {
            let state = self.find(root.as_ref(), range.topic_id, range.partition).await?;
            let branch = state.as_ref().and_then(|s| s.branches.iter().find(|b| b.branch == range.branch));
            let objects = match branch.filter(|b| range.end_offset < b.end_offset) {
                Some(branch) => self.fill(branch, range).await?,
                None => 0,
            };
            if objects == 0 || objects != range.objects {
                return Ok(Some(format!("{range:?}")));
            }
        }
        Ok(None)
    }

    /// How many objects fill `range` exactly; 0 if none do.
    async fn fill(&self, branch: &BranchState, range: &PrunedRange) -> Result<u64> {
        let mut objects = self.objects_from(branch, range.first_offset);
        let (mut count, mut begins) = (0_u64, false);
        while let Some(object) = objects.next().await? {
            begins |= object.first_offset == range.first_offset;
            count = count.saturating_add(1);
            if object.end_offset >= range.end_offset {
                return Ok(if begins && object.end_offset == range.end_offset { count } else { 0 });
            }
        }
        Ok(0)
    }

    /// A pruning record, and how others refer to it.
    ///
    /// # Errors
    /// Of the store; [`Error::Record`], [`Error::Mistaken`] for a record of another place.
    pub async fn pruned_record(&self, sequence: u64) -> Result<Option<(PrunedRecord, RecordRef)>> {
        let name = names::pruned(sequence);
        let Some((record, bytes)) = self.shelf.record::<PrunedRecord>(&name).await? else { return Ok(None) };
        let (expected, found) = ((self.id(), sequence), (record.archive_id, record.sequence));
        if expected == found {
            return Ok(Some((record, RecordRef { sequence, hash: self.hash().of(&[&bytes]) })));
        }
        Err(Error::mistaken(self.shelf.place(&name), format!("{expected:?}"), format!("{found:?}")))
    }

    /// All that was declared by records above `after`; if `trusted` has keys, only by what one of them signed.
    ///
    /// # Errors
    /// Of the store; a record of a later version.
    pub async fn pruned(&self, after: u64, trusted: &[[u8; 32]]) -> Result<Pruned> {
        let (mut pruned, mut at) = (Pruned::default(), after);
        let parse = |name: &str| names::number(name, names::PRUNED, 20, ".json");
        while let Some((sequence, _)) =
            self.shelf.first(names::PRUNED, Some(names::pruned(at)), parse).await?
        {
            at = sequence;
            match self.pruned_record(sequence).await {
                Ok(Some((record, reference)))
                    if trusted.is_empty() || record.signed(trusted) == Signed::ByTrusted =>
                {
                    pruned.add(&record, reference);
                }
                Err(e) if e.kind() != Kind::Corrupt => return Err(e),
                _ => pruned.refused.push(sequence),
            }
        }
        Ok(pruned)
    }

    /// Deletes the objects that a record declares, as far as they are there. To be repeated after an error.
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
                    // Under a delete marker already.
                    .filter(|(_, meta)| !self.shelf.oldest().is_hidden(&meta.key))
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
