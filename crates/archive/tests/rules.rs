//! What reviewers broke, turned round: whoever can write to the store, dies anywhere or is late can't make a recovery
//! point untrue, nor stop what comes after it.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use support::*;
use varve_archive::record::branch::{BranchReason, BranchRecord, EpochEntry, newest_epochs};
use varve_archive::record::bundle::BundleIndex;
use varve_archive::record::chains::BranchState;
use varve_archive::record::node::{Child, Inner, Leaf, Node};
use varve_archive::record::pruned::{PrunedRange, PrunedRecord, SnapshotRange};
use varve_archive::record::snapshot::Signer;
use varve_archive::record::state::{JournalEntry, OpenTransaction, PartitionEntry, PartitionState};
use varve_archive::record::upgrade::UpgradeRecord;
use varve_archive::*;
use varve_format::{EpochStart, Id, SegmentInfo};
use varve_store::{
    GetRange, GetResult, Key, Limits, ListPage, MemoryStore, ObjectMeta, PendingUpload, PutOptions,
    SharedStore, Store, Upload,
};

fn epochs(list: &[(i32, i64)]) -> Vec<EpochStart> {
    list.iter()
        .map(|(epoch, start_offset)| EpochStart { epoch: *epoch, start_offset: *start_offset })
        .collect()
}

fn segment_of(first: i64, end: i64, list: &[(i32, i64)]) -> Bytes {
    let info = SegmentInfo { leader_epochs: epochs(list), ..info(0, first, end) };
    let log: Vec<u8> = (first..end).flat_map(i64::to_be_bytes).collect();
    segment_as(info, options(None), &log)
}

async fn commit(archive: &Archive, first: i64, object: Bytes) {
    archive.add_topic(&topic()).await.unwrap();
    let done = archive.partition(TOPIC, 0).commit(0, first, object).await.unwrap();
    assert!(matches!(done, Commit::Committed), "{done:?}");
}

async fn bundle(archive: &Archive, archiver: &str, first: i64, object: Bytes) -> (BundleIndex, JournalEntry) {
    let mut builder = BundleBuilder::default();
    builder.add(archive, 0, Place { topic_id: TOPIC, partition: 0, first_offset: first }, object).unwrap();
    let index = archive.put_bundle(archiver, 0, builder, "varve test", 1).await.unwrap();
    let name = BundleName { archiver: archiver.to_owned(), sequence: index.sequence };
    let entry = index.entries[0].in_snapshot(&name);
    (index, entry)
}

async fn state(archive: &Archive, snapshot: &Snapshot) -> PartitionState {
    archive.find(snapshot.record.root.as_ref(), TOPIC, 0).await.unwrap().unwrap()
}

async fn write(archive: &Archive, target: Target) -> Snapshot {
    archive.write_snapshot(&new_snapshot(&[target])).await.unwrap()
}

fn on() -> Target {
    Target::new(TOPIC, 0)
}

async fn expire(archive: &Archive, index: &BundleIndex) -> bool {
    archive.expire_bundle(index, &mut Coverage::new(archive)).await.unwrap()
}

/// The offsets that a recovery point gives.
async fn read(archive: &Archive, snapshot: &Snapshot) -> Result<Vec<i64>> {
    let state = state(archive, snapshot).await;
    let journal = archive.journal_of(&snapshot.record, |_, _| true).await?;
    let log = archive.log_reader(Some(&snapshot.record)).await?.at(&state, None, &journal)?;
    let (mut found, mut pieces) = (vec![], log.pieces(0));
    while let Some(piece) = pieces.next().await? {
        let object = log.open(&piece).await?.unwrap();
        let mut stream = object.read(0, 1)?;
        while let Some(bytes) = stream.next().await? {
            let all = bytes.chunks(8).map(|o| i64::from_be_bytes(o.try_into().unwrap())).collect::<Vec<_>>();
            found.extend(all.into_iter().filter(|o| (piece.first_offset..piece.end_offset).contains(o)));
        }
    }
    Ok(found)
}

