//! The files of a segment, built from batches made here: what each rule says, over any log, any cut, any bytes.
//! That the rules are Kafka's is for `tests/e2e/segment_files.rs` to show.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeMap;
use std::time::Instant;

use proptest::prelude::*;
use varve_kafka::protocol::{
    AbortedTransaction, BuiltSegment, LeaderEpochs, LogState, OpenTransaction, ProducerEntry, ProducerExpiry,
    ProtocolError, SegmentBuilder, SegmentRules, TimeIndexEntry, parse_offset_index, parse_producer_snapshot,
    parse_time_index, parse_transaction_index,
};

const OLD: &[u8] = include_bytes!("data/old-magic.log");
const TRANSACTIONAL: i16 = 0x10;
const CONTROL: i16 = 0x20;

/// A batch to be; the records of data batches are noise, which nobody looks at.
#[derive(Clone, Debug)]
struct Make {
    base_offset: i64,
    delta: i32,
    count: i32,
    leader_epoch: i32,
    attributes: i16,
    base_timestamp_ms: i64,
    max_timestamp_ms: i64,
    producer: (i64, i16, i32),
    body: Vec<u8>,
}

impl Make {
    fn data(base_offset: i64, count: i32) -> Self {
        Self {
            base_offset,
            delta: count - 1,
            count,
            leader_epoch: 0,
            attributes: 0,
            base_timestamp_ms: 1000,
            max_timestamp_ms: 1000,
            producer: (-1, -1, -1),
            body: vec![7; 39],
        }
    }

    fn of(mut self, id: i64, epoch: i16, sequence: i32) -> Self {
        self.producer = (id, epoch, sequence);
        self
    }

    fn transactional(mut self) -> Self {
        self.attributes |= TRANSACTIONAL;
        self
    }

    fn at_ms(mut self, ms: i64) -> Self {
        (self.base_timestamp_ms, self.max_timestamp_ms) = (ms, ms);
        self
    }

    fn marker(offset: i64, commit: bool, coordinator_epoch: i32) -> Self {
        let mut record = vec![0, 0, 0, 8, 0, 0, 0, u8::from(commit), 12, 0, 0];
        record.extend(coordinator_epoch.to_be_bytes());
        record.push(0);
        record.insert(0, (record.len() * 2) as u8);
        let mut make = Self::data(offset, 1).transactional();
        make.attributes |= CONTROL;
        make.body = record;
        make
    }

    fn bytes(&self) -> Vec<u8> {
        let mut covered = self.attributes.to_be_bytes().to_vec();
        covered.extend(self.delta.to_be_bytes());
        covered.extend(self.base_timestamp_ms.to_be_bytes());
        covered.extend(self.max_timestamp_ms.to_be_bytes());
        covered.extend(self.producer.0.to_be_bytes());
        covered.extend(self.producer.1.to_be_bytes());
        covered.extend(self.producer.2.to_be_bytes());
        covered.extend(self.count.to_be_bytes());
        covered.extend(&self.body);
        let mut bytes = self.base_offset.to_be_bytes().to_vec();
        bytes.extend((covered.len() as i32 + 9).to_be_bytes());
        bytes.extend(self.leader_epoch.to_be_bytes());
        bytes.push(2);
        bytes.extend(varve_format::crc32c(&covered).to_be_bytes());
        bytes.extend(covered);
        bytes
    }
}

fn log(batches: &[Make]) -> Vec<u8> {
    batches.iter().flat_map(Make::bytes).collect()
}

fn interval(index_interval_bytes: u32) -> SegmentRules {
    SegmentRules { index_interval_bytes, producer_expiry: None }
}

fn build_from(
    state: LogState,
    base_offset: i64,
    bytes: &[u8],
    piece_bytes: usize,
    rules: SegmentRules,
) -> Result<BuiltSegment, ProtocolError> {
    let mut builder = SegmentBuilder::new(base_offset, state, rules)?;
    for piece in bytes.chunks(piece_bytes) {
        builder.feed(piece)?;
    }
    builder.finish()
}

