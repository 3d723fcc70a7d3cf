//! A store as an archive means it: where versions are kept, an object is the **oldest** version of its name.
//!
//! Whoever can write to such a store can hide an object under a delete marker, or put another version on top of it,
//! and no lock stops him. So names that last are
//!
//! * **listed** by their versions, at the price of a plain listing: what is hidden is in the list;
//! * **read** by a plain read, and where nothing is found by a look at the versions. What is found but does not hold
//!   is the caller's to tell: it asks for a [`look`](Oldest::look) and reads again;
//! * **created** if they are absent, and then looked at: the store takes a name under a delete marker for free. Ours
//!   is the object only if no version is older; else it has lost, as to any other writer.
//!
//! What is put on top between a listing and the read that follows is noticed by its version, which the read tells.
//! A name that was found *displaced* (hidden or overwritten) is read by its version from then on, and reported. What
//! is remembered is bounded: beyond that, a name is looked at before each read.
//!
//! Names that come and go are listed and read plainly: bundles, probes, key records. Whoever needs a bundle that is
//! gone may look; and no number of a bundle comes back, so that they are created like what lasts.
//! A store without versions is passed through.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use varve_store::{
    Create, Error, GetRange, GetResult, Key, KeyVersions, Kind, Limits, ListPage, ObjectMeta, PendingUpload,
    PutOptions, Result, SharedStore, Store, Upload, Versions,
};

use crate::names;

/// Names that are remembered as displaced.
const REMEMBERED_MAX: usize = 20_000;
/// Names that were listed last, and are about to be read.
const LISTED_MAX: usize = 4096;

/// An object that a plain read does not find as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Displaced {
    pub key: Key,
    /// The version that is the object.
    pub version: String,
    /// What a plain read finds in its place: another version, or a delete marker.
    pub current: String,
    /// There is a delete marker on top.
    pub hidden: bool,
}

/// See the module. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Oldest(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    store: SharedStore,
    /// As the archive's.
    root: String,
    versions: Option<Arc<dyn Versions>>,
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    names: HashMap<Key, State>,
    /// The one that was remembered first is first.
    order: VecDeque<Key>,
    /// The versions of names that were listed last; the first is forgotten first.
    listed: HashMap<Key, String>,
    listed_order: VecDeque<Key>,
    /// Something was forgotten: what is not known may be displaced.
    forgot: bool,
    /// All names were looked at: what is not known is not displaced.
    surveyed: bool,
}

#[derive(Clone, Debug)]
enum State {
    Displaced(Displaced),
    /// Something was created under this name, by whom is not known: a look tells what counts.
    Unsure,
}

impl Seen {
    fn remember(&mut self, key: &Key, state: State) {
        if self.names.insert(key.clone(), state).is_none() {
            self.order.push_back(key.clone());
        }
        while self.order.len() > REMEMBERED_MAX {
            self.forgot = true;
            self.order.pop_front().map(|oldest| self.names.remove(&oldest));
        }
    }

    fn list(&mut self, key: &Key, version: &str) {
        if self.listed.insert(key.clone(), version.to_owned()).is_none() {
            self.listed_order.push_back(key.clone());
        }
        while self.listed_order.len() > LISTED_MAX {
            self.listed_order.pop_front().map(|oldest| self.listed.remove(&oldest));
        }
    }

    fn forget(&mut self, key: &Key) {
        if self.names.remove(key).is_some() {
            self.order.retain(|known| known != key);
        }
    }
}

impl Displaced {
    pub(crate) fn of(found: &KeyVersions, wanted: Option<&str>) -> Option<Self> {
        let named = |id: &str| found.versions.iter().find(|v| !v.delete_marker && v.id == id);
        let (object, current) = (wanted.and_then(named).or(found.oldest())?, found.current()?);
        if object.id == current.id {
            return None;
        }
        Some(Self {
            key: found.key.clone(),
            version: object.id.clone(),
            current: current.id.clone(),
            hidden: current.delete_marker,
        })
    }
}

impl std::fmt::Display for Displaced {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (what, cure) = match self.hidden {
            true => ("hidden by the delete marker", "delete that marker"),
            false => ("overwritten by the version", "delete that version"),
        };
        write!(f, "{what} {}; the object is version {}: {cure} by its id", self.current, self.version)
    }
}

