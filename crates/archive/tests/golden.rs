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
use varve_archive::record::more::More;
use varve_archive::record::pruned::{PrunedRange, SnapshotRange};
use varve_archive::record::snapshot::Signer;
use varve_archive::record::state::{JournalEntry, OpenTransaction};
use varve_archive::record::topic::TopicRecord;
use varve_archive::*;
use varve_format::{EncryptionInfo, EpochStart, Id, SegmentInfo, WriteOptions, crc32c, key_record_name};
use varve_store::{GetRange, Key, MemoryStore, Store};

const SEED: [u8; 32] = [3; 32];
const WRITER: &str = "varve 0.1.0";
const CREATED_MS: i64 = 1_760_000_000_000;

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/archive/v1").join(name)
}

/// Object ids by place, so that the same archive is the same bytes.
fn options_at(hash: HashAlgorithm, partition: i32, branch: u8, first: i64) -> WriteOptions {
    let id = [&[branch; 4], partition.to_be_bytes().as_slice(), &first.to_be_bytes()].concat();
    WriteOptions { digest: hash.digest(), object_id: Id(id.try_into().unwrap()), ..options(None) }
}

/// A record batch of Kafka's message format 2, of one record for each offset.
fn batch(first: i64, end: i64, epoch: i32) -> Vec<u8> {
    let varint = |n: i64| {
        let (mut n, mut out) = (((n << 1) ^ (n >> 63)) as u64, vec![]);
        while n >= 128 {
            out.push(n as u8 | 128);
            n >>= 7;
        }
        out.push(n as u8);
        out
    };
    let record = |delta: i64| {
        let value = format!("record {}", first + delta);
        let fields = [
            vec![0],
            varint(delta),
            varint(delta),
            varint(-1),
            varint(value.len() as i64),
            value.into_bytes(),
            varint(0),
        ];
        let body = fields.concat();
        [varint(body.len() as i64), body].concat()
    };
    let last = (end - first - 1) as i32;
    let mut checked = vec![0, 0];
    checked.extend(last.to_be_bytes());
    checked.extend(CREATED_MS.to_be_bytes());
    checked.extend((CREATED_MS + i64::from(last)).to_be_bytes());
    checked.extend((-1_i64).to_be_bytes());
    checked.extend((-1_i16).to_be_bytes());
    checked.extend((-1_i32).to_be_bytes());
    checked.extend((last + 1).to_be_bytes());
    (0..end - first).for_each(|delta| checked.extend(record(delta)));
    let mut out = first.to_be_bytes().to_vec();
    out.extend((checked.len() as i32 + 9).to_be_bytes());
    out.extend(epoch.to_be_bytes());
    out.push(2);
    out.extend(crc32c(&checked).to_be_bytes());
    [out, checked].concat()
}

fn epochs(list: &[(i32, i64)]) -> Vec<EpochStart> {
    list.iter()
        .map(|(epoch, start_offset)| EpochStart { epoch: *epoch, start_offset: *start_offset })
        .collect()
}

/// What is written: all ids are of the places, and all times the same.
struct Writer {
    archive: Archive,
    hash: HashAlgorithm,
}

impl Writer {
    fn segment(&self, partition: i32, branch: u8, first: i64, end: i64, list: &[(i32, i64)]) -> Bytes {
        let leader_epochs = epochs(list);
        let epoch = list.last().unwrap().0;
        let info = SegmentInfo {
            leader_epochs,
            max_timestamp_ms: CREATED_MS + end - first - 1,
            ..info(partition, first, end)
        };
        segment_as(info, options_at(self.hash, partition, branch, first), &batch(first, end, epoch))
    }

    async fn commit(&self, partition: i32, branch: u8, first: i64, end: i64, list: &[(i32, i64)]) {
        let object = self.segment(partition, branch, first, end, list);
        self.put(partition, branch, first, object).await;
    }

    async fn put(&self, partition: i32, branch: u8, first: i64, object: Bytes) {
        let done =
            self.archive.partition(TOPIC, partition).commit(branch.into(), first, object).await.unwrap();
        assert!(matches!(done, Commit::Committed));
    }

    async fn gap(&self, partition: i32, first: i64, end: i64, reason: GapReason) {
        let gap = GapRecord::new(reason, Some("before the archive began".into()));
        let object =
            gap.object(info(partition, first, end), options_at(self.hash, partition, 0, first)).unwrap().0;
        self.put(partition, 0, first, Bytes::from(object)).await;
    }

