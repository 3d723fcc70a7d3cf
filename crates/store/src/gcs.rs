//! A store in a bucket of Google Cloud Storage, over its JSON API: Google's own crate lists, deletes and copies by
//! gRPC alone, and takes neither a proxy nor certificates of ours (ADR 12).
//!
//! * **Retries** are ours alone (`retry`): the HTTP client's are off, and it follows no redirect.
//! * **Checksums.** Each put goes with its CRC32C, which the store checks before the object appears; an upload in
//!   parts sends that of the whole with its last bytes, and compares what the store made of them. Whole objects are
//!   checked when they are read.
//! * **Versions of content** are generations: they stand for ETags, and pin what is read on or copied.
//! * **Create-if-absent** is `ifGenerationMatch=0`. Each write carries an id of its own in its metadata
//!   (`varve-write`); where an answer was lost, that tells our success from another's.
//! * **Uploads** are one resumable stream each: parts go in order, whatever the order they come in.
//! * A crash leaves sessions of uploads that were begun. They can't be listed; the store forgets them after a week.

mod batch;
mod body;
mod client;
mod config;
mod copy;
mod credentials;
mod delete;
mod failure;
mod list;
mod resource;
mod session;
mod settings;
mod turns;
mod upload;
mod versions;
mod write;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use reqwest::Method;
use url::Url;

use crate::contract::{
    GetRange, GetResult, Limits, ListPage, ObjectMeta, PendingUpload, PutOptions, Result, Store, Upload,
};
use crate::error::{Error, Kind};
use crate::failure::At;
use crate::key::Key;
use crate::retry::Retry;
use crate::settings::Values;
use crate::versions::Versions;

use client::Client;
use config::Config;
use resource::{Object, encode};
pub(crate) use settings::SETTINGS;

/// See the module.
#[derive(Clone)]
pub struct GcsStore {
    inner: Arc<Inner>,
}

struct Inner {
    config: Config,
    client: Client,
    retry: Retry,
    /// Whether the bucket was found to keep versions: only then a generation outlives what replaces it.
    versioned: AtomicBool,
    /// The server was found not to know batches.
    has_no_batches: AtomicBool,
}

impl GcsStore {
    pub(crate) async fn open(url: &Url, values: &Values<'_>) -> Result<Self> {
        let config = Config::parse(url, values)?;
        let client = Client::connect(&config)?;
        let retry = Retry::new(config.max_attempts, config.timeout);
        let (versioned, has_no_batches) = Default::default();
        Ok(Self { inner: Arc::new(Inner { config, client, retry, versioned, has_no_batches }) })
    }

    /// What [`open`](Self::open) would refuse before it asks anyone.
    pub(crate) fn check(url: &Url, values: &Values<'_>) -> Option<Error> {
        Config::parse(url, values).err()
    }
}

impl Inner {
    fn at(&self, operation: impl Into<String>, name: &str) -> At {
        At { operation: operation.into(), object: format!("{}/{name}", self.config.url) }
    }

    /// The key in the bucket.
    fn full(&self, key: &Key, at: &At) -> Result<String> {
        let full = format!("{}{key}", self.config.prefix);
        if full.len() > Key::MAX_BYTES {
            let detail = format!(
                "with the store's prefix the key has {} bytes, at most 1,024 are allowed",
                full.len()
            );
            return Err(at.error(Kind::Invalid, detail));
        }
        Ok(full)
    }

    fn bucket(&self) -> String {
        format!("/b/{}", self.config.bucket)
    }

    fn bucket_path(&self) -> String {
        format!("/storage/v1{}", self.bucket())
    }

    fn object_path(&self, key: &Key, at: &At) -> Result<String> {
        Ok(format!("{}/o/{}", self.bucket_path(), encode(&self.full(key, at)?)))
    }

    /// With who pays, as it stands in a batch.
    fn path_with_query(&self, key: &Key, at: &At) -> Result<String> {
        Ok(format!("{}{}", self.object_path(key, at)?, self.query(&[])))
    }

