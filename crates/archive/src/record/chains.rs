//! All chains of one partition, as one manifest: written anew only when one of them has grown.

use serde::{Deserialize, Serialize};
use varve_format::Id;

use super::MANIFEST_MAX_BYTES;
use super::more::{More, check_more};
use super::object::{BLOCK_ENTRIES, BlockRef, LEVEL_MAX, ObjectEntry, without_holes};
use crate::canonical::{Record, RecordError, V1, flaw, id_text, rule};
use crate::hash::Hash;

pub const BRANCHES_MAX: usize = 4096;
pub const PRUNED_MAX: usize = 1024;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Chains {
    pub varve_chains: V1,
    pub since: u64,
    #[serde(with = "id_text")]
    pub topic_id: Id,
    pub partition: i32,
    pub branches: Vec<BranchState>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub more: Vec<More>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BranchState {
    pub branch: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<u32>,
    pub start_offset: i64,
    pub end_offset: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub record: Option<Hash>,
    /// What was declared pruned, neighbours joined.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pruned: Vec<OffsetRange>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub levels: Vec<Vec<BlockRef>>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tail: Vec<ObjectEntry>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OffsetRange {
    pub first_offset: i64,
    pub end_offset: i64,
}

/// How a partition's state refers to its chains.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChainsRef {
    pub hash: Hash,
    /// The current one.
    pub branch: u32,
    pub end_offset: i64,
    /// Of the last record before the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_epoch: Option<i32>,
    /// Of all branches.
    pub objects: u64,
    pub object_bytes: u64,
}

impl BranchState {
    /// Branch 0 before its first object.
    pub fn first() -> Self {
        Self {
            branch: 0,
            parent: None,
            start_offset: 0,
            end_offset: 0,
            record: None,
            pruned: Vec::new(),
            levels: Vec::new(),
            tail: Vec::new(),
        }
    }

    /// All blocks in the chain's order; the tail follows.
    pub fn blocks(&self) -> impl Iterator<Item = (u8, &BlockRef)> {
        let levels = self.levels.iter().enumerate().rev();
        levels.flat_map(|(level, blocks)| blocks.iter().map(move |b| (level as u8, b)))
    }

    pub fn objects(&self) -> u64 {
        let blocks = self.blocks().fold(0_u64, |sum, (_, b)| sum.saturating_add(b.objects));
        blocks.saturating_add(self.tail.len() as u64)
    }

    pub fn object_bytes(&self) -> u64 {
        let blocks = self.blocks().fold(0_u64, |sum, (_, b)| sum.saturating_add(b.object_bytes));
        self.tail.iter().fold(blocks, |sum, o| sum.saturating_add(o.bytes))
    }

    /// Joins a range to those that are pruned.
    pub(crate) fn prune(&mut self, range: OffsetRange) {
        self.pruned.push(range);
        self.pruned.sort_unstable();
        let mut joined: Vec<OffsetRange> = Vec::with_capacity(self.pruned.len());
        for range in &self.pruned {
            match joined.last_mut() {
                Some(last) if range.first_offset <= last.end_offset => {
                    last.end_offset = last.end_offset.max(range.end_offset);
                }
                _ => joined.push(*range),
            }
        }
        self.pruned = joined;
    }

    fn check(&self) -> Result<(), RecordError> {
        rule::positive("start_offset", self.start_offset)?;
        let first = self.branch == 0;
        if first != self.record.is_none() || (first && self.start_offset != 0) {
            let found = format!("branch {} from {}", self.branch, self.start_offset);
            return Err(flaw("branch", "branch 0 from 0, or one with a record", found));
        }
        self.check_pruned()?;
        rule::at_most("levels", self.levels.len(), usize::from(LEVEL_MAX).saturating_add(1))?;
        if self.levels.last().is_some_and(Vec::is_empty) {
            return Err(flaw("levels", "a last one that is not empty", "an empty one"));
        }
        for (level, blocks) in self.levels.iter().enumerate() {
            rule::at_most("blocks of a level", blocks.len(), BLOCK_ENTRIES - 1)?;
            blocks.iter().try_for_each(|b| b.check(u8::try_from(level).unwrap_or(u8::MAX)))?;
        }
        rule::at_most("tail", self.tail.len(), BLOCK_ENTRIES - 1)?;
        self.tail.iter().try_for_each(ObjectEntry::check)?;
        let blocks = self.blocks().map(|(_, b)| (b.first_offset, b.end_offset));
        let ranges = blocks.chain(self.tail.iter().map(|o| (o.first_offset, o.end_offset)));
        let end = without_holes(Some(self.start_offset), ranges)?.unwrap_or(self.start_offset);
        if end == self.end_offset { Ok(()) } else { Err(flaw("end_offset", end, self.end_offset)) }
    }

    /// The last object of a chain is never pruned.
    fn check_pruned(&self) -> Result<(), RecordError> {
        rule::at_most("pruned", self.pruned.len(), PRUNED_MAX)?;
        for range in &self.pruned {
            rule::range("pruned", range.first_offset, range.end_offset)?;
        }
        let within = self.pruned.first().is_none_or(|r| r.first_offset >= self.start_offset)
            && self.pruned.last().is_none_or(|r| r.end_offset < self.end_offset);
        if within && self.pruned.is_sorted_by(|a, b| a.end_offset < b.first_offset) {
            return Ok(());
        }
        Err(flaw("pruned", "ascending ranges within the chain, with something between them", "others"))
    }
}

impl Chains {
    /// `last_epoch` is that of the current branch's chain.
    pub(crate) fn reference(&self, hash: Hash, last_epoch: Option<i32>) -> ChainsRef {
        let sum = |f: fn(&BranchState) -> u64| self.branches.iter().map(f).fold(0, u64::saturating_add);
        let current = self.branches.last();
        ChainsRef {
            hash,
            branch: current.map_or(0, |b| b.branch),
            end_offset: current.map_or(0, |b| b.end_offset),
            last_epoch,
            objects: sum(BranchState::objects),
            object_bytes: sum(BranchState::object_bytes),
        }
    }
}

impl Record for Chains {
    const NAME: &'static str = "varve_chains";
    const MAX_BYTES: u64 = MANIFEST_MAX_BYTES;

    fn check(&self) -> Result<(), RecordError> {
        rule::sequence(self.since)?;
        rule::positive("partition", self.partition)?;
        rule::at_most("branches", self.branches.len(), BRANCHES_MAX)?;
        let ascending = self.branches.is_sorted_by(|a, b| a.branch < b.branch);
        if self.branches.first().is_none_or(|b| b.branch != 0) || !ascending {
            return Err(flaw("branches", "branch 0, and others ascending", self.branches.len()));
        }
        for branch in &self.branches {
            let known = |parent: u32| self.branches.iter().any(|b| b.branch == parent);
            if branch.parent.is_some_and(|parent| parent >= branch.branch || !known(parent)) {
                return Err(flaw("parent", "a branch below that is listed", format!("{:?}", branch.parent)));
            }
            branch.check()?;
        }
        check_more(&self.more)
    }
}