    async fn branch(
        &self,
        partition: i32,
        branch: u32,
        parent: Option<u32>,
        start: i64,
        list: &[(i32, i64)],
    ) {
        let mut record = BranchRecord {
            varve_branch: V1,
            topic_id: TOPIC,
            partition,
            branch,
            parent,
            start_offset: start,
            reason: if parent.is_some() { BranchReason::Divergence } else { BranchReason::Compaction },
            leader_epoch: 4,
            leader_epochs: epochs(list).into_iter().map(EpochEntry::from).collect(),
            detail: Some("seen by the leader on broker 2".into()),
            writer: WRITER.into(),
            created_ms: CREATED_MS,
            more: vec![],
        };
        self.archive.partition(TOPIC, partition).start_branch(&mut record).await.unwrap();
    }

    async fn bundle(&self, archiver: &str, entries: Vec<(u32, i32, i64, Bytes)>) -> Vec<JournalEntry> {
        let mut bundle = BundleBuilder::default();
        for (branch, partition, first_offset, object) in entries {
            let place = Place { topic_id: TOPIC, partition, first_offset };
            bundle.add(&self.archive, branch, place, object).unwrap();
        }
        let index = self.archive.put_bundle(archiver, 0, bundle, WRITER, CREATED_MS).await.unwrap();
        let name = BundleName { archiver: index.archiver.clone(), sequence: index.sequence };
        index.entries.iter().map(|e| e.in_snapshot(&name)).collect()
    }

    /// Encrypted, with its key's record beside: one of its version 1, which is read and not written any more.
    async fn encrypted(&self, store: &MemoryStore) {
        let name = key_record_name("cluster", TOPIC, "2026-11", data_key().id);
        let record = std::fs::read(folder("blake3").join(&name)).unwrap();
        store.put(&Key::new(name).unwrap(), Bytes::from(record), &Default::default()).await.unwrap();
        let options = WriteOptions { encryption: Some(encryption()), ..options_at(self.hash, 3, 0, 0) };
        let object = segment_as(info(3, 0, 5), options, &batch(0, 5, 0));
        self.put(3, 0, 0, object).await;
    }
}

/// Every kind of object that version 1 has.
async fn write(store: &MemoryStore, hash: HashAlgorithm) {
    let shared = Arc::new(store.clone());
    let archive = Archive::create(shared, "", Id([9; 16]), hash, WRITER, CREATED_MS).await.unwrap();
    let w = Writer { archive: archive.clone(), hash };
    archive.add_topic(&topic()).await.unwrap();
    let more = vec![More { name: "kept".into(), value: "by who does not know it".into() }];
    let empty =
        TopicRecord { topic_id: Id([2; 16]), topic: "empty".into(), partitions: None, more, ..topic() };
    archive.add_topic(&empty).await.unwrap();
    w.gap(0, 0, 100, GapReason::LogStart).await;
    for first in (100..450).step_by(10) {
        w.commit(0, 0, first, first + 10, &[(0, 0)]).await;
    }
    // A level above the lowest, of objects that are pruned below.
    for first in 0..1060 {
        w.commit(2, 0, first, first + 1, &[(0, 0)]).await;
    }
    w.gap(2, 1060, 1070, GapReason::Other("later".into())).await;
    w.encrypted(store).await;
    let signer = Signer::from_seed(&SEED).unwrap();
    let all: Vec<Target> = (0..70).map(|p| Target::new(TOPIC, p)).collect();
    write_snapshot(&archive, &all, Some(&signer)).await;
    w.branch(0, 1, Some(0), 445, &[(0, 0)]).await;
    w.commit(0, 1, 445, 460, &[(0, 0), (4, 445)]).await;
    w.branch(0, 2, Some(1), 455, &[(0, 0), (4, 445)]).await;
    w.commit(0, 2, 455, 460, &[(4, 445)]).await;
    w.branch(4, 1, None, 500, &[]).await;
    w.commit(4, 1, 500, 510, &[(2, 500)]).await;
    // Two ways lead on: the one that ends in the higher epoch is the one.
    let dead = w.segment(0, 9, 460, 480, &[(4, 445)]);
    let mut journal = w.bundle("archiver-b", vec![(2, 0, 460, dead)]).await;
    let first = vec![
        (2, 0, 460, w.segment(0, 2, 460, 463, &[(4, 445)])),
        (0, 1, 0, w.segment(1, 0, 0, 7, &[(0, 0)])),
    ];
    journal.extend(w.bundle("archiver-a", first).await);
    let then = w.segment(0, 2, 463, 470, &[(4, 445), (5, 463)]);
    journal.extend(w.bundle("archiver-a", vec![(2, 0, 463, then)]).await);
    let of = |partition: i32, branch: u32| {
        let mine =
            journal.iter().filter(|e| e.branch == branch && (e.first_offset >= 460) == (partition == 0));
        mine.cloned().collect::<Vec<_>>()
    };
    let open = OpenTransaction { producer_id: 5, producer_epoch: 1, first_offset: 447 };
    let point = Some(Point { branch: 2, end_offset: 470 });
    let targets = [
        Target { journal: of(0, 2), point, open_transactions: Some(vec![open]), ..Target::new(TOPIC, 0) },
        Target {
            journal: of(1, 0),
            log_end_offset: Some(9),
            log_start_offset: Some(0),
            ..Target::new(TOPIC, 1)
        },
        Target { deleted_ms: Some(CREATED_MS), ..Target::new(TOPIC, 4) },
        Target { point: Some(Point { branch: 0, end_offset: 99 }), ..Target::new(TOPIC, 5) },
    ];
    write_snapshot(&archive, &targets, Some(&signer)).await;
    let range = |partition, first_offset, end_offset, objects| PrunedRange {
        topic_id: TOPIC,
        partition,
        branch: 0,
        first_offset,
        end_offset,
        objects,
    };
    let record = archive
        .declare_pruned(NewPruned {
            snapshot: 2,
            ranges: vec![range(0, 100, 120, 2), range(2, 0, 1024, 1024), range(2, 1030, 1040, 10)],
            snapshots: vec![SnapshotRange { first: 1, last: 1 }],
            reason: "retention of a year",
            writer: WRITER,
            now_ms: CREATED_MS,
            signer: Some(&signer),
        })
        .await
        .unwrap();
    archive.delete_pruned(&record).await.unwrap();
    w.commit(0, 2, 460, 463, &[(4, 445)]).await;
    write_snapshot(&archive, &all, Some(&signer)).await;
}

