//! The transactions that are open at an offset, followed from batch to batch. Pure.
//!
//! A transaction begins with its producer's first transactional batch and ends with the marker.

use std::collections::BTreeMap;

use varve_archive::record::state::OpenTransaction;
use varve_kafka::protocol::{BatchHeader, LogState};

/// By producer id: its epoch, and where its transaction begins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct OpenTransactions(BTreeMap<i64, (i16, i64)>);

impl OpenTransactions {
    /// Those at the end of what `state` has followed.
    pub(crate) fn of(state: &LogState) -> Self {
        let open = state
            .producers
            .iter()
            .filter_map(|p| Some((p.producer_id, (p.producer_epoch, p.current_txn_first_offset?))));
        Self(open.collect())
    }

    pub(crate) fn feed(&mut self, header: &BatchHeader) {
        if !header.attributes.is_control() {
            if header.attributes.is_transactional() {
                self.0.entry(header.producer_id).or_insert((header.producer_epoch, header.base_offset));
            }
        // A marker that compaction has emptied ends nothing.
        } else if header.records_count > 0 {
            self.0.remove(&header.producer_id);
        }
    }

    /// Ascending by first offset, then producer.
    pub(crate) fn listed(&self) -> Vec<OpenTransaction> {
        let mut listed: Vec<OpenTransaction> = self
            .0
            .iter()
            .map(|(&producer_id, &(producer_epoch, first_offset))| OpenTransaction {
                producer_id,
                producer_epoch,
                first_offset,
            })
            .collect();
        listed.sort_by_key(|open| (open.first_offset, open.producer_id));
        listed
    }
}
