//! Archives in memory, and objects to put into them.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::panic)] // Each test takes what it needs.

use std::cell::Cell;
use std::sync::Arc;

use bytes::Bytes;
use varve_archive::record::branch::{BranchReason, BranchRecord};
use varve_archive::record::gap::{GapReason, GapRecord};
use varve_archive::record::pruned::PrunedRange;
use varve_archive::record::snapshot::CLUSTER_STATE;
use varve_archive::record::topic::TopicRecord;
use varve_archive::*;
use varve_format::{
    Compression, DataKey, DigestAlgorithm, Encoder, Encryption, EpochStart, Id, Plan, SegmentInfo,
    WriteOptions,
};
use varve_store::{
    CountingStore, Faults, FaultyStore, GetRange, Key, MemoryStore, Rule, SharedStore, Store, delete,
};

pub const TOPIC: Id = Id([1; 16]);

thread_local! {
    /// Each test runs on a thread of its own: the same attempts each time, whatever runs beside it.
    static ATTEMPTS: Cell<u64> = const { Cell::new(1) };
}

/// Waits for what never waits.
pub fn now<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(future)
}

pub async fn archive(store: impl Store + 'static) -> Archive {
    let shared: SharedStore = Arc::new(store);
    Archive::create(shared, "root", Id([9; 16]), HashAlgorithm::Blake3, "varve test", 1).await.unwrap()
}

pub fn faulty(store: &MemoryStore, rules: Vec<Rule>) -> FaultyStore {
    FaultyStore::new(Arc::new(store.clone()), Faults::new(1, rules))
}

pub fn counting(store: &MemoryStore) -> CountingStore {
    CountingStore::new(Arc::new(store.clone()))
}

pub fn topic() -> TopicRecord {
    TopicRecord {
        varve_topic: V1,
        topic_id: TOPIC,
        topic: "orders".into(),
        cluster_id: "cluster".into(),
        partitions: Some(3),
        writer: "varve test".into(),
        created_ms: 1,
        more: vec![],
    }
}

pub fn info(partition: i32, first: i64, end: i64) -> SegmentInfo {
    SegmentInfo {
        writer: "varve test".into(),
        cluster_id: "cluster".into(),
        topic_id: TOPIC,
        topic: "orders".into(),
        partition,
        segment_id: None,
        base_offset: first,
        last_offset: end - 1,
        max_timestamp_ms: -1,
        created_ms: 1,
        broker_id: None,
        leader_epochs: vec![EpochStart { epoch: 0, start_offset: 0 }],
        observed: vec![],
    }
}

/// Random where it must be: another for each attempt.
pub fn options(encryption: Option<Encryption>) -> WriteOptions {
    let number = ATTEMPTS.replace(ATTEMPTS.get() + 1).to_be_bytes();
    let object_id = Id([number, *b"attempt!"].concat().try_into().unwrap());
    WriteOptions {
        frame_bytes: 4096,
        chunk_bytes: 4096,
        compression: Compression::None,
        digest: DigestAlgorithm::Blake3,
        encryption,
        object_id,
    }
}

pub fn segment_as(info: SegmentInfo, options: WriteOptions, log: &[u8]) -> Bytes {
    let plan = Plan::new(log.len() as u64, 4096, &[]).unwrap();
    let mut encoder = Encoder::new(options, plan).unwrap();
    let mut object = Vec::new();
    for frame in log.chunks(4096) {
        encoder.frame(frame, &mut object).unwrap();
    }
    encoder.finish(info, &mut object).unwrap();
    Bytes::from(object)
}

pub fn segment(partition: i32, first: i64, end: i64) -> Bytes {
    let log: Vec<u8> = (first..end).flat_map(|o| o.to_be_bytes()).collect();
    segment_as(info(partition, first, end), options(None), &log)
}

pub fn gap(partition: i32, first: i64, end: i64) -> Bytes {
    let record = GapRecord::new(GapReason::LogStart, Some("retention".into()));
    Bytes::from(record.object(info(partition, first, end), options(None)).unwrap().0)
}

pub fn encryption() -> Encryption {
    Encryption { key: data_key(), period: "2026-11".into(), salt: [7; 32] }
}

pub fn data_key() -> DataKey {
    DataKey::new(Id([7; 16]), [9; 32])
}

pub fn branch_record(number: u32, parent: Option<u32>, start_offset: i64) -> BranchRecord {
    BranchRecord {
        varve_branch: V1,
        topic_id: TOPIC,
        partition: 0,
        branch: number,
        parent,
        start_offset,
        reason: BranchReason::Divergence,
        leader_epoch: 0,
        leader_epochs: vec![],
        detail: None,
        writer: "varve test".into(),
        created_ms: 1,
        more: vec![],
    }
}

/// A chain of `segments` objects of 10 offsets each, from where it ends.
pub async fn grow(archive: &Archive, partition: i32, segments: i64) {
    archive.add_topic(&topic()).await.unwrap();
    let partition_ = archive.partition(TOPIC, partition);
    let mut at = partition_.chain_end(0, 0, 0).await.unwrap().end_offset;
    for _ in 0..segments {
        let committed = partition_.commit(0, at, segment(partition, at, at + 10)).await.unwrap();
        assert!(matches!(committed, Commit::Committed));
        at += 10;
    }
}

pub async fn snapshot(archive: &Archive, partitions: std::ops::Range<i32>) -> Snapshot {
    let targets: Vec<Target> = partitions.map(|p| Target::new(TOPIC, p)).collect();
    archive.write_snapshot(&new_snapshot(&targets)).await.unwrap()
}

pub static DOCUMENTS: std::sync::LazyLock<[Document; 1]> = std::sync::LazyLock::new(|| {
    let (name, format) = (CLUSTER_STATE.into(), "test".into());
    [Document { name, format, bytes: Bytes::from_static(b"{\"topics\":[]}") }]
});

pub fn new_snapshot(targets: &[Target]) -> NewSnapshot<'_> {
    NewSnapshot {
        targets,
        documents: &*DOCUMENTS,
        writer: "varve test",
        now_ms: 1,
        signer: None,
        trusted: &[],
    }
}

pub fn new_pruned(snapshot: u64, ranges: Vec<PrunedRange>) -> NewPruned<'static> {
    NewPruned {
        snapshot,
        ranges,
        snapshots: vec![],
        reason: "retention",
        writer: "varve test",
        now_ms: 1,
        signer: None,
    }
}

pub async fn bytes_of(store: &MemoryStore, name: &str) -> Bytes {
    let key = Key::new(format!("root/{name}")).unwrap();
    store.get(&key, GetRange::Full).await.unwrap().bytes().await.unwrap()
}

pub async fn replace(store: &MemoryStore, name: &str, bytes: Bytes) {
    let key = Key::new(format!("root/{name}")).unwrap();
    store.put(&key, bytes, &Default::default()).await.unwrap();
}

pub async fn remove(store: &MemoryStore, name: &str) {
    delete(store, &Key::new(format!("root/{name}")).unwrap()).await.unwrap();
}

pub async fn verify(archive: &Archive, sequence: u64, depth: Depth) -> Report {
    let options = VerifyOptions { depth, ..VerifyOptions::default() };
    archive.verify(sequence, &options, &|_| {}).await.unwrap()
}
