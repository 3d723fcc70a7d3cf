//! The side of a store that keeps versions: what was replaced or deleted is listed and read by its id.
//!
//! See the contract for what versions are. Delete markers hold no bytes: to read one is [`Kind::NotFound`] or
//! [`Kind::Unsupported`].
//!
//! [`Kind::NotFound`]: crate::Kind::NotFound
//! [`Kind::Unsupported`]: crate::Kind::Unsupported

use std::collections::VecDeque;
use std::fmt;

use async_trait::async_trait;

use crate::contract::{GetRange, GetResult, ObjectMeta, Result};
use crate::key::Key;

/// Versions of one key that are told: the oldest, and the current one.
pub const KEY_VERSIONS_MAX: usize = 100;

/// One version of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// Opaque.
    pub id: String,
    pub delete_marker: bool,
    /// 0 of a delete marker.
    pub size_bytes: u64,
    pub etag: Option<String>,
    /// Milliseconds since 1970-01-01 UTC.
    pub last_modified_ms: i64,
    pub storage_class: Option<String>,
}

/// The versions of one key, at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyVersions {
    pub key: Key,
    /// The oldest first, the current one last; at most [`KEY_VERSIONS_MAX`].
    pub versions: Vec<Version>,
    /// How many there are.
    pub count: u64,
}

/// One page of a listing of versions, in ascending byte order of keys. A key's versions are never torn apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VersionPage {
    pub keys: Vec<KeyVersions>,
    /// Whether more keys follow the last of `keys`, of which there is at least one.
    pub more: bool,
}

/// See the module.
#[async_trait]
pub trait Versions: Send + Sync + fmt::Debug {
    /// As [`Store::list`](crate::Store::list), but every key that has any version, a delete marker too.
    async fn list(&self, prefix: &str, start_after: Option<&Key>, max_keys: usize) -> Result<VersionPage>;

    async fn get(&self, key: &Key, version: &str, range: GetRange) -> Result<GetResult>;

    async fn head(&self, key: &Key, version: &str) -> Result<ObjectMeta>;

    /// Removes one version, or a delete marker, for good; absent is no error. Where it was the current one, the one
    /// before may become current (S3) or not (GCS, Azure, where markers are but told). One that a lock holds is
    /// [`Kind::Denied`](crate::Kind::Denied) or, on some servers, [`Kind::Invalid`](crate::Kind::Invalid).
    async fn delete(&self, key: &Key, version: &str) -> Result<()>;
}

impl KeyVersions {
    /// The first that is no delete marker.
    pub fn oldest(&self) -> Option<&Version> {
        self.versions.iter().find(|version| !version.delete_marker)
    }

    pub fn current(&self) -> Option<&Version> {
        self.versions.last()
    }

    /// Whether a plain read finds nothing.
    pub fn is_hidden(&self) -> bool {
        self.current().is_some_and(|version| version.delete_marker)
    }
}

impl Version {
    pub fn meta(&self, key: &Key) -> ObjectMeta {
        ObjectMeta {
            key: key.clone(),
            size_bytes: self.size_bytes,
            etag: self.etag.clone(),
            version: Some(self.id.clone()),
            last_modified_ms: self.last_modified_ms,
            storage_class: self.storage_class.clone(),
        }
    }
}

/// The versions of one key while a store tells them from the newest to the oldest: memory is bounded, however many
/// there are.
#[derive(Debug)]
pub(crate) struct NewestFirst {
    key: Key,
    current: Option<Version>,
    oldest: VecDeque<Version>,
    count: u64,
}

impl NewestFirst {
    pub(crate) fn new(key: Key) -> Self {
        Self { key, current: None, oldest: VecDeque::new(), count: 0 }
    }

    pub(crate) fn key(&self) -> &Key {
        &self.key
    }

    pub(crate) fn push(&mut self, version: Version) {
        self.count += 1;
        if self.current.is_none() {
            self.current = Some(version);
            return;
        }
        self.oldest.push_front(version);
        self.oldest.truncate(KEY_VERSIONS_MAX - 1);
    }

    pub(crate) fn finish(self) -> KeyVersions {
        let versions = self.oldest.into_iter().chain(self.current).collect();
        KeyVersions { key: self.key, versions, count: self.count }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_many_versions_the_oldest_and_the_current_one_are_kept() {
        let mut versions = NewestFirst::new(Key::new("k").unwrap());
        for number in (0..1000).rev() {
            versions.push(Version {
                id: number.to_string(),
                delete_marker: number == 999,
                size_bytes: 0,
                etag: None,
                last_modified_ms: 0,
                storage_class: None,
            });
        }
        let found = versions.finish();
        assert_eq!((found.count, found.versions.len()), (1000, KEY_VERSIONS_MAX));
        assert_eq!(found.oldest().unwrap().id, "0");
        assert_eq!((found.current().unwrap().id.as_str(), found.is_hidden()), ("999", true));
    }
}