async fn write_snapshot(archive: &Archive, targets: &[Target], signer: Option<&Signer>) -> Snapshot {
    let new = NewSnapshot { signer, now_ms: CREATED_MS, writer: WRITER, ..new_snapshot(targets) };
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
            assert!(frozen.len() > 100, "{name}: {}", frozen.len());
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
            assert_eq!((newest.record.sequence, newest.record.skip.unwrap().sequence), (3, 2));
            let trusted = [Signer::from_seed(&SEED).unwrap().public_key()];
            let keys = |_: Id, _: &EncryptionInfo| Some(data_key());
            for (sequence, trusted, given_up) in [(3, &trusted[..], false), (2, &[], false), (1, &[], true)] {
                let data_keys: Option<DataKeys<'_>> = Some(&keys);
                let options =
                    VerifyOptions { depth: Depth::Contents, trusted, data_keys, ..Default::default() };
                let report = archive.verify(sequence, &options, &|_| {}).await.unwrap();
                assert!(report.is_sound() && report.sealed == 0, "{sequence}: {report:?}");
                assert_eq!(report.given_up, given_up);
                if sequence == 3 {
                    assert_eq!((report.pruned, report.progress.partitions), (1036, 70));
                }
            }
            let second = archive.snapshot(2).await.unwrap().unwrap();
            let root = second.record.root.clone().unwrap();
            assert_eq!((root.partitions, root.lagging, root.open_transactions), (70, 2, 1));
            let state = archive.find(Some(&root), TOPIC, 0).await.unwrap().unwrap();
            assert_eq!((state.chain_end(), state.end(), state.branch()), (460, 470, 2));
            assert_eq!(state.journal.as_ref().unwrap().last_epoch, Some(5));
            let journal = archive.journal_of(&second.record, |_, _| true).await.unwrap();
            let log =
                archive.log_reader(Some(&second.record)).await.unwrap().at(&state, None, &journal).unwrap();
            let (mut pieces, mut found) = (log.pieces(430), vec![]);
            while let Some(piece) = pieces.next().await.unwrap() {
                found.push((piece.branch, piece.first_offset, piece.end_offset));
            }
            let ways =
                [(0, 430, 440), (0, 440, 445), (1, 445, 455), (2, 455, 460), (2, 460, 463), (2, 463, 470)];
            assert_eq!(found, ways);
            let levels = archive.find(Some(&root), TOPIC, 2).await.unwrap().unwrap().branches[0].levels.len();
            assert_eq!(levels, 2);
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
