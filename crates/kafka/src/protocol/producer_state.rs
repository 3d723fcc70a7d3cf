//! What a broker knows of the producers of one partition, followed from batch to batch.
//!
//! As a broker follows it when it *replays* a log (its recovery, and a follower's appends), which trusts that the
//! leader has checked sequences and epochs:
//!
//! * A producer's entry changes with each of its batches. A new producer epoch, even a lower one, forgets the
//!   last data batch; a marker doesn't. So after a marker that carries a new epoch (transactions of version 2 end
//!   each so) the entry has sequence -1, offset -1 and offset delta 0.
//! * Of the five last batches that a broker keeps to tell duplicates, a snapshot holds only the last.
//! * A transaction begins with the first transactional data batch while none is open. A marker ends the one that
//!   is open; where none is, it changes the entry and nothing else. A control batch that compaction has emptied
//!   changes nothing.
//! * An aborted transaction goes into the transaction index with the last stable offset *at that time*: the
//!   first offset of the oldest transaction that another producer has open, or what follows the marker.
//! * The timestamp is the batch's maximum, or the marker's own.
//!
//! A broker recovers segment by segment, and each time reads its state back from the snapshot that it wrote at
//! the end of the segment before. That is when idle producers are dropped ([`ProducerExpiry`]); never one with
//! an open transaction, and none within a segment. [`ProducerStates::load`] does the same.
//!
//! Non-transactional data inside a producer's transaction can't be in a log (leaders and followers both refuse
//! it); it is an error here, as it stops a broker's recovery.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};

use super::batch::BatchHeader;
use super::control::{ControlRecord, ControlType};
use super::error::{ProtocolError, Result};
use super::hash_order::HashOrder;
use super::producer_snapshot::ProducerEntry;
use super::transaction_index::AbortedTransaction;

const NO_EPOCH: i16 = -1;
const NO_COORDINATOR_EPOCH: i32 = -1;
const NO_TIMESTAMP: i64 = -1;

/// When a producer that has been idle is forgotten: `producer.id.expiration.ms` of the broker, and its clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProducerExpiry {
    pub now_ms: i64,
    pub after_ms: i64,
}

impl ProducerExpiry {
    fn expired(self, entry: &ProducerEntry) -> bool {
        entry.current_txn_first_offset.is_none()
            && self.now_ms.saturating_sub(entry.timestamp_ms) >= self.after_ms
    }
}

/// A transaction without its marker yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenTransaction {
    pub producer_id: i64,
    pub first_offset: i64,
}

#[derive(Clone, Debug)]
pub(super) struct ProducerStates {
    /// In the order in which they came.
    producers: Vec<ProducerEntry>,
    /// Where they are there, by id.
    places: HashMap<i64, usize>,
    order: HashOrder,
    /// Producer ids by the first offset of their open transaction.
    open: BTreeMap<i64, i64>,
}

impl ProducerStates {
    /// As a broker reads a snapshot: `entries` in the order of the file.
    pub(super) fn load(entries: &[ProducerEntry], expiry: Option<ProducerExpiry>) -> Self {
        let mut states = Self {
            producers: Vec::new(),
            places: HashMap::new(),
            order: HashOrder::new(),
            open: BTreeMap::new(),
        };
        for entry in entries {
            if expiry.is_some_and(|expiry| expiry.expired(entry)) {
                continue;
            }
            let mut entry = *entry;
            if entry.last_offset < 0 {
                (entry.last_sequence, entry.last_offset, entry.offset_delta) = (-1, -1, 0);
            }
            *states.entry(entry.producer_id) = entry;
            if let Some(first_offset) = entry.current_txn_first_offset {
                states.open.insert(first_offset, entry.producer_id);
            }
        }
        states
    }

    /// In the order in which a broker would write them.
    pub(super) fn entries(&self) -> Vec<ProducerEntry> {
        let mut sorted = self.producers.clone();
        // Stable: within a bucket, the order in which they came.
        sorted.sort_by_key(|entry| self.order.bucket(entry.producer_id));
        sorted
    }

