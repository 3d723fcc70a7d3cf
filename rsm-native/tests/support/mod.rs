//! A RemoteStorageManager over a store in memory (or another), with requests counted and faults on call, and
//! segments made of a seed.

#![allow(dead_code, unreachable_pub, reason = "each test uses its part")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failure here fails the test")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use varve_format::{EpochStart, ExtentKind, Id};
use varve_rsm::operation::Operation;
use varve_rsm::read::stream::{LogStream, Progress};
use varve_rsm::rsm::Rsm;
use varve_rsm::wire::{CopyRequest, SegmentMetadata};
use varve_rsm::{Error, Result};
use varve_store::{
    CountingStore, Counts, Fault, Faults, FaultyStore, GetRange, GetResult, Key, Limits, ListPage,
    ObjectMeta, Operation as Op, PendingUpload, PutOptions, Result as StoreResult, Rule, SharedStore, Store,
    Upload, When,
};

pub const CLUSTER: &str = "cluster-1";
pub const FRAME: usize = 64 << 10;
pub const CHUNK: usize = 128 << 10;
/// What nothing here should ever need: longer means stuck.
pub const STUCK: Duration = Duration::from_secs(60);

static NEXT: AtomicU64 = AtomicU64::new(1);

/// xorshift: the same seed, the same bytes.
#[derive(Clone)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// From 0 to below `n`.
    pub fn below(&mut self, n: u64) -> u64 {
        (self.next() >> 11) % n.max(1)
    }

    /// Runs of repeated bytes among random ones: half of it compresses.
    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        let mut out = Vec::with_capacity(len + 512);
        while out.len() < len {
            if self.below(2) == 0 {
                out.extend(std::iter::repeat_n(self.next() as u8, 256));
            } else {
                (0..32).for_each(|_| out.extend_from_slice(&self.next().to_le_bytes()));
            }
        }
        out.truncate(len);
        out
    }
}

/// A manager with what it stands on.
pub struct Bench {
    pub rsm: Rsm,
    /// The bare store: to look and to tamper.
    pub store: SharedStore,
    pub counts: Arc<Counts>,
    pub faults: Arc<Faults>,
    pub dir: tempfile::TempDir,
    runtime: tokio::runtime::Runtime,
}

pub fn config(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    let url = format!("memory://t{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let base = [
        ("store.url", url.as_str()),
        ("cluster.id", CLUSTER),
        ("broker.id", "1"),
        ("chunk.size.bytes", "131072"),
        ("cache.memory.bytes", "33554432"),
    ];
    base.iter().chain(pairs).map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
}

impl Bench {
    pub fn new(pairs: &[(&str, &str)]) -> Self {
        Self::open(&config(pairs)).unwrap()
    }

    pub fn open(config: &BTreeMap<String, String>) -> Result<Self> {
        Self::wrapped(config, |store| store)
    }

    /// `outermost` wraps what counts.
    pub fn wrapped(
        config: &BTreeMap<String, String>,
        outermost: impl FnOnce(SharedStore) -> SharedStore,
    ) -> Result<Self> {
        let faults = Faults::new(1, Vec::new());
        let mut seen = None;
        let rsm = Rsm::with_store(config, |store| {
            let faulty: SharedStore = Arc::new(FaultyStore::new(store.clone(), faults.clone()));
            let counting = CountingStore::new(faulty);
            seen = Some((store, counting.counts().clone()));
            outermost(Arc::new(counting))
        })?;
        let (store, counts) = seen.unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        Ok(Self { rsm, store, counts, faults, dir: tempfile::tempdir().unwrap(), runtime })
    }

    pub fn segment(&self, seed: u64, log_bytes: usize) -> Segment {
        Segment::new(self.dir.path(), seed, log_bytes)
    }

    /// A segment that was copied.
    pub fn copied(&self, seed: u64, log_bytes: usize) -> Segment {
        let mut segment = self.segment(seed, log_bytes);
        segment.copy(&self.rsm).unwrap();
        segment
    }

