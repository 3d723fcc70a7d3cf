//! A store in this process's memory: for tests, and as the plainest reading of the contract.
//!
//! With [`MemoryStore::versioned`] it keeps versions, as a bucket may.
//!
//! `memory://name` names one store for the life of the process: whoever opens it again finds what was put.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::{StreamExt, stream};
use parking_lot::Mutex;

use crate::contract::{
    Create, GetRange, GetResult, Limits, ListPage, ObjectMeta, PendingUpload, PutOptions, Result, Store,
    Upload,
};
use crate::error::{Error, Kind};
use crate::key::Key;
use crate::parts::PartPlan;
use crate::versions::{KeyVersions, NewestFirst, Version, VersionPage, Versions};

const LIMITS: Limits = Limits {
    min_part_bytes: 1,
    max_part_bytes: 1 << 40,
    max_parts: 1_000_000,
    max_put_bytes: 1 << 40,
    max_object_bytes: 1 << 50,
    preferred_part_bytes: 1 << 20,
    preferred_parallel_parts: 4,
    lists_uploads: true,
    creates_hold_parts: None,
};

/// Bodies are handed out in pieces of this size, as a network would.
const PIECE_BYTES: usize = 256 << 10;

static STORES: LazyLock<Mutex<HashMap<String, Arc<Shelf>>>> = LazyLock::new(Mutex::default);

/// See the module.
#[derive(Clone)]
pub struct MemoryStore {
    url: String,
    shelf: Arc<Shelf>,
}

#[derive(Default)]
struct Shelf {
    /// The oldest version first; one alone where none are kept.
    objects: Mutex<BTreeMap<Key, Vec<Stored>>>,
    keeps_versions: bool,
    uploads: Mutex<BTreeMap<String, PendingUpload>>,
    sequence: AtomicU64,
}

#[derive(Clone)]
struct Stored {
    body: Bytes,
    meta: ObjectMeta,
    delete_marker: bool,
}

/// The object that a plain read finds.
fn current(versions: &[Stored]) -> Option<&Stored> {
    versions.last().filter(|stored| !stored.delete_marker)
}

impl MemoryStore {
    /// A store of its own, that no URL names.
    pub fn new() -> Self {
        Self { url: "memory://".to_owned(), shelf: Arc::default() }
    }

    /// The same, of a store that keeps versions.
    pub fn versioned() -> Self {
        let shelf = Shelf { keeps_versions: true, ..Shelf::default() };
        Self { url: "memory://".to_owned(), shelf: Arc::new(shelf) }
    }

    /// The store of this name in this process.
    pub fn named(name: &str) -> Self {
        let shelf = Arc::clone(STORES.lock().entry(name.to_owned()).or_default());
        Self { url: format!("memory://{name}"), shelf }
    }

    fn error(&self, kind: Kind, operation: &str, name: &str, detail: impl Into<String>) -> Error {
        Error::new(kind, operation, format!("{}/{name}", self.url), detail)
    }

    fn store(&self, operation: &str, key: &Key, body: Bytes, options: &PutOptions) -> Result<ObjectMeta> {
        let sequence = self.shelf.sequence.fetch_add(1, Ordering::Relaxed);
        let meta = ObjectMeta {
            key: key.clone(),
            size_bytes: body.len() as u64,
            etag: Some(format!("{sequence:x}")),
            version: self.shelf.keeps_versions.then(|| format!("v{sequence}")),
            last_modified_ms: now_ms(),
            storage_class: options.storage_class.clone(),
        };
        let mut objects = self.shelf.objects.lock();
        let versions = objects.entry(key.clone()).or_default();
        if options.create == Create::IfAbsent && current(versions).is_some() {
            return Err(self.error(Kind::AlreadyExists, operation, key.as_str(), "the object exists"));
        }
        if !self.shelf.keeps_versions {
            versions.clear();
        }
        versions.push(Stored { body, meta: meta.clone(), delete_marker: false });
        Ok(meta)
    }

    fn mark_deleted(&self, key: &Key) -> Stored {
        let sequence = self.shelf.sequence.fetch_add(1, Ordering::Relaxed);
        let meta = ObjectMeta {
            key: key.clone(),
            size_bytes: 0,
            etag: None,
            version: Some(format!("v{sequence}")),
            last_modified_ms: now_ms(),
            storage_class: None,
        };
        Stored { body: Bytes::new(), meta, delete_marker: true }
    }

