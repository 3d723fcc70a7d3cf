//! A partition's history, read back in order from a recovery point: segments, gaps, what was pruned, and the
//! journal behind them.
//!
//! A recovery point is what a snapshot says of the partition, or what the store has now. From it follow the
//! *pieces*: the lineage's stretches, each clipped to what counts of its branch, then what is in the journal
//! alone. Together they cover every offset from the lineage's start to the recovery point, each once, or the walk
//! ends with an error that names object and offsets.
//!
//! This crate deals in bytes. The log bytes of a piece are those of its **whole object** from where reading was
//! begun, so the caller, who knows what a batch is, drops the records that are not between the piece's
//! `first_offset` and `end_offset`: a batch may begin before the first, an object of a parent goes on behind the
//! branch's start, and entries of the journal overlap. At most one stream per piece is open: it is dropped once
//! a batch begins at or behind `end_offset`.
//!
//! Nothing is written, and nothing is kept between two runs.

mod index;
mod journal;
mod listing;
pub(crate) mod object;
mod opened;
mod pieces;
pub(crate) mod stream;

use std::sync::Arc;

use varve_format::Id;

pub use journal::JournalView;
pub use opened::ArchivedObject;
pub use pieces::{Piece, PieceContent, PieceObject, Pieces};
pub use stream::LogStream;

use crate::archive::Archive;
use crate::error::{Error, Result};
use crate::journal::{continuation, continuation_to};
use crate::lineage::{Stretch, lineage_of};
use crate::prune::Pruned;
use crate::record::branch::{EpochEntry, epoch_before};
use crate::record::snapshot::SnapshotRecord;
use crate::record::state::{BranchState, JournalEnd, JournalEntry, PartitionState};

/// What reading any partition needs of the archive as a whole: read once, shared by all.
#[derive(Clone, Debug)]
pub struct LogReader {
    archive: Archive,
    pruned: Arc<Pruned>,
}

/// The history of one partition up to a recovery point. Holds no more than the partition's state.
#[derive(Clone, Debug)]
pub struct ArchivedLog {
    archive: Archive,
    pruned: Arc<Pruned>,
    topic_id: Id,
    partition: i32,
    stretches: Vec<Part>,
    journal: Vec<JournalEntry>,
    /// What a snapshot promised of the journal: what takes its place must keep it.
    goal: Option<JournalEnd>,
    end_offset: i64,
}

/// A stretch of the lineage, and where its objects are looked up.
#[derive(Clone, Debug)]
struct Part {
    branch: u32,
    start_offset: i64,
    end_offset: i64,
    /// What a snapshot knows of the branch.
    known: Option<BranchState>,
    /// Whether the store is asked for what lies behind that.
    listed: bool,
}

impl Archive {
    /// To read what `snapshot` has, or what is in the archive now with its states as a base; without one, anything.
    ///
    /// # Errors
    /// As [`Archive::pruned`].
    pub async fn log_reader(&self, snapshot: Option<&SnapshotRecord>) -> Result<LogReader> {
        let folded = snapshot.and_then(|s| s.pruned).map_or(0, |p| p.sequence);
        Ok(LogReader { archive: self.clone(), pruned: Arc::new(self.pruned(folded, &[]).await?) })
    }
}

impl LogReader {
    pub fn archive(&self) -> &Archive {
        &self.archive
    }

    /// As a snapshot has it; `branch` is the current one if it is not given. Only that one goes on in the journal,
    /// which is the snapshot's. Where its bundles are gone the chain has what was in them, and is read instead.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a branch that the snapshot does not know.
    pub fn at(
        &self,
        state: &PartitionState,
        branch: Option<u32>,
        journal: &JournalView,
    ) -> Result<ArchivedLog> {
        let current = state.branches.last().map_or(0, |b| b.branch);
        let branch = branch.unwrap_or(current);
        let find = |number: u32| state.branches.iter().find(|b| b.branch == number);
        let Some(own) = find(branch) else {
            return Err(Error::invalid("branch", branch, format!("0 to {current}")));
        };
        let stretches = lineage_of(branch, |number| find(number).map(|b| (b.parent, b.start_offset)));
        let part = |stretch: Stretch| Part {
            branch: stretch.branch,
            start_offset: stretch.start_offset,
            end_offset: stretch.end_offset.unwrap_or(own.end_offset),
            known: find(stretch.branch).cloned(),
            listed: false,
        };
        let goal = state.journal.as_ref().filter(|_| branch == current);
        let last_epoch = state.chains.as_ref().and_then(|c| c.last_epoch);
        let mut entries = journal.entries(state.topic_id, state.partition).to_vec();
        entries.retain(|e| e.branch == branch);
        let way = goal.and_then(|goal| continuation_to(&entries, own.end_offset, last_epoch, goal));
        let mut pruned = self.pruned.as_ref().clone();
        pruned.add_state(state);
        Ok(ArchivedLog {
            archive: self.archive.clone(),
            pruned: Arc::new(pruned),
            topic_id: state.topic_id,
            partition: state.partition,
            stretches: stretches.into_iter().map(part).collect(),
            end_offset: goal.map_or(own.end_offset, |goal| goal.end_offset),
            goal: goal.cloned(),
            journal: way.unwrap_or_default(),
        })
    }

