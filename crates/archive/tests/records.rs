//! Records: what is written is read, and nothing else is.
#![allow(clippy::unwrap_used, clippy::panic)]

use proptest::prelude::*;
use varve_archive::record::archive::ArchiveRecord;
use varve_archive::record::branch::{BranchReason, BranchRecord, EpochEntry};
use varve_archive::record::bundle::{BundleEntry, BundleIndex, BundleTrailer, TRAILER_BYTES};
use varve_archive::record::bundles::BundlesRef;
use varve_archive::record::chains::{BranchState, Chains, ChainsRef, OffsetRange};
use varve_archive::record::gap::{GapReason, GapRecord};
use varve_archive::record::more::More;
use varve_archive::record::node::{Child, Inner, Leaf, Node, NodeRef};
use varve_archive::record::object::{Block, BlockRef, ObjectEntry};
use varve_archive::record::pruned::{PrunedRange, PrunedRecord};
use varve_archive::record::snapshot::{DocumentRef, RecordRef, SnapshotRecord};
use varve_archive::record::state::{JournalEnd, PartitionEntry};
use varve_archive::record::topic::TopicRecord;
use varve_archive::record::upgrade::UpgradeRecord;
use varve_archive::*;
use varve_format::Id;

fn archive() -> ArchiveRecord {
    ArchiveRecord {
        varve_archive: V1,
        id: Id([9; 16]),
        hash: HashAlgorithm::Blake3,
        requires: vec![],
        writer: "varve \"test\" \\ é".into(),
        created_ms: 1_700_000_000_000,
        more: vec![],
    }
}

fn snapshot() -> SnapshotRecord {
    SnapshotRecord {
        varve_snapshot: V1,
        archive_id: Id([9; 16]),
        sequence: 2,
        previous: Some(RecordRef { sequence: 1, hash: Hash([1; 32]) }),
        skip: None,
        root: Some(NodeRef {
            hash: Hash([2; 32]),
            partitions: 1,
            objects: 2,
            object_bytes: 3,
            lagging: 0,
            open_transactions: 0,
        }),
        bundles: Some(BundlesRef { hash: Hash([5; 32]), bundles: 3, bytes: 9 }),
        documents: vec![DocumentRef {
            name: "cluster-state".into(),
            format: "x".into(),
            hash: Hash([3; 32]),
            bytes: 10,
        }],
        pruned: None,
        writer: "varve".into(),
        created_ms: 1,
        more: vec![],
        signature: None,
    }
}

fn object(first: i64, end: i64) -> ObjectEntry {
    ObjectEntry {
        first_offset: first,
        end_offset: end,
        bytes: 9,
        log_bytes: 4,
        footer: Hash([4; 32]),
        version: None,
    }
}

fn refused<R: Record + std::fmt::Debug>(text: &str) -> String {
    R::decode(text.as_bytes()).unwrap_err().to_string()
}

#[test]
fn the_canonical_form_is_this() {
    let text = "{\"varve_archive\":1,\"id\":\"CQkJCQkJCQkJCQkJCQkJCQ\",\"hash\":\"blake3\",\
        \"writer\":\"varve \\\"test\\\" \\\\ é\",\"created_ms\":1700000000000}";
    assert_eq!(String::from_utf8(archive().encode().unwrap()).unwrap(), text);
    assert_eq!(ArchiveRecord::decode(text.as_bytes()).unwrap(), archive());
}