#[test]
fn a_bundle_stays_until_the_chain_has_its_very_records() {
    now(async {
        let archive = archive(MemoryStore::new()).await;
        commit(&archive, 0, segment_of(0, 100, &[(5, 0)])).await;
        let (index, entry) = bundle(&archive, "a", 100, segment_of(100, 150, &[(5, 0)])).await;
        bundle(&archive, "a", 150, segment_of(150, 151, &[(5, 0)])).await;
        let promised = write(&archive, Target { journal: vec![entry], ..on() }).await;
        // An unclean leader has epoch 5 up to 120 only: its log continues the chain, and is another.
        commit(&archive, 100, segment_of(100, 200, &[(5, 0), (7, 120)])).await;
        assert!(!expire(&archive, &index).await, "120 to 149 are nowhere else");
        assert_eq!(read(&archive, &promised).await.unwrap(), (0..150).collect::<Vec<_>>());
        assert!(verify(&archive, 1, Depth::Contents).await.is_sound());
    });
}

#[test]
fn a_gap_covers_nothing_and_the_same_records_do() {
    now(async {
        for gapped in [true, false] {
            let store = MemoryStore::new();
            let archive = archive(store.clone()).await;
            commit(&archive, 0, segment_of(0, 100, &[(5, 0)])).await;
            let (index, entry) = bundle(&archive, "a", 100, segment_of(100, 150, &[(5, 0)])).await;
            bundle(&archive, "a", 150, segment_of(150, 151, &[(5, 0)])).await;
            let promised = write(&archive, Target { journal: vec![entry], ..on() }).await;
            if gapped {
                commit(&archive, 100, gap(0, 100, 160)).await;
            } else {
                commit(&archive, 100, segment_of(100, 140, &[(5, 0)])).await;
                commit(&archive, 140, segment_of(140, 170, &[(5, 0), (6, 155)])).await;
            }
            assert_eq!(expire(&archive, &index).await, !gapped);
            assert_eq!(read(&archive, &promised).await.unwrap().len(), 150);
            assert!(verify(&archive, 1, Depth::Contents).await.is_sound());
            // Whoever takes the bundle away is found out.
            remove(&store, &names::bundle("a", 1)).await;
            assert_eq!(verify(&archive, 1, Depth::Listed).await.is_sound(), !gapped);
            assert_eq!(read(&archive, &promised).await.is_ok(), !gapped);
        }
    });
}

#[test]
fn a_recovery_point_does_not_go_back() {
    now(async {
        let archive = archive(MemoryStore::new()).await;
        grow(&archive, 0, 1).await;
        let (_, entry) = bundle(&archive, "a", 10, segment(0, 10, 60)).await;
        write(&archive, Target { journal: vec![entry], ..on() }).await;
        // Another archiver does not know of the bundle.
        let second = write(&archive, on()).await;
        assert_eq!(state(&archive, &second).await.end(), 60);
        assert_eq!(read(&archive, &second).await.unwrap().len(), 60);
        grow(&archive, 0, 7).await;
        let third = write(&archive, on()).await;
        assert_eq!((state(&archive, &third).await.end(), third.record.bundles.unwrap().bundles), (80, 1));
    });
}

#[test]
fn what_describes_a_recovery_point_is_of_that_one() {
    now(async {
        let archive = archive(MemoryStore::new()).await;
        grow(&archive, 0, 1).await;
        let open = OpenTransaction { producer_id: 5, producer_epoch: 1, first_offset: 7 };
        let point = |end_offset| Some(Point { branch: 0, end_offset });
        let target = Target { point: point(10), open_transactions: Some(vec![open.clone()]), ..on() };
        // The marker is committed by another archiver meanwhile.
        grow(&archive, 0, 1).await;
        let first = state(&archive, &write(&archive, target).await).await;
        assert_eq!((first.end(), first.open_transactions.as_slice()), (10, [open.clone()].as_slice()));
        let target = Target { point: point(35), open_transactions: Some(vec![open]), ..on() };
        let second = state(&archive, &write(&archive, target).await).await;
        assert_eq!((second.end(), second.open_transactions.len()), (20, 0));
        assert!(second.lags() && second.problem.as_ref().unwrap().contains("35"), "{:?}", second.problem);
    });
}

