//! The RemoteStorageManager: what the shim calls, whatever thread it calls from.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime};

use futures::FutureExt as _;
use parking_lot::Mutex;
use tokio::runtime::Runtime;
use varve_format::ExtentKind;
use varve_store::SharedStore;

use crate::budget::Budget;
use crate::buffers::Buffers;
use crate::config::Config;
use crate::copy::Copier;
use crate::error::{Error, Kind, Result};
use crate::keys::Keys;
use crate::logging;
use crate::metrics::Metrics;
use crate::metrics::beans::{Bean, Memory};
use crate::operation::Operation;
use crate::read::fetch::Reader;
use crate::read::segment::{Segment, Segments, check_store, object_key};
use crate::read::stream::LogStream;
use crate::sweep::Sweep;
use crate::wire::{CopyRequest, SegmentMetadata};

/// How long closing waits for what is in flight.
const CLOSE: Duration = Duration::from_secs(10);

pub struct Rsm {
    runtime: Mutex<Option<Runtime>>,
    metrics: Arc<Metrics>,
    copier: Arc<Copier>,
    reader: Arc<Reader>,
    operations: Mutex<Vec<Weak<Operation>>>,
}

impl Rsm {
    /// Checks the configuration and opens the store. No request is made but what the store needs to open.
    pub fn open(given: &BTreeMap<String, String>) -> Result<Self> {
        let config = Config::parse(given)?;
        logging::install(config.log_debug);
        let (runtime, store) = Self::connect(&config)?;
        Self::assemble(config, runtime, store)
    }

    /// Over a store that the caller wraps: to count its requests, or to make it fail.
    pub fn with_store(
        given: &BTreeMap<String, String>,
        wrap: impl FnOnce(SharedStore) -> SharedStore,
    ) -> Result<Self> {
        let config = Config::parse(given)?;
        let (runtime, store) = Self::connect(&config)?;
        Self::assemble(config, runtime, wrap(store))
    }

