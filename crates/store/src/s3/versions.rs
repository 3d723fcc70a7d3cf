//! A bucket that keeps versions, or did so once: versions that were made then are still there.
//!
//! S3 lists versions from the newest to the oldest within a key, and delete markers apart from them, so that how the
//! two follow each other is told by their times alone; which one is the current version is said.

use std::sync::Arc;

use async_trait::async_trait;
use aws_sdk_s3::operation::list_object_versions::ListObjectVersionsOutput;
use aws_sdk_s3::primitives::DateTime;
use aws_sdk_s3::types::{DeleteMarkerEntry, ObjectVersion};

use super::failure;
use super::onward::{self, Onward};
use super::{Inner, body};
use crate::contract::{GetRange, GetResult, ObjectMeta, Result};
use crate::error::Kind;
use crate::key::Key;
use crate::versions::{NewestFirst, Version, VersionPage, Versions};

const PAGE_MAX: usize = 1000;

/// See the module.
#[derive(Clone)]
struct S3Versions {
    inner: Arc<Inner>,
}

impl std::fmt::Debug for S3Versions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("S3Versions").field("config", &self.inner.config).finish_non_exhaustive()
    }
}

/// Where a bucket's versioning was never switched on there are none.
pub(super) async fn kept(inner: &Arc<Inner>) -> Result<Option<Arc<dyn Versions>>> {
    let at = inner.at("versions (s3:GetBucketVersioning)", "");
    let request = || async {
        let sent = inner.client.get_bucket_versioning().bucket(&inner.config.bucket).send().await;
        sent.map_err(failure::of)
    };
    match inner.retry.run(&at, 0, request).await {
        Ok(answer) if answer.status().is_none() => Ok(None),
        Ok(_) => Ok(Some(Arc::new(S3Versions { inner: Arc::clone(inner) }))),
        // A server that does not know the question.
        Err(error) if error.kind == Kind::Unsupported => Ok(None),
        Err(error) => Err(error),
    }
}

/// Where a listing goes on.
#[derive(Clone, Default, PartialEq)]
struct Marker {
    key: Option<String>,
    version: Option<String>,
}

impl S3Versions {
    async fn page(&self, prefix: &str, from: &Marker, entries: usize) -> Result<ListObjectVersionsOutput> {
        let inner = &self.inner;
        let at = inner.at("list versions (s3:ListBucketVersions)", prefix);
        let full_prefix = format!("{}{prefix}", inner.config.prefix);
        let request = || async {
            let call = inner.client.list_object_versions().bucket(&inner.config.bucket).prefix(&full_prefix);
            let call = call.set_key_marker(from.key.clone()).set_version_id_marker(from.version.clone());
            let call = call.max_keys(i32::try_from(entries).unwrap_or(1000));
            call.send().await.map_err(failure::of)
        };
        inner.retry.run(&at, 0, request).await
    }
}

/// A page's entries in the order of keys, of each key from the newest to the oldest.
fn entries(answer: &ListObjectVersionsOutput) -> Vec<(&str, bool, Version)> {
    let mut found: Vec<_> = answer.versions().iter().filter_map(of_version).collect();
    let markers: Vec<_> = answer.delete_markers().iter().filter_map(of_marker).collect();
    // Both lists are in order: versions keep theirs, whatever their times say.
    for marker in markers {
        let behind = |entry: &(&str, bool, Version)| {
            let newer = entry.1 || (!marker.1 && entry.2.last_modified_ms > marker.2.last_modified_ms);
            entry.0 < marker.0 || (entry.0 == marker.0 && (newer || entry.2.delete_marker))
        };
        let place = found.iter().rposition(behind).map_or(0, |last| last + 1);
        found.insert(place, marker);
    }
    found
}

fn of_version(version: &ObjectVersion) -> Option<(&str, bool, Version)> {
    let told = Version {
        id: version.version_id().unwrap_or("null").to_owned(),
        delete_marker: false,
        size_bytes: version.size().and_then(|size| u64::try_from(size).ok()).unwrap_or(0),
        etag: version.e_tag().map(str::to_owned),
        last_modified_ms: millis(version.last_modified()),
        storage_class: version.storage_class().map(|class| class.as_str().to_owned()),
    };
    Some((version.key()?, version.is_latest().unwrap_or(false), told))
}