#[test]
fn thousands_of_bundles_are_a_few_blocks() {
    now(async {
        let archive = archive(MemoryStore::new()).await;
        commit(&archive, 0, segment(0, 0, 1)).await;
        let mut journal = vec![];
        for n in 1..1101 {
            journal.push(bundle(&archive, "a", n, segment(0, n, n + 1)).await.1);
        }
        let first = write(&archive, Target { journal: journal.clone(), ..on() }).await;
        assert_eq!(state(&archive, &first).await.end(), 1101);
        assert_eq!(first.record.bundles.as_ref().unwrap().bundles, 1100);
        assert!(first.record.encode().unwrap().len() < 1000);
        assert!(verify(&archive, 1, Depth::Footers).await.is_sound());
        journal.push(bundle(&archive, "a", 1101, segment(0, 1101, 1102)).await.1);
        let second = write(&archive, Target { journal, ..on() }).await;
        let named = archive.named_bundles(second.record.bundles.as_ref().unwrap()).await.unwrap();
        assert_eq!(named.len(), 1101);
    });
}

#[test]
fn a_damaged_object_at_the_end_is_stepped_round() {
    now(async {
        let store = MemoryStore::new();
        let archive = archive(store.clone()).await;
        grow(&archive, 0, 1).await;
        grow(&archive, 1, 1).await;
        let name = names::object(TOPIC, 0, 0, 10);
        replace(&store, &name, Bytes::new()).await;
        let partition = archive.partition(TOPIC, 0);
        let end = partition.chain_end(0, 0, 0).await.unwrap();
        assert_eq!((end.end_offset, end.last.unwrap().end_offset()), (10, 10));
        assert!(end.damaged.unwrap().contains(&name));
        let targets = [on(), Target::new(TOPIC, 1)];
        let first = archive.write_snapshot(&new_snapshot(&targets)).await.unwrap();
        let damaged = state(&archive, &first).await;
        assert!(damaged.end() == 10 && damaged.problem.as_ref().unwrap().contains(&name), "{damaged:?}");
        assert_eq!(first.record.root.as_ref().unwrap().lagging, 1, "the other one is as it should be");
        let mut record = branch(1, Some(0), 10, BranchReason::Damaged);
        partition.start_branch(&mut record).await.unwrap();
        partition.commit(1, 10, segment(0, 10, 15)).await.unwrap();
        let second = write(&archive, on()).await;
        let state = state(&archive, &second).await;
        assert_eq!((state.end(), state.problem.clone(), state.branch()), (15, None, 1));
        assert_eq!(read(&archive, &second).await.unwrap(), (0..15).collect::<Vec<_>>());
    });
}

fn branch(number: u32, parent: Option<u32>, start_offset: i64, reason: BranchReason) -> BranchRecord {
    let leader_epochs = vec![EpochEntry { epoch: 0, start_offset: 0 }];
    BranchRecord { reason, leader_epochs, ..branch_record(number, parent, start_offset) }
}

#[test]
fn junk_at_numbers_is_stepped_over_and_named() {
    now(async {
        let store = MemoryStore::new();
        let archive = archive(store.clone()).await;
        grow(&archive, 0, 1).await;
        let first = snapshot(&archive, 0..1).await;
        let junk = || Bytes::from_static(b"junk");
        for number in [2, 3, 1 << 40] {
            replace(&store, &names::snapshot(number), junk()).await;
        }
        replace(&store, &names::branch(TOPIC, 0, 1), junk()).await;
        assert_eq!(archive.latest_snapshot(0).await.unwrap().unwrap(), first);
        let partition = archive.partition(TOPIC, 0);
        let mut record = branch(1, None, 30, BranchReason::Divergence);
        assert!(matches!(partition.start_branch(&mut record).await.unwrap(), Started::Ours));
        assert_eq!(record.branch, 2);
        partition.commit(2, 30, segment(0, 30, 40)).await.unwrap();
        let next = snapshot(&archive, 0..1).await;
        assert_eq!((next.record.sequence, next.record.previous), (4, Some(first.reference())));
        assert_eq!(archive.latest_snapshot(1).await.unwrap().unwrap(), next);
        assert_eq!(state(&archive, &next).await.end(), 40);
        let report = verify(&archive, 4, Depth::Contents).await;
        let named: Vec<_> = report.findings.iter().map(|f| f.object.rsplit('/').next().unwrap()).collect();
        assert_eq!(named, ["00000000000000000002.json", "00000000000000000003.json"], "{report:?}");
    });
}