    pub fn block<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(work)
    }

    pub fn keys(&self) -> Vec<String> {
        let page = self.block(self.store.list("", None, 10_000)).unwrap();
        page.objects.iter().map(|o| o.key.as_str().to_owned()).collect()
    }

    /// Objects but the data keys.
    pub fn objects(&self) -> Vec<String> {
        self.keys().into_iter().filter(|k| !k.starts_with("keys/")).collect()
    }

    pub fn uploads(&self) -> usize {
        self.block(self.store.list_uploads("")).unwrap().len()
    }

    pub fn is_clean(&self) -> bool {
        self.objects().is_empty() && self.uploads() == 0
    }

    pub fn object(&self, key: &str) -> Vec<u8> {
        let key = Key::new(key).unwrap();
        self.block(async { self.store.get(&key, GetRange::Full).await.unwrap().bytes().await })
            .unwrap()
            .to_vec()
    }

    pub fn put(&self, key: &str, bytes: Vec<u8>) {
        let key = Key::new(key).unwrap();
        self.block(self.store.put(&key, bytes.into(), &Default::default())).unwrap();
    }

    pub fn remove(&self, key: &str) {
        self.block(varve_store::delete(&*self.store, &Key::new(key).unwrap())).unwrap();
    }

    pub fn calls(&self, operation: Op) -> u64 {
        self.counts.of(operation).calls
    }

    /// One fault of one operation.
    pub fn fault(&self, operation: Op, when: When, fault: Fault) {
        self.faults.set_rules(vec![rule(operation, when, fault)]);
    }

    pub fn no_faults(&self) {
        self.faults.set_rules(Vec::new());
    }

    /// A number of a bean.
    pub fn metric(&self, bean: &str, attribute: &str) -> f64 {
        let beans = self.rsm.beans();
        let (_, attributes) = beans.iter().find(|(name, _)| name == bean).unwrap();
        attributes.iter().find(|(name, _)| *name == attribute).unwrap().1
    }
}

pub fn rule(operation: Op, when: When, fault: Fault) -> Rule {
    Rule { operation: Some(operation), key_contains: String::new(), when, fault }
}

