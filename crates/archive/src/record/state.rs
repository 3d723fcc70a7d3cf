//! The state of one partition in a snapshot: where its chains are, and what describes its recovery point.

use serde::{Deserialize, Serialize};
use varve_format::Id;

use super::branch::EpochEntry;
pub use super::chains::BranchState;
use super::chains::ChainsRef;
use crate::canonical::{RecordError, flaw, id_text, rule};
use crate::hash::{Hash, HashAlgorithm};

pub const OPEN_TRANSACTIONS_MAX: usize = 2048;

/// A part of the journal that goes on from a chain: an entry of a bundle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalEntry {
    pub branch: u32,
    pub archiver: String,
    pub sequence: u64,
    pub first_offset: i64,
    pub end_offset: i64,
    pub position: u64,
    pub bytes: u64,
    pub footer: Hash,
    pub leader_epochs: Vec<EpochEntry>,
}

/// Up to where the journal goes on from the chain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JournalEnd {
    pub end_offset: i64,
    /// Of the last record before the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_epoch: Option<i32>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OpenTransaction {
    pub producer_id: i64,
    pub producer_epoch: i16,
    pub first_offset: i64,
}

/// What a leaf of the tree has of a partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PartitionEntry {
    #[serde(with = "id_text")]
    pub topic_id: Id,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topic: Option<String>,
    pub partition: i32,
    /// None where there is neither an object nor a branch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chains: Option<ChainsRef>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub journal: Option<JournalEnd>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_start_offset: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_end_offset: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deleted_ms: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub open_transactions: Vec<OpenTransaction>,
}

/// A partition's entry with its chains: its members are reached as if they were here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionState {
    pub entry: PartitionEntry,
    /// Branch 0 at least; the last is the current one.
    pub branches: Vec<BranchState>,
}

impl std::ops::Deref for PartitionState {
    type Target = PartitionEntry;

    fn deref(&self) -> &PartitionEntry {
        &self.entry
    }
}

/// Where a partition stands in the tree.
pub fn path(hash: HashAlgorithm, topic_id: Id, partition: i32) -> Hash {
    hash.of(&[&topic_id.0, &partition.to_be_bytes()])
}

impl PartitionEntry {
    pub(crate) fn new(topic_id: Id, partition: i32) -> Self {
        Self {
            topic_id,
            topic: None,
            partition,
            chains: None,
            journal: None,
            log_start_offset: None,
            log_end_offset: None,
            deleted_ms: None,
            problem: None,
            open_transactions: Vec::new(),
        }
    }

    pub fn path(&self, hash: HashAlgorithm) -> Hash {
        path(hash, self.topic_id, self.partition)
    }

    /// The current branch.
    pub fn branch(&self) -> u32 {
        self.chains.as_ref().map_or(0, |c| c.branch)
    }

    /// The current branch's chain ends here.
    pub fn chain_end(&self) -> i64 {
        self.chains.as_ref().map_or(0, |c| c.end_offset)
    }

    /// The recovery point: the chain, then the journal.
    pub fn end(&self) -> i64 {
        self.journal.as_ref().map_or(self.chain_end(), |j| j.end_offset)
    }

    /// Whether it is behind what it should have reached.
    pub fn lags(&self) -> bool {
        self.log_end_offset.is_some() || self.problem.is_some()
    }

    pub(crate) fn check(&self) -> Result<(), RecordError> {
        rule::positive("partition", self.partition)?;
        self.topic.as_ref().map_or(Ok(()), |topic| rule::safe("topic", topic, rule::TOPIC_MAX_BYTES))?;
        let last_epoch = self.journal.as_ref().and_then(|j| j.last_epoch);
        if let Some(chains) = &self.chains {
            rule::positive("end_offset", chains.end_offset)?;
            rule::positive("last_epoch", chains.last_epoch.unwrap_or(0))?;
            rule::count("objects", chains.objects)?;
            rule::count("object_bytes", chains.object_bytes)?;
        }
        rule::positive("last_epoch", last_epoch.unwrap_or(0))?;
        if self.journal.as_ref().is_some_and(|j| j.end_offset <= self.chain_end()) {
            return Err(flaw("journal", format!("an end above {}", self.chain_end()), self.end()));
        }
        rule::positive("log_start_offset", self.log_start_offset.unwrap_or(0))?;
        rule::positive("deleted_ms", self.deleted_ms.unwrap_or(0))?;
        if self.log_end_offset.is_some_and(|log_end| log_end <= self.end()) {
            let expected = format!("above {}, or none", self.end());
            return Err(flaw("log_end_offset", expected, format!("{:?}", self.log_end_offset)));
        }
        self.problem.as_ref().map_or(Ok(()), |what| rule::text("problem", what, rule::TEXT_MAX_BYTES))?;
        self.check_transactions()
    }

    fn check_transactions(&self) -> Result<(), RecordError> {
        rule::at_most("open_transactions", self.open_transactions.len(), OPEN_TRANSACTIONS_MAX)?;
        for open in &self.open_transactions {
            rule::positive("producer_id", open.producer_id)?;
            rule::positive("producer_epoch", i64::from(open.producer_epoch))?;
            rule::positive("first_offset", open.first_offset)?;
            if open.first_offset >= self.end() {
                let expected = format!("one begun below {}", self.end());
                return Err(flaw("open_transactions", expected, open.first_offset));
            }
        }
        let order = |open: &OpenTransaction| (open.first_offset, open.producer_id);
        if self.open_transactions.is_sorted_by(|a, b| order(a) < order(b)) {
            return Ok(());
        }
        Err(flaw("open_transactions", "strictly ascending", "others"))
    }
}
