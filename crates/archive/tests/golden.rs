//! Whole archives that were written once, by the first writer of version 1, and are never written again: what they
//! hold must be read for ever, and today's writer must still write the same bytes.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use support::*;
use varve_archive::record::branch::{BranchReason, BranchRecord, EpochEntry};
use varve_archive::record::gap::{GapReason, GapRecord};
use varve_archive::record::snapshot::Signer;
use varve_archive::record::state::OpenTransaction;
use varve_archive::record::topic::TopicRecord;
use varve_archive::*;
use varve_format::{EpochStart, Id, SegmentInfo, WriteOptions};
use varve_store::{GetRange, Key, MemoryStore, Store};

const SEED: [u8; 32] = [3; 32];

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/archive/v1").join(name)
}

/// Object ids by place, so that the same archive is the same bytes.
fn options_at(hash: HashAlgorithm, partition: i32, branch: u8, first: i64) -> WriteOptions {
    let id = [&[branch; 4], partition.to_be_bytes().as_slice(), &first.to_be_bytes()].concat();
    WriteOptions { digest: hash.digest(), object_id: Id(id.try_into().unwrap()), ..options(None) }
}

fn segment_at(hash: HashAlgorithm, branch: u8, info: SegmentInfo) -> Bytes {
    let log: Vec<u8> = (info.base_offset..=info.last_offset).flat_map(|o| [branch, o as u8]).collect();
    let options = options_at(hash, info.partition, branch, info.base_offset);
    segment_as(info, options, &log)
}

/// Every kind of object that version 1 has.
async fn write(store: &MemoryStore, hash: HashAlgorithm) {
    let shared = Arc::new(store.clone());
    let archive =
        Archive::create(shared, "", Id([9; 16]), hash, "varve 0.1.0", 1_760_000_000_000).await.unwrap();
    archive.add_topic(&topic()).await.unwrap();
    let empty = TopicRecord { topic_id: Id([2; 16]), topic: "empty".into(), partitions: None, ..topic() };
    archive.add_topic(&empty).await.unwrap();
    let partition = archive.partition(TOPIC, 0);
    let gap = GapRecord::new(GapReason::LogStart, Some("retention, before the archive began".into()));
    let gap = gap.object(info(0, 0, 100), options_at(hash, 0, 0, 0)).unwrap().0;
    partition.commit(0, 0, Bytes::from(gap)).await.unwrap();
    for first in (100..450).step_by(10) {
        partition.commit(0, first, segment_at(hash, 0, info(0, first, first + 10))).await.unwrap();
    }
    write_snapshot(&archive, &(0..70).map(|p| Target::new(TOPIC, p)).collect::<Vec<_>>(), None).await;
    let branch = BranchRecord {
        varve_branch: V1,
        topic_id: TOPIC,
        partition: 0,
        branch: 1,
        parent: Some(0),
        start_offset: 445,
        reason: BranchReason::Divergence,
        leader_epoch: 4,
        leader_epochs: vec![EpochEntry { epoch: 0, start_offset: 0 }],
        detail: Some("unclean leader election".into()),
        writer: "varve 0.1.0".into(),
        created_ms: 1_760_000_000_001,
    };
    partition.start_branch(&branch).await.unwrap();
    let epochs = vec![EpochStart { epoch: 0, start_offset: 0 }, EpochStart { epoch: 4, start_offset: 445 }];
    let of_branch = |first, end| SegmentInfo { leader_epochs: epochs.clone(), ..info(0, first, end) };
    partition.commit(1, 445, segment_at(hash, 1, of_branch(445, 460))).await.unwrap();
    let mut bundle = BundleBuilder::default();
    let place = |partition, first_offset| Place { topic_id: TOPIC, partition, first_offset };
    bundle.add(&archive, 1, place(0, 460), segment_at(hash, 1, of_branch(460, 463))).unwrap();
    bundle.add(&archive, 0, place(1, 0), segment_at(hash, 0, info(1, 0, 7))).unwrap();
    let index = archive.put_bundle("archiver-1", 0, bundle, "varve 0.1.0", 1_760_000_000_002).await.unwrap();
    let name = BundleName { archiver: index.archiver.clone(), sequence: index.sequence };
    let entry = |partition: i32| {
        let entry = index.entries.iter().find(|e| e.partition == partition).unwrap();
        vec![entry.in_snapshot(&name)]
    };
    let open = OpenTransaction { producer_id: 5, producer_epoch: 1, first_offset: 447 };
    let targets = [
        Target { journal: entry(0), open_transactions: vec![open], ..Target::new(TOPIC, 0) },
        Target { log_end_offset: Some(9), log_start_offset: Some(0), ..Target::new(TOPIC, 1) },
    ];
    let second = write_snapshot(&archive, &targets, Some(&Signer::from_seed(&SEED).unwrap())).await;
    let state = archive.find(second.record.root.as_ref(), TOPIC, 0).await.unwrap().unwrap();
    let range = archive.prunable(&state, 0, 115).await.unwrap().unwrap();
    let record =
        archive.declare_pruned(2, vec![range], "retention of a year", "varve 0.1.0", 1_760_000_000_004);
    archive.delete_pruned(&record.await.unwrap()).await.unwrap();
}