#[test]
fn a_tree_that_is_damaged_is_not_built_upon() {
    now(async {
        let store = MemoryStore::new();
        let archive = archive(store.clone()).await;
        grow(&archive, 0, 1).await;
        snapshot(&archive, 0..1).await;
        grow(&archive, 0, 1).await;
        let second = snapshot(&archive, 0..1).await;
        let root = second.record.root.clone().unwrap();
        replace(&store, &names::manifest(root.hash), Bytes::from_static(b"{}")).await;
        let third = snapshot(&archive, 0..1).await;
        assert_eq!(third.record.previous, Some(second.reference()));
        assert_eq!(state(&archive, &third).await.end(), 20);
    });
}

#[test]
fn more_epochs_than_a_record_holds_are_the_newest() {
    let all: Vec<EpochStart> =
        (0..600).map(|n| EpochStart { epoch: n, start_offset: i64::from(n) * 10 }).collect();
    let kept = newest_epochs(all);
    assert_eq!((kept.len(), kept[0].epoch, kept[511].epoch), (512, 88, 599));
    let record = BranchRecord { leader_epochs: kept, ..branch(1, Some(0), 9999, BranchReason::Divergence) };
    record.encode().unwrap();
}

#[test]
fn what_nobody_who_is_trusted_signed_counts_for_nothing() {
    now(async {
        let store = MemoryStore::new();
        let archive = archive(store.clone()).await;
        let signer = Signer::from_seed(&[3; 32]).unwrap();
        grow(&archive, 0, 3).await;
        let targets = [on()];
        let signed = || NewSnapshot { signer: Some(&signer), ..new_snapshot(&targets) };
        archive.write_snapshot(&signed()).await.unwrap();
        // Without the key: all is declared pruned, then deleted.
        let forged = PrunedRecord {
            varve_pruned: V1,
            archive_id: archive.id(),
            sequence: 1,
            previous: None,
            snapshot: 1,
            ranges: vec![PrunedRange {
                topic_id: TOPIC,
                partition: 0,
                branch: 0,
                first_offset: 0,
                end_offset: 20,
                objects: 2,
            }],
            snapshots: vec![],
            reason: "none".into(),
            writer: "intruder".into(),
            created_ms: 0,
            more: vec![],
            signature: None,
        };
        replace(&store, &names::pruned(1), Bytes::from(forged.encode().unwrap())).await;
        remove(&store, &names::object(TOPIC, 0, 0, 10)).await;
        let trusted = [signer.public_key()];
        let options = VerifyOptions { depth: Depth::Contents, trusted: &trusted, ..Default::default() };
        let report = archive.verify(1, &options, &|_| {}).await.unwrap();
        assert_eq!((report.progress.findings, report.pruned), (2, 0), "{report:?}");
        let second = archive.write_snapshot(&signed()).await.unwrap();
        assert_eq!(second.record.pruned, None);
        let new = NewPruned { signer: Some(&signer), ..new_pruned(2, forged.ranges) };
        archive.declare_pruned(new).await.unwrap();
        let third = archive.write_snapshot(&signed()).await.unwrap();
        assert_eq!(third.record.pruned.unwrap().sequence, 2);
        assert_eq!(state(&archive, &third).await.branches[0].pruned.len(), 1);
        let report = archive.verify(3, &options, &|_| {}).await.unwrap();
        assert!(report.is_sound() && report.pruned == 1, "{report:?}");
    });
}

#[test]
fn a_range_that_no_snapshot_has_prunes_nothing() {
    now(async {
        let store = MemoryStore::new();
        let archive = archive(store.clone()).await;
        grow(&archive, 0, 3).await;
        let first = snapshot(&archive, 0..1).await;
        let range = archive.prunable(&state(&archive, &first).await, 0, 20).await.unwrap().unwrap();
        let mut record = archive.declare_pruned(new_pruned(1, vec![range])).await.unwrap();
        (record.sequence, record.ranges[0].end_offset) = (2, i64::MAX);
        replace(&store, &names::pruned(2), Bytes::from(record.encode().unwrap())).await;
        remove(&store, &names::object(TOPIC, 0, 0, 20)).await;
        let report = verify(&archive, 1, Depth::Listed).await;
        assert_eq!((report.progress.findings, report.pruned), (2, 0), "{report:?}");
    });
}

