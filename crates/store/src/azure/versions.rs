//! An account that keeps versions of its blobs.
//!
//! Only answers tell whether it does: each version of a blob has an id there, but for a blob that was written before
//! versions were kept, and not since ([`BEFORE`]). Azure lists the versions of a key from the oldest to the newest, and
//! has no delete markers: a deleted blob is one of whose versions none is current, which is told as a marker behind them
//! ([`MARKER`]). Between two versions there is none to be seen, so that a key that was deleted and written again looks
//! as if it had been replaced.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use async_trait::async_trait;
use azure_storage_blob::models::BlobItem;

use super::list::{From, PAGE_MAX, key_of, meta};
use super::{Inner, batch, body};
use crate::contract::{GetRange, GetResult, ObjectMeta, Result};
use crate::error::Kind;
use crate::key::Key;
use crate::versions::{KEY_VERSIONS_MAX, KeyVersions, Version, VersionPage, Versions};

/// The id of the marker of a deleted blob, which Azure has none for.
const MARKER: &str = "deleted";
/// The id of a blob from before versions were kept, which Azure has none for. It gets one when it is replaced or
/// deleted.
pub(super) const BEFORE: &str = "null";
/// Entries of the listings by which it is looked whether any blob has versions: one mostly tells.
const LOOKS: [usize; 5] = [1, LOOK_MAX, LOOK_MAX, LOOK_MAX, LOOK_MAX];
/// The most that Azure lists at once.
const LOOK_MAX: usize = 5000;
/// Azure's word for a version that may not be removed as such.
const IS_CURRENT: &str = "OperationNotAllowedOnRootBlob";

/// See the module.
#[derive(Clone)]
struct AzureVersions {
    inner: Arc<Inner>,
}

impl std::fmt::Debug for AzureVersions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AzureVersions").field("config", &self.inner.config).finish_non_exhaustive()
    }
}

/// Where nothing was written since versions are kept there is nothing to tell by, and where it comes behind very much
/// that is older it is not found: `None`, until an answer names a version.
pub(super) async fn kept(inner: &Arc<Inner>) -> Result<Option<Arc<dyn Versions>>> {
    if !inner.keeps_versions.load(Ordering::Relaxed) && !inner.looked_for_versions.load(Ordering::Relaxed) {
        // Once: what comes later is told by the answers.
        inner.keeps_versions.fetch_or(has_versions(inner).await?, Ordering::Relaxed);
        inner.looked_for_versions.store(true, Ordering::Relaxed);
    }
    let kept = inner.keeps_versions.load(Ordering::Relaxed);
    Ok(kept.then(|| Arc::new(AzureVersions { inner: Arc::clone(inner) }) as Arc<dyn Versions>))
}

async fn has_versions(inner: &Inner) -> Result<bool> {
    let at = inner.at("versions", "");
    let Some(mut from) = From::new(inner, "", None, true) else { return Ok(false) };
    for entries in LOOKS {
        let answer = from.next(inner, entries, &at).await?;
        if answer.items.iter().any(|item| item.version_id.is_some()) {
            return Ok(true);
        }
        if !answer.more {
            break;
        }
    }
    Ok(false)
}

/// The versions of one key while they come from the oldest to the newest: memory is bounded, however many there are.
struct OldestFirst {
    key: Key,
    oldest: Vec<Version>,
    /// The last of them, where `oldest` is full.
    newest: Option<Version>,
    /// Of what was not deleted.
    current: Option<Version>,
    count: u64,
}

impl OldestFirst {
    fn new(key: Key) -> Self {
        Self { key, oldest: Vec::new(), newest: None, current: None, count: 0 }
    }

    fn push(&mut self, version: Version, is_current: bool) {
        self.count += 1;
        if is_current {
            self.current = Some(version);
        } else if self.oldest.len() < KEY_VERSIONS_MAX - 1 {
            self.oldest.push(version);
        } else {
            self.newest = Some(version);
        }
    }

    fn finish(mut self) -> KeyVersions {
        let last = match self.current.take() {
            Some(current) => current,
            None => {
                self.count += 1;
                let last = self.newest.as_ref().or(self.oldest.last());
                let last_modified_ms = last.map_or(0, |version| version.last_modified_ms);
                let (id, delete_marker) = (MARKER.to_owned(), true);
                Version {
                    id,
                    delete_marker,
                    size_bytes: 0,
                    etag: None,
                    last_modified_ms,
                    storage_class: None,
                }
            }
        };
        let versions = self.oldest.into_iter().chain([last]).collect();
        KeyVersions { key: self.key, versions, count: self.count }
    }
}

fn version_of(inner: &Inner, item: &BlobItem) -> Option<(Key, Version, bool)> {
    let (key, told) = (key_of(inner, item)?, meta(inner, item)?);
    let is_current = item.is_current_version.unwrap_or(told.version.is_none());
    let version = Version {
        id: told.version.unwrap_or_else(|| BEFORE.to_owned()),
        delete_marker: false,
        size_bytes: told.size_bytes,
        etag: told.etag,
        last_modified_ms: told.last_modified_ms,
        storage_class: told.storage_class,
    };
    Some((key, version, is_current))
}

