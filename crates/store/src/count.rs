//! A decorator that counts calls, failures, bytes and time of each operation: for metrics and benches.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;

use crate::contract::{
    GetRange, GetResult, Limits, ListPage, ObjectMeta, PendingUpload, PutOptions, Result, SharedStore, Store,
    Upload,
};
use crate::key::Key;
use crate::operation::Operation;
use crate::versions::{VersionPage, Versions};

/// Upper bounds of all buckets of latencies but the last, which has none.
pub const LATENCY_BUCKETS_SECONDS: [f64; 12] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0];

const BUCKETS: usize = LATENCY_BUCKETS_SECONDS.len() + 1;

/// What was counted of one operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OperationCount {
    pub operation: Operation,
    pub calls: u64,
    /// Calls that failed; of `get`, also bodies that broke.
    pub errors: u64,
    /// Given to the store.
    pub sent_bytes: u64,
    /// Taken from the store.
    pub received_bytes: u64,
    /// Summed over all calls; of `get`, until the body begins.
    pub duration: Duration,
    /// Calls by duration, one for each of [`LATENCY_BUCKETS_SECONDS`] and one for what took longer.
    pub latencies: [u64; BUCKETS],
}

#[derive(Default)]
struct Counter {
    calls: AtomicU64,
    errors: AtomicU64,
    sent_bytes: AtomicU64,
    received_bytes: AtomicU64,
    nanos: AtomicU64,
    latencies: [AtomicU64; BUCKETS],
}

/// The counters of a [`CountingStore`], to be read at any time.
#[derive(Default)]
pub struct Counts([Counter; Operation::ALL.len()]);

impl Counts {
    pub fn of(&self, operation: Operation) -> OperationCount {
        let counter = &self.0[operation as usize];
        let read = |value: &AtomicU64| value.load(Ordering::Relaxed);
        OperationCount {
            operation,
            calls: read(&counter.calls),
            errors: read(&counter.errors),
            sent_bytes: read(&counter.sent_bytes),
            received_bytes: read(&counter.received_bytes),
            duration: Duration::from_nanos(read(&counter.nanos)),
            latencies: std::array::from_fn(|bucket| read(&counter.latencies[bucket])),
        }
    }

    pub fn all(&self) -> Vec<OperationCount> {
        Operation::ALL.iter().map(|&operation| self.of(operation)).collect()
    }

    /// Calls of all operations.
    pub fn calls(&self) -> u64 {
        self.0.iter().map(|counter| counter.calls.load(Ordering::Relaxed)).sum()
    }

    fn add(&self, operation: Operation, sent: usize, started: Instant, failed: bool) {
        let counter = &self.0[operation as usize];
        counter.calls.fetch_add(1, Ordering::Relaxed);
        counter.errors.fetch_add(u64::from(failed), Ordering::Relaxed);
        counter.sent_bytes.fetch_add(sent as u64, Ordering::Relaxed);
        let took = started.elapsed();
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        counter.nanos.fetch_add(nanos, Ordering::Relaxed);
        let bucket = LATENCY_BUCKETS_SECONDS.partition_point(|bound| *bound < took.as_secs_f64());
        counter.latencies[bucket].fetch_add(1, Ordering::Relaxed);
    }

    async fn watch<T>(
        &self,
        operation: Operation,
        sent: usize,
        call: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let started = Instant::now();
        let outcome = call.await;
        self.add(operation, sent, started, outcome.is_err());
        outcome
    }
}

impl Counts {
    async fn watch_body(self: &Arc<Self>, got: impl Future<Output = Result<GetResult>>) -> Result<GetResult> {
        let got = self.watch(Operation::Get, 0, got).await?;
        let counts = Arc::clone(self);
        let body = got.body.inspect(move |piece| {
            let counter = &counts.0[Operation::Get as usize];
            match piece {
                Ok(piece) => counter.received_bytes.fetch_add(piece.len() as u64, Ordering::Relaxed),
                Err(_) => counter.errors.fetch_add(1, Ordering::Relaxed),
            };
        });
        Ok(GetResult { body: body.boxed(), ..got })
    }
}

impl fmt::Debug for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.all()).finish()
    }
}

/// See the module.
#[derive(Clone, Debug)]
pub struct CountingStore {
    inner: SharedStore,
    counts: Arc<Counts>,
}

