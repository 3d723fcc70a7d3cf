//! A store in a container of Azure Blob Storage, on Microsoft's SDK: its pipeline, identities and clients, and bare
//! requests through the same pipeline for what the clients lack (a checksum of a put, a read in one stream, a batch, a
//! synchronous copy).
//!
//! * **Retries** are ours alone (`retry`): the SDK's are off. Redirects are not followed.
//! * **Checksums.** Each body goes with its CRC64 (NVMe's polynomial) in `x-ms-content-crc64`; the store refuses a body
//!   that arrives altered, and it is sent again.
//! * **Create-if-absent** is `If-None-Match: *`. Each write carries an id of its own in its metadata
//!   (`x-ms-meta-varve_write`: names there are C# identifiers); where an answer was lost, that tells our success from
//!   another's.
//! * **Bodies** that break are read on from where they broke, by `If-Match` of the same object. The last bytes of an
//!   object are asked for by a `HEAD` first: Azure knows no range from the end.
//! * **Uploads** are blocks that a list makes into a blob. Whatever is written at a key throws away the blocks that
//!   other uploads of the same key have not committed: of uploads that create, that decides the race; one that
//!   overwrites fails as [`Kind::NotFound`] and has to be sent again.
//! * A crash leaves blocks that no list names. Azure shows and deletes them to nobody, and forgets them after a week.
//! * **Hierarchical namespaces** (Data Lake) hold folders and list in another order: refused where a listing shows it.

mod access;
mod batch;
mod body;
mod client;
mod config;
mod copy;
mod failure;
mod list;
mod sas_file;
mod settings;
mod signing;
mod tokens;
mod upload;
mod versions;
mod write;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use azure_core::http::headers::{HeaderName, Headers};
use azure_core::time::parse_rfc7231;
use bytes::Bytes;
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
pub(crate) use settings::SETTINGS;

const MIB: u64 = 1 << 20;
const VERSION_ID: &str = "x-ms-version-id";

/// See the module.
#[derive(Clone)]
pub struct AzureStore {
    inner: Arc<Inner>,
}

struct Inner {
    config: Config,
    client: Client,
    retry: Retry,
    /// An answer named a version: the account keeps them.
    keeps_versions: AtomicBool,
    /// Listings were looked through for versions.
    looked_for_versions: AtomicBool,
}

impl AzureStore {
    pub(crate) fn open(url: &Url, values: &Values<'_>) -> Result<Self> {
        let config = Config::parse(url, values)?;
        let client = Client::connect(&config)?;
        let retry = Retry::new(config.max_attempts, config.timeout);
        let (keeps_versions, looked_for_versions) = Default::default();
        let inner = Inner { config, client, retry, keeps_versions, looked_for_versions };
        Ok(Self { inner: Arc::new(inner) })
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

    /// The blob's name.
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

    fn limits(&self) -> Limits {
        Limits {
            min_part_bytes: 1,
            max_part_bytes: 4000 * MIB,
            max_parts: 50_000,
            max_put_bytes: 5000 * MIB,
            max_object_bytes: 50_000 * 4000 * MIB,
            preferred_part_bytes: self.config.part_bytes,
            preferred_parallel_parts: 4,
            lists_uploads: false,
            creates_hold_parts: None,
        }
    }

    /// The object's state, and the id of the write that made it.
    async fn examine(
        &self,
        key: &Key,
        version: Option<&str>,
        at: &At,
    ) -> Result<(ObjectMeta, Option<String>)> {
        let full = self.full(key, at)?;
        let request = || async {
            let answer = self.client.blob(&full, version)?.get_properties(None).await;
            answer.map_err(failure::of)
        };
        let answer = self.retry.run(at, 0, request).await?;
        let headers = answer.headers();
        let size_bytes = text(headers, "content-length").and_then(|length| length.parse().ok());
        let size_bytes =
            size_bytes.ok_or_else(|| at.error(Kind::Other, "the answer does not say the object's size"))?;
        let written_by = text(headers, "x-ms-meta-varve_write").map(str::to_owned);
        Ok((self.meta(key, size_bytes, headers), written_by))
    }

    /// What an answer's headers say of an object.
    fn meta(&self, key: &Key, size_bytes: u64, headers: &Headers) -> ObjectMeta {
        ObjectMeta {
            key: key.clone(),
            size_bytes,
            etag: text(headers, "etag").map(str::to_owned),
            version: self.version_of(headers),
            last_modified_ms: text(headers, "last-modified").and_then(millis).unwrap_or(0),
            storage_class: text(headers, "x-ms-access-tier").map(str::to_owned),
        }
    }

    fn version_of(&self, headers: &Headers) -> Option<String> {
        if let Some(version) = text(headers, VERSION_ID) {
            self.keeps_versions.store(true, Ordering::Relaxed);
            return Some(version.to_owned());
        }
        self.keeps_versions.load(Ordering::Relaxed).then(|| versions::BEFORE.to_owned())
    }
}

fn text<'a>(headers: &'a Headers, name: &'static str) -> Option<&'a str> {
    headers.get_optional_str(&HeaderName::from_static(name))
}

fn millis(http_date: &str) -> Option<i64> {
    let time = parse_rfc7231(http_date).ok()?;
    i64::try_from(time.unix_timestamp_nanos() / 1_000_000).ok()
}

impl fmt::Debug for AzureStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AzureStore").field("config", &self.inner.config).finish_non_exhaustive()
    }
}

#[async_trait]
impl Store for AzureStore {
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
        Ok(Arc::new(upload::AzureUpload::begin(&self.inner, key, part_bytes, size_bytes, options)?))
    }

    async fn get(&self, key: &Key, range: GetRange) -> Result<GetResult> {
        body::get(&self.inner, key, None, range).await
    }

    async fn head(&self, key: &Key) -> Result<ObjectMeta> {
        let at = self.inner.at("head", key.as_str());
        self.inner.examine(key, None, &at).await.map(|(meta, _)| meta)
    }

    async fn list(&self, prefix: &str, start_after: Option<&Key>, max_keys: usize) -> Result<ListPage> {
        list::page(&self.inner, prefix, start_after, max_keys).await
    }

    async fn delete_many(&self, keys: &[Key]) -> Result<Vec<Result<()>>> {
        batch::delete(&self.inner, keys).await
    }

    async fn copy(&self, from: &Key, to: &Key, options: &PutOptions) -> Result<ObjectMeta> {
        copy::copy(&self.inner, from, to, options).await
    }

    /// Blocks that no list names can't be asked for without a key, nor told apart by upload.
    async fn list_uploads(&self, _: &str) -> Result<Vec<PendingUpload>> {
        Ok(Vec::new())
    }

    async fn abort_upload(&self, _: &PendingUpload) -> Result<()> {
        Ok(())
    }

    async fn versions(&self) -> Result<Option<Arc<dyn Versions>>> {
        versions::kept(&self.inner).await
    }
}