#[test]
fn a_signer_builds_upon_what_is_signed() {
    now(async {
        let archive = archive(MemoryStore::new()).await;
        let signer = Signer::from_seed(&[3; 32]).unwrap();
        grow(&archive, 0, 1).await;
        let targets = [on()];
        let signed = || NewSnapshot { signer: Some(&signer), ..new_snapshot(&targets) };
        archive.write_snapshot(&signed()).await.unwrap();
        let evil = Id([66; 16]);
        let forged = segment_as(SegmentInfo { topic_id: evil, ..info(0, 0, 10) }, options(None), b"forged");
        archive.partition(evil, 0).commit(0, 0, forged).await.unwrap();
        let second = write(&archive, Target::new(evil, 0)).await;
        let third = archive.write_snapshot(&signed()).await.unwrap();
        assert_eq!(third.record.previous, Some(second.reference()), "it was there");
        assert!(archive.find(third.record.root.as_ref(), evil, 0).await.unwrap().is_none());
        assert_eq!(state(&archive, &third).await.end(), 10);
    });
}

#[test]
fn a_topics_name_is_under_the_snapshots_hash() {
    now(async {
        let store = MemoryStore::new();
        let archive = archive(store.clone()).await;
        grow(&archive, 0, 1).await;
        let first = snapshot(&archive, 0..1).await;
        assert_eq!(state(&archive, &first).await.topic.as_deref(), Some("orders"));
        let mut renamed = topic();
        renamed.topic = "payments".into();
        replace(&store, &names::topic(TOPIC), Bytes::from(renamed.encode().unwrap())).await;
        assert!(!verify(&archive, 1, Depth::Listed).await.is_sound());
    });
}

/// Knows no create-if-absent.
#[derive(Debug)]
struct Plain(MemoryStore);

#[async_trait]
impl Store for Plain {
    fn url(&self) -> &str {
        self.0.url()
    }
    fn limits(&self) -> Limits {
        self.0.limits()
    }
    async fn put(&self, key: &Key, body: Bytes, _: &PutOptions) -> varve_store::Result<ObjectMeta> {
        self.0.put(key, body, &PutOptions::default()).await
    }
    async fn upload(
        &self,
        key: &Key,
        part_bytes: u64,
        size_bytes: Option<u64>,
        options: &PutOptions,
    ) -> varve_store::Result<Arc<dyn Upload>> {
        self.0.upload(key, part_bytes, size_bytes, options).await
    }
    async fn get(&self, key: &Key, range: GetRange) -> varve_store::Result<GetResult> {
        self.0.get(key, range).await
    }
    async fn head(&self, key: &Key) -> varve_store::Result<ObjectMeta> {
        self.0.head(key).await
    }
    async fn list(
        &self,
        prefix: &str,
        after: Option<&Key>,
        max_keys: usize,
    ) -> varve_store::Result<ListPage> {
        self.0.list(prefix, after, max_keys).await
    }
    async fn delete_many(&self, keys: &[Key]) -> varve_store::Result<Vec<varve_store::Result<()>>> {
        self.0.delete_many(keys).await
    }
    async fn copy(&self, from: &Key, to: &Key, options: &PutOptions) -> varve_store::Result<ObjectMeta> {
        self.0.copy(from, to, options).await
    }
    async fn list_uploads(&self, prefix: &str) -> varve_store::Result<Vec<PendingUpload>> {
        self.0.list_uploads(prefix).await
    }
    async fn abort_upload(&self, upload: &PendingUpload) -> varve_store::Result<()> {
        self.0.abort_upload(upload).await
    }
    async fn versions(&self) -> varve_store::Result<Option<Arc<dyn varve_store::Versions>>> {
        self.0.versions().await
    }
}

