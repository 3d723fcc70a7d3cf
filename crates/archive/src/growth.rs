//! One partition of a new snapshot: what its chains have by now, and what its archiver says of the recovery point.
//!
//! A recovery point never goes back, and everything that describes it describes exactly it.

use std::collections::BTreeSet;

use futures::{StreamExt, stream};
use parking_lot::Mutex;
use varve_format::Id;

use crate::archive::Archive;
use crate::canonical::{Record, V1, rule};
use crate::error::{Error, Kind, Result};
use crate::hash::Hash;
use crate::journal::{BundleName, continuation};
use crate::names;
use crate::partition::Partition;
use crate::record::branch::{EpochEntry, epoch_before};
use crate::record::chains::{BranchState, Chains, ChainsRef, OffsetRange};
use crate::record::pruned::PrunedRange;
use crate::record::state::{
    JournalEnd, JournalEntry, OPEN_TRANSACTIONS_MAX, OpenTransaction, PartitionEntry,
};
use crate::tree::TopicNames;

/// Heads of a chain that are read at once.
const PARALLEL: usize = 4;
const OPEN_UNKNOWN: &str = "which transactions are open at its end is not known";

/// What a snapshot is to say of a partition, besides its chains, which are found in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub topic_id: Id,
    pub partition: i32,
    /// The recovery point that all of this describes; without one it is as far as the store has it.
    pub point: Option<Point>,
    /// Entries beyond the chain's end, in any order.
    pub journal: Vec<JournalEntry>,
    pub log_start_offset: Option<i64>,
    /// The log end that was to be reached: kept where it is not.
    pub log_end_offset: Option<i64>,
    /// Those at `point`; `None` where they are not known, which the entry says.
    pub open_transactions: Option<Vec<OpenTransaction>>,
    /// When the topic was found to be gone.
    pub deleted_ms: Option<i64>,
    /// Why `log_end_offset` is not reached, or not known. It counts only where that is so.
    pub problem: Option<String>,
    /// Nobody reads it: its recovery point stays, and of all the rest only `log_end_offset` and `problem` count.
    pub is_unread: bool,
}

/// An end of a branch, its journal included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Point {
    pub branch: u32,
    pub end_offset: i64,
}

impl Target {
    pub fn new(topic_id: Id, partition: i32) -> Self {
        Self {
            topic_id,
            partition,
            point: None,
            journal: Vec::new(),
            log_start_offset: None,
            log_end_offset: None,
            open_transactions: Some(Vec::new()),
            deleted_ms: None,
            problem: None,
            is_unread: false,
        }
    }
}

/// What is to be done to a partition's entry.
#[derive(Clone, Debug)]
pub(crate) struct Work {
    topic_id: Id,
    partition: i32,
    pub(crate) target: Option<Target>,
    /// To be said in the chains.
    pub(crate) pruned: Vec<PrunedRange>,
}

impl Work {
    pub(crate) fn of(range: &PrunedRange) -> Self {
        Self { topic_id: range.topic_id, partition: range.partition, target: None, pruned: Vec::new() }
    }

    pub(crate) fn on(target: &Target) -> Self {
        Self { topic_id: target.topic_id, partition: target.partition, target: None, pruned: Vec::new() }
    }
}

/// A new snapshot in the making.
#[derive(Debug)]
pub(crate) struct Growth<'a> {
    pub(crate) archive: &'a Archive,
    /// Its number.
    pub(crate) since: u64,
    topics: Mutex<TopicNames>,
    /// Bundles that its recovery points need.
    bundles: Mutex<BTreeSet<BundleName>>,
}

impl<'a> Growth<'a> {
    pub(crate) fn new(archive: &'a Archive, since: u64) -> Self {
        Self { archive, since, topics: Mutex::default(), bundles: Mutex::default() }
    }

    pub(crate) fn into_bundles(self) -> BTreeSet<BundleName> {
        self.bundles.into_inner()
    }

    /// The entry of a partition: the base's, and what is new. What is wrong with one partition is said in it.
    pub(crate) async fn entry(&self, base: Option<PartitionEntry>, work: &Work) -> Result<PartitionEntry> {
        let kept = base.clone().unwrap_or_else(|| PartitionEntry::new(work.topic_id, work.partition));
        match self.grown(base, work).await {
            Ok(entry) => Ok(entry),
            Err(e) if matches!(e.kind(), Kind::Retry | Kind::Denied) => Err(e),
            Err(e) => Ok(PartitionEntry { problem: Some(cut(&e.to_string())), ..kept }),
        }
    }

