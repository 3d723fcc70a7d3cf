//! The archive's root in a store: small objects by name, each created once.
//!
//! An answer may be lost: whenever a creation fails in a way that leaves its effect unknown, what is there is
//! looked at, and only that decides. In a store that keeps versions an object is the oldest one of its name (`oldest`).

use bytes::Bytes;
use varve_store::{Create, GetRange, Key, ListPage, ObjectMeta, PutOptions, SharedStore, Store};

use crate::canonical::{Record, RecordError};
use crate::error::{Error, Kind, Result};
use crate::oldest::Oldest;

/// See the module.
#[derive(Clone, Debug)]
pub struct Shelf {
    store: Oldest,
    /// Empty, or ends with `/`.
    root: String,
}

/// What creating an object came to.
#[derive(Debug)]
pub(crate) enum Created {
    /// It is there with our bytes, by us or by somebody who had the same.
    Ours,
    Other(Bytes),
}

impl Shelf {
    /// `root` is a prefix of the store's names, without slashes at its ends; empty for the whole store.
    ///
    /// # Errors
    /// Of the store, which is asked whether it keeps versions.
    pub(crate) async fn open(store: SharedStore, root: &str) -> Result<Self> {
        let root = if root.is_empty() { String::new() } else { format!("{root}/") };
        Ok(Self { store: Oldest::over(store, &root).await?, root })
    }

    /// Empty, or ends with `/`.
    pub(crate) fn root(&self) -> &str {
        &self.root
    }

    /// In which an object is the oldest version of its name.
    pub fn store(&self) -> &dyn Store {
        &self.store
    }

    pub fn shared(&self) -> SharedStore {
        std::sync::Arc::new(self.store.clone())
    }

    pub(crate) fn oldest(&self) -> &Oldest {
        &self.store
    }

    /// Whether it is worth reading an object again that does not hold: it was overwritten, as a look now tells.
    pub(crate) async fn again(&self, name: &str, error: &Error) -> Result<bool> {
        if !matches!(error.kind(), Kind::Corrupt | Kind::Invalid) {
            return Ok(false);
        }
        Ok(self.store.look(&self.key(name)?, None).await?)
    }

    /// As [`Shelf::get`], of what nothing else proves: where versions are kept, they are looked at first.
    pub(crate) async fn get_first(&self, name: &str, max_bytes: u64) -> Result<Option<Bytes>> {
        if !self.store.look_first(&self.key(name)?).await? {
            return Ok(None);
        }
        self.get(name, max_bytes).await
    }

    pub fn key(&self, name: &str) -> Result<Key> {
        Ok(Key::new(format!("{}{name}", self.root))?)
    }

    /// For messages.
    pub(crate) fn place(&self, name: &str) -> String {
        format!("{}/{}{name}", self.store.url().trim_end_matches('/'), self.root)
    }