#[test]
fn a_store_that_creates_what_exists_is_refused() {
    now(async {
        let memory = MemoryStore::new();
        let first = archive(memory.clone()).await;
        let store: SharedStore = Arc::new(Plain(memory.clone()));
        let made = Archive::create(store, "root", Id([2; 16]), HashAlgorithm::Blake3, "varve test", 1).await;
        let error = made.unwrap_err();
        assert!(error.kind() == Kind::Invalid && error.to_string().contains("create-if-absent"), "{error}");
        assert_eq!(Archive::open(Arc::new(memory), "root").await.unwrap().id(), first.id());
    });
}

#[test]
fn an_upgrade_is_seen_when_opening_and_when_writing() {
    now(async {
        let store = MemoryStore::new();
        let archive = archive(store.clone()).await;
        let record = UpgradeRecord {
            varve_upgrade: V1,
            archive_id: archive.id(),
            number: 1,
            requires: vec!["time-travel".into()],
            writer: "later".into(),
            created_ms: 1,
            more: vec![],
        };
        replace(&store, &names::upgrade(1), Bytes::from(record.encode().unwrap())).await;
        let opened = Archive::open(Arc::new(store), "root").await.map(|_| ());
        let written = archive.write_snapshot(&new_snapshot(&[])).await.map(|_| ());
        for error in [opened.unwrap_err(), written.unwrap_err()] {
            assert!(error.to_string().contains("time-travel"), "{error}");
        }
    });
}

#[test]
fn a_bundles_number_does_not_come_back() {
    now(async {
        let archive = archive(MemoryStore::new()).await;
        commit(&archive, 0, segment(0, 0, 10)).await;
        let (first, _) = bundle(&archive, "a", 10, segment(0, 10, 20)).await;
        commit(&archive, 10, segment(0, 10, 20)).await;
        assert!(!expire(&archive, &first).await, "the last of its archiver stays");
        let (second, _) = bundle(&archive, "a", 20, segment(0, 20, 30)).await;
        assert_eq!((first.sequence, second.sequence), (1, 2));
        assert!(expire(&archive, &first).await);
        let names = [names::archiver("a", Id([1; 16])), names::archiver(&"é/x".repeat(99), Id([2; 16]))];
        assert!(names.iter().all(|n| n.len() <= 64 && n.contains('-')), "{names:?}");
    });
}

#[test]
fn another_bundle_under_a_name_is_as_good_as_gone() {
    now(async {
        let store = MemoryStore::new();
        let archive = archive(store.clone()).await;
        commit(&archive, 0, segment(0, 0, 10)).await;
        let (_, entry) = bundle(&archive, "a", 10, segment(0, 10, 20)).await;
        let promised = write(&archive, Target { journal: vec![entry], ..on() }).await;
        let other = bundle(&archive, "b", 10, segment(0, 10, 19)).await.0;
        let bytes = bytes_of(&store, &names::bundle("b", other.sequence)).await;
        replace(&store, &names::bundle("a", 1), bytes).await;
        assert!(!verify(&archive, 1, Depth::Listed).await.is_sound());
        commit(&archive, 10, segment(0, 10, 25)).await;
        assert!(verify(&archive, 1, Depth::Contents).await.is_sound());
        assert_eq!(read(&archive, &promised).await.unwrap(), (0..20).collect::<Vec<_>>());
    });
}

#[test]
fn a_tree_can_not_be_folded_into_itself() {
    now(async {
        let archive = archive(MemoryStore::new()).await;
        let entry = |partition| PartitionEntry { partition, ..entry() };
        let leaf = Leaf {
            varve_leaf: V1,
            since: 1,
            prefix: "0".repeat(15),
            partitions: (0..5).map(entry).collect(),
            more: vec![],
        };
        let leaf = Node::Leaf(leaf);
        let hash = archive.put_manifest(Bytes::from(leaf.encode().unwrap())).await.unwrap();
        let mut below = leaf.reference(hash);
        for depth in (0..15).rev() {
            let children = (0..16).map(|nibble| Child { nibble, node: below.clone() }).collect();
            let prefix = "0".repeat(depth);
            let node = Node::Inner(Inner { varve_inner: V1, since: 1, prefix, children, more: vec![] });
            let Ok(bytes) = node.encode() else { return };
            let hash = archive.put_manifest(Bytes::from(bytes)).await.unwrap();
            below = node.reference(hash);
            let mut walk = archive.partitions(Some(&below));
            let mut looked = 0;
            while !matches!(walk.next().await, Ok(None)) {
                looked += 1;
                assert!(looked < 1000, "depth {depth}");
            }
        }
        panic!("more partitions than a tree may have");
    });
}