    /// As the store has it now. `journal` was read before; `base` is a snapshot's state of the partition, and saves
    /// listing what it names.
    ///
    /// # Errors
    /// Of the store; [`Error::Invalid`] for a branch that there is none of; what is no object of the chain.
    pub async fn now(
        &self,
        topic_id: Id,
        partition: i32,
        branch: Option<u32>,
        journal: &JournalView,
        base: Option<&PartitionState>,
    ) -> Result<ArchivedLog> {
        let of = self.archive.partition(topic_id, partition);
        let mut branches: Vec<BranchState> =
            base.map_or_else(|| vec![BranchState::first()], |s| s.branches.clone());
        let known = branches.last().map_or(0, |b| b.branch);
        let found = of.branches(known).await?;
        branches.extend(found.iter().map(|(record, hash)| BranchState::of(record, *hash)));
        let current = branches.last().map_or(0, |b| b.branch);
        let branch = branch.unwrap_or(current);
        let find = |number: u32| branches.iter().find(|b| b.branch == number);
        let Some(own) = find(branch) else {
            return Err(Error::invalid("branch", branch, format!("0 to {current}")));
        };
        let last = self.archive.last_object(own).await?;
        let from = last.as_ref().map_or(own.start_offset, |object| object.first_offset);
        let end = of.chain_end(branch, own.start_offset, from).await?;
        let epochs: Vec<EpochEntry> = match &end.last {
            Some(head) => head.epochs().iter().copied().map(EpochEntry::from).collect(),
            None if branch == 0 => Vec::new(),
            None => of.branch(branch).await?.map_or_else(Vec::new, |(record, _)| record.leader_epochs),
        };
        let mut entries = journal.entries(topic_id, partition).to_vec();
        entries.retain(|e| e.branch == branch && e.end_offset > end.end_offset);
        let journal = continuation(&entries, end.end_offset, epoch_before(&epochs, end.end_offset));
        let stretches = lineage_of(branch, |number| find(number).map(|b| (b.parent, b.start_offset)));
        let part = |stretch: Stretch| Part {
            branch: stretch.branch,
            start_offset: stretch.start_offset,
            end_offset: stretch.end_offset.unwrap_or(end.end_offset),
            known: find(stretch.branch).filter(|b| b.end_offset > b.start_offset).cloned(),
            listed: true,
        };
        let mut pruned = self.pruned.as_ref().clone();
        if let Some(base) = base {
            pruned.add_state(base);
        }
        Ok(ArchivedLog {
            archive: self.archive.clone(),
            pruned: Arc::new(pruned),
            topic_id,
            partition,
            stretches: stretches.into_iter().map(part).collect(),
            end_offset: journal.last().map_or(end.end_offset, |entry| entry.end_offset),
            goal: None,
            journal,
        })
    }
}

impl ArchivedLog {
    pub fn topic_id(&self) -> Id {
        self.topic_id
    }

    pub fn partition(&self) -> i32 {
        self.partition
    }

    /// The branch that is read.
    pub fn branch(&self) -> u32 {
        self.stretches.last().map_or(0, |part| part.branch)
    }

    /// Which branch counts for which offsets, up to the chain's end.
    pub fn stretches(&self) -> impl Iterator<Item = Stretch> {
        self.stretches.iter().map(|part| Stretch {
            branch: part.branch,
            start_offset: part.start_offset,
            end_offset: Some(part.end_offset),
        })
    }

    /// Where the lineage begins.
    pub fn start_offset(&self) -> i64 {
        self.stretches.first().map_or(0, |part| part.start_offset)
    }

    /// Where the chain ends, and the journal goes on.
    pub fn chain_end(&self) -> i64 {
        self.stretches.last().map_or(0, |part| part.end_offset)
    }

    /// The recovery point.
    pub fn end_offset(&self) -> i64 {
        self.end_offset
    }

    /// The pieces in order, from the one on that holds `offset`, whose first offset is not below it.
    pub fn pieces(&self, offset: i64) -> Pieces<'_> {
        Pieces::new(self, offset)
    }
}
