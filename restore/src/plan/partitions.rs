//! Partitions of a plan: which offsets, and what stands in them.

use std::sync::Arc;

use varve_archive::record::state::PartitionState;
use varve_archive::{ArchivedLog, JournalView, LogReader};

use super::document::{PlannedPartition, PlannedTransaction};
use crate::as_of::{Cuts, cut_at};
use crate::error::Result;
use crate::history::{KeyCache, since};
use crate::log::Facts;
use crate::select::Selection;
use crate::source::SourceTopic;

/// The archive's logs, and what is wanted of them.
pub(super) struct Logs<'a> {
    pub(super) keys: &'a Arc<KeyCache>,
    pub(super) reader: &'a LogReader,
    pub(super) journal: &'a JournalView,
    pub(super) cuts: &'a Cuts,
    pub(super) selection: &'a Selection,
    /// What does not hold is a hole.
    pub(super) skip_corrupt: bool,
}

impl Logs<'_> {
    pub(super) async fn partition(
        &self,
        topic: &SourceTopic,
        partition: i32,
        replicas: Vec<i32>,
    ) -> Result<PlannedPartition> {
        let Some(state) = topic.partitions.get(&partition) else {
            return Ok(planned(partition, replicas, Facts::default(), Vec::new()));
        };
        if !self.selection.has_partition(&topic.name, partition) {
            // Offsets that were given out once are not given out again.
            let end = state.end();
            let facts = Facts { start_offset: end, base_offset: end, end_offset: end, ..Facts::default() };
            return Ok(planned(partition, replicas, facts, Vec::new()));
        }
        let log = self.reader.at(state, None, self.journal)?;
        self.selected(topic, state, &log, replicas).await
    }

    async fn selected(
        &self,
        topic: &SourceTopic,
        state: &PartitionState,
        log: &ArchivedLog,
        replicas: Vec<i32>,
    ) -> Result<PlannedPartition> {
        let wanted = self.selection.offsets(&topic.name, state.partition);
        let cut = self.cuts.of(topic.topic_id, state.partition);
        let end = wanted.end.min(cut.map_or(i64::MAX, |cut| cut.end_offset));
        let mut start = wanted.start.max(state.log_start_offset.unwrap_or(0)).min(end);
        if let Some(since_ms) = self.selection.since_ms {
            start = since(log, self.keys, start..end.min(log.end_offset()), since_ms).await?;
        }
        let facts = match self.skip_corrupt {
            true => Facts::of_what_holds(log, self.keys, start..end).await?,
            false => Facts::of(log, self.keys, start..end).await?,
        };
        let open = match cut {
            Some(cut) => cut.open.clone(),
            // Of an end that is lower, or of which the archiver could not tell, the log tells.
            None if end < log.end_offset() || state.problem.is_some() => {
                cut_at(log, self.keys, &facts).await?.open
            }
            None => state.open_transactions.iter().map(open).collect(),
        };
        Ok(planned(state.partition, replicas, facts, open))
    }
}

fn open(transaction: &varve_archive::record::state::OpenTransaction) -> PlannedTransaction {
    PlannedTransaction {
        producer_id: transaction.producer_id,
        producer_epoch: transaction.producer_epoch,
        first_offset: transaction.first_offset,
    }
}

fn planned(
    partition: i32,
    replicas: Vec<i32>,
    facts: Facts,
    open_transactions: Vec<PlannedTransaction>,
) -> PlannedPartition {
    PlannedPartition {
        partition,
        replicas,
        start_offset: facts.start_offset,
        base_offset: facts.base_offset,
        end_offset: facts.end_offset,
        log_bytes: facts.log_bytes,
        stored_bytes: facts.stored_bytes,
        objects: facts.objects,
        leader_epochs: facts.leader_epochs.entries().iter().map(|e| (e.epoch, e.start_offset)).collect(),
        holes: facts.holes,
        skipped: facts.skipped,
        produce: None,
        open_transactions,
    }
}