    fn stored_version(&self, operation: &str, key: &Key, version: &str) -> Result<Stored> {
        let objects = self.shelf.objects.lock();
        let versions = objects.get(key).map_or(&[][..], Vec::as_slice);
        let found = versions.iter().find(|s| !s.delete_marker && s.meta.version.as_deref() == Some(version));
        let absent = || {
            let detail = format!("no such object of version {version}");
            self.error(Kind::NotFound, operation, key.as_str(), detail)
        };
        found.cloned().ok_or_else(absent)
    }

    fn deliver(&self, stored: Stored, range: GetRange) -> Result<GetResult> {
        let size = stored.meta.size_bytes;
        let Some(resolved) = range.resolve(size) else {
            let detail = format!("{range:?} of an object of {size} bytes");
            return Err(self.error(Kind::InvalidRange, "get", stored.meta.key.as_str(), detail));
        };
        let mut rest = stored.body.slice(resolved.start as usize..resolved.end as usize);
        let pieces = std::iter::from_fn(move || {
            (!rest.is_empty()).then(|| Ok(rest.split_to(rest.len().min(PIECE_BYTES))))
        });
        Ok(GetResult {
            range: resolved,
            object_size_bytes: Some(size),
            etag: stored.meta.etag,
            version: stored.meta.version,
            body: stream::iter(pieces).boxed(),
        })
    }

    fn stored(&self, operation: &str, key: &Key) -> Result<Stored> {
        let found = self.shelf.objects.lock().get(key).and_then(|versions| current(versions).cloned());
        found.ok_or_else(|| self.error(Kind::NotFound, operation, key.as_str(), "no such object"))
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MemoryStore").field("url", &self.url).finish_non_exhaustive()
    }
}

#[async_trait]
impl Store for MemoryStore {
    fn url(&self) -> &str {
        &self.url
    }

    fn limits(&self) -> Limits {
        LIMITS
    }

    async fn put(&self, key: &Key, body: Bytes, options: &PutOptions) -> Result<ObjectMeta> {
        // A copy: the caller's memory may be a buffer that others wait for.
        self.store("put", key, Bytes::copy_from_slice(&body), options)
    }

    async fn upload(
        &self,
        key: &Key,
        part_bytes: u64,
        size_bytes: Option<u64>,
        options: &PutOptions,
    ) -> Result<Arc<dyn Upload>> {
        let plan = PartPlan::new(&LIMITS, part_bytes, size_bytes)
            .map_err(|flaw| self.error(Kind::Invalid, "upload", key.as_str(), flaw))?;
        let id = format!("upload-{}", self.shelf.sequence.fetch_add(1, Ordering::Relaxed));
        let pending = PendingUpload { key: key.clone(), id: id.clone(), started_ms: Some(now_ms()) };
        self.shelf.uploads.lock().insert(id.clone(), pending);
        let (store, key, options) = (self.clone(), key.clone(), options.clone());
        Ok(Arc::new(MemoryUpload { store, key, id, plan, options, parts: Mutex::default() }))
    }

    async fn get(&self, key: &Key, range: GetRange) -> Result<GetResult> {
        self.deliver(self.stored("get", key)?, range)
    }

    async fn head(&self, key: &Key) -> Result<ObjectMeta> {
        Ok(self.stored("head", key)?.meta)
    }

    async fn list(&self, prefix: &str, start_after: Option<&Key>, max_keys: usize) -> Result<ListPage> {
        let objects = self.shelf.objects.lock();
        let mut found = objects
            .range::<str, _>((from(prefix, start_after), Bound::Unbounded))
            .take_while(|(key, _)| key.as_str().starts_with(prefix))
            .filter_map(|(_, versions)| current(versions).map(|stored| stored.meta.clone()));
        let page = found.by_ref().take(max_keys.max(1)).collect();
        Ok(ListPage { objects: page, more: found.next().is_some() })
    }

    async fn delete_many(&self, keys: &[Key]) -> Result<Vec<Result<()>>> {
        let mut objects = self.shelf.objects.lock();
        for key in keys {
            if self.shelf.keeps_versions {
                objects.entry(key.clone()).or_default().push(self.mark_deleted(key));
            } else {
                objects.remove(key);
            }
        }
        Ok(keys.iter().map(|_| Ok(())).collect())
    }

    async fn copy(&self, from: &Key, to: &Key, options: &PutOptions) -> Result<ObjectMeta> {
        let body = self.stored("copy", from)?.body;
        self.store("copy", to, body, options)
    }

    async fn list_uploads(&self, prefix: &str) -> Result<Vec<PendingUpload>> {
        let uploads = self.shelf.uploads.lock();
        Ok(uploads.values().filter(|u| u.key.as_str().starts_with(prefix)).cloned().collect())
    }

    async fn abort_upload(&self, upload: &PendingUpload) -> Result<()> {
        self.shelf.uploads.lock().remove(&upload.id);
        Ok(())
    }

