//! Where a partition's chain stands: learned from the store alone, before anything is read from the source.

use std::collections::BTreeMap;

use varve_archive::record::branch::{BranchRecord, EpochEntry, epoch_before};
use varve_archive::record::state::JournalEntry;
use varve_archive::{ObjectHead, continuation, lineage};
use varve_format::{EpochStart, ExtentKind};
use varve_kafka::protocol::{LeaderEpochs, LogState, parse_producer_snapshot};

use crate::error::{Error, Result};
use crate::segment::{Begin, Lane};

/// What the store has of a partition's current branch.
#[derive(Clone, Debug)]
pub(crate) struct Standing {
    pub(crate) branch: u32,
    pub(crate) end_offset: i64,
    pub(crate) last: Option<Box<ObjectHead>>,
    /// What is wrong with what lies at the end, where nothing can be appended for that.
    pub(crate) damaged: Option<String>,
    /// Of the lineage, as far as the last object or the branch's record tells.
    pub(crate) epochs: Vec<EpochStart>,
    /// All branches but the first.
    pub(crate) records: Vec<BranchRecord>,
    pub(crate) state: LogState,
    pub(crate) state_is_whole: bool,
    /// What the journal has beyond the end.
    pub(crate) journal: Vec<JournalEntry>,
}

impl Standing {
    /// `entries` are all of the partition's that the journal has.
    pub(crate) async fn learn(lane: &Lane, entries: &[JournalEntry]) -> Result<Self> {
        let mut standing = Self::look(lane, entries).await?;
        standing.load_state(lane).await?;
        Ok(standing)
    }

    /// As [`learn`](Self::learn), without the state that a writer goes on with.
    pub(crate) async fn look(lane: &Lane, entries: &[JournalEntry]) -> Result<Self> {
        let partition = lane.partition();
        let records: Vec<BranchRecord> = partition.branches(0).await?.into_iter().map(|(r, _)| r).collect();
        let (branch, start) = records.last().map_or((0, 0), |r| (r.branch, r.start_offset));
        let chain = partition.chain_end(branch, start, start).await?;
        let epochs = match (&chain.last, records.last()) {
            (Some(head), _) => head.epochs().to_vec(),
            (None, Some(record)) => record.leader_epochs.iter().map(start_of).collect(),
            (None, None) => Vec::new(),
        };
        let mut standing = Self {
            branch,
            end_offset: chain.end_offset,
            last: chain.last,
            damaged: chain.damaged,
            epochs,
            records,
            state: LogState::new(chain.end_offset),
            state_is_whole: true,
            journal: Vec::new(),
        };
        let ours: Vec<JournalEntry> = entries.iter().filter(|e| e.branch == branch).cloned().collect();
        standing.journal = continuation(&ours, standing.end_offset, standing.last_epoch());
        Ok(standing)
    }

    /// Producers and leader epochs as the last object has them.
    async fn load_state(&mut self, lane: &Lane) -> Result<()> {
        let Some(head) = &self.last else {
            // A branch goes on from its parent's midst: nothing says who was producing there.
            self.state_is_whole = self.branch == 0;
            return Ok(());
        };
        if head.gap {
            // As for a broker whose log begins there.
            self.state_is_whole = self.branch == 0;
            return Ok(());
        }
        let sections = match &head.footer.encryption {
            None => lane.archive.sections(head).await?,
            Some(_) => sealed_sections(lane, head).await?,
        };
        let parsed = |source| Error::Batches { what: head.name.clone(), source };
        match (sections.get(&ExtentKind::ProducerSnapshot), sections.get(&ExtentKind::LeaderEpochs)) {
            (Some(producers), Some(epochs)) => {
                self.state.producers = parse_producer_snapshot(producers).map_err(parsed)?;
                self.state.leader_epochs = LeaderEpochs::parse(epochs).map_err(parsed)?;
            }
            _ => self.state_is_whole = false,
        }
        Ok(())
    }

    pub(crate) fn last_epoch(&self) -> Option<i32> {
        let entries: Vec<EpochEntry> = self.epochs.iter().copied().map(EpochEntry::from).collect();
        epoch_before(&entries, self.end_offset)
    }

    /// What a segment at the chain's end begins with.
    pub(crate) fn begin(&self) -> Begin {
        let before = self.epochs.iter().rev().find(|e| e.start_offset < self.end_offset);
        Begin {
            branch: self.branch,
            offset: self.end_offset,
            epoch_before: before.copied(),
            state: self.state.clone(),
            state_is_whole: self.state_is_whole,
        }
    }

    /// Whether the chain's end is.
    pub(crate) fn is_sealed(&self) -> bool {
        self.last.as_ref().is_some_and(|last| last.footer.encryption.is_some())
    }

    /// Where the lineage begins.
    pub(crate) fn begins_at(&self) -> i64 {
        let record = |number: u32| self.records.iter().find(|r| r.branch == number);
        lineage(self.branch, record).first().map_or(0, |stretch| stretch.start_offset)
    }

    /// Leaders before this one have another history.
    pub(crate) fn seen_under(&self) -> i32 {
        self.records.last().map_or(-1, |r| r.leader_epoch)
    }

    /// When the source was last seen to be as far as the chain is.
    pub(crate) fn seen_ms(&self) -> Option<i64> {
        let info = &self.last.as_ref()?.footer.info;
        Some(info.observed.last().map_or(info.created_ms, |sample| sample.time_ms))
    }

    /// All epochs of the lineage, object by object.
    pub(crate) async fn all_epochs(&self, lane: &Lane) -> Result<Vec<EpochStart>> {
        Ok(lane.partition().lineage_epochs(&self.records, self.branch, self.end_offset).await?)
    }
}

/// What a writer goes on with, of a sealed object; nothing where no key opens it any more.
async fn sealed_sections(lane: &Lane, head: &ObjectHead) -> Result<BTreeMap<ExtentKind, Vec<u8>>> {
    let mut object = lane.archive.object(head)?;
    let mut found = BTreeMap::new();
    if lane.sealing.unlock(&mut object).await? {
        for kind in [ExtentKind::ProducerSnapshot, ExtentKind::LeaderEpochs] {
            found.extend(object.section(kind).await?.map(|section| (kind, section)));
        }
    }
    Ok(found)
}

fn start_of(e: &EpochEntry) -> EpochStart {
    EpochStart { epoch: e.epoch, start_offset: e.start_offset }
}