    fn connect(config: &Config) -> Result<(Runtime, SharedStore)> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(config.runtime_threads)
            .thread_name("varve-io")
            .enable_all()
            .build()
            .map_err(|e| Error::internal("starting threads", e))?;
        let opening = varve_store::open(&config.store_url, config.store_settings());
        let store = runtime.block_on(opening).map_err(|e| {
            Error::new(Kind::Config, format!("store.url={}: {e}", varve_store::shown_url(&config.store_url)))
        })?;
        Ok((runtime, store))
    }

    fn assemble(config: Config, runtime: Runtime, store: SharedStore) -> Result<Self> {
        let config = Arc::new(config);
        let keys = Arc::new(Keys::new(&config, store.clone())?);
        let metrics = Arc::new(Metrics::default());
        let sweep = Sweep::new(config.clone(), store.clone(), metrics.clone());
        runtime.spawn(sweep.clone().run());
        let copier = Arc::new(Copier {
            config: config.clone(),
            store: store.clone(),
            keys: keys.clone(),
            buffers: Buffers::new(Budget::new(config.copy_memory_bytes)),
            sweep,
        });
        // An eighth of the cache's memory is for footers.
        let footers = config.cache_memory_bytes / 8;
        let reader = Arc::new(Reader {
            store,
            keys,
            metrics: metrics.clone(),
            runtime: runtime.handle().clone(),
            cache: Default::default(),
            budget: Budget::new(config.cache_memory_bytes - footers),
            segments: Segments::new(footers),
            tracker: Default::default(),
            active: Default::default(),
            share: AtomicU64::new(u64::MAX / 2),
            closed: Default::default(),
            config: config.clone(),
        });
        tracing::info!(target: "varve", "varve {} is open: {}", env!("CARGO_PKG_VERSION"), config.describe());
        Ok(Self { runtime: Mutex::new(Some(runtime)), metrics, copier, reader, operations: Mutex::default() })
    }

    /// Cancels what is in flight, waits a bounded time for it, and frees the memory. Again is fine.
    pub fn close(&self) {
        let Some(runtime) = self.runtime.lock().take() else { return };
        self.reader.closed.store(true, Ordering::Release);
        let operations = std::mem::take(&mut *self.operations.lock());
        operations.iter().filter_map(Weak::upgrade).for_each(|op| op.cancel.set());
        let deadline = std::time::Instant::now() + CLOSE;
        for operation in operations.iter().filter_map(Weak::upgrade) {
            operation.wait(deadline.saturating_duration_since(std::time::Instant::now()));
        }
        runtime.shutdown_timeout(Duration::from_secs(2));
        self.reader.cache.clear();
        tracing::info!(target: "varve", "varve is closed");
    }

    pub fn copy(&self, request: CopyRequest) -> Result<Arc<Operation>> {
        let (copier, metrics) = (self.copier.clone(), self.metrics.clone());
        let (bytes, topic) =
            (u64::from(request.metadata.segment_bytes), metrics.topic(&request.metadata.topic));
        self.start(|operation| async move {
            let running = metrics.copy.begin();
            let outcome = copier.copy(request, operation.cancel.clone(), now_ms()).await;
            running.end(&outcome);
            let count = |counter: &AtomicU64, n| counter.fetch_add(n, Ordering::Relaxed);
            match &outcome {
                Ok(_) => {
                    metrics.copy.add_bytes(bytes);
                    count(&topic.copied_bytes, bytes);
                    count(&topic.copied_segments, 1);
                }
                Err(_) => {
                    count(&topic.copy_errors, 1);
                }
            }
            outcome.map(Some)
        })
    }

    pub fn fetch_index(&self, metadata: &SegmentMetadata, kind: ExtentKind) -> Result<Arc<Operation>> {
        let segment = self.segment(metadata)?;
        let (reader, metrics) = (self.reader.clone(), self.metrics.clone());
        self.start(|operation| async move {
            let running = metrics.fetch_index.begin();
            let outcome =
                operation.cancel.run("the index fetch", reader.index(&segment, kind)).await.and_then(|o| o);
            running.end(&outcome);
            match outcome? {
                Some(bytes) => {
                    metrics.fetch_index.add_bytes(bytes.len() as u64);
                    Ok(Some(bytes))
                }
                None => Err(Error::new(
                    Kind::NotFound,
                    format!("{}: the segment has no {}", segment.place, kind.name()),
                )),
            }
        })
    }

    /// A lazy stream over log bytes `start..=end_inclusive`.
    pub fn open_stream(
        &self,
        metadata: &SegmentMetadata,
        start: u64,
        end_inclusive: u64,
    ) -> Result<LogStream> {
        self.check_open()?;
        let segment = self.segment(metadata)?;
        Ok(LogStream::new(self.reader.clone(), segment, start, end_inclusive.saturating_add(1)))
    }

    pub fn delete(&self, metadata: &SegmentMetadata) -> Result<Arc<Operation>> {
        let key = object_key(&self.copier.config, metadata)?;
        // Custom metadata that can't be read is no reason to leave the object; a reference to an archive is.
        let custom = metadata.custom.as_deref().map(varve_format::CustomMetadata::decode);
        let archived = matches!(&custom, Some(Ok(c)) if c.archive.is_some());
        if let Some(Ok(custom)) = &custom
            && !archived
        {
            // To say that it was deleted would lose it where it is.
            check_store(&self.copier.config, custom, &format!("{}/{key}", self.copier.config.store_url))?;
        }
        let (reader, metrics, id) = (self.reader.clone(), self.metrics.clone(), metadata.segment_id);
        self.start(|operation| async move {
            if let Some(segment) = reader.segments.remove(id) {
                reader.cache.purge(segment.object());
            }
            if archived {
                return Ok(None);
            }
            let running = metrics.delete.begin();
            let outcome =
                operation.cancel.run("the deletion", varve_store::delete(&*reader.store, &key)).await;
            let outcome = outcome.and_then(|o| o.map_err(Error::from));
            running.end(&outcome);
            outcome.map(|()| None)
        })
    }

    pub fn beans(&self) -> Vec<Bean> {
        let (copy, cache) = (&self.copier.buffers.budget, &self.reader.budget);
        self.metrics.beans(Memory {
            copy_used_bytes: copy.used(),
            copy_max_bytes: copy.total(),
            cache_used_bytes: cache.used(),
            cache_max_bytes: cache.total(),
        })
    }

    fn segment(&self, metadata: &SegmentMetadata) -> Result<Arc<Segment>> {
        self.reader.segments.get(&self.reader.config, metadata)
    }

    fn check_open(&self) -> Result<()> {
        match &*self.runtime.lock() {
            Some(_) => Ok(()),
            None => Err(closed()),
        }
    }

    /// Runs work on the runtime; whatever becomes of it, the operation ends.
    fn start<F>(&self, work: impl FnOnce(Arc<Operation>) -> F) -> Result<Arc<Operation>>
    where
        F: Future<Output = Result<Option<Vec<u8>>>> + Send + 'static,
    {
        let operation = Arc::new(Operation::default());
        let runtime = self.runtime.lock();
        let runtime = runtime.as_ref().ok_or_else(closed)?;
        {
            let mut operations = self.operations.lock();
            operations.retain(|op| op.strong_count() > 0);
            operations.push(Arc::downgrade(&operation));
        }
        let end = End(operation.clone());
        let work = AssertUnwindSafe(work(operation.clone())).catch_unwind();
        runtime.spawn(async move {
            let outcome =
                work.await.unwrap_or_else(|panic| Err(Error::internal("panic", panic_text(&*panic))));
            end.0.finish(outcome);
        });
        Ok(operation)
    }
}

impl Drop for Rsm {
    fn drop(&mut self) {
        self.close();
    }
}

/// Ends an operation whose task was dropped.
struct End(Arc<Operation>);

impl Drop for End {
    fn drop(&mut self) {
        self.0.finish(Err(closed()));
    }
}

fn closed() -> Error {
    Error::new(Kind::Closed, "the RemoteStorageManager is closed")
}

pub fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|s| (*s).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "panic".to_owned())
}

fn now_ms() -> i64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_millis() as i64)
}