async fn write_snapshot(archive: &Archive, targets: &[Target], signer: Option<&Signer>) -> Snapshot {
    let new =
        NewSnapshot { signer, now_ms: 1_760_000_000_003, writer: "varve 0.1.0", ..new_snapshot(targets) };
    archive.write_snapshot(&new).await.unwrap()
}

async fn contents(store: &MemoryStore) -> BTreeMap<String, Bytes> {
    let mut found = BTreeMap::new();
    for object in store.list("", None, usize::MAX).await.unwrap().objects {
        let bytes = store.get(&object.key, GetRange::Full).await.unwrap().bytes().await.unwrap();
        found.insert(object.key.as_str().to_owned(), bytes);
    }
    found
}

fn frozen(name: &str) -> BTreeMap<String, Bytes> {
    fn walk(root: &Path, at: &Path, found: &mut BTreeMap<String, Bytes>) {
        for entry in std::fs::read_dir(at).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(root, &path, found);
            } else {
                let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
                found.insert(name, Bytes::from(std::fs::read(&path).unwrap()));
            }
        }
    }
    let mut found = BTreeMap::new();
    walk(&folder(name), &folder(name), &mut found);
    found
}

const BOTH: [(&str, HashAlgorithm); 2] =
    [("blake3", HashAlgorithm::Blake3), ("sha256", HashAlgorithm::Sha256)];

#[test]
fn todays_writer_writes_the_frozen_bytes() {
    now(async {
        for (name, hash) in BOTH {
            let store = MemoryStore::new();
            write(&store, hash).await;
            let (written, frozen) = (contents(&store).await, frozen(name));
            assert!(frozen.len() > 50, "{name}: {}", frozen.len());
            assert_eq!(written.keys().collect::<Vec<_>>(), frozen.keys().collect::<Vec<_>>());
            for (object, bytes) in &written {
                assert_eq!(bytes, &frozen[object], "{name}: {object}");
            }
        }
    });
}

#[test]
fn frozen_archives_read_as_they_did() {
    now(async {
        for (name, _) in BOTH {
            let store = MemoryStore::new();
            for (object, bytes) in frozen(name) {
                store.put(&Key::new(object).unwrap(), bytes, &Default::default()).await.unwrap();
            }
            let archive = Archive::open(Arc::new(store), "").await.unwrap();
            let newest = archive.latest_snapshot(0).await.unwrap().unwrap();
            let trusted = [Signer::from_seed(&SEED).unwrap().public_key()];
            let options = VerifyOptions { depth: Depth::Contents, trusted: &trusted, ..Default::default() };
            let report = archive.verify(2, &options, &|_| {}).await.unwrap();
            assert!(report.is_sound(), "{report:?}");
            assert_eq!((report.pruned, report.progress.partitions, report.progress.objects), (2, 70, 35));
            let root = newest.record.root.clone().unwrap();
            assert_eq!((root.partitions, root.lagging, root.open_transactions), (70, 1, 1));
            let state = archive.find(Some(&root), TOPIC, 0).await.unwrap().unwrap();
            assert_eq!((state.chain_end(), state.end(), state.branches.len()), (460, 463, 2));
            assert_eq!(archive.find(Some(&root), TOPIC, 1).await.unwrap().unwrap().log_end_offset, Some(9));
        }
    });
}

/// How the files were made. Never again: it refuses where one exists.
#[test]
#[ignore = "writes frozen files, once"]
fn freeze() {
    now(async {
        for (name, hash) in BOTH {
            assert!(!folder(name).exists(), "{name} is frozen");
            let store = MemoryStore::new();
            write(&store, hash).await;
            for (object, bytes) in contents(&store).await {
                let path = folder(name).join(object);
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(path, bytes).unwrap();
            }
        }
    });
}
