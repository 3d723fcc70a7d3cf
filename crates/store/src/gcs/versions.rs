//! A bucket that keeps versions, by their generations.
//!
//! Cloud Storage has no delete markers: a key is hidden when none of its versions is live. So a marker is told where
//! the newest version was deleted, and between two versions where the older one was deleted before the newer one was
//! stored (what is replaced is deleted in the moment in which its successor is stored). A marker's id is that of the
//! version before it with a word in front: nothing can be read by it.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use reqwest::Method;
use serde::Deserialize;

use super::list::{From, PAGE_MAX, behind};
use super::resource::Object;
use super::{Inner, body};
use crate::contract::{GetRange, GetResult, ObjectMeta, Result};
use crate::error::Kind;
use crate::key::Key;
use crate::versions::{KEY_VERSIONS_MAX, KeyVersions, Version, VersionPage, Versions};

const MARKER: &str = "deleted-";

/// See the module.
#[derive(Clone)]
struct GcsVersions {
    inner: Arc<Inner>,
}

impl std::fmt::Debug for GcsVersions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GcsVersions").field("config", &self.inner.config).finish_non_exhaustive()
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Bucket {
    versioning: Versioning,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Versioning {
    enabled: bool,
}

pub(super) async fn kept(inner: &Arc<Inner>) -> Result<Option<Arc<dyn Versions>>> {
    let at = inner.at("versions (storage.buckets.get)", "");
    let url = inner.url(&inner.bucket_path(), &[("fields", Some("versioning"))], &at)?;
    let request = || async { inner.client.ask(inner.client.request(Method::GET, url.clone())).await };
    let bucket: Bucket = inner.retry.run(&at, 0, request).await?;
    if !bucket.versioning.enabled {
        return Ok(None);
    }
    inner.learn_of_versions();
    Ok(Some(Arc::new(GcsVersions { inner: Arc::clone(inner) })))
}

/// One version as it is listed, with what tells of markers.
struct Listed {
    version: Version,
    deleted_ms: Option<i64>,
}

/// The versions of one key, told in any order: memory is bounded, however many there are.
struct Gathered {
    key: Key,
    /// By generation: the oldest, and the newest.
    found: BTreeMap<u64, Listed>,
    count: u64,
}

impl Gathered {
    fn new(key: Key) -> Self {
        Self { key, found: BTreeMap::new(), count: 0 }
    }

    fn push(&mut self, object: &Object) {
        self.count += 1;
        let generation = object.generation();
        let version = Version {
            id: generation.to_string(),
            delete_marker: false,
            size_bytes: object.size_bytes(),
            etag: Some(generation.to_string()),
            last_modified_ms: object.created_ms(),
            storage_class: object.storage_class().map(str::to_owned),
        };
        self.found.insert(generation, Listed { version, deleted_ms: object.deleted_ms() });
        if self.found.len() > KEY_VERSIONS_MAX
            && let Some(&last_but_one) = self.found.keys().rev().nth(1)
        {
            self.found.remove(&last_but_one);
        }
    }

    fn finish(self) -> KeyVersions {
        let whole = self.count == self.found.len() as u64;
        let last = self.found.len().saturating_sub(1);
        let (mut versions, mut count) = (Vec::new(), self.count);
        let mut found = self.found.into_values().enumerate().peekable();
        while let Some((number, Listed { version, deleted_ms })) = found.next() {
            let id = format!("{MARKER}{}", version.id);
            versions.push(version);
            let Some(deleted_ms) = deleted_ms else { continue };
            let hidden = match found.peek() {
                None => true,
                // The last one does not follow the one before it where some were left out.
                Some((_, next)) => deleted_ms < next.version.last_modified_ms && (whole || number + 1 < last),
            };
            if hidden {
                count += 1;
                versions.push(marker(id, deleted_ms));
            }
        }
        let current = versions.pop();
        versions.truncate(KEY_VERSIONS_MAX - 1);
        versions.extend(current);
        KeyVersions { key: self.key, versions, count }
    }
}

fn marker(id: String, last_modified_ms: i64) -> Version {
    Version { id, delete_marker: true, size_bytes: 0, etag: None, last_modified_ms, storage_class: None }
}

#[async_trait]
impl Versions for GcsVersions {
    async fn list(&self, prefix: &str, start_after: Option<&Key>, max_keys: usize) -> Result<VersionPage> {
        let (inner, max_keys) = (&self.inner, max_keys.clamp(1, PAGE_MAX));
        let mut from = From { offset: behind(&inner.config.prefix, start_after), token: None };
        let (mut page, mut open) = (VersionPage::default(), None::<Gathered>);
        loop {
            // One more than is wanted: only the next key tells that a key has no further version.
            let answer = inner.page("list versions", prefix, true, &from, max_keys + 1).await?;
            for object in &answer.items {
                let Some(key) = inner.listed(object, start_after) else { continue };
                match &mut open {
                    Some(same) if same.key == key => same.push(object),
                    _ => {
                        page.keys.extend(open.take().map(Gathered::finish));
                        if page.keys.len() >= max_keys {
                            page.more = true;
                            return Ok(page);
                        }
                        open.insert(Gathered::new(key)).push(object);
                    }
                }
            }
            if answer.next_page_token.is_none() {
                page.keys.extend(open.map(Gathered::finish));
                return Ok(page);
            }
            // The last key may have more versions: unless it is all there is, the next page begins with it.
            if !page.keys.is_empty() {
                page.more = true;
                return Ok(page);
            }
            from.token = answer.next_page_token;
        }
    }

    async fn get(&self, key: &Key, version: &str, range: GetRange) -> Result<GetResult> {
        self.check(key, version)?;
        body::get(&self.inner, key, Some(version), range).await
    }

    async fn head(&self, key: &Key, version: &str) -> Result<ObjectMeta> {
        self.check(key, version)?;
        let at = self.inner.at("head", key.as_str());
        Ok(self.inner.examine(key, Some(version), &at).await?.meta(key.clone(), true))
    }

    /// A marker is gone with the version behind which it is told. None that was replaced becomes live again when the
    /// live one is removed.
    async fn delete(&self, key: &Key, version: &str) -> Result<()> {
        let Ok(generation) = version.parse() else { return Ok(()) };
        let at = self.inner.at("delete", key.as_str());
        self.inner.delete_generation(key, generation, &at).await
    }
}

impl GcsVersions {
    /// What is no generation is no version: a marker, or an id of another store.
    fn check(&self, key: &Key, version: &str) -> Result<()> {
        if version.parse::<u64>().is_ok() {
            return Ok(());
        }
        let at = self.inner.at("get", key.as_str());
        Err(at.error(Kind::NotFound, format!("version {version:?} is none that can be read")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(generation: u64, created: u64, deleted: Option<u64>) -> Object {
        let time = |second: u64| format!("2026-01-01T00:{:02}:{:02}.000Z", second / 60, second % 60);
        let deleted = deleted.map(|at| format!(r#","timeDeleted":"{}""#, time(at))).unwrap_or_default();
        let text = format!(
            r#"{{"name":"k","size":"{generation}","generation":"{generation}","timeCreated":"{}"{deleted}}}"#,
            time(created)
        );
        serde_json::from_str(&text).unwrap()
    }

    fn gathered(objects: &[Object]) -> KeyVersions {
        let mut gathered = Gathered::new(Key::new("k").unwrap());
        objects.iter().for_each(|object| gathered.push(object));
        gathered.finish()
    }

    fn ids(found: &KeyVersions) -> Vec<&str> {
        found.versions.iter().map(|version| version.id.as_str()).collect()
    }

    #[test]
    fn markers_stand_where_nothing_was_live() {
        // 1 was replaced by 2, that was deleted, 3 came later.
        let found = gathered(&[object(3, 9, None), object(1, 1, Some(5)), object(2, 5, Some(7))]);
        assert_eq!(ids(&found), ["1", "2", "deleted-2", "3"]);
        assert_eq!((found.count, found.is_hidden()), (4, false));
        let found = gathered(&[object(1, 1, Some(5))]);
        assert_eq!((ids(&found), found.is_hidden()), (vec!["1", "deleted-1"], true));
    }

    #[test]
    fn of_many_versions_the_oldest_and_the_current_one_are_kept() {
        let mut objects: Vec<_> = (1..=1000).map(|n| object(n, n, (n < 1000).then_some(n + 1))).collect();
        for _ in 0..2 {
            let found = gathered(&objects);
            assert_eq!((found.count, found.versions.len()), (1000, KEY_VERSIONS_MAX));
            assert_eq!(found.oldest().unwrap().id, "1");
            assert_eq!((found.current().unwrap().id.as_str(), found.is_hidden()), ("1000", false));
            objects.reverse();
        }
    }
}
