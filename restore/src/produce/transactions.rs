//! How transactions ended, from batches and markers in the order of their offsets. Pure.

use std::collections::HashMap;

use varve_kafka::protocol::{BatchHeader, ControlType};

/// What was not committed: its batches never become records of the target.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Aborted {
    /// Of each producer, first and last offset of each such transaction, in order.
    by_producer: HashMap<i64, Vec<(i64, i64)>>,
}

impl Aborted {
    pub(crate) fn has(&self, header: &BatchHeader) -> bool {
        if !header.attributes.is_transactional() {
            return false;
        }
        let Some(all) = self.by_producer.get(&header.producer_id) else { return false };
        let after = all.partition_point(|(first, _)| *first <= header.base_offset);
        let found = after.checked_sub(1).and_then(|before| all.get(before));
        found.is_some_and(|(_, last)| header.base_offset <= *last)
    }

    fn add(&mut self, producer_id: i64, first: i64, last: i64) {
        self.by_producer.entry(producer_id).or_default().push((first, last));
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Transactions {
    open: HashMap<i64, Open>,
    aborted: Aborted,
}

#[derive(Debug)]
struct Open {
    first_offset: i64,
    records: u64,
}

/// How many records one had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    Committed(u64),
    Aborted(u64),
}

impl Transactions {
    /// A batch of a transaction, with so many records.
    pub(super) fn data(&mut self, header: &BatchHeader, records: u64) {
        let new = Open { first_offset: header.base_offset, records: 0 };
        let open = self.open.entry(header.producer_id).or_insert(new);
        open.records = open.records.saturating_add(records);
    }

    /// `None` if none was open, as of a marker that is alone in its partition.
    pub(super) fn marker(&mut self, header: &BatchHeader, control: ControlType) -> Option<Ended> {
        let is_commit = match control {
            ControlType::Commit => true,
            ControlType::Abort => false,
            _ => return None,
        };
        let open = self.open.remove(&header.producer_id)?;
        if is_commit {
            return Some(Ended::Committed(open.records));
        }
        self.aborted.add(header.producer_id, open.first_offset, header.base_offset);
        Some(Ended::Aborted(open.records))
    }

    /// Those that are open where the log ends count as aborted: their producers are gone. How many records they have.
    pub(super) fn end(mut self) -> (Aborted, u64) {
        let mut records = 0_u64;
        for (producer_id, open) in self.open {
            self.aborted.add(producer_id, open.first_offset, i64::MAX);
            records = records.saturating_add(open.records);
        }
        (self.aborted, records)
    }
}

#[cfg(test)]
mod tests {
    use varve_kafka::protocol::Attributes;

    use super::*;

    fn header(producer_id: i64, base_offset: i64) -> BatchHeader {
        BatchHeader {
            base_offset,
            length_bytes: 0,
            partition_leader_epoch: 0,
            crc: 0,
            attributes: Attributes(0x10),
            last_offset_delta: 4,
            base_timestamp_ms: 0,
            max_timestamp_ms: 0,
            producer_id,
            producer_epoch: 0,
            base_sequence: 0,
            records_count: 5,
        }
    }

    #[test]
    fn what_is_aborted_or_open_is_told_by_producer_and_offset() {
        let mut transactions = Transactions::default();
        for (id, offset) in [(1, 0), (2, 5), (1, 10)] {
            transactions.data(&header(id, offset), 5);
        }
        assert_eq!(transactions.marker(&header(1, 15), ControlType::Abort), Some(Ended::Aborted(10)));
        assert_eq!(transactions.marker(&header(1, 16), ControlType::Abort), None);
        transactions.data(&header(1, 17), 5);
        assert_eq!(transactions.marker(&header(2, 22), ControlType::Commit), Some(Ended::Committed(5)));
        assert_eq!(transactions.marker(&header(1, 23), ControlType::Commit), Some(Ended::Committed(5)));
        transactions.data(&header(2, 24), 5);
        let (aborted, open) = transactions.end();
        assert_eq!(open, 5);
        let has = |id, offset| aborted.has(&header(id, offset));
        assert!(has(1, 0) && has(1, 10) && has(2, 24) && has(2, 99));
        assert!(!has(1, 17) && !has(2, 5) && !has(3, 0));
        let plain = BatchHeader { attributes: Attributes(0), ..header(1, 0) };
        assert!(!aborted.has(&plain));
    }
}