fn build(batches: &[Make]) -> Result<BuiltSegment, ProtocolError> {
    build_from(LogState::default(), 0, &log(batches), usize::MAX, interval(0))
}

type Flat = (i64, i32, i64, i32, i16, i32, i64, i64);

/// Id, sequence, offset, delta, epoch, coordinator epoch, timestamp, first offset of the open transaction.
fn producers(built: &BuiltSegment) -> Vec<Flat> {
    let entries = parse_producer_snapshot(&built.files.producer_snapshot).unwrap();
    assert_eq!(entries, built.state.producers);
    let flat = |e: &ProducerEntry| {
        let open = e.current_txn_first_offset.unwrap_or(-1);
        (
            e.producer_id,
            e.last_sequence,
            e.last_offset,
            e.offset_delta,
            e.producer_epoch,
            e.coordinator_epoch,
            e.timestamp_ms,
            open,
        )
    };
    entries.iter().map(flat).collect()
}

#[test]
fn an_entry_of_the_offset_index_for_each_interval() {
    // Batches of 100 bytes and 3 records.
    let batches: Vec<Make> = (0..8).map(|i| Make::data(10 + i * 3, 3).at_ms(i % 4)).collect();
    let index = |interval_bytes| {
        let built = build_from(LogState::new(10), 10, &log(&batches), 64, interval(interval_bytes)).unwrap();
        let offsets = parse_offset_index(&built.files.offset_index, 10).unwrap();
        let times = parse_time_index(&built.files.time_index, 10).unwrap();
        let offsets: Vec<_> = offsets.iter().map(|e| (e.offset, e.position)).collect();
        let times: Vec<_> = times.iter().map(|e| (e.timestamp_ms, e.offset)).collect();
        (offsets, times)
    };
    // More than the interval, counted from the batch that got the last entry.
    assert_eq!(index(200).0, [(21, 300), (30, 600)]);
    assert_eq!(index(199).0, [(18, 200), (24, 400), (30, 600)]);
    assert_eq!(index(199).1, [(2, 18), (3, 21)]);
    assert_eq!(index(0).1, [(1, 15), (2, 18), (3, 21)]);
    // Of the greatest timestamp's batches the first one, at the segment's end too.
    assert_eq!(index(10_000), (vec![], vec![(3, 21)]));
    let built = build(&[Make::data(0, 1).at_ms(-1), Make::data(1, 1).at_ms(-1)]).unwrap();
    assert_eq!((built.files.time_index, built.summary.max_timestamp), (vec![], None));
    let built = build(&[Make::data(0, 5).at_ms(0)]).unwrap();
    assert_eq!(built.summary.max_timestamp, Some(TimeIndexEntry { timestamp_ms: 0, offset: 4 }));
    assert_eq!((built.files.offset_index.len(), built.files.time_index.len()), (0, 12));
}

