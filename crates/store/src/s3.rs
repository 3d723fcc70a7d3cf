//! A store in an S3 bucket, on the AWS SDK: AWS and every server that speaks its protocol.
//!
//! * **Retries** are ours alone (`retry`): the SDK's are off.
//! * **Checksums.** Each body goes with its CRC32C as a header, computed once here; the store refuses a body that
//!   arrives altered. Bodies are not hashed a second time for the signature: over https that is TLS's work, and
//!   over plain http the signed CRC32C header covers accidents (nothing covers malice there).
//! * **Create-if-absent** is `If-None-Match: *`. Each write carries an id of its own in its metadata
//!   (`x-amz-meta-varve-write`); where an answer was lost, that tells our success from another's.
//! * **Bodies** that break are read on from where they broke, by `If-Match` of the same object.
//! * **Listings get on** or are an error: no server keeps us for ever (`onward`), or has callers read again what they
//!   read, by a page that goes back.
//! * A server without batches of deletes is found by its refusal; then keys are deleted one by one.
//! * A crash leaves uploads that were begun: `list_uploads` shows them, and the bucket's lifecycle rule for
//!   incomplete uploads removes them.

mod body;
mod client;
mod copy;
mod failure;
mod onward;
mod settings;
mod upload;
mod versions;
mod write;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use aws_sdk_s3::types::{Delete, ObjectIdentifier};
use bytes::Bytes;
use futures::{StreamExt, stream};
use url::Url;

use crate::contract::{
    GetRange, GetResult, Limits, ListPage, ObjectMeta, PendingUpload, PutOptions, Result, Store, Upload,
};
use crate::create::ID_METADATA;
use crate::error::{Error, Kind};
use crate::failure::{At, Failure};
use crate::key::Key;
use crate::retry::Retry;
use crate::settings::Values;
use crate::versions::Versions;

use client::Config;
use onward::Onward;
pub(crate) use settings::SETTINGS;

const DELETE_BATCH: usize = 1000;
/// Deletes at once where the server knows no batches.
const PARALLEL_DELETES: usize = 16;

/// See the module.
#[derive(Clone)]
pub struct S3Store {
    inner: Arc<Inner>,
}

struct Inner {
    config: Config,
    client: aws_sdk_s3::Client,
    retry: Retry,
    /// The server has refused a batch of deletes: it knows none.
    lacks_batches: AtomicBool,
}

/// Where a listing goes on: behind a name, or where the server's token says.
#[derive(Clone, PartialEq)]
struct Place {
    after: Option<String>,
    token: Option<String>,
}

