//! What people do to key records: see them, wrap them anew, destroy them.

use bytes::Bytes;
use futures::{StreamExt, stream};
use varve_format::{KEYS_PREFIX, KeyRecord, KeyRecordName, key_record_name, tombstone_name};
use varve_store::{Create, Key, PutOptions, Store};

use super::DataKeys;
use super::records::{Records, of_store, wrapped, wrapping, wrong_ring};
use super::versions::ROUNDS_MAX;
use crate::error::{Error, Kind, Result};
use crate::key_url::{KeyUrl, Service};

const PAGE_KEYS: usize = 1000;
/// Records that are read at once.
const PARALLEL: usize = 16;

/// What came of wrapping a key anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rewrapped {
    Done,
    /// It is wrapped so already.
    Already,
}

impl DataKeys {
    /// Key records and tombstones behind `after`, in the order of their names, and where to go on, if there are more.
    ///
    /// # Errors
    /// Of the store.
    pub async fn page(&self, after: Option<&Key>) -> Result<(Vec<KeyRecordName>, Option<Key>)> {
        let page = self.inner.records.store.list(KEYS_PREFIX, after, PAGE_KEYS).await;
        let page = page.map_err(of_store("list"))?;
        let next = page.objects.last().filter(|_| page.more).map(|last| last.key.clone());
        let names = page.objects.iter().filter_map(|object| KeyRecordName::parse(object.key.as_str()));
        Ok((names.collect(), next))
    }

    /// A record, sealed as it is.
    ///
    /// # Errors
    /// [`Kind::NotFound`]; [`Kind::Corrupt`] for what is not the record of that name.
    pub async fn record(&self, name: &KeyRecordName) -> Result<KeyRecord> {
        self.inner.records.record(name).await
    }

    /// Wraps the key of a record by `kek`, and by the newest version of that where versions show. With `again` also
    /// where nothing shows that it would be another: Google and AWS don't tell which version of a key they used.
    ///
    /// The record is replaced whole, after what will stand in it was opened; older versions of it, where the store
    /// keeps them, are deleted then, and last the name that a record of version 1 had. A call that is broken off leaves
    /// the old record or the new one, and may be repeated. Of a file key ring see first that it
    /// [is the right one](Self::check_ring).
    ///
    /// # Errors
    /// [`Kind::Destroyed`] of a key that was destroyed, also meanwhile. Of versions that can't be deleted, and of those
    /// that stay: one that holds another key, or can't be read or opened, may be the true record, or that of another
    /// key of the period. By then the key is wrapped anew.
    pub async fn rewrap(&self, name: &KeyRecordName, kek: &KeyUrl, again: bool) -> Result<Rewrapped> {
        let records = &self.inner.records;
        let old = records.record(name).await?;
        records.refuse_destroyed(&old, name).await?;
        let key = records.open(&old).await?;
        let fresh = KeyRecord::new(old.id, &name.cluster_id, old.topic_id, &old.period, old.created_ms);
        let fresh = fresh.map_err(|e| Error::new(Kind::Invalid, "rewrap", name.record(), e.to_string()))?;
        let fresh = KeyRecord { rewrapped: true, ..fresh };
        let text = key_record_name(&name.cluster_id, name.topic_id, &name.period, old.id);
        let sealed = records.services.wrap(kek, key.secret(), &fresh.aad()).await?;
        let before = wrapped(&old)?;
        let same = old.cluster_id.is_some() && sealed.is_by_the_same_key_as(&before);
        if same && !again {
            // A call before this one may have come no further.
            records.remove_older(&text, &key).await?;
            return Ok(Rewrapped::Already);
        }
        records.prove(&sealed, kek, key.secret(), &fresh.aad()).await?;
        let fresh = KeyRecord { wrapping: wrapping(sealed), ..fresh };
        records.put(&text, &fresh, Create::Overwrite).await?;
        match records.refuse_destroyed(&fresh, name).await {
            // While we were at it: what we put must not stay.
            Err(e) if e.kind == Kind::Destroyed => {
                records.remove(&text).await?;
                return Err(e);
            }
            looked => looked?,
        }
        records.remove_older(&text, &key).await?;
        if name.record() != text {
            records.remove_version_1(&name.record(), &key).await?;
        }
        Ok(Rewrapped::Done)
    }