#[test]
fn transactions_end_or_stay_open() {
    let batches = [
        Make::data(0, 2).of(1, 0, 0).transactional(),
        Make::data(2, 1).of(2, 0, 0).transactional(),
        // Of nobody who has anything open.
        Make::marker(3, false, 5).of(3, 7, -1).at_ms(2000),
        Make::marker(4, false, 5).of(2, 0, -1).at_ms(2001),
        // Ends with a new epoch, as transactions of version 2 do.
        Make::marker(5, false, 6).of(1, 1, -1).at_ms(2002),
        Make::data(6, 4).of(4, 0, i32::MAX - 1),
        Make::data(10, 1).of(2, 0, 1).transactional(),
        Make::marker(11, true, 5).of(2, 0, -1).at_ms(2003),
        Make::data(12, 1).of(1, 1, 0).transactional(),
    ];
    let built = build(&batches).unwrap();
    let aborted = parse_transaction_index(&built.files.transaction_index).unwrap();
    let entry = |producer_id, first_offset, last_offset, last_stable_offset| AbortedTransaction {
        producer_id,
        first_offset,
        last_offset,
        last_stable_offset,
    };
    assert_eq!(aborted, [entry(2, 2, 4, 0), entry(1, 0, 5, 6)]);
    assert_eq!(
        producers(&built),
        [
            (1, 0, 12, 0, 1, 6, 1000, 12),
            (2, 1, 10, 0, 0, 5, 2003, -1),
            (3, -1, -1, 0, 7, 5, 2000, -1),
            (4, 1, 9, 3, 0, -1, 1000, -1),
        ]
    );
    assert_eq!(built.summary.open_transactions, [OpenTransaction { producer_id: 1, first_offset: 12 }]);
    assert_eq!((built.summary.markers_count, built.summary.aborted_transactions_count), (4, 2));
    let mixed = [Make::data(13, 1).of(1, 1, 1)];
    let refused = build_from(built.state.clone(), 13, &log(&mixed), 10, interval(0));
    assert!(matches!(refused, Err(ProtocolError::Corrupt { position: 0, .. })), "{refused:?}");

    // The next segment knows what is open, and its end; what an emptied control batch was, nobody knows.
    let mut emptied = Make::marker(13, false, 9).of(4, 0, -1);
    (emptied.body, emptied.count) = (vec![], 0);
    let next = [emptied, Make::marker(14, false, 6).of(1, 2, -1)];
    let next = build_from(built.state, 13, &log(&next), 10, interval(0)).unwrap();
    let aborted = parse_transaction_index(&next.files.transaction_index).unwrap();
    assert_eq!(aborted, [entry(1, 12, 14, 15)]);
    assert_eq!(producers(&next)[0], (1, -1, -1, 0, 2, 6, 1000, -1));
    assert_eq!(producers(&next)[3], (4, 1, 9, 3, 0, -1, 1000, -1));
}

#[test]
fn idle_producers_go_at_the_begin_of_a_segment() {
    let batches =
        [Make::data(0, 1).of(1, 0, 0).at_ms(10), Make::data(1, 1).of(2, 0, 0).transactional().at_ms(10)];
    let expiry = |now_ms| SegmentRules {
        producer_expiry: Some(ProducerExpiry { now_ms, after_ms: 100 }),
        ..SegmentRules::default()
    };
    let first = build_from(LogState::default(), 0, &log(&batches), 50, expiry(1_000_000)).unwrap();
    assert_eq!(first.state.producers.len(), 2);
    let next = |now_ms| build_from(first.state.clone(), 2, &[], 1, expiry(now_ms)).unwrap();
    let ids = |built: BuiltSegment| producers(&built).iter().map(|p| p.0).collect::<Vec<_>>();
    assert_eq!(ids(next(109)), [1, 2]);
    // The one with an open transaction stays.
    assert_eq!(ids(next(110)), [2]);
}

#[test]
fn gaps_epochs_and_counts() {
    let mut batches = [Make::data(7, 2), Make::data(9, 3), Make::data(20, 1), Make::data(22, 4)];
    (batches[1].count, batches[3].count) = (1, 0);
    for (batch, epoch) in batches.iter_mut().zip([3, 3, 5, -1]) {
        batch.leader_epoch = epoch;
    }
    let epochs = LeaderEpochs::parse(b"0\n2\n0 0\n3 4\n").unwrap();
    let state = LogState { next_offset: 5, leader_epochs: epochs, ..LogState::default() };
    let built = build_from(state, 6, &log(&batches), 33, interval(0)).unwrap();
    let summary = &built.summary;
    assert_eq!(built.files.leader_epochs, b"0\n3\n0 0\n3 4\n5 20\n");
    let epochs: Vec<_> = summary.leader_epochs.iter().map(|e| (e.epoch, e.start_offset)).collect();
    assert_eq!(epochs, [(3, 6), (5, 20)]);
    assert_eq!(
        (summary.first_offset, summary.last_offset(), built.state.next_offset),
        (Some(7), Some(25), 26)
    );
    assert_eq!((summary.batches_count, summary.records_count, summary.size_bytes), (4, 4, 400));
    assert_eq!((summary.missing_within_batches, summary.missing_between_batches), (6, 1 + 8 + 1));
    assert_eq!((summary.gaps_count, summary.first_gap.clone(), summary.is_dense()), (3, Some(6..7), false));
    let dense = build(&[Make::data(0, 2), Make::data(2, 3)]).unwrap();
    assert!(dense.summary.is_dense() && dense.summary.records_count == 5);
    let empty = build(&[]).unwrap();
    assert_eq!((empty.summary.last_offset(), empty.state), (None, LogState::default()));
}