    async fn grown(&self, base: Option<PartitionEntry>, work: &Work) -> Result<PartitionEntry> {
        let before = base.as_ref().map(|b| (b.branch(), b.end()));
        let mut entry = base.unwrap_or_else(|| PartitionEntry::new(work.topic_id, work.partition));
        if entry.topic.is_none() {
            entry.topic = self.topic(work.topic_id).await?;
        }
        let target = match &work.target {
            Some(target) if target.is_unread => {
                note_end(&mut entry, target);
                None
            }
            target => target.as_ref(),
        };
        if target.is_none() && work.pruned.is_empty() {
            return Ok(entry);
        }
        // What nobody reads, or is only pruned, stays where it is.
        let stays = Point { branch: entry.branch(), end_offset: entry.chain_end() };
        let problem = self.chains(&mut entry, work, target.map_or(Some(stays), |t| t.point)).await?;
        let Some(target) = target else { return Ok(entry) };
        let journal = self.journal(&entry, target);
        let end = journal.last().map_or(entry.chain_end(), |j| j.end_offset);
        if before.is_some_and(|before| before > (entry.branch(), end)) {
            return Ok(entry);
        }
        entry.journal = journal
            .last()
            .map(|last| JournalEnd { end_offset: end, last_epoch: epoch_before(&last.leader_epochs, end) });
        let names = journal.into_iter().map(|e| BundleName { archiver: e.archiver, sequence: e.sequence });
        self.bundles.lock().extend(names);
        // Who has not seen it takes nothing back.
        let known =
            entry.log_start_offset.filter(|_| before.is_some_and(|(branch, _)| branch == entry.branch()));
        entry.log_start_offset = target.log_start_offset.or(known);
        entry.log_end_offset = target.log_end_offset.filter(|log_end| *log_end > end);
        entry.deleted_ms = target.deleted_ms;
        let is_reached = target.log_end_offset.is_some() && entry.log_end_offset.is_none();
        let told = target.problem.as_deref().filter(|_| !is_reached);
        entry.problem = problem.or_else(|| told.map(cut));
        match &target.open_transactions {
            Some(open) => entry.open_transactions.clone_from(open),
            None => {
                entry.open_transactions.clear();
                entry.problem = entry.problem.or(Some(OPEN_UNKNOWN.to_owned()));
            }
        }
        let point = Point { branch: entry.branch(), end_offset: end };
        if let Some(other) = target.point.filter(|p| *p != point) {
            // What is known of another point says nothing of this one.
            entry.open_transactions.clear();
            let what = format!("offset {} of branch {} was not reached", other.end_offset, other.branch);
            entry.problem = entry.problem.or(Some(what));
        }
        if entry.open_transactions.len() > OPEN_TRANSACTIONS_MAX {
            let what = format!("{} open transactions; the oldest are listed", entry.open_transactions.len());
            entry.open_transactions.truncate(OPEN_TRANSACTIONS_MAX);
            entry.problem = entry.problem.or(Some(what));
        }
        entry.check().map_err(self.archive.shelf.damaged("a partition's state"))?;
        Ok(entry)
    }

    async fn topic(&self, topic_id: Id) -> Result<Option<String>> {
        if let Some(known) = self.topics.lock().get(&topic_id) {
            return Ok(known.clone());
        }
        let name = self.archive.topic(topic_id).await?.map(|t| t.topic);
        self.topics.lock().insert(topic_id, name.clone());
        Ok(name)
    }

    /// The target's entries that go on from the chain's end, and not beyond its point.
    fn journal(&self, entry: &PartitionEntry, target: &Target) -> Vec<JournalEntry> {
        let end = entry.chain_end();
        let limit = target.point.map_or(i64::MAX, |p| p.end_offset);
        let mut entries = target.journal.clone();
        entries.retain(|e| e.branch == entry.branch() && e.end_offset > end && e.end_offset <= limit);
        continuation(&entries, end, entry.chains.as_ref().and_then(|c| c.last_epoch))
    }

    /// Takes what the store has of the chains behind `entry`, up to `limit`; says what stands in the way of more.
    async fn chains(
        &self,
        entry: &mut PartitionEntry,
        work: &Work,
        limit: Option<Point>,
    ) -> Result<Option<String>> {
        let partition = self.archive.partition(work.topic_id, work.partition);
        let known = entry.branch();
        let mut records = partition.branches(known).await?;
        records.retain(|(r, _)| limit.is_none_or(|p| r.branch <= p.branch));
        let grown = !partition.page(known, entry.chain_end()).await?.0.is_empty();
        if records.is_empty() && !grown && work.pruned.is_empty() {
            return Ok(None);
        }
        let mut branches = self.archive.state(entry.clone()).await?.branches;
        branches.extend(records.iter().map(|(record, hash)| BranchState::of(record, *hash)));
        let current = branches.last().map_or(0, |b| b.branch);
        let mut last_epoch = entry.chains.as_ref().filter(|_| current == known).and_then(|c| c.last_epoch);
        if let Some((record, _)) = records.last() {
            last_epoch = epoch_before(&record.leader_epochs, record.start_offset);
        }
        let mut problem = None;
        for branch in &mut branches {
            let is_current = branch.branch == current;
            let limit = limit.filter(|p| is_current && p.branch == current).map(|p| p.end_offset);
            let extended = self.extend(partition, branch, limit.unwrap_or(i64::MAX)).await?;
            if is_current {
                problem = extended.problem;
                last_epoch = extended.last_epoch.unwrap_or(last_epoch);
            }
            let number = branch.branch;
            for range in work.pruned.iter().filter(|r| r.branch == number) {
                if range.first_offset >= branch.start_offset && range.end_offset < branch.end_offset {
                    let (first_offset, end_offset) = (range.first_offset, range.end_offset);
                    branch.prune(OffsetRange { first_offset, end_offset });
                }
            }
        }
        if branches == [BranchState::first()] {
            return Ok(problem);
        }
        entry.chains = Some(self.put_chains(work, branches, last_epoch).await?);
        Ok(problem)
    }