#[test]
fn what_is_not_canonical_is_refused() {
    let good = "{\"varve_archive\":1,\"id\":\"CQkJCQkJCQkJCQkJCQkJCQ\",\"hash\":\"blake3\",\
        \"writer\":\"w\",\"created_ms\":1}";
    ArchiveRecord::decode(good.as_bytes()).unwrap();
    for (from, to) in [
        (",\"hash\"", ", \"hash\""),
        ("\"writer\":\"w\",\"created_ms\":1", "\"created_ms\":1,\"writer\":\"w\""),
        ("\"created_ms\":1", "\"created_ms\":1,\"created_ms\":1"),
        ("\"created_ms\":1", "\"created_ms\":1,\"more\":1"),
        ("\"created_ms\":1", "\"created_ms\":1.0"),
        ("\"created_ms\":1", "\"created_ms\":-1"),
        ("\"created_ms\":1", "\"created_ms\":01"),
        ("\"created_ms\":1}", "\"created_ms\":1} "),
        ("\"writer\":\"w\"", "\"writer\":\"\\u0077\""),
        ("\"writer\":\"w\"", "\"writer\":\"\\n\""),
        ("\"writer\":\"w\"", "\"writer\":\"\""),
        ("\"hash\":\"blake3\",", "\"hash\":\"blake3\",\"requires\":[],"),
        ("\"hash\":\"blake3\",", "\"hash\":\"blake3\",\"requires\":[\"b\",\"a\"],"),
        ("\"hash\":\"blake3\"", "\"hash\":\"md5\""),
        ("CQkJCQkJCQkJCQkJCQkJCQ", "CQkJCQkJCQkJCQkJCQkJCR"),
        ("{\"varve_archive\":1", "{\"varve_archive\":0"),
        ("{\"varve_archive\":1", "{\"varve_archive\":01"),
        ("{\"varve_archive\":1", "{\"varve_topic\":1"),
    ] {
        let text = good.replace(from, to);
        assert_ne!(text, good);
        assert!(ArchiveRecord::decode(text.as_bytes()).is_err(), "{text}");
    }
}

#[test]
fn a_newer_version_is_told_before_anything_else() {
    let error = ArchiveRecord::decode(b"{\"varve_archive\":2,\"all\":\"different\"}").unwrap_err();
    assert_eq!(error, RecordError::Future { found: 2, supported: 1 });
    let long = vec![b' '; 65_537];
    assert!(matches!(ArchiveRecord::decode(&long).unwrap_err(), RecordError::TooLong { .. }));
}

#[test]
fn every_kind_survives_the_round_trip() {
    fn round<R: Record + PartialEq + std::fmt::Debug>(record: R) {
        assert_eq!(R::decode(&record.encode().unwrap()).unwrap(), record);
    }
    round(archive());
    round(snapshot());
    round(GapRecord::new(GapReason::Corrupt, Some("CRC".into())));
    round(TopicRecord {
        varve_topic: V1,
        topic_id: Id([1; 16]),
        topic: "orders".into(),
        cluster_id: "cluster".into(),
        partitions: Some(1),
        writer: "w".into(),
        created_ms: 0,
        more: vec![],
    });
    round(branch());
    round(Block {
        varve_block: V1,
        since: 1,
        level: 0,
        objects: (0..32).map(|n| object(n, n + 1)).collect(),
        blocks: vec![],
        more: vec![],
    });
    round(PrunedRecord {
        varve_pruned: V1,
        archive_id: Id([9; 16]),
        sequence: 1,
        previous: None,
        snapshot: 4,
        ranges: vec![range(0, 10), range(10, 20)],
        snapshots: vec![],
        reason: "retention".into(),
        writer: "w".into(),
        created_ms: 0,
        more: vec![],
        signature: None,
    });
    round(UpgradeRecord {
        varve_upgrade: V1,
        archive_id: Id([9; 16]),
        number: 1,
        requires: vec!["time-travel".into()],
        writer: "w".into(),
        created_ms: 0,
        more: vec![More { name: "a".into(), value: "b".into() }],
    });
}

fn branch() -> BranchRecord {
    BranchRecord {
        varve_branch: V1,
        topic_id: Id([1; 16]),
        partition: 0,
        branch: 1,
        parent: Some(0),
        start_offset: 7,
        reason: BranchReason::Divergence,
        leader_epoch: 3,
        leader_epochs: vec![EpochEntry { epoch: 1, start_offset: 0 }],
        detail: None,
        writer: "w".into(),
        created_ms: 0,
        more: vec![],
    }
}

fn range(first: i64, end: i64) -> PrunedRange {
    PrunedRange {
        topic_id: Id([1; 16]),
        partition: 0,
        branch: 0,
        first_offset: first,
        end_offset: end,
        objects: 1,
    }
}