#[test]
fn what_no_broker_has_written_is_refused() {
    let refused = |batches: &[Make], position: u64| {
        let built = build(batches);
        assert!(
            matches!(&built, Err(ProtocolError::Corrupt { position: at, .. }) if *at == position),
            "{built:?}"
        );
    };
    refused(&[Make::data(0, 2), Make::data(1, 1)], 100);
    refused(&[Make::data(0, 2), Make::data(0, 2)], 100);
    refused(&[Make { delta: -1, ..Make::data(0, 1) }], 0);
    refused(&[Make { count: 2, delta: 0, ..Make::data(0, 1) }], 0);
    refused(&[Make { count: -1, ..Make::data(0, 1) }], 0);
    refused(&[Make::data(i64::MAX - 1, 2)], 0);
    refused(&[Make::data(1 << 31, 1)], 0);
    assert!(build(&[Make::data((1 << 31) - 1, 1)]).is_ok());
    // Markers: of another type, cut short, and too large.
    let mut marker = Make::marker(0, true, 1).of(1, 0, -1);
    marker.body[8] = 2;
    refused(&[marker.clone()], 0);
    marker.body.truncate(9);
    let cut = build(&[marker.clone()]);
    assert!(matches!(cut, Err(ProtocolError::Corrupt { .. })), "{cut:?}");
    marker.body = vec![0; 1 << 17];
    refused(&[marker.clone()], 0);
    assert!(build_from(LogState::default(), 0, &marker.bytes(), 1000, interval(0)).is_err());
    // Without a producer it is one of a broker's own.
    marker.producer.0 = -1;
    assert!(build(&[marker]).is_ok());

    let old = build_from(LogState::default(), 0, OLD, 9, interval(0));
    assert!(matches!(old, Err(ProtocolError::OldMagic { position: 0, magic: 0, .. })), "{old:?}");
    assert!(SegmentBuilder::new(4, LogState::new(5), interval(0)).is_err());
    assert!(SegmentBuilder::new(-1, LogState::new(-5), interval(0)).is_err());
    let bytes = Make::data(0, 1).bytes();
    for cut in 1..bytes.len() {
        let built = build_from(LogState::default(), 0, &bytes[..cut], 20, interval(0));
        assert!(matches!(built, Err(ProtocolError::Truncated { .. })), "{cut}: {built:?}");
    }
    // Base offset, length, leader epoch and magic are before the CRC; the rest is under it.
    for bit in 17 * 8..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(build_from(LogState::default(), 0, &flipped, 1000, interval(0)).is_err(), "bit {bit}");
    }
}