    /// That a file's key is the one which its id stands for here: where a key of that id has wrapped records, it opens
    /// one. Keys of services are what they say.
    ///
    /// # Errors
    /// [`Kind::Refused`] if it opens none of them.
    pub async fn check_ring(&self, kek: &KeyUrl) -> Result<()> {
        if kek.service() != Service::Ring {
            return Ok(());
        }
        let records = &self.inner.records;
        let (mut after, mut refused) = (None, None);
        loop {
            let (names, next) = self.page(after.as_ref()).await?;
            let names = names.into_iter().filter(|name| !name.is_tombstone);
            let mut found =
                stream::iter(names).map(|name| async move { records.record(&name).await }).buffered(PARALLEL);
            while let Some(found) = found.next().await {
                let record = match found {
                    Ok(record) if record.wrapping.wrapped_by == kek.as_str() => record,
                    Err(e) if matches!(e.kind, Kind::Unavailable | Kind::Denied) => return Err(e),
                    _ => continue,
                };
                match records.open(&record).await {
                    Ok(_) => return Ok(()),
                    Err(e) if e.kind == Kind::Refused => refused = Some(e),
                    Err(e) => return Err(e),
                }
            }
            match next {
                Some(next) => after = Some(next),
                None => break,
            }
        }
        refused.map_or(Ok(()), |e| Err(wrong_ring(kek, &records.place(KEYS_PREFIX), &e)))
    }

    /// Destroys a data key: a tombstone, then the record and all its versions, then a look whether any is left. A call
    /// that is broken off may be repeated, also where the record is gone.
    ///
    /// # Errors
    /// Of what can't be deleted, a version under a lock for instance: then the key still lives.
    pub async fn destroy(&self, name: &KeyRecordName, now_ms: i64) -> Result<()> {
        let records = &self.inner.records;
        let mut targets = vec![name.record()];
        if name.id.is_none() {
            match records.record(name).await {
                Ok(record) => {
                    targets.push(key_record_name(&name.cluster_id, name.topic_id, &name.period, record.id));
                }
                // What can't be read now may be readable later, and a copy by its id must not outlive it.
                Err(e) if matches!(e.kind, Kind::Unavailable | Kind::Denied) => return Err(e),
                Err(_) => {}
            }
        }
        let tombstone =
            Bytes::from(format!("{{\n  \"varve_destroyed\": 1,\n  \"destroyed_ms\": {now_ms}\n}}"));
        let options = PutOptions { create: Create::IfAbsent, storage_class: None };
        for target in &targets {
            let key = records.key(&tombstone_name(target))?;
            match records.store.put(&key, tombstone.clone(), &options).await {
                Err(e) if e.kind != varve_store::Kind::AlreadyExists => return Err(of_store("destroy")(e)),
                _ => {}
            }
        }
        for target in &targets {
            records.remove(target).await?;
        }
        self.forget();
        Ok(())
    }
}

impl Records {
    /// The object and all its versions, for good.
    pub(super) async fn remove(&self, name: &str) -> Result<()> {
        let key = self.key(name)?;
        let store: &dyn Store = self.store.as_ref();
        if let Some(versions) = self.versions().await? {
            for _ in 0..ROUNDS_MAX {
                let found = self.version_list(name).await?;
                if found.is_empty() {
                    return Ok(());
                }
                for version in found {
                    versions.delete(&key, &version.id).await.map_err(of_store("destroy"))?;
                }
            }
            return Err(self.endless("destroy", name));
        }
        varve_store::delete(store, &key).await.map_err(of_store("destroy"))?;
        match store.head(&key).await {
            Err(e) if e.kind == varve_store::Kind::NotFound => Ok(()),
            Err(e) => Err(of_store("destroy")(e)),
            Ok(_) => Err(Error::new(Kind::Other, "destroy", self.place(name), "it is still there")),
        }
    }
}