    pub(crate) fn name<'a>(&self, key: &'a Key) -> &'a str {
        key.as_str().strip_prefix(&self.root).unwrap_or_default()
    }

    pub(crate) fn damaged(&self, name: &str) -> impl Fn(RecordError) -> Error + use<> {
        let object = self.place(name);
        move |source| Error::Record { object: object.clone(), source }
    }

    /// All of an object, of which at most `max_bytes + 1` are fetched: a longer one is told by that.
    pub(crate) async fn get(&self, name: &str, max_bytes: u64) -> Result<Option<Bytes>> {
        let range = GetRange::Bounded { start: 0, end: max_bytes.saturating_add(1) };
        let got = match self.store.get(&self.key(name)?, range).await {
            Ok(got) => got.bytes().await,
            Err(error) => Err(error),
        };
        match got {
            Ok(bytes) => Ok(Some(bytes)),
            Err(e) if e.kind == varve_store::Kind::NotFound => Ok(None),
            // Of an empty object no range holds a byte.
            Err(e) if e.kind == varve_store::Kind::InvalidRange => Ok(Some(Bytes::new())),
            Err(e) => Err(e.into()),
        }
    }

    pub(crate) async fn record<R: Record>(&self, name: &str) -> Result<Option<(R, Bytes)>> {
        let Some(bytes) = self.get_first(name, R::MAX_BYTES).await? else { return Ok(None) };
        let record = R::decode(&bytes).map_err(self.damaged(name))?;
        Ok(Some((record, bytes)))
    }

    pub(crate) async fn create(&self, name: &str, bytes: Bytes) -> Result<Created> {
        let options = PutOptions { create: Create::IfAbsent, storage_class: None };
        let error = match self.store.put(&self.key(name)?, bytes.clone(), &options).await {
            Ok(_) => return Ok(Created::Ours),
            Err(error) => error,
        };
        match self.get(name, (bytes.len() as u64).max(crate::record::MANIFEST_MAX_BYTES)).await {
            Ok(Some(found)) if found == bytes => Ok(Created::Ours),
            Ok(Some(found)) => Ok(Created::Other(found)),
            _ => Err(error.into()),
        }
    }

    /// Tries whether the store knows create-if-absent.
    pub(crate) async fn probe(&self, name: &str) -> Result<()> {
        let options = PutOptions { create: Create::IfAbsent, storage_class: None };
        let key = self.key(name)?;
        let put = || self.store.put(&key, Bytes::from_static(b"{}"), &options);
        // Of one that is there already, the first says what the second would.
        let second = match put().await {
            Ok(_) => put().await,
            refused => refused,
        };
        let outcome = match second {
            Err(e) if e.kind == varve_store::Kind::AlreadyExists => Ok(()),
            Err(e) => Err(e.into()),
            Ok(_) => Err(Error::invalid("store", "one that creates what exists", "create-if-absent")),
        };
        // A lock may hold it: it harms nobody.
        let _ = varve_store::delete(&self.store, &key).await;
        outcome
    }

    pub(crate) async fn list(&self, prefix: &str, after: Option<&str>, max_keys: usize) -> Result<ListPage> {
        let after = after.map(|name| self.key(name)).transpose()?;
        let page = self.store.list(&format!("{}{prefix}", self.root), after.as_ref(), max_keys).await?;
        if page.objects.is_empty() && page.more {
            // Whoever goes on from the last name would go on for ever, or end too early.
            return Err(Error::corrupt(self.place(prefix), "a listing with a name, or its end", "neither"));
        }
        Ok(page)
    }

    /// The first object behind `after` whose name `parse` takes. Objects of other names are passed over.
    pub(crate) async fn first<T>(
        &self,
        prefix: &str,
        after: Option<String>,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Result<Option<(T, ObjectMeta)>> {
        let (mut after, mut keys) = (after, 1);
        loop {
            let page = self.list(prefix, after.as_deref(), keys).await?;
            for object in page.objects.iter() {
                if let Some(found) = parse(self.name(&object.key)) {
                    return Ok(Some((found, object.clone())));
                }
            }
            match page.objects.last() {
                Some(last) if page.more => after = Some(self.name(&last.key).to_owned()),
                _ => return Ok(None),
            }
            keys = 1000;
        }
    }

    /// The highest number that `parse` finds in names under `prefix`, 0 if there is none: by doubling and
    /// bisection from `known`, which is a number that exists, or 0.
    pub(crate) async fn highest(
        &self,
        prefix: &str,
        known: u64,
        name: impl Fn(u64) -> String,
        parse: impl Fn(&str) -> Option<u64>,
    ) -> Result<u64> {
        let (mut low, mut high, mut step) = (known, known, 1_u64);
        while let Some((found, _)) = self.first(prefix, Some(name(high)), &parse).await? {
            low = found;
            high = found.saturating_add(step);
            step = step.saturating_mul(2);
        }
        while low < high {
            let middle = low.saturating_add(high.saturating_sub(low) / 2);
            match self.first(prefix, Some(name(middle)), &parse).await? {
                Some((found, _)) => low = found,
                None => high = middle,
            }
        }
        Ok(low)
    }
}
