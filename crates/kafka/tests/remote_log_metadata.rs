//! Records of `__remote_log_metadata` as the brokers' own classes write them.
//!
//! The `.hex` files were made once with `RemoteLogMetadataSerde.serialize` of kafka-storage 3.9.2 and 4.3.0:
//! topic "orders" partition 7, segment of offsets 100–199 with epochs {0: 100, 3: 150}, broker 5, 1 MiB,
//! custom metadata 01 02 ff. They are never made again; a newer Kafka gets a file of its own.

#![allow(clippy::unwrap_used, clippy::panic)]

use proptest::prelude::*;
use varve_kafka::Id;
use varve_kafka::protocol::{
    Anomaly, EpochEntry, PartitionDeleteState, ProtocolError, RemoteLogRecord, RemoteLogState, SegmentState,
    decode_remote_log_record,
};

const V3_9: &str = include_str!("data/remote-log-metadata-3.9.2.hex");
const V4_3: &str = include_str!("data/remote-log-metadata-4.3.0.hex");

const TOPIC: Id = Id([1, 2, 3, 4, 5, 6, 0x47, 8, 0x89, 0x0a, 0x0b, 0x0c, 0x0d, 0x0e, 0x0f, 0x10]);
const SEGMENT: Id =
    Id([0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x47, 0x18, 0x99, 0x1a, 0x1b, 0x1c, 0x1d, 0x1e, 0x1f, 0x20]);

fn bytes(file: &str, name: &str) -> Vec<u8> {
    let line = file.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(' ')).unwrap();
    (0..line.len()).step_by(2).map(|i| u8::from_str_radix(&line[i..i + 2], 16).unwrap()).collect()
}

fn record(file: &str, name: &str) -> RemoteLogRecord {
    decode_remote_log_record(&bytes(file, name)).unwrap()
}

#[test]
fn both_versions_decode_to_what_was_written() {
    for file in [V3_9, V4_3] {
        let RemoteLogRecord::Segment(started) = record(file, "started") else { panic!("not a segment") };
        let p = &started.partition;
        assert_eq!((p.topic_id, p.topic.as_str(), p.partition), (TOPIC, "orders", 7));
        let d = &started.description;
        assert_eq!((d.segment_id, d.start_offset, d.end_offset, d.broker_id), (SEGMENT, 100, 199, 5));
        assert_eq!((d.max_timestamp_ms, d.event_timestamp_ms), (1_700_000_000_123, 1_700_000_000_456));
        assert_eq!((d.size_bytes, d.state), (1 << 20, SegmentState::CopyStarted));
        assert_eq!(
            d.leader_epochs,
            [EpochEntry { epoch: 0, start_offset: 100 }, EpochEntry { epoch: 3, start_offset: 150 }]
        );
        assert_eq!((d.custom_metadata.as_deref(), d.txn_index_empty), (None, false));

        let RemoteLogRecord::Segment(whole) = record(file, "started_custom_finished") else { panic!() };
        assert_eq!(whole.description.custom_metadata.as_deref(), Some(&[1, 2, 0xff][..]));
        assert_eq!(whole.description.state, SegmentState::CopyFinished);

        let RemoteLogRecord::Update(update) = record(file, "update_finished_custom") else { panic!() };
        assert_eq!((update.segment_id, update.state), (SEGMENT, SegmentState::CopyFinished));
        assert_eq!((update.broker_id, update.event_timestamp_ms), (6, 1_700_000_000_789));
        assert_eq!(update.custom_metadata.as_deref(), Some(&[1, 2, 0xff][..]));

        let RemoteLogRecord::PartitionDeletion(gone) = record(file, "partition_delete") else { panic!() };
        assert_eq!((gone.partition.partition, gone.state), (7, PartitionDeleteState::Finished));

        let RemoteLogRecord::Snapshot(snapshot) = record(file, "snapshot") else { panic!() };
        assert_eq!((snapshot.segment_id, snapshot.end_offset), (SEGMENT, 199));
    }
    let RemoteLogRecord::Segment(empty) = record(V4_3, "started_txn_index_empty") else { panic!() };
    assert!(empty.description.txn_index_empty);
}

#[test]
fn a_life_from_copy_to_deletion() {
    let mut state = RemoteLogState::new();
    let key = (TOPIC, 7);
    let unknown = state.apply(record(V3_9, "update_finished_custom"));
    assert!(matches!(unknown, Err(Anomaly::UnknownSegment { .. })), "{unknown:?}");

    state.apply(record(V3_9, "started")).unwrap();
    assert_eq!(state.segment(key, SEGMENT).unwrap().state, SegmentState::CopyStarted);
    let early = state.apply(record(V3_9, "update_delete_finished")).unwrap_err();
    assert!(early.to_string().contains("DELETE_SEGMENT_FINISHED does not follow COPY_SEGMENT_STARTED"));

    state.apply(record(V4_3, "update_finished_custom")).unwrap();
    state.apply(record(V4_3, "update_finished_custom")).unwrap();
    let segment = state.segment(key, SEGMENT).unwrap();
    assert_eq!((segment.state, segment.broker_id), (SegmentState::CopyFinished, 6));
    assert_eq!(segment.custom_metadata.as_deref(), Some(&[1, 2, 0xff][..]));
    assert!(matches!(state.apply(record(V3_9, "started")), Err(Anomaly::Transition { .. })));

    state.apply(record(V4_3, "update_delete_started")).unwrap();
    state.apply(record(V4_3, "update_delete_finished")).unwrap();
    let segment = state.segment(key, SEGMENT).unwrap();
    assert_eq!(segment.state, SegmentState::DeleteFinished);
    assert_eq!(segment.custom_metadata.as_deref(), Some(&[1, 2, 0xff][..]), "kept from before");

    assert_eq!(state.deletion(key), None);
    state.apply(record(V4_3, "partition_delete")).unwrap();
    assert_eq!(state.deletion(key), Some(PartitionDeleteState::Finished));
    assert_eq!(state.topic_name(TOPIC), Some("orders"));
    assert_eq!(state.segments(key).count(), 1);
}

#[test]
fn every_cut_and_every_newer_version_is_an_error() {
    let good = bytes(V4_3, "started_custom_finished");
    for cut in 0..good.len() {
        assert!(decode_remote_log_record(&good[..cut]).is_err(), "cut at {cut}");
    }
    let longer = [&good[..], &[0]].concat();
    assert!(decode_remote_log_record(&longer).is_err());
    for (at, value) in [(0, 2), (2, 1)] {
        let mut newer = good.clone();
        newer[at] = value;
        let error = decode_remote_log_record(&newer).unwrap_err();
        assert!(matches!(error, ProtocolError::UnknownVersion { .. }), "{error}");
    }
}

proptest! {
    #[test]
    fn altered_records_never_panic(at in 0_usize..128, byte in any::<u8>()) {
        for name in ["started_custom_finished", "update_finished_custom", "partition_delete", "snapshot"] {
            let mut bytes = bytes(V4_3, name);
            let at = at % bytes.len();
            bytes[at] = byte;
            if let Ok(record) = decode_remote_log_record(&bytes) {
                let _ = RemoteLogState::new().apply(record);
            }
        }
    }
}