impl Oldest {
    /// Asks the store whether it keeps versions. Where that may not be asked it is taken not to.
    pub(crate) async fn over(store: SharedStore, root: &str) -> Result<Self> {
        let versions = match store.versions().await {
            Err(error) if error.kind == Kind::Denied => {
                tracing::warn!(%error, "whether the store keeps versions can't be told: none are looked at");
                None
            }
            found => found?,
        };
        let (root, seen) = (root.to_owned(), Mutex::default());
        Ok(Self(Arc::new(Inner { store, root, versions, seen })))
    }

    pub(crate) fn versions(&self) -> Option<&dyn Versions> {
        self.0.versions.as_deref()
    }

    /// What was found displaced so far, and whether there may be more that is not remembered.
    pub(crate) fn displaced(&self) -> (Vec<Displaced>, bool) {
        let seen = self.0.seen.lock();
        let of = |state: &State| match state {
            State::Displaced(displaced) => Some(displaced.clone()),
            State::Unsure => None,
        };
        // A bundle that expired lies under a marker too.
        let counts = |d: &Displaced| self.is_lasting(d.key.as_str()) || !d.hidden;
        let mut found: Vec<_> = seen.names.values().filter_map(of).filter(counts).collect();
        found.sort_by(|a, b| a.key.cmp(&b.key));
        (found, seen.forgot)
    }

    pub(crate) fn is_hidden(&self, key: &Key) -> bool {
        matches!(self.0.seen.lock().names.get(key), Some(State::Displaced(d)) if d.hidden)
    }

    /// Looks at the versions of a name. Whether it is displaced: reading it again may give another version then.
    /// Whether that was known before is of no use, since another reader may have looked meanwhile. `wanted` is the
    /// version that somebody who can be trusted says it is.
    pub(crate) async fn look(&self, key: &Key, wanted: Option<&str>) -> Result<bool> {
        let Some(versions) = &self.0.versions else { return Ok(false) };
        let found = of_one(versions.as_ref(), key).await?;
        Ok(self.take(key, found.as_ref(), wanted))
    }

    /// Whether there is any object of the name: a look that spares a read.
    pub(crate) async fn look_first(&self, key: &Key) -> Result<bool> {
        let Some(versions) = &self.0.versions else { return Ok(true) };
        if self.0.seen.lock().surveyed {
            return Ok(true);
        }
        let found = of_one(versions.as_ref(), key).await?;
        self.take(key, found.as_ref(), None);
        Ok(found.is_some_and(|found| found.oldest().is_some()))
    }

    /// All names under `prefix` with their versions; none of a store that keeps none.
    pub(crate) fn pages(&self, prefix: String) -> Pages {
        Pages { versions: self.0.versions.clone(), prefix, after: None }
    }

    /// The name is displaced, as its versions say.
    pub(crate) fn learn(&self, found: &KeyVersions) {
        self.take(&found.key, Some(found), None);
    }

    /// All lasting names were looked at.
    pub(crate) fn all_learnt(&self) {
        let mut seen = self.0.seen.lock();
        seen.surveyed = !seen.forgot;
    }

    /// What is known of a name that was read once is not needed any more.
    pub(crate) fn forget(&self, key: &Key) {
        self.0.seen.lock().forget(key);
    }

    /// Remembers what a name's versions say. Whether it is displaced.
    fn take(&self, key: &Key, found: Option<&KeyVersions>, wanted: Option<&str>) -> bool {
        let displaced = found.and_then(|found| Displaced::of(found, wanted));
        let mut seen = self.0.seen.lock();
        if let Some(oldest) = found.and_then(KeyVersions::oldest) {
            seen.list(key, &oldest.id);
        }
        match displaced {
            Some(displaced) => {
                let known = matches!(seen.names.get(key), Some(State::Displaced(d)) if *d == displaced);
                if !known && (self.is_lasting(key.as_str()) || !displaced.hidden) {
                    tracing::warn!(object = %key, "{displaced}");
                }
                seen.remember(key, State::Displaced(displaced));
                true
            }
            None => {
                seen.forget(key);
                false
            }
        }
    }