    async fn versions(&self) -> Result<Option<Arc<dyn Versions>>> {
        Ok(self.shelf.keeps_versions.then(|| Arc::new(MemoryVersions(self.clone())) as Arc<dyn Versions>))
    }
}

fn from<'a>(prefix: &'a str, start_after: Option<&'a Key>) -> Bound<&'a str> {
    match start_after {
        Some(key) if key.as_str() >= prefix => Bound::Excluded(key.as_str()),
        _ => Bound::Included(prefix),
    }
}

#[derive(Debug)]
struct MemoryVersions(MemoryStore);

#[async_trait]
impl Versions for MemoryVersions {
    async fn list(&self, prefix: &str, start_after: Option<&Key>, max_keys: usize) -> Result<VersionPage> {
        let objects = self.0.shelf.objects.lock();
        let mut found = objects
            .range::<str, _>((from(prefix, start_after), Bound::Unbounded))
            .take_while(|(key, _)| key.as_str().starts_with(prefix))
            .filter(|(_, versions)| !versions.is_empty())
            .map(|(key, versions)| told(key, versions));
        let keys = found.by_ref().take(max_keys.max(1)).collect();
        Ok(VersionPage { keys, more: found.next().is_some() })
    }

    async fn get(&self, key: &Key, version: &str, range: GetRange) -> Result<GetResult> {
        self.0.deliver(self.0.stored_version("get", key, version)?, range)
    }

    async fn head(&self, key: &Key, version: &str) -> Result<ObjectMeta> {
        Ok(self.0.stored_version("head", key, version)?.meta)
    }

    async fn delete(&self, key: &Key, version: &str) -> Result<()> {
        let mut objects = self.0.shelf.objects.lock();
        if let Some(versions) = objects.get_mut(key) {
            versions.retain(|stored| stored.meta.version.as_deref() != Some(version));
        }
        Ok(())
    }
}

fn told(key: &Key, versions: &[Stored]) -> KeyVersions {
    let mut told = NewestFirst::new(key.clone());
    for stored in versions.iter().rev() {
        told.push(Version {
            id: stored.meta.version.clone().unwrap_or_default(),
            delete_marker: stored.delete_marker,
            size_bytes: stored.meta.size_bytes,
            etag: stored.meta.etag.clone(),
            last_modified_ms: stored.meta.last_modified_ms,
            storage_class: stored.meta.storage_class.clone(),
        });
    }
    told.finish()
}

struct MemoryUpload {
    store: MemoryStore,
    key: Key,
    id: String,
    plan: PartPlan,
    options: PutOptions,
    parts: Mutex<BTreeMap<u32, Bytes>>,
}

impl std::fmt::Debug for MemoryUpload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MemoryUpload").field("key", &self.key).field("id", &self.id).finish_non_exhaustive()
    }
}

impl MemoryUpload {
    fn check_open(&self, operation: &str) -> Result<()> {
        if self.store.shelf.uploads.lock().contains_key(&self.id) {
            return Ok(());
        }
        let detail = "no such upload: it was completed or aborted";
        Err(self.store.error(Kind::NotFound, operation, self.key.as_str(), detail))
    }
}

#[async_trait]
impl Upload for MemoryUpload {
    async fn put_part(&self, number: u32, body: Bytes) -> Result<()> {
        let operation = format!("put part {number}");
        self.check_open(&operation)?;
        self.plan
            .check_part(number, body.len())
            .map_err(|flaw| self.store.error(Kind::Invalid, &operation, self.key.as_str(), flaw))?;
        self.parts.lock().insert(number, Bytes::copy_from_slice(&body));
        Ok(())
    }

    async fn complete(&self) -> Result<ObjectMeta> {
        self.check_open("complete")?;
        let sent = self.parts.lock().iter().map(|(&number, body)| (number, body.len() as u64)).collect();
        let size = self
            .plan
            .check_complete(&sent)
            .map_err(|flaw| self.store.error(Kind::Invalid, "complete", self.key.as_str(), flaw))?;
        let mut whole = BytesMut::with_capacity(size as usize);
        for part in self.parts.lock().values() {
            whole.extend_from_slice(part);
        }
        let meta = self.store.store("complete", &self.key, whole.freeze(), &self.options)?;
        self.store.shelf.uploads.lock().remove(&self.id);
        self.parts.lock().clear();
        Ok(meta)
    }

    async fn abort(&self) -> Result<()> {
        self.store.shelf.uploads.lock().remove(&self.id);
        self.parts.lock().clear();
        Ok(())
    }
}

pub(crate) fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