impl S3Store {
    pub(crate) async fn open(url: &Url, values: &Values<'_>) -> Result<Self> {
        let config = Config::parse(url, values)?;
        let client = client::connect(&config).await?;
        let retry = Retry::new(config.max_attempts, config.timeout);
        let lacks_batches = AtomicBool::new(false);
        Ok(Self { inner: Arc::new(Inner { config, client, retry, lacks_batches }) })
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

    fn limits(&self) -> Limits {
        Limits {
            min_part_bytes: 5 << 20,
            max_part_bytes: 5 << 30,
            max_parts: 10_000,
            max_put_bytes: 5 << 30,
            max_object_bytes: 5 << 40,
            preferred_part_bytes: self.config.part_bytes,
            preferred_parallel_parts: 4,
            lists_uploads: true,
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
            let call = self.client.head_object().bucket(&self.config.bucket).key(&full);
            call.set_version_id(version.map(str::to_owned)).send().await.map_err(failure::of)
        };
        let head = self.retry.run(at, 0, request).await?;
        let written_by = head.metadata().and_then(|metadata| metadata.get(ID_METADATA)).cloned();
        let meta = ObjectMeta {
            key: key.clone(),
            size_bytes: head.content_length().and_then(|len| u64::try_from(len).ok()).unwrap_or(0),
            etag: head.e_tag().map(str::to_owned),
            version: head.version_id().map(str::to_owned),
            last_modified_ms: head.last_modified().and_then(|time| time.to_millis().ok()).unwrap_or(0),
            storage_class: head.storage_class().map(|class| class.as_str().to_owned()),
        };
        Ok((meta, written_by))
    }

    /// One page, and where to go on if it says more.
    async fn list_page(
        &self,
        prefix: &str,
        from: &Place,
        max_keys: usize,
    ) -> Result<(ListPage, Option<Place>)> {
        let at = self.at("list", prefix);
        let full_prefix = format!("{}{prefix}", self.config.prefix);
        let request = || async {
            let call = self.client.list_objects_v2().bucket(&self.config.bucket).prefix(&full_prefix);
            let call = call.set_start_after(from.after.clone()).set_continuation_token(from.token.clone());
            let call = call.max_keys(i32::try_from(max_keys).unwrap_or(1000));
            call.send().await.map_err(failure::of)
        };
        let answer = self.retry.run(&at, 0, request).await?;
        let mut page = ListPage { objects: Vec::new(), more: answer.is_truncated().unwrap_or(false) };
        let mut last = None;
        for object in answer.contents() {
            let Some(name) = object.key() else { continue };
            last = Some(name.to_owned());
            let Some(Ok(key)) = name.strip_prefix(&self.config.prefix).map(Key::new) else { continue };
            self.check_order(name, from, page.objects.last())
                .map_err(|flaw| at.error(Kind::Unsupported, flaw))?;
            page.objects.push(ObjectMeta {
                key,
                size_bytes: object.size().and_then(|size| u64::try_from(size).ok()).unwrap_or(0),
                etag: object.e_tag().map(str::to_owned),
                version: None,
                last_modified_ms: object.last_modified().and_then(|time| time.to_millis().ok()).unwrap_or(0),
                storage_class: object.storage_class().map(|class| class.as_str().to_owned()),
            });
        }
        let by_token = || {
            let token = answer.next_continuation_token().map(str::to_owned)?;
            Some(Place { after: from.after.clone(), token: Some(token) })
        };
        let next = last.map(|last| Place { after: Some(last), token: None });
        Ok((page, next.or_else(by_token)))
    }

    /// Callers go on from the last key: a page must not go back.
    fn check_order(
        &self,
        name: &str,
        from: &Place,
        before: Option<&ObjectMeta>,
    ) -> std::result::Result<(), String> {
        if let Some(after) = from.after.as_deref().filter(|after| name <= *after) {
            return Err(format!(
                "the keys do not go on: asked for those with start-after {after}, found {name}"
            ));
        }
        let key = &name[self.config.prefix.len()..];
        match before.filter(|before| key <= before.key.as_str()) {
            Some(before) => {
                Err(format!("the keys are not in the order of bytes: {key} is listed behind {}", before.key))
            }
            None => Ok(()),
        }
    }

    async fn delete_one(&self, key: &Key, version: Option<&str>) -> Result<()> {
        let at = self.at("delete", key.as_str());
        let full = self.full(key, &at)?;
        let request = || async {
            let call = self.client.delete_object().bucket(&self.config.bucket).key(&full);
            let sent = call.set_version_id(version.map(str::to_owned)).send().await;
            sent.map(drop).map_err(failure::of)
        };
        match self.retry.run(&at, 0, request).await {
            // Some servers report what AWS does not: that there was nothing.
            Err(error) if error.kind == Kind::NotFound && !error.detail.contains("NoSuchBucket") => Ok(()),
            other => other,
        }
    }

    /// Where there are no batches.
    async fn delete_singly(&self, keys: &[Key]) -> Vec<Result<()>> {
        let deletes: Vec<_> = keys.iter().map(|key| self.delete_one(key, None)).collect();
        stream::iter(deletes).buffered(PARALLEL_DELETES).collect().await
    }

    /// At most 1,000 keys. The failures by full key; one that may pass fails the attempt, so that it is repeated.
    async fn delete_batch(&self, keys: &[String]) -> Result<HashMap<String, Failure>> {
        let at = self.at("delete", &format!("({} keys)", keys.len()));
        let request = || async {
            let named = keys.iter().map(|key| ObjectIdentifier::builder().key(key).build());
            let objects = named
                .collect::<std::result::Result<Vec<_>, _>>()
                .map_err(|error| Failure::invalid(&error))?;
            let delete = Delete::builder().set_objects(Some(objects)).quiet(true).build();
            let delete = delete.map_err(|error| Failure::invalid(&error))?;
            let call = self.client.delete_objects().bucket(&self.config.bucket).delete(delete);
            let answer = call.send().await.map_err(failure::of)?;
            let mut failures = HashMap::new();
            for error in answer.errors() {
                let failure = failure::coded(error.code(), error.message());
                if failure.kind == Kind::NotFound {
                    continue;
                }
                if failure.may_pass() {
                    return Err(failure);
                }
                failures.insert(error.key().unwrap_or_default().to_owned(), failure);
            }
            Ok(failures)
        };
        self.retry.run(&at, 0, request).await
    }
}

/// The server knows no batches, or only ones with an MD5, which nobody sends any more.
fn is_refused_as_batch(error: &Error) -> bool {
    let wants_md5 = ["ContentMD5", "Content-MD5"].iter().any(|words| error.detail.contains(words));
    error.kind == Kind::Unsupported || (error.kind == Kind::Invalid && wants_md5)
}

impl fmt::Debug for S3Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("S3Store").field("config", &self.inner.config).finish_non_exhaustive()
    }
}