    fn query(&self, query: &[(&str, Option<&str>)]) -> String {
        let payer = ("userProject", self.config.user_project.as_deref());
        let given = query.iter().copied().chain([payer]);
        let given = given.filter_map(|(name, value)| Some(format!("{name}={}", encode(value?))));
        let joined = given.collect::<Vec<_>>().join("&");
        if joined.is_empty() { joined } else { format!("?{joined}") }
    }

    /// `path` is encoded, `query` is not.
    fn url(&self, path: &str, query: &[(&str, Option<&str>)], at: &At) -> Result<Url> {
        let url = self.config.endpoint.at(&format!("{path}{}", self.query(query)));
        url.map_err(|error| at.error(Kind::Invalid, format!("this makes no address: {error}")))
    }

    fn keeps_versions(&self) -> bool {
        self.versioned.load(Ordering::Relaxed)
    }

    fn learn_of_versions(&self) {
        self.versioned.store(true, Ordering::Relaxed);
    }

    fn limits(&self) -> Limits {
        Limits {
            min_part_bytes: session::QUANTUM_BYTES,
            max_part_bytes: settings::PART_BYTES_MAX,
            max_parts: 100_000,
            max_put_bytes: 5 << 30,
            max_object_bytes: 5 << 40,
            preferred_part_bytes: self.config.part_bytes,
            // One on its way, one ready to follow.
            preferred_parallel_parts: 2,
            lists_uploads: false,
            creates_hold_parts: Some(turns::HELD_MAX),
        }
    }

    async fn examine(&self, key: &Key, version: Option<&str>, at: &At) -> Result<Object> {
        let url = self.url(&self.object_path(key, at)?, &[("generation", version)], at)?;
        let request = || async { self.client.ask(self.client.request(Method::GET, url.clone())).await };
        self.retry.run(at, 0, request).await
    }
}

impl fmt::Debug for GcsStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GcsStore").field("config", &self.inner.config).finish_non_exhaustive()
    }
}

#[async_trait]
impl Store for GcsStore {
    fn url(&self) -> &str {
        &self.inner.config.url
    }

    fn limits(&self) -> Limits {
        self.inner.limits()
    }

    async fn put(&self, key: &Key, body: Bytes, options: &PutOptions) -> Result<ObjectMeta> {
        self.inner.put(key, body, options).await
    }

    async fn upload(
        &self,
        key: &Key,
        part_bytes: u64,
        size_bytes: Option<u64>,
        options: &PutOptions,
    ) -> Result<Arc<dyn Upload>> {
        let upload = upload::GcsUpload::begin(&self.inner, key, part_bytes, size_bytes, options).await?;
        Ok(Arc::new(upload))
    }

    async fn get(&self, key: &Key, range: GetRange) -> Result<GetResult> {
        body::get(&self.inner, key, None, range).await
    }

    async fn head(&self, key: &Key) -> Result<ObjectMeta> {
        let at = self.inner.at("head", key.as_str());
        Ok(self.inner.examine(key, None, &at).await?.meta(key.clone(), self.inner.keeps_versions()))
    }

    async fn list(&self, prefix: &str, start_after: Option<&Key>, max_keys: usize) -> Result<ListPage> {
        self.inner.list(prefix, start_after, max_keys).await
    }

    async fn delete_many(&self, keys: &[Key]) -> Result<Vec<Result<()>>> {
        self.inner.delete_many(keys).await
    }

    async fn copy(&self, from: &Key, to: &Key, options: &PutOptions) -> Result<ObjectMeta> {
        copy::copy(&self.inner, from, to, options).await
    }

    async fn list_uploads(&self, _prefix: &str) -> Result<Vec<PendingUpload>> {
        Ok(Vec::new())
    }

    async fn abort_upload(&self, pending: &PendingUpload) -> Result<()> {
        let at = self.inner.at("abort upload", pending.key.as_str());
        Err(at.error(Kind::Unsupported, "uploads here have no ids by which others could abort them"))
    }

    async fn versions(&self) -> Result<Option<Arc<dyn Versions>>> {
        versions::kept(&self.inner).await
    }
}
