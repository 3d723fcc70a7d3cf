//! Batches against a log that Kafka 4.3.0's own classes wrote (`MemoryRecords`, one batch of every codec, a
//! producer whose sequence wraps, a transaction, both markers, LogAppendTime, a delete horizon, an empty
//! batch), and against what `kafka-dump-log` of 3.9.2 and of 4.3.0, which agree, print of it.

#![allow(clippy::unwrap_used, clippy::panic)]

use bytes::Bytes;
use proptest::prelude::*;
use varve_kafka::protocol::{
    Batch, BatchHeader, BatchScanner, Batches, ControlRecord, ControlType, ProtocolError, Record, Scanned,
};

const LOG: &[u8] = include_bytes!("data/every-kind-of-batch.log");
const DUMP: &str = include_str!("data/every-kind-of-batch.dump");
const OLD: &[u8] = include_bytes!("data/old-magic.log");
const LIMIT: usize = 1 << 20;

fn batches() -> Vec<Batch> {
    Batches::new(Bytes::from_static(LOG), 0).collect::<Result<_, _>>().unwrap()
}

fn records(batch: &Batch) -> Vec<Record> {
    batch.records(LIMIT).unwrap().collect::<Result<_, _>>().unwrap()
}

fn scan(bytes: &[u8], piece_bytes: usize) -> (Vec<Scanned>, Result<(), ProtocolError>) {
    let mut found = Vec::new();
    let mut scanner = BatchScanner::new();
    for piece in bytes.chunks(piece_bytes) {
        if let Err(e) = scanner.feed(piece, |s| found.push(s)) {
            return (found, Err(e));
        }
    }
    (found, scanner.finish())
}

#[test]
fn lines_are_those_of_kafka_dump_log() {
    let lines: Vec<String> = batches()
        .iter()
        .map(|b| b.header.line(b.position, b.crc_found() == b.header.crc).to_string())
        .collect();
    assert_eq!(lines, DUMP.lines().collect::<Vec<_>>());
    for piece_bytes in [1, 7, 61, 100, 4096] {
        let (found, end) = scan(LOG, piece_bytes);
        assert_eq!(end, Ok(()));
        let scanned: Vec<String> = found.iter().map(|s| s.line().unwrap().to_string()).collect();
        assert_eq!(scanned, lines, "in pieces of {piece_bytes}");
    }
}

#[test]
fn records_of_every_codec() {
    for batch in &batches()[..7] {
        let codec = batch.header.attributes.codec();
        let records = records(batch);
        assert_eq!(records.len(), 3, "{codec}");
        let base = batch.header.base_offset;
        assert_eq!(records.iter().map(|r| r.offset - base).collect::<Vec<_>>(), [0, 1, 2]);
        let times: Vec<i64> = records.iter().map(|r| r.timestamp_ms - 1_700_000_000_000).collect();
        assert_eq!(times, [0, -5, 7], "{codec}");
        assert_eq!(records[0].value.as_ref().unwrap().len(), 390);
        let headers: Vec<_> = records[0].headers.iter().map(|h| (&h.key[..], h.value.as_deref())).collect();
        assert_eq!(
            headers,
            [(&b"trace"[..], Some(&b"abc"[..])), (&b"empty"[..], Some(&b""[..])), (&b"null"[..], None)]
        );
        assert_eq!((records[1].key.as_deref(), records[1].value.as_deref()), (Some(&b"k2"[..]), None));
        assert_eq!((records[2].key.as_deref(), records[2].value.as_deref()), (None, Some(&b"v3"[..])));
    }
}

#[test]
fn markers_append_time_and_empty_batches() {
    let all = batches();
    let control = |b: &Batch| {
        let r = records(b).remove(0);
        ControlRecord::parse(&r.key.unwrap(), &r.value.unwrap()).unwrap()
    };
    let expected = ControlRecord { control_type: ControlType::Abort, coordinator_epoch: Some(3) };
    assert_eq!(control(&all[7]), expected);
    let expected = ControlRecord { control_type: ControlType::Commit, coordinator_epoch: Some(4) };
    assert_eq!(control(&all[8]), expected);
    let appended = records(&all[9]);
    assert!(appended.iter().all(|r| r.timestamp_ms == 1_700_000_000_100));
    assert_eq!(appended.iter().map(|r| r.offset).collect::<Vec<_>>(), [123, 163]);
    assert_eq!(all[10].header.delete_horizon_ms(), Some(1_700_000_000_777));
    assert_eq!(records(&all[11]), []);
}

