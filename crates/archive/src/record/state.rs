//! The state of one partition in a snapshot: its branches with their chains, and what lies beyond.

use serde::{Deserialize, Serialize};
use varve_format::Id;

use super::branch::{EpochEntry, check_epochs};
use super::object::{BLOCK_ENTRIES, BlockRef, LEVEL_MAX, ObjectEntry, without_holes};
use crate::canonical::{RecordError, flaw, id_text, rule};
use crate::hash::{Hash, HashAlgorithm};

pub const BRANCHES_MAX: usize = 4096;
pub const JOURNAL_MAX: usize = 1024;
pub const OPEN_TRANSACTIONS_MAX: usize = 65_536;

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
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub levels: Vec<Vec<BlockRef>>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tail: Vec<ObjectEntry>,
}

/// A part of the recovery point that is in the journal alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JournalEntry {
    /// The current one.
    pub branch: u32,
    pub archiver: String,
    pub sequence: u64,
    pub first_offset: i64,
    pub end_offset: i64,
    pub position: u64,
    pub bytes: u64,
    pub footer: Hash,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub leader_epochs: Vec<EpochEntry>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OpenTransaction {
    pub producer_id: i64,
    pub producer_epoch: i16,
    pub first_offset: i64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PartitionState {
    #[serde(with = "id_text")]
    pub topic_id: Id,
    pub partition: i32,
    pub branches: Vec<BranchState>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub journal: Vec<JournalEntry>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_start_offset: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_end_offset: Option<i64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub open_transactions: Vec<OpenTransaction>,
}

/// Where a partition stands in the tree.
pub fn path(hash: HashAlgorithm, topic_id: Id, partition: i32) -> Hash {
    hash.of(&[&topic_id.0, &partition.to_be_bytes()])
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

    fn check(&self) -> Result<(), RecordError> {
        rule::positive("start_offset", self.start_offset)?;
        let first = self.branch == 0;
        if first != self.record.is_none()
            || (first && self.start_offset != 0)
            || self.parent.is_some_and(|p| p >= self.branch)
        {
            let found = format!("branch {} of {:?} from {}", self.branch, self.parent, self.start_offset);
            return Err(flaw("branch", "branch 0 from 0, or one with a record", found));
        }
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
}

impl PartitionState {
    pub fn path(&self, hash: HashAlgorithm) -> Hash {
        path(hash, self.topic_id, self.partition)
    }

    /// The current branch's chain ends here.
    pub fn chain_end(&self) -> i64 {
        self.branches.last().map_or(0, |b| b.end_offset)
    }

    /// The recovery point: the chain, then the journal.
    pub fn end(&self) -> i64 {
        self.journal.last().map_or(self.chain_end(), |j| j.end_offset)
    }

    pub(crate) fn check(&self) -> Result<(), RecordError> {
        rule::positive("partition", self.partition)?;
        rule::at_most("branches", self.branches.len(), BRANCHES_MAX)?;
        let dense = self.branches.iter().zip(0_u32..).all(|(b, n)| b.branch == n);
        if self.branches.is_empty() || !dense {
            return Err(flaw("branches", "branch 0, 1, … without holes", self.branches.len()));
        }
        self.branches.iter().try_for_each(BranchState::check)?;
        self.check_journal()?;
        for offset in [self.log_start_offset, self.log_end_offset].into_iter().flatten() {
            rule::positive("log offset", offset)?;
        }
        if self.log_end_offset.is_some_and(|log_end| log_end <= self.end()) {
            let expected = format!("above {}, or none", self.end());
            return Err(flaw("log_end_offset", expected, format!("{:?}", self.log_end_offset)));
        }
        rule::at_most("open_transactions", self.open_transactions.len(), OPEN_TRANSACTIONS_MAX)?;
        for open in &self.open_transactions {
            rule::positive("producer_id", open.producer_id)?;
            rule::positive("producer_epoch", i64::from(open.producer_epoch))?;
            rule::positive("first_offset", open.first_offset)?;
        }
        let order = |open: &OpenTransaction| (open.first_offset, open.producer_id);
        if !self.open_transactions.is_sorted_by(|a, b| order(a) < order(b)) {
            return Err(flaw("open_transactions", "strictly ascending", "others"));
        }
        Ok(())
    }

    fn check_journal(&self) -> Result<(), RecordError> {
        rule::at_most("journal", self.journal.len(), JOURNAL_MAX)?;
        let mut end = self.chain_end();
        for entry in &self.journal {
            rule::safe("archiver", &entry.archiver, 64)?;
            rule::sequence(entry.sequence)?;
            rule::range("journal", entry.first_offset, entry.end_offset)?;
            rule::count("position", entry.position)?;
            rule::count("bytes", entry.bytes)?;
            check_epochs(&entry.leader_epochs)?;
            if self.branches.last().is_none_or(|b| b.branch != entry.branch) {
                return Err(flaw("journal", "entries of the current branch", entry.branch));
            }
            if entry.first_offset > end || entry.end_offset <= end {
                let found = format!("{} to {}", entry.first_offset, entry.end_offset);
                return Err(flaw("journal", format!("what goes on from {end}"), found));
            }
            end = entry.end_offset;
        }
        Ok(())
    }
}