#[test]
fn what_no_writer_would_write_is_refused() {
    let with = |change: fn(&mut SnapshotRecord)| {
        let mut record = snapshot();
        change(&mut record);
        record.encode().unwrap_err().to_string()
    };
    assert!(with(|s| s.sequence = 0).contains("sequence"));
    assert!(with(|s| s.sequence = 1).contains("previous"));
    assert!(with(|s| s.skip = Some(RecordRef { sequence: 1, hash: Hash([1; 32]) })).contains("skip"));
    assert!(with(|s| s.documents.push(s.documents[0].clone())).contains("documents"));
    assert!(with(|s| s.root.as_mut().unwrap().partitions = 1 << 25).contains("partitions"));
    assert!(with(|s| s.root.as_mut().unwrap().partitions = 0).contains("root"));
    assert!(with(|s| s.writer = "a\u{7f}b".into()).contains("writer"));
    let with = |change: fn(&mut BranchRecord)| {
        let mut record = branch();
        change(&mut record);
        record.encode().unwrap_err().to_string()
    };
    assert!(with(|b| b.parent = Some(1)).contains("branch"));
    assert!(with(|b| b.branch = 0).contains("branch"));
    assert!(
        with(|b| b.leader_epochs.push(EpochEntry { epoch: 1, start_offset: 5 })).contains("leader_epochs")
    );
    let mut pruned = PrunedRecord {
        varve_pruned: V1,
        archive_id: Id([9; 16]),
        sequence: 1,
        previous: None,
        snapshot: 4,
        ranges: vec![range(0, 11), range(10, 20)],
        snapshots: vec![],
        reason: "r".into(),
        writer: "w".into(),
        created_ms: 0,
        more: vec![],
        signature: None,
    };
    assert!(pruned.encode().unwrap_err().to_string().contains("ranges"));
    pruned.ranges.clear();
    assert!(pruned.encode().is_err());
    assert!(refused::<GapRecord>("{\"varve_gap\":1,\"reason\":\"bore dom\"}").contains("reason"));
    let later = GapRecord::decode(b"{\"varve_gap\":1,\"reason\":\"boredom\"}").unwrap();
    assert_eq!(later.reason, GapReason::Other("boredom".into()), "shown, not refused");
}

fn chains(tail: Vec<ObjectEntry>) -> Chains {
    let end_offset = tail.last().map_or(0, |o| o.end_offset);
    let branches = vec![BranchState { end_offset, tail, ..BranchState::first() }];
    Chains { varve_chains: V1, since: 1, topic_id: Id([1; 16]), partition: 0, branches, more: vec![] }
}

fn entry() -> PartitionEntry {
    PartitionEntry {
        topic_id: Id([1; 16]),
        topic: Some("orders".into()),
        partition: 0,
        chains: Some(ChainsRef {
            hash: Hash([7; 32]),
            branch: 0,
            end_offset: 5,
            last_epoch: None,
            objects: 1,
            object_bytes: 9,
        }),
        journal: None,
        log_start_offset: None,
        log_end_offset: None,
        deleted_ms: None,
        problem: None,
        open_transactions: vec![],
    }
}

fn leaf(entry: PartitionEntry) -> Leaf {
    Leaf { varve_leaf: V1, since: 1, prefix: String::new(), partitions: vec![entry], more: vec![] }
}

#[test]
fn a_chain_with_a_hole_is_no_state() {
    chains(vec![object(0, 5), object(5, 9)]).encode().unwrap();
    for tail in [vec![object(1, 5)], vec![object(0, 5), object(6, 9)], vec![object(0, 5), object(4, 9)]] {
        assert!(chains(tail).encode().unwrap_err().to_string().contains("chain"));
    }
    let pruned = |ranges: &[(i64, i64)]| {
        let mut chains = chains(vec![object(0, 5), object(5, 9), object(9, 12)]);
        let range = |(first_offset, end_offset): &(i64, i64)| OffsetRange {
            first_offset: *first_offset,
            end_offset: *end_offset,
        };
        chains.branches[0].pruned = ranges.iter().map(range).collect();
        chains.encode()
    };
    pruned(&[(0, 9)]).unwrap();
    for bad in [&[(0, 5), (5, 9)][..], &[(5, 12)], &[(5, 9), (0, 3)]] {
        assert!(pruned(bad).unwrap_err().to_string().contains("pruned"), "{bad:?}");
    }
}