    /// By first offset.
    pub(super) fn open_transactions(&self) -> Vec<OpenTransaction> {
        let open = self.open.iter();
        open.map(|(first_offset, id)| OpenTransaction { producer_id: *id, first_offset: *first_offset })
            .collect()
    }

    /// A batch that is no control batch. `position` is for messages.
    pub(super) fn data(&mut self, header: &BatchHeader, position: u64) -> Result<()> {
        if header.producer_id < 0 {
            return Ok(());
        }
        let transactional = header.attributes.is_transactional();
        let entry = self.entry(header.producer_id);
        if let Some(first_offset) = entry.current_txn_first_offset
            && !transactional
        {
            return Err(ProtocolError::corrupt(
                "record batch",
                position,
                format!(
                    "only transactional data of producer {}, whose transaction is open since offset \
                     {first_offset}",
                    header.producer_id
                ),
                format!("other data at offset {}", header.base_offset),
            ));
        }
        entry.producer_epoch = header.producer_epoch;
        entry.last_sequence = header.last_sequence();
        entry.last_offset = header.last_offset();
        entry.offset_delta = header.last_offset_delta;
        entry.timestamp_ms = header.max_timestamp_ms;
        if transactional && entry.current_txn_first_offset.is_none() {
            entry.current_txn_first_offset = Some(header.base_offset);
            self.open.insert(header.base_offset, header.producer_id);
        }
        Ok(())
    }

    /// A control batch with a producer id. Returns the transaction that it aborts.
    pub(super) fn marker(
        &mut self,
        header: &BatchHeader,
        marker: ControlRecord,
        timestamp_ms: i64,
        position: u64,
    ) -> Result<Option<AbortedTransaction>> {
        let (ControlType::Abort | ControlType::Commit, Some(coordinator_epoch)) =
            (marker.control_type, marker.coordinator_epoch)
        else {
            let (expected, found) = ("the end of a transaction", marker.control_type);
            return Err(ProtocolError::corrupt("control batch of a producer", position, expected, found));
        };
        let entry = self.entry(header.producer_id);
        if entry.producer_epoch != header.producer_epoch {
            entry.producer_epoch = header.producer_epoch;
            (entry.last_sequence, entry.last_offset, entry.offset_delta) = (-1, -1, 0);
        }
        entry.coordinator_epoch = coordinator_epoch;
        entry.timestamp_ms = timestamp_ms;
        let Some(first_offset) = entry.current_txn_first_offset.take() else { return Ok(None) };
        let of_others = self.open.iter().find(|(_, id)| **id != header.producer_id);
        let last_stable_offset =
            of_others.map_or(header.base_offset.saturating_add(1), |(first_offset, _)| *first_offset);
        self.open.remove(&first_offset);
        Ok((marker.control_type == ControlType::Abort).then_some(AbortedTransaction {
            producer_id: header.producer_id,
            first_offset,
            last_offset: header.base_offset,
            last_stable_offset,
        }))
    }

    fn entry(&mut self, producer_id: i64) -> &mut ProducerEntry {
        let place = match self.places.entry(producer_id) {
            Entry::Occupied(known) => *known.get(),
            Entry::Vacant(vacant) => {
                let len = self.producers.len();
                self.order.insert(producer_id, self.producers.iter().map(|entry| entry.producer_id), len);
                self.producers.push(unknown(producer_id));
                *vacant.insert(len)
            }
        };
        &mut self.producers[place]
    }
}

fn unknown(producer_id: i64) -> ProducerEntry {
    ProducerEntry {
        producer_id,
        producer_epoch: NO_EPOCH,
        last_sequence: -1,
        last_offset: -1,
        offset_delta: 0,
        timestamp_ms: NO_TIMESTAMP,
        coordinator_epoch: NO_COORDINATOR_EPOCH,
        current_txn_first_offset: None,
    }
}