fn of_marker(marker: &DeleteMarkerEntry) -> Option<(&str, bool, Version)> {
    let told = Version {
        id: marker.version_id().unwrap_or("null").to_owned(),
        delete_marker: true,
        size_bytes: 0,
        etag: None,
        last_modified_ms: millis(marker.last_modified()),
        storage_class: None,
    };
    Some((marker.key()?, marker.is_latest().unwrap_or(false), told))
}

fn millis(time: Option<&DateTime>) -> i64 {
    time.and_then(|time| time.to_millis().ok()).unwrap_or(0)
}

#[async_trait]
impl Versions for S3Versions {
    async fn list(&self, prefix: &str, start_after: Option<&Key>, max_keys: usize) -> Result<VersionPage> {
        let max_keys = max_keys.clamp(1, PAGE_MAX);
        let own = &self.inner.config.prefix;
        // Some servers refuse to go on from what is not under the prefix.
        let after = match start_after.map(Key::as_str) {
            Some(after) if after > prefix && !after.starts_with(prefix) => return Ok(VersionPage::default()),
            after => after.filter(|after| after.starts_with(prefix)),
        };
        let mut from = Marker { key: after.map(|after| format!("{own}{after}")), version: None };
        let (mut page, mut open) = (VersionPage::default(), None::<NewestFirst>);
        let (mut onward, at) = (Onward::from(from.clone()), self.inner.at("list versions", prefix));
        loop {
            // One more than is wanted: only the next key tells that a key has no further version.
            let answer = self.page(prefix, &from, (max_keys + 1).min(PAGE_MAX)).await?;
            let more = answer.is_truncated().unwrap_or(false);
            for (name, _, version) in entries(&answer) {
                let Some(Ok(key)) = name.strip_prefix(own.as_str()).map(Key::new) else { continue };
                // Some servers tell versions of the key itself behind its marker.
                if start_after.is_some_and(|after| key <= *after) {
                    continue;
                }
                match &mut open {
                    Some(same) if *same.key() == key => same.push(version),
                    _ => {
                        if let Some(before) =
                            open.as_ref().map(NewestFirst::key).filter(|before| key <= **before)
                        {
                            let flaw = format!("the versions do not go on: {key} is listed behind {before}");
                            return Err(at.error(Kind::Unsupported, flaw));
                        }
                        page.keys.extend(open.take().map(NewestFirst::finish));
                        if page.keys.len() >= max_keys {
                            page.more = true;
                            return Ok(page);
                        }
                        open.insert(NewestFirst::new(key)).push(version);
                    }
                }
            }
            if !more {
                page.keys.extend(open.map(NewestFirst::finish));
                return Ok(page);
            }
            // The last key may have more versions: unless it is all there is, the next page begins with it.
            if !page.keys.is_empty() {
                page.more = true;
                return Ok(page);
            }
            let key = answer.next_key_marker().map(str::to_owned);
            let next = Marker { key, version: answer.next_version_id_marker().map(str::to_owned) };
            let goes_on = match next.key {
                Some(_) => onward.step(&next, "versions"),
                None => Err(onward::nowhere("versions")),
            };
            goes_on.map_err(|flaw| at.error(Kind::Unsupported, flaw))?;
            from = next;
        }
    }

    async fn get(&self, key: &Key, version: &str, range: GetRange) -> Result<GetResult> {
        body::get(&self.inner, key, Some(version), range).await
    }

    async fn head(&self, key: &Key, version: &str) -> Result<ObjectMeta> {
        let at = self.inner.at("head", key.as_str());
        self.inner.examine(key, Some(version), &at).await.map(|(meta, _)| meta)
    }

    async fn delete(&self, key: &Key, version: &str) -> Result<()> {
        self.inner.delete_one(key, Some(version)).await
    }
}