    async fn put_chains(
        &self,
        work: &Work,
        branches: Vec<BranchState>,
        last_epoch: Option<i32>,
    ) -> Result<ChainsRef> {
        let chains = Chains {
            varve_chains: V1,
            since: self.since,
            topic_id: work.topic_id,
            partition: work.partition,
            branches,
            more: Vec::new(),
        };
        let bytes = chains.encode().map_err(self.archive.shelf.damaged("chains of a partition"))?;
        let hash = self.archive.put_manifest(bytes.into()).await?;
        Ok(chains.reference(hash, last_epoch))
    }

    /// Takes what the store has of a branch's chain behind `state`, up to `limit`.
    async fn extend(
        &self,
        partition: Partition<'_>,
        state: &mut BranchState,
        limit: i64,
    ) -> Result<Extended> {
        let branch = state.branch;
        let mut extended = Extended::default();
        loop {
            let (names, more) = partition.page(branch, state.end_offset).await?;
            let heads = stream::iter(names).map(|(first_offset, meta)| async move {
                (first_offset, meta.version, partition.head(branch, first_offset).await)
            });
            let mut heads = Box::pin(heads.buffered(PARALLEL));
            let mut again = more;
            while let Some((first_offset, version, head)) = heads.next().await {
                let (version, head) = match first_offset == state.end_offset {
                    true => (version, head),
                    // A listing may be old: the name itself tells.
                    false => (None, partition.head(branch, state.end_offset).await),
                };
                let head = match head {
                    Ok(Some(head)) => head,
                    Ok(None) => {
                        let found = format!("one at {first_offset}");
                        let prefix = names::chain_prefix(partition.topic_id, partition.partition, branch);
                        let expected = format!("an object at {}", state.end_offset);
                        let place = self.archive.shelf.place(&prefix);
                        extended.problem = Some(cut(&Error::corrupt(place, expected, found).to_string()));
                        return Ok(extended);
                    }
                    Err(e) if e.kind() == Kind::Corrupt => {
                        extended.problem = Some(cut(&e.to_string()));
                        return Ok(extended);
                    }
                    Err(e) => return Err(e),
                };
                if head.end_offset() > limit {
                    return Ok(extended);
                }
                let epochs: Vec<EpochEntry> = head.epochs().iter().copied().map(EpochEntry::from).collect();
                extended.last_epoch = Some(epoch_before(&epochs, head.end_offset()));
                self.archive.push(self.since, state, head.entry(version)).await?;
                if first_offset >= state.end_offset {
                    // It was not the one that was listed, which comes again.
                    again = true;
                    break;
                }
            }
            if !again {
                return Ok(extended);
            }
        }
    }
}

#[derive(Debug, Default)]
struct Extended {
    /// Of the last object that was taken.
    last_epoch: Option<Option<i32>>,
    problem: Option<String>,
}

/// What is missing of a partition that nobody reads. The cluster lists its topic.
fn note_end(entry: &mut PartitionEntry, target: &Target) {
    let seen = entry.log_end_offset.max(target.log_end_offset);
    entry.log_end_offset = seen.filter(|log_end| *log_end > entry.end());
    entry.deleted_ms = None;
    if entry.log_end_offset.is_some() && entry.problem.is_none() {
        entry.problem = target.problem.as_deref().map(cut);
    }
}

/// What a record has room for.
fn cut(text: &str) -> String {
    let legal = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    let mut bytes = 0_usize;
    legal
        .take_while(|c| {
            bytes = bytes.saturating_add(c.len_utf8());
            bytes <= rule::TEXT_MAX_BYTES
        })
        .collect()
}

impl BranchState {
    /// Before its first object.
    pub(crate) fn of(record: &crate::record::branch::BranchRecord, hash: Hash) -> Self {
        Self {
            branch: record.branch,
            parent: record.parent,
            start_offset: record.start_offset,
            end_offset: record.start_offset,
            record: Some(hash),
            ..Self::first()
        }
    }
}