/// The id by which Azure is asked.
fn asked(version: &str) -> Option<&str> {
    (version != BEFORE).then_some(version)
}

impl AzureVersions {
    /// Which version answered. Asked without an id it is the current one, which may be another by now.
    fn answered(
        &self,
        key: &Key,
        version: &str,
        told: Option<String>,
        operation: &'static str,
    ) -> Result<String> {
        match told {
            Some(told) if version == BEFORE && told != BEFORE => {
                let detail =
                    format!("the blob from before versions were kept was replaced by version {told}");
                Err(self.inner.at(operation, key.as_str()).error(Kind::NotFound, detail))
            }
            _ => Ok(version.to_owned()),
        }
    }
}

#[async_trait]
impl Versions for AzureVersions {
    async fn list(&self, prefix: &str, start_after: Option<&Key>, max_keys: usize) -> Result<VersionPage> {
        let (inner, max_keys) = (&self.inner, max_keys.clamp(1, PAGE_MAX));
        let at = inner.at("list versions", prefix);
        let Some(mut from) = From::new(inner, prefix, start_after, true) else {
            return Ok(VersionPage::default());
        };
        let (mut page, mut open) = (VersionPage::default(), None::<OldestFirst>);
        // One more than is wanted: only the next key tells that a key has no further version. Keys of many versions,
        // and one to be passed over, take more, by large pages.
        let mut entries = (max_keys + 1).min(PAGE_MAX);
        loop {
            let answer = from.next(inner, entries, &at).await?;
            entries = PAGE_MAX;
            for (key, version, is_current) in answer.items.iter().filter_map(|item| version_of(inner, item)) {
                match &mut open {
                    Some(same) if same.key == key => same.push(version, is_current),
                    _ => {
                        page.keys.extend(open.take().map(OldestFirst::finish));
                        if page.keys.len() >= max_keys {
                            page.more = true;
                            return Ok(page);
                        }
                        open.insert(OldestFirst::new(key)).push(version, is_current);
                    }
                }
            }
            if !answer.more {
                page.keys.extend(open.map(OldestFirst::finish));
                return Ok(page);
            }
            // The last key may have more versions: unless it is all there is, the next page begins with it.
            if !page.keys.is_empty() {
                page.more = true;
                return Ok(page);
            }
        }
    }

    async fn get(&self, key: &Key, version: &str, range: GetRange) -> Result<GetResult> {
        if version == MARKER {
            return Err(self.inner.at("get", key.as_str()).error(Kind::NotFound, "the blob was deleted"));
        }
        let mut got = body::get(&self.inner, key, asked(version), range).await?;
        got.version = Some(self.answered(key, version, got.version, "get")?);
        Ok(got)
    }

    async fn head(&self, key: &Key, version: &str) -> Result<ObjectMeta> {
        let at = self.inner.at("head", key.as_str());
        if version == MARKER {
            return Err(at.error(Kind::NotFound, "the blob was deleted"));
        }
        let (mut meta, _) = self.inner.examine(key, asked(version), &at).await?;
        meta.version = Some(self.answered(key, version, meta.version, "head")?);
        Ok(meta)
    }

    /// Azure removes no version that is the current one: the blob is deleted first, which makes it one of the past.
    /// None of those before becomes current by it.
    async fn delete(&self, key: &Key, version: &str) -> Result<()> {
        if version == MARKER {
            return Ok(());
        }
        if version == BEFORE {
            // What it was is a version then, which has an id.
            return batch::one(&self.inner, key).await;
        }
        match batch::version(&self.inner, key, version).await {
            Err(error) if error.detail.contains(IS_CURRENT) => {
                batch::one(&self.inner, key).await?;
                batch::version(&self.inner, key, version).await
            }
            other => other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(number: u64) -> Version {
        Version {
            id: number.to_string(),
            delete_marker: false,
            size_bytes: number,
            etag: None,
            last_modified_ms: 7,
            storage_class: None,
        }
    }

    #[test]
    fn of_many_versions_the_oldest_and_the_current_one_are_kept() {
        for deleted in [false, true] {
            let mut versions = OldestFirst::new(Key::new("k").unwrap());
            for number in 0..1000 {
                versions.push(version(number), !deleted && number == 999);
            }
            let found = versions.finish();
            assert_eq!((found.count, found.versions.len()), (1000 + u64::from(deleted), KEY_VERSIONS_MAX));
            assert_eq!((found.oldest().unwrap().id.as_str(), found.is_hidden()), ("0", deleted));
            assert_eq!(found.current().unwrap().id, if deleted { MARKER } else { "999" });
        }
        let mut versions = OldestFirst::new(Key::new("k").unwrap());
        versions.push(version(1), false);
        let found = versions.finish();
        assert_eq!((found.versions.len(), found.current().unwrap().last_modified_ms), (2, 7));
    }
}