fn entry() -> PartitionEntry {
    PartitionEntry {
        topic_id: TOPIC,
        topic: None,
        partition: 0,
        chains: None,
        journal: None,
        log_start_offset: None,
        log_end_offset: None,
        deleted_ms: None,
        problem: None,
        open_transactions: vec![],
    }
}

#[test]
fn the_journal_is_joined_by_where_it_ends() {
    let hash = Hash([1; 32]);
    let entry = |first_offset, end_offset, list: &[(i32, i64)]| JournalEntry {
        branch: 0,
        archiver: "a".into(),
        sequence: 1,
        first_offset,
        end_offset,
        position: 0,
        bytes: 1,
        footer: hash,
        leader_epochs: epochs(list).into_iter().map(EpochEntry::from).collect(),
    };
    // 5 up to 150, then 9; and 7, a leader of ten records that is gone.
    let entries = [
        entry(100, 150, &[(5, 0)]),
        entry(150, 170, &[(5, 0), (9, 150)]),
        entry(100, 130, &[(5, 0), (7, 120)]),
    ];
    let ends = |way: Vec<JournalEntry>| way.iter().map(|e| e.end_offset).collect::<Vec<_>>();
    assert_eq!(ends(continuation(&entries, 100, Some(5))), [150, 170]);
    let goal =
        |end_offset, epoch| varve_archive::record::state::JournalEnd { end_offset, last_epoch: Some(epoch) };
    let to = |end, epoch| continuation_to(&entries, 100, Some(5), &goal(end, epoch)).map(ends);
    assert_eq!(to(125, 7), Some(vec![130]));
    assert_eq!(to(145, 5), Some(vec![150]));
    assert_eq!(to(160, 9), Some(vec![150, 170]));
    assert_eq!((to(171, 9), to(150, 9)), (None, None));
}

#[test]
fn an_old_snapshot_is_proven_in_few_steps() {
    now(async {
        let store = MemoryStore::new();
        let counted = counting(&store);
        let counts = Arc::clone(counted.counts());
        let archive = archive(counted).await;
        for _ in 0..70 {
            archive.write_snapshot(&new_snapshot(&[])).await.unwrap();
        }
        let newest = archive.latest_snapshot(0).await.unwrap().unwrap();
        let before = counts.calls();
        let found = archive.ancestor(&newest, 3).await.unwrap().unwrap();
        assert_eq!(found.record.sequence, 3);
        assert!(counts.calls() - before < 24, "{}", counts.calls() - before);
        assert!(verify(&archive, 70, Depth::Listed).await.is_sound());
    });
}

#[test]
fn a_tree_that_was_given_up_is_not_missed() {
    now(async {
        let store = MemoryStore::new();
        let archive = archive(store.clone()).await;
        for _ in 0..3 {
            grow(&archive, 0, 1).await;
            snapshot(&archive, 0..1).await;
        }
        let first = archive.snapshot(1).await.unwrap().unwrap();
        let snapshots = vec![SnapshotRange { first: 1, last: 2 }];
        let beyond = vec![SnapshotRange { first: 1, last: 3 }];
        let refused = NewPruned { snapshots: beyond, ..new_pruned(3, vec![]) };
        archive.declare_pruned(refused).await.unwrap_err();
        archive.declare_pruned(NewPruned { snapshots, ..new_pruned(3, vec![]) }).await.unwrap();
        remove(&store, &names::manifest(first.record.root.unwrap().hash)).await;
        let report = verify(&archive, 1, Depth::Contents).await;
        assert!(report.is_sound() && report.given_up, "{report:?}");
        let report = verify(&archive, 3, Depth::Contents).await;
        assert!(report.is_sound() && !report.given_up, "{report:?}");
    });
}

#[test]
fn branch_0_alone_needs_no_manifest() {
    now(async {
        let archive = archive(MemoryStore::new()).await;
        let first = write(&archive, on()).await;
        let state = state(&archive, &first).await;
        assert_eq!((state.chains.clone(), state.branches), (None, vec![BranchState::first()]));
    });
}