impl CountingStore {
    pub fn new(inner: SharedStore) -> Self {
        Self { inner, counts: Arc::default() }
    }

    pub fn counts(&self) -> &Arc<Counts> {
        &self.counts
    }
}

#[async_trait]
impl Store for CountingStore {
    fn url(&self) -> &str {
        self.inner.url()
    }

    fn limits(&self) -> Limits {
        self.inner.limits()
    }

    async fn put(&self, key: &Key, body: Bytes, options: &PutOptions) -> Result<ObjectMeta> {
        self.counts.watch(Operation::Put, body.len(), self.inner.put(key, body, options)).await
    }

    async fn upload(
        &self,
        key: &Key,
        part_bytes: u64,
        size_bytes: Option<u64>,
        options: &PutOptions,
    ) -> Result<Arc<dyn Upload>> {
        let begun = self.inner.upload(key, part_bytes, size_bytes, options);
        let inner = self.counts.watch(Operation::Upload, 0, begun).await?;
        Ok(Arc::new(CountingUpload { inner, counts: Arc::clone(&self.counts) }))
    }

    async fn get(&self, key: &Key, range: GetRange) -> Result<GetResult> {
        self.counts.watch_body(self.inner.get(key, range)).await
    }

    async fn head(&self, key: &Key) -> Result<ObjectMeta> {
        self.counts.watch(Operation::Head, 0, self.inner.head(key)).await
    }

    async fn list(&self, prefix: &str, start_after: Option<&Key>, max_keys: usize) -> Result<ListPage> {
        self.counts.watch(Operation::List, 0, self.inner.list(prefix, start_after, max_keys)).await
    }

    async fn delete_many(&self, keys: &[Key]) -> Result<Vec<Result<()>>> {
        self.counts.watch(Operation::DeleteMany, 0, self.inner.delete_many(keys)).await
    }

    async fn copy(&self, from: &Key, to: &Key, options: &PutOptions) -> Result<ObjectMeta> {
        self.counts.watch(Operation::Copy, 0, self.inner.copy(from, to, options)).await
    }

    async fn list_uploads(&self, prefix: &str) -> Result<Vec<PendingUpload>> {
        self.counts.watch(Operation::ListUploads, 0, self.inner.list_uploads(prefix)).await
    }

    async fn abort_upload(&self, upload: &PendingUpload) -> Result<()> {
        self.counts.watch(Operation::AbortUpload, 0, self.inner.abort_upload(upload)).await
    }

    async fn versions(&self) -> Result<Option<Arc<dyn Versions>>> {
        let inner = self.counts.watch(Operation::Versions, 0, self.inner.versions()).await?;
        let counts = Arc::clone(&self.counts);
        Ok(inner.map(|inner| Arc::new(CountingVersions { inner, counts }) as Arc<dyn Versions>))
    }
}

#[derive(Debug)]
struct CountingVersions {
    inner: Arc<dyn Versions>,
    counts: Arc<Counts>,
}

#[async_trait]
impl Versions for CountingVersions {
    async fn list(&self, prefix: &str, start_after: Option<&Key>, max_keys: usize) -> Result<VersionPage> {
        self.counts.watch(Operation::List, 0, self.inner.list(prefix, start_after, max_keys)).await
    }

    async fn get(&self, key: &Key, version: &str, range: GetRange) -> Result<GetResult> {
        self.counts.watch_body(self.inner.get(key, version, range)).await
    }

    async fn head(&self, key: &Key, version: &str) -> Result<ObjectMeta> {
        self.counts.watch(Operation::Head, 0, self.inner.head(key, version)).await
    }

    async fn delete(&self, key: &Key, version: &str) -> Result<()> {
        self.counts.watch(Operation::DeleteMany, 0, self.inner.delete(key, version)).await
    }
}

#[derive(Debug)]
struct CountingUpload {
    inner: Arc<dyn Upload>,
    counts: Arc<Counts>,
}

#[async_trait]
impl Upload for CountingUpload {
    async fn put_part(&self, number: u32, body: Bytes) -> Result<()> {
        self.counts.watch(Operation::PutPart, body.len(), self.inner.put_part(number, body)).await
    }

    async fn complete(&self) -> Result<ObjectMeta> {
        self.counts.watch(Operation::Complete, 0, self.inner.complete()).await
    }

    async fn abort(&self) -> Result<()> {
        self.counts.watch(Operation::Abort, 0, self.inner.abort()).await
    }
}