/// Waits until `done`.
pub fn eventually(what: &str, done: impl Fn() -> bool) {
    let since = Instant::now();
    while !done() {
        assert!(since.elapsed() < STUCK, "{what}: not within {STUCK:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A local segment, and what it holds.
#[derive(Clone)]
pub struct Segment {
    pub request: CopyRequest,
    pub log: Vec<u8>,
    pub sections: Vec<(ExtentKind, Option<Vec<u8>>)>,
}

impl Segment {
    pub fn new(dir: &std::path::Path, seed: u64, log_bytes: usize) -> Self {
        let serial = NEXT.fetch_add(1, Ordering::Relaxed);
        let mut random = Random::new(seed);
        let mut segment_id = [7; 16];
        segment_id[..8].copy_from_slice(&serial.to_be_bytes());
        let file = |name: &str, bytes: &[u8]| {
            let path = dir.join(format!("{serial}.{name}"));
            std::fs::write(&path, bytes).unwrap();
            path
        };
        let log = random.bytes(log_bytes);
        let index = random.bytes(8 * (log_bytes / 4096));
        let times = random.bytes(12 * (log_bytes / 4096 + 1));
        let aborted = (seed.is_multiple_of(2)).then(|| random.bytes(34 * 3));
        let snapshot = random.bytes(100);
        let epochs = b"0\n1\n0 0\n".to_vec();
        let request = CopyRequest {
            log: file("log", &log),
            offset_index: file("index", &index),
            time_index: file("timeindex", &times),
            transaction_index: aborted.as_ref().map(|bytes| file("txnindex", bytes)),
            producer_snapshot: file("snapshot", &snapshot),
            leader_epochs: epochs.clone(),
            metadata: SegmentMetadata {
                topic_id: Id([3; 16]),
                topic: "orders".to_owned(),
                partition: 2,
                segment_id: Id(segment_id),
                start_offset: serial as i64 * 1000,
                end_offset: serial as i64 * 1000 + 999,
                max_timestamp_ms: 1,
                event_timestamp_ms: 2,
                broker_id: 1,
                segment_bytes: log_bytes as u32,
                leader_epochs: vec![EpochStart { epoch: 0, start_offset: 0 }],
                custom: None,
            },
        };
        let sections = vec![
            (ExtentKind::OffsetIndex, Some(index)),
            (ExtentKind::TimeIndex, Some(times)),
            (ExtentKind::TransactionIndex, aborted),
            (ExtentKind::ProducerSnapshot, Some(snapshot)),
            (ExtentKind::LeaderEpochs, Some(epochs)),
        ];
        Self { request, log, sections }
    }

    pub fn metadata(&self) -> &SegmentMetadata {
        &self.request.metadata
    }

    /// The same files once more, as the broker tries again: with a new id.
    pub fn renamed(&self) -> Self {
        let mut again = self.clone();
        let serial = NEXT.fetch_add(1, Ordering::Relaxed);
        again.request.metadata.segment_id.0[..8].copy_from_slice(&serial.to_be_bytes());
        again
    }

    pub fn copy(&mut self, rsm: &Rsm) -> Result<()> {
        let custom = finish(&*rsm.copy(self.request.clone())?)?;
        self.request.metadata.custom = custom;
        Ok(())
    }

    pub fn index(&self, rsm: &Rsm, kind: ExtentKind) -> Result<Option<Vec<u8>>> {
        finish(&*rsm.fetch_index(self.metadata(), kind)?)
    }

    pub fn delete(&self, rsm: &Rsm) -> Result<()> {
        finish(&*rsm.delete(self.metadata())?).map(|_| ())
    }

    pub fn stream(&self, rsm: &Rsm, start: usize, end_inclusive: usize) -> LogStream {
        rsm.open_stream(self.metadata(), start as u64, end_inclusive as u64).unwrap()
    }

    /// Reads `start..=end_inclusive` by one stream.
    pub fn read(&self, rsm: &Rsm, start: usize, end_inclusive: usize) -> Result<Vec<u8>> {
        read_all(&rsm.open_stream(self.metadata(), start as u64, end_inclusive as u64)?, 100_000)
    }

    /// All of it, compared.
    pub fn check(&self, rsm: &Rsm) {
        let log = self.read(rsm, 0, usize::MAX).unwrap();
        assert!(log == self.log, "{} log bytes differ from {}", log.len(), self.log.len());
        self.check_indexes(rsm);
    }

    pub fn check_indexes(&self, rsm: &Rsm) {
        for (kind, expected) in &self.sections {
            match (self.index(rsm, *kind), expected) {
                (Ok(found), expected) => assert!(found == *expected, "{} differs", kind.name()),
                (Err(e), None) => assert_eq!(e.kind, varve_rsm::Kind::NotFound, "{e}"),
                (Err(e), Some(_)) => panic!("{}: {e}", kind.name()),
            }
        }
    }

    pub fn key(&self) -> String {
        let m = self.metadata();
        varve_format::segment_name(&varve_format::SegmentName {
            cluster_id: CLUSTER.to_owned(),
            topic_id: m.topic_id,
            partition: m.partition,
            base_offset: m.start_offset,
            segment_id: m.segment_id,
        })
    }
}

/// The end of an operation.
pub fn finish(operation: &Operation) -> Result<Option<Vec<u8>>> {
    let since = Instant::now();
    while !operation.wait(Duration::from_secs(1)) {
        assert!(since.elapsed() < STUCK, "an operation is stuck");
    }
    operation.take()
}

/// What is left in a stream, in reads of at most `step` bytes.
pub fn read_all(stream: &LogStream, step: usize) -> Result<Vec<u8>> {
    read_up_to(stream, usize::MAX, step)
}

pub fn read_up_to(stream: &LogStream, most: usize, step: usize) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    let mut since = Instant::now();
    while out.len() < most {
        let at = out.len();
        let progress = stream.read(step.min(most - at), Duration::from_millis(100), |offset, bytes| {
            assert_eq!(out.len(), at + offset);
            out.extend_from_slice(bytes);
            Ok(())
        })?;
        match progress {
            Progress::Bytes(_) => since = Instant::now(),
            Progress::End => break,
            Progress::Waiting => assert!(since.elapsed() < STUCK, "a stream is stuck at {}", out.len()),
        }
    }
    Ok(out)
}

/// A key ring's file.
pub fn key_ring(dir: &std::path::Path, id: &str, secret: u8) -> String {
    let encoded = base64(&[secret; 32]);
    let path = dir.join(format!("{id}-{secret}.json"));
    std::fs::write(&path, format!(r#"{{"active": "{id}", "keys": {{"{id}": "{encoded}"}}}}"#)).unwrap();
    path.display().to_string()
}

fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let letter = |word: u32, shift: u32| LETTERS[(word >> shift & 63) as usize] as char;
    let mut out = String::new();
    for three in bytes.chunks(3) {
        let word = three.iter().fold(0, |w, b| w << 8 | u32::from(*b)) << (8 * (3 - three.len()));
        (0..4).for_each(|i| out.push(if i <= three.len() { letter(word, 18 - 6 * i as u32) } else { '=' }));
    }
    out
}

pub fn kind_of<T: std::fmt::Debug>(outcome: Result<T, Error>) -> varve_rsm::Kind {
    outcome.unwrap_err().kind
}

/// How many calls run at once.
#[derive(Debug, Default)]
pub struct Gauge {
    now: AtomicU64,
    most: AtomicU64,
}

impl Gauge {
    async fn run<T>(&self, call: impl Future<Output = T>) -> T {
        let now = self.now.fetch_add(1, Ordering::Relaxed) + 1;
        self.most.fetch_max(now, Ordering::Relaxed);
        let done = call.await;
        self.now.fetch_sub(1, Ordering::Relaxed);
        done
    }

    pub fn most(&self) -> u64 {
        self.most.load(Ordering::Relaxed)
    }
}

/// A store that panics where it is told to, has other limits, or tells how many GETs were under way at once.
#[derive(Debug)]
pub struct Hooked {
    pub store: SharedStore,
    pub panics: Arc<AtomicBool>,
    pub limits: Option<Limits>,
    pub gets: Arc<Gauge>,
}

impl Hooked {
    pub fn over(store: SharedStore) -> Self {
        Self { store, panics: Default::default(), limits: None, gets: Default::default() }
    }

    fn maybe(&self) {
        assert!(!self.panics.load(Ordering::Relaxed), "a defect, for the test");
    }
}

#[async_trait]
impl Store for Hooked {
    fn url(&self) -> &str {
        self.store.url()
    }

    fn limits(&self) -> Limits {
        self.limits.unwrap_or_else(|| self.store.limits())
    }

    async fn put(&self, key: &Key, body: Bytes, options: &PutOptions) -> StoreResult<ObjectMeta> {
        let put = self.store.put(key, body, options).await;
        self.maybe();
        put
    }

    async fn upload(
        &self,
        key: &Key,
        part_bytes: u64,
        size_bytes: Option<u64>,
        options: &PutOptions,
    ) -> StoreResult<Arc<dyn Upload>> {
        let upload = self.store.upload(key, part_bytes, size_bytes, options).await;
        self.maybe();
        upload
    }

    async fn get(&self, key: &Key, range: GetRange) -> StoreResult<GetResult> {
        self.maybe();
        self.gets.run(self.store.get(key, range)).await
    }

    async fn head(&self, key: &Key) -> StoreResult<ObjectMeta> {
        self.store.head(key).await
    }

    async fn list(&self, prefix: &str, after: Option<&Key>, max_keys: usize) -> StoreResult<ListPage> {
        self.store.list(prefix, after, max_keys).await
    }

    async fn delete_many(&self, keys: &[Key]) -> StoreResult<Vec<StoreResult<()>>> {
        self.store.delete_many(keys).await
    }

    async fn copy(&self, from: &Key, to: &Key, options: &PutOptions) -> StoreResult<ObjectMeta> {
        self.store.copy(from, to, options).await
    }

    async fn list_uploads(&self, prefix: &str) -> StoreResult<Vec<PendingUpload>> {
        self.store.list_uploads(prefix).await
    }

    async fn abort_upload(&self, upload: &PendingUpload) -> StoreResult<()> {
        self.store.abort_upload(upload).await
    }

    async fn versions(&self) -> StoreResult<Option<Arc<dyn varve_store::Versions>>> {
        self.store.versions().await
    }
}