/// A log as brokers write them: of each step a batch, or the end of a transaction.
fn any_log() -> impl Strategy<Value = Vec<Make>> {
    let step = (0..6_i64, 1..5_i32, 0..300_usize, -1..50_i64, 0..8_u8, 0..3_i64, any::<bool>());
    proptest::collection::vec(step, 0..80).prop_map(|steps| {
        let (mut offset, mut leader_epoch) = (0, 0);
        // Epoch, next sequence, open, by producer.
        let mut known: BTreeMap<i64, (i16, i32, bool)> = BTreeMap::new();
        let mut batches = Vec::new();
        for (producer, count, body, ms, what, gap, commit) in steps {
            // Ids that meet in one bucket.
            let id = producer * 16;
            let (epoch, sequence, open) = known.entry(id).or_insert((0, 0, false));
            let mut batch = match what {
                0 => Make::data(offset, count),
                1 | 2 => {
                    *epoch += i16::from(commit);
                    *open = false;
                    Make::marker(offset, commit, 1).of(id, *epoch, -1)
                }
                3 if !*open => Make::data(offset, count).of(id, *epoch, *sequence),
                _ => {
                    *open = true;
                    Make::data(offset, count).of(id, *epoch, *sequence).transactional()
                }
            };
            *sequence += count;
            if batch.attributes & CONTROL == 0 {
                batch.body = vec![1; body];
                leader_epoch += i32::from(body % 10 == 0);
            }
            batch.leader_epoch = leader_epoch;
            batch.base_offset += if gap == 2 { 5 } else { 0 };
            offset = batch.base_offset + i64::from(batch.delta) + 1;
            batches.push(batch.at_ms(ms));
        }
        batches
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn any_cut_gives_the_same(batches in any_log(), piece in 1_usize..500, interval_bytes in 0_u32..1000) {
        let bytes = log(&batches);
        let whole = build_from(LogState::default(), 0, &bytes, usize::MAX, interval(interval_bytes));
        let cut = build_from(LogState::default(), 0, &bytes, piece, interval(interval_bytes));
        prop_assert!(whole.is_ok());
        prop_assert_eq!(whole, cut);
    }

    /// Each index entry is true, and no batch that should have one is without.
    #[test]
    fn index_entries_are_true(batches in any_log(), interval_bytes in 0_u32..1000) {
        let built = build_from(LogState::default(), 0, &log(&batches), 700, interval(interval_bytes)).unwrap();
        let index = parse_offset_index(&built.files.offset_index, 0).unwrap();
        let times = parse_time_index(&built.files.time_index, 0).unwrap();
        let (mut position, mut last_indexed) = (0_u64, 0_u64);
        let mut left = index.iter();
        let last = |batch: &Make| batch.base_offset + i64::from(batch.delta);
        for batch in &batches {
            if position - last_indexed > u64::from(interval_bytes) {
                let entry = left.next().unwrap();
                prop_assert_eq!((entry.offset, u64::from(entry.position)), (last(batch), position));
                last_indexed = position;
            }
            position += batch.bytes().len() as u64;
        }
        prop_assert!(left.next().is_none());
        for entry in &times {
            let before = batches.iter().filter(|b| last(b) <= entry.offset);
            prop_assert_eq!(before.clone().map(|b| b.max_timestamp_ms).max(), Some(entry.timestamp_ms));
            let first = before.filter(|b| b.max_timestamp_ms == entry.timestamp_ms).map(last).next();
            prop_assert_eq!(first, Some(entry.offset));
        }
        let max = batches.iter().map(|b| b.max_timestamp_ms).filter(|ms| *ms >= 0).max();
        // An entry that is all zeros can't be told from a broker's padding.
        let told = max.filter(|ms| *ms > 0 || batches.first().is_some_and(|b| last(b) > 0 || b.max_timestamp_ms < 0));
        prop_assert_eq!(times.last().map(|entry| entry.timestamp_ms), told);
        prop_assert_eq!(built.summary.max_timestamp.map(|max| max.timestamp_ms), max);
    }

    /// Wherever segments are cut: the same producers, transactions and epochs; files read back are the state.
    #[test]
    fn segments_follow_each_other(batches in any_log(), at in 0_usize..80) {
        let whole = build(&batches).unwrap();
        let (head, tail) = batches.split_at(at.min(batches.len()));
        let head = build(head).unwrap();
        let read_back = LogState {
            next_offset: head.summary.next_offset,
            producers: parse_producer_snapshot(&head.files.producer_snapshot).unwrap(),
            leader_epochs: LeaderEpochs::parse(&head.files.leader_epochs).unwrap(),
        };
        prop_assert_eq!(&read_back, &head.state);
        let base_offset = read_back.next_offset;
        let tail = build_from(read_back, base_offset, &log(tail), 1000, interval(0)).unwrap();
        prop_assert_eq!(&tail.state, &whole.state);
        prop_assert_eq!(&tail.files.producer_snapshot, &whole.files.producer_snapshot);
        prop_assert_eq!(&tail.files.leader_epochs, &whole.files.leader_epochs);
        prop_assert_eq!(&tail.summary.open_transactions, &whole.summary.open_transactions);
        let aborted = [head.files.transaction_index, tail.files.transaction_index].concat();
        prop_assert_eq!(aborted, whole.files.transaction_index);
        let records = head.summary.records_count + tail.summary.records_count;
        prop_assert_eq!(records, whole.summary.records_count);
    }

    /// Whatever is fed and whatever the state before: no panic, and the same from any cut.
    #[test]
    fn any_bytes_are_safe(
        batches in any_log(), at in any::<prop::sample::Index>(), patch in proptest::collection::vec(any::<u8>(), 0..40),
        mend in any::<bool>(), piece in 1_usize..300, base in prop_oneof![Just(0_i64), any::<i64>()],
        known in proptest::collection::vec((any::<i64>(), any::<i64>(), any::<i64>()), 0..20),
    ) {
        let mut bytes = log(&batches);
        if !bytes.is_empty() {
            let at = at.index(bytes.len());
            let end = (at + patch.len()).min(bytes.len());
            bytes[at..end].copy_from_slice(&patch[..end - at]);
        }
        if mend {
            mend_crcs(&mut bytes);
        }
        let producers = known.iter().map(|(id, offset, ms)| ProducerEntry {
            producer_id: *id, producer_epoch: 0, last_sequence: 1, last_offset: *offset, offset_delta: 0,
            timestamp_ms: *ms, coordinator_epoch: 0, current_txn_first_offset: (*ms > 0).then_some(*offset),
        });
        let state = LogState { producers: producers.collect(), ..LogState::default() };
        let expiry = Some(ProducerExpiry { now_ms: i64::MAX, after_ms: -1 });
        let rules = SegmentRules { index_interval_bytes: 0, producer_expiry: expiry };
        let one = build_from(state.clone(), base, &bytes, usize::MAX, rules);
        prop_assert_eq!(one, build_from(state, base, &bytes, piece, rules));
    }

    #[test]
    fn noise_is_safe(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = build_from(LogState::default(), 0, &bytes, 10, interval(0));
    }
}

/// Makes the CRC of every batch right, so that what it covers is looked at.
fn mend_crcs(bytes: &mut [u8]) {
    let mut at = 0;
    while let Some(length) = bytes.get(at + 8..at + 12) {
        let length = u32::from_be_bytes(length.try_into().unwrap()) as usize;
        let end = at + 12 + length;
        let Some(covered) = bytes.get(at + 21..end) else { break };
        let crc = varve_format::crc32c(covered).to_be_bytes();
        bytes[at + 17..at + 21].copy_from_slice(&crc);
        at = end;
    }
}

/// `cargo test --release -p varve-kafka --test segment_builder -- --ignored --nocapture`
#[test]
#[ignore = "a measurement"]
fn speed() {
    for (body, many) in [(200, 400_000_i64), (16_000, 16_000), (1_000_000, 250)] {
        let bytes: Vec<u8> = (0..many)
            .flat_map(|i| {
                let data = Make { body: vec![i as u8; body], ..Make::data(i * 10, 10) };
                data.of(i % 20, 0, 0).at_ms(i).bytes()
            })
            .collect();
        let gib = bytes.len() as f64 / f64::from(1 << 30);
        let started = Instant::now();
        let mut crc = 0;
        for batch in bytes.chunks(body + 61) {
            crc ^= varve_format::crc32c(&batch[21..]);
        }
        let crc_s = started.elapsed().as_secs_f64();
        let started = Instant::now();
        let built = build_from(LogState::default(), 0, &bytes, 1 << 20, SegmentRules::default()).unwrap();
        let all_s = started.elapsed().as_secs_f64();
        println!(
            "batches of {body}: {:.1} GiB/s, the CRC alone {:.1}, beyond it {:.1} ({} ns a batch; {crc:x}, {} records)",
            gib / all_s,
            gib / crc_s,
            gib / (all_s - crc_s),
            ((all_s - crc_s) * 1e9 / many as f64) as i64,
            built.summary.records_count
        );
    }
}