#[test]
fn what_describes_a_recovery_point_fits_to_it() {
    leaf(entry()).encode().unwrap();
    let refused = |change: fn(&mut PartitionEntry)| {
        let mut entry = entry();
        change(&mut entry);
        leaf(entry).encode().unwrap_err().to_string()
    };
    assert!(refused(|e| e.log_end_offset = Some(5)).contains("log_end_offset"));
    assert!(
        refused(|e| e.journal = Some(JournalEnd { end_offset: 5, last_epoch: None })).contains("journal")
    );
    let open = |first_offset| varve_archive::record::state::OpenTransaction {
        producer_id: 1,
        producer_epoch: 0,
        first_offset,
    };
    let mut beyond = entry();
    beyond.open_transactions = vec![open(5)];
    assert!(leaf(beyond).encode().unwrap_err().to_string().contains("open_transactions"));
}

#[test]
fn a_node_is_what_its_reference_promises() {
    let node = Node::Leaf(leaf(entry()));
    let hash = HashAlgorithm::Blake3;
    let reference = node.reference(hash.of(&[&node.encode().unwrap()]));
    node.check_place(&reference, hash, &[]).unwrap();
    assert!(node.check_place(&NodeRef { objects: 2, ..reference.clone() }, hash, &[]).is_err());
    assert!(node.check_place(&reference, hash, &[1]).is_err(), "another place");
    let small = Inner {
        varve_inner: V1,
        since: 1,
        prefix: String::new(),
        children: vec![Child { nibble: 0, node: reference.clone() }],
        more: vec![],
    };
    assert!(small.encode().is_err(), "so few are a leaf");
    let block =
        BlockRef { hash: Hash([1; 32]), first_offset: 0, end_offset: 32, objects: 31, object_bytes: 1 };
    let blocks =
        Block { varve_block: V1, since: 1, level: 1, objects: vec![], blocks: vec![block; 32], more: vec![] };
    assert!(blocks.encode().is_err());
}

#[test]
fn a_bundles_trailer_finds_its_index() {
    let index = BundleIndex {
        varve_bundle: V1,
        archive_id: Id([9; 16]),
        archiver: "a".into(),
        sequence: 1,
        entries: vec![BundleEntry {
            topic_id: Id([1; 16]),
            partition: 0,
            branch: 0,
            first_offset: 0,
            end_offset: 3,
            position: 0,
            bytes: 100,
            footer: Hash([1; 32]),
            leader_epochs: vec![],
        }],
        writer: "w".into(),
        created_ms: 0,
        more: vec![],
    };
    let tail = index.tail().unwrap();
    let object_bytes = 100 + tail.len() as u64;
    let last: &[u8; TRAILER_BYTES] = tail.last_chunk().unwrap();
    let trailer = BundleTrailer::decode(last, object_bytes).unwrap();
    let bytes = &tail[..tail.len() - TRAILER_BYTES];
    assert_eq!(BundleIndex::decode_at(bytes, &trailer).unwrap(), index);
    assert!(BundleTrailer::decode(last, object_bytes + 1).is_err());
    for position in 0..TRAILER_BYTES {
        let mut altered = *last;
        altered[position] ^= 1;
        assert!(BundleTrailer::decode(&altered, object_bytes).is_err(), "byte {position}");
    }
}

proptest! {
    #[test]
    fn no_bytes_make_a_decoder_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = ArchiveRecord::decode(&bytes);
        let _ = SnapshotRecord::decode(&bytes);
        let _ = Node::decode(&bytes);
        let _ = Block::decode(&bytes);
    }

    #[test]
    fn altered_records_are_refused_or_canonical(position in 0usize..400, byte in any::<u8>()) {
        let mut bytes = snapshot().encode().unwrap();
        let position = position % bytes.len();
        bytes[position] = byte;
        if let Ok(record) = SnapshotRecord::decode(&bytes) {
            prop_assert_eq!(record.encode().unwrap(), bytes);
        }
    }

    #[test]
    fn hashes_survive_their_text(bytes in any::<[u8; 32]>()) {
        prop_assert_eq!(Hash::parse(&Hash(bytes).to_string()), Some(Hash(bytes)));
    }
}

#[test]
fn hashes_of_other_text_are_none() {
    for text in ["", "00", &"0".repeat(63), &"0".repeat(65), &"A".repeat(64), &"g".repeat(64)] {
        assert_eq!(Hash::parse(text), None, "{text}");
    }
}