    fn state(&self, key: &Key) -> Option<State> {
        self.0.seen.lock().names.get(key).cloned()
    }

    fn is_lasting(&self, name: &str) -> bool {
        let name = name.strip_prefix(&self.0.root).unwrap_or_default();
        let passing = [names::JOURNAL, names::PROBE, names::KEYS];
        !passing.iter().any(|prefix| name.starts_with(prefix))
    }

    /// The version by which a name is to be read, if not plainly.
    async fn by_version(&self, key: &Key) -> Result<Option<(&dyn Versions, String)>> {
        let Some(versions) = self.versions() else { return Ok(None) };
        let state = match self.state(key) {
            None if self.0.seen.lock().forgot && self.is_lasting(key.as_str()) => Some(State::Unsure),
            known => known,
        };
        if let Some(State::Unsure) = state {
            self.look(key, None).await?;
        }
        Ok(match self.state(key) {
            Some(State::Displaced(displaced)) => Some((versions, displaced.version)),
            _ => None,
        })
    }

    /// After a plain read: the version by which the name is to be read instead. What was listed under another version,
    /// and what is not there, is looked at.
    async fn other_than_found(
        &self,
        key: &Key,
        found: Result<Option<String>, Kind>,
    ) -> Result<Option<(&dyn Versions, String)>> {
        if self.versions().is_none() {
            return Ok(None);
        }
        let listed = self.0.seen.lock().listed.get(key).cloned();
        let odd = match found {
            Ok(version) => listed.is_some() && version != listed,
            Err(kind) => kind == Kind::NotFound && self.is_lasting(key.as_str()),
        };
        if odd && self.look(key, listed.as_deref()).await? {
            return self.by_version(key).await;
        }
        Ok(None)
    }

    /// What a creation came to: ours is the object only if it is the oldest version.
    async fn created(&self, key: &Key, create: Create, outcome: Result<ObjectMeta>) -> Result<ObjectMeta> {
        let Some(versions) = self.versions() else { return outcome };
        if create != Create::IfAbsent || self.begins(key, &[names::PROBE, names::KEYS]) {
            return outcome;
        }
        // Whoever looks at what is there must see the object, not what was put on top of it.
        self.0.seen.lock().remember(key, State::Unsure);
        let meta = outcome?;
        if self.begins(key, &[names::MANIFESTS]) {
            // Of all versions that are not lies the bytes are the same.
            return Ok(meta);
        }
        if let Some(found) = of_one(versions, key).await?.filter(|found| {
            found.oldest().is_some_and(|oldest| Some(&oldest.id) != meta.version.as_ref()) && found.count > 1
        }) {
            self.take(key, Some(&found), None);
            let detail = "an older version, which is hidden, is the object";
            let object = format!("{}/{key}", self.0.store.url());
            return Err(Error::new(Kind::AlreadyExists, "create", object, detail));
        }
        self.0.seen.lock().forget(key);
        Ok(meta)
    }

    fn begins(&self, key: &Key, prefixes: &[&str]) -> bool {
        let name = key.as_str().strip_prefix(&self.0.root).unwrap_or_default();
        prefixes.iter().any(|prefix| name.starts_with(prefix))
    }
}

/// A walk over names and their versions, page by page.
pub(crate) struct Pages {
    /// None once the last page was given.
    versions: Option<Arc<dyn Versions>>,
    prefix: String,
    after: Option<Key>,
}

impl Pages {
    pub(crate) async fn next(&mut self) -> Result<Option<Vec<KeyVersions>>> {
        let Some(versions) = &self.versions else { return Ok(None) };
        let page = versions.list(&self.prefix, self.after.as_ref(), 1000).await?;
        self.after = page.keys.last().map(|found| found.key.clone());
        if !page.more || self.after.is_none() {
            self.versions = None;
        }
        Ok(Some(page.keys))
    }
}

/// All versions of one name.
async fn of_one(versions: &dyn Versions, key: &Key) -> Result<Option<KeyVersions>> {
    let page = versions.list(key.as_str(), None, 1).await?;
    Ok(page.keys.into_iter().next().filter(|found| found.key == *key))
}