#[async_trait]
impl Store for S3Store {
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
        let upload = upload::S3Upload::begin(&self.inner, key, part_bytes, size_bytes, options).await?;
        Ok(Arc::new(upload))
    }

    async fn get(&self, key: &Key, range: GetRange) -> Result<GetResult> {
        body::get(&self.inner, key, None, range).await
    }

    async fn head(&self, key: &Key) -> Result<ObjectMeta> {
        let at = self.inner.at("head", key.as_str());
        self.inner.examine(key, None, &at).await.map(|(meta, _)| meta)
    }

    async fn list(&self, prefix: &str, start_after: Option<&Key>, max_keys: usize) -> Result<ListPage> {
        let after = start_after.map(|key| format!("{}{key}", self.inner.config.prefix));
        let mut from = Place { after, token: None };
        let mut onward = Onward::from(from.clone());
        loop {
            let (page, next) = self.inner.list_page(prefix, &from, max_keys.clamp(1, 1000)).await?;
            // A page of nothing, or of nothing but foreign names, gives the caller no key to go on from.
            if !page.objects.is_empty() || !page.more {
                return Ok(page);
            }
            let next = next.ok_or_else(|| onward::nowhere("keys"));
            let next = next.and_then(|next| onward.step(&next, "keys").map(|()| next));
            from = next.map_err(|flaw| self.inner.at("list", prefix).error(Kind::Unsupported, flaw))?;
        }
    }

    async fn delete_many(&self, keys: &[Key]) -> Result<Vec<Result<()>>> {
        if let [key] = keys {
            return Ok(vec![self.inner.delete_one(key, None).await]);
        }
        let mut outcomes = Vec::with_capacity(keys.len());
        for batch in keys.chunks(DELETE_BATCH) {
            let at = self.inner.at("delete", "");
            let full = batch.iter().map(|key| self.inner.full(key, &at)).collect::<Result<Vec<_>>>()?;
            if self.inner.lacks_batches.load(Ordering::Relaxed) {
                outcomes.extend(self.inner.delete_singly(batch).await);
                continue;
            }
            match self.inner.delete_batch(&full).await {
                Ok(mut failures) => outcomes.extend(batch.iter().zip(&full).map(|(key, full)| {
                    let at = self.inner.at("delete", key.as_str());
                    failures.remove(full).map_or(Ok(()), |failure| Err(failure.error(&at, 1)))
                })),
                Err(error) if is_refused_as_batch(&error) => {
                    tracing::info!("keys are deleted one by one from here on: {error}");
                    self.inner.lacks_batches.store(true, Ordering::Relaxed);
                    outcomes.extend(self.inner.delete_singly(batch).await);
                }
                Err(error) => outcomes.extend(batch.iter().map(|key| {
                    let at = self.inner.at("delete", key.as_str());
                    Err(at.error(error.kind, &error.detail))
                })),
            }
        }
        Ok(outcomes)
    }

    async fn copy(&self, from: &Key, to: &Key, options: &PutOptions) -> Result<ObjectMeta> {
        copy::copy(&self.inner, from, to, options).await
    }

    async fn list_uploads(&self, prefix: &str) -> Result<Vec<PendingUpload>> {
        upload::list(&self.inner, prefix).await
    }

    async fn abort_upload(&self, pending: &PendingUpload) -> Result<()> {
        upload::abort(&self.inner, &pending.key, &pending.id).await
    }

    async fn versions(&self) -> Result<Option<Arc<dyn Versions>>> {
        versions::kept(&self.inner).await
    }
}