#[test]
fn old_message_sets_are_told_and_passed_over() {
    let items: Vec<_> = Batches::new(Bytes::from_static(OLD), 0).collect();
    assert_eq!(
        items[0],
        Err(ProtocolError::OldMagic { position: 0, magic: 0, last_offset: 0, size_bytes: 28 })
    );
    assert_eq!(
        items[1],
        Err(ProtocolError::OldMagic { position: 28, magic: 1, last_offset: 2, size_bytes: 82 })
    );
    assert_eq!(items[2].as_ref().map(|b| (b.header.base_offset, b.position)), Ok((3, 110)));
    assert_eq!(items.len(), 3);
    for piece_bytes in [1, 20, 400] {
        let (found, end) = scan(OLD, piece_bytes);
        assert_eq!((found.len(), end), (3, Ok(())));
        assert!(matches!(found[1], Scanned::OldMessageSet(s) if s.magic == 1 && s.size_bytes == 82));
    }
    assert_eq!(Batches::whole(&Bytes::from_static(OLD)), Ok((OLD.len(), Some(4))));
}

#[test]
fn a_cut_tail_is_told_apart_from_corruption() {
    for cut in 1..LOG.len() {
        let last = Batches::new(Bytes::from_static(&LOG[..cut]), 0).last().unwrap();
        let whole = batches().iter().any(|b| b.position + b.bytes.len() as u64 == cut as u64);
        match last {
            Ok(_) => assert!(whole, "cut at {cut}"),
            Err(e) => assert!(matches!(e, ProtocolError::Truncated { .. }) && !whole, "cut at {cut}: {e}"),
        }
        assert_eq!(scan(&LOG[..cut], 13).1.is_ok(), whole, "cut at {cut}");
    }
    let mut bad = LOG.to_vec();
    bad[16] = 9;
    let first = BatchHeader::parse(&bad, 0);
    assert!(matches!(first, Err(ProtocolError::Corrupt { position: 16, .. })), "{first:?}");
    let mut bad = LOG.to_vec();
    bad[8..12].copy_from_slice(&(-5_i32).to_be_bytes());
    assert!(matches!(BatchHeader::parse(&bad, 0), Err(ProtocolError::Corrupt { position: 8, .. })));
}

#[test]
fn any_flipped_bit_behind_the_crc_is_found() {
    let first = &batches()[0];
    for bit in 21 * 8..first.bytes.len() * 8 {
        let mut bytes = first.bytes.to_vec();
        bytes[bit / 8] ^= 1 << (bit % 8);
        let batch = Batches::new(Bytes::from(bytes), 77).next().unwrap().unwrap();
        assert!(matches!(batch.check_crc(), Err(ProtocolError::Corrupt { position: 77, .. })), "bit {bit}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Nothing here may panic, and slices and scans must agree, whatever the bytes.
    #[test]
    fn any_bytes_are_safe(
        at in 0..LOG.len(), patch in proptest::collection::vec(any::<u8>(), 0..40), piece in 1_usize..300,
    ) {
        let mut bytes = LOG.to_vec();
        let end = (at + patch.len()).min(bytes.len());
        bytes[at..end].copy_from_slice(&patch[..end - at]);
        let mut good = Vec::new();
        for batch in Batches::new(Bytes::from(bytes.clone()), 0).flatten() {
            good.push(batch.header);
            let _ = batch.header.line(0, true).to_string();
            if let Ok(records) = batch.records(LIMIT) {
                prop_assert!(records.take(10_000).count() <= 10_000);
            }
        }
        let (found, _) = scan(&bytes, piece);
        let scanned: Vec<_> = found
            .iter()
            .filter_map(|s| match s { Scanned::Batch { header, .. } => Some(*header), _ => None })
            .collect();
        prop_assert_eq!(good, scanned);
    }

    #[test]
    fn noise_is_safe(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        use varve_kafka::protocol as p;
        let _ = Batches::new(Bytes::from(bytes.clone()), 0).count();
        let _ = scan(&bytes, 10);
        let _ = ControlRecord::parse(&bytes, &bytes);
        let _ = p::parse_offset_index(&bytes, i64::MAX);
        let _ = p::parse_time_index(&bytes, i64::MAX);
        let _ = p::parse_transaction_index(&bytes);
        let _ = p::parse_producer_snapshot(&bytes);
        let _ = p::parse_leader_epochs(&bytes);
        let _ = p::decode_remote_log_record(&bytes);
    }
}