#[async_trait]
impl Store for Oldest {
    fn url(&self) -> &str {
        self.0.store.url()
    }

    fn limits(&self) -> Limits {
        self.0.store.limits()
    }

    async fn put(&self, key: &Key, body: Bytes, options: &PutOptions) -> Result<ObjectMeta> {
        let outcome = self.0.store.put(key, body, options).await;
        self.created(key, options.create, outcome).await
    }

    async fn upload(
        &self,
        key: &Key,
        part_bytes: u64,
        size_bytes: Option<u64>,
        options: &PutOptions,
    ) -> Result<Arc<dyn Upload>> {
        let inner = self.0.store.upload(key, part_bytes, size_bytes, options).await?;
        let (oldest, key) = (self.clone(), key.clone());
        Ok(Arc::new(OldestUpload { inner, oldest, key, create: options.create }))
    }

    async fn get(&self, key: &Key, range: GetRange) -> Result<GetResult> {
        if let Some((versions, version)) = self.by_version(key).await? {
            return versions.get(key, &version, range).await;
        }
        let got = self.0.store.get(key, range).await;
        let found = got.as_ref().map(|got| got.version.clone()).map_err(|error| error.kind);
        match self.other_than_found(key, found).await? {
            Some((versions, version)) => versions.get(key, &version, range).await,
            None => got,
        }
    }

    async fn head(&self, key: &Key) -> Result<ObjectMeta> {
        if let Some((versions, version)) = self.by_version(key).await? {
            return versions.head(key, &version).await;
        }
        let meta = self.0.store.head(key).await;
        let found = meta.as_ref().map(|meta| meta.version.clone()).map_err(|error| error.kind);
        match self.other_than_found(key, found).await? {
            Some((versions, version)) => versions.head(key, &version).await,
            None => meta,
        }
    }

    async fn list(&self, prefix: &str, start_after: Option<&Key>, max_keys: usize) -> Result<ListPage> {
        let Some(versions) = self.versions().filter(|_| self.is_lasting(prefix)) else {
            return self.0.store.list(prefix, start_after, max_keys).await;
        };
        let mut after = start_after.cloned();
        loop {
            let page = versions.list(prefix, after.as_ref(), max_keys).await?;
            let mut objects = Vec::with_capacity(page.keys.len());
            for found in &page.keys {
                self.take(&found.key, Some(found), None);
                objects.extend(found.oldest().map(|oldest| oldest.meta(&found.key)));
            }
            after = page.keys.last().map(|found| found.key.clone());
            // A page of nothing but delete markers gives no name to go on from.
            if !objects.is_empty() || !page.more {
                return Ok(ListPage { objects, more: page.more });
            }
        }
    }

    async fn delete_many(&self, keys: &[Key]) -> Result<Vec<Result<()>>> {
        self.0.store.delete_many(keys).await
    }

    async fn copy(&self, from: &Key, to: &Key, options: &PutOptions) -> Result<ObjectMeta> {
        let outcome = self.0.store.copy(from, to, options).await;
        self.created(to, options.create, outcome).await
    }

    async fn list_uploads(&self, prefix: &str) -> Result<Vec<PendingUpload>> {
        self.0.store.list_uploads(prefix).await
    }

    async fn abort_upload(&self, upload: &PendingUpload) -> Result<()> {
        self.0.store.abort_upload(upload).await
    }

    async fn versions(&self) -> Result<Option<Arc<dyn Versions>>> {
        Ok(self.0.versions.clone())
    }
}

#[derive(Debug)]
struct OldestUpload {
    inner: Arc<dyn Upload>,
    oldest: Oldest,
    key: Key,
    create: Create,
}

#[async_trait]
impl Upload for OldestUpload {
    async fn put_part(&self, number: u32, body: Bytes) -> Result<()> {
        self.inner.put_part(number, body).await
    }

    async fn complete(&self) -> Result<ObjectMeta> {
        let outcome = self.inner.complete().await;
        self.oldest.created(&self.key, self.create, outcome).await
    }

    async fn abort(&self) -> Result<()> {
        self.inner.abort().await
    }
}
