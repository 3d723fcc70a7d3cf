//! Key records and tombstones in their store.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use varve_format::{
    DataKey, Id, KEY_RECORD_MAX_BYTES, KeyRecord, KeyRecordName, Wrapping, key_prefix, key_record_1_name,
    key_record_name, tombstone_name,
};
use varve_store::{Create, GetRange, Key, PutOptions, SharedStore, Versions};
use zeroize::Zeroizing;

use super::Period;
use crate::error::{Error, Kind, Result};
use crate::key_url::{KeyUrl, Service};
use crate::services::KeyServices;
use crate::trusted::Trusted;
use crate::wrapped::Wrapped;

/// One byte more than is allowed, so that a longer one is refused, not cut.
pub(super) const FETCH_BYTES: u64 = KEY_RECORD_MAX_BYTES as u64 + 1;
/// Of a period's records a writer looks at so many for one that it may use; then it makes one.
const LOOKED_AT_MAX: usize = 8;
const PAGE_KEYS: usize = 1000;

pub(super) struct Records {
    pub(super) store: SharedStore,
    pub(super) services: KeyServices,
    trusted: Trusted,
    versions: OnceLock<Arc<dyn Versions>>,
}

/// Bytes of the system's generator.
fn random<const N: usize>() -> Result<Zeroizing<[u8; N]>> {
    let mut bytes = Zeroizing::new([0; N]);
    aws_lc_rs::rand::fill(bytes.as_mut_slice())
        .map_err(|_| Error::new(Kind::Other, "make", "a data key", "the random generator failed"))?;
    Ok(bytes)
}

impl Records {
    pub(super) fn new(store: SharedStore, services: KeyServices, trusted: Trusted) -> Self {
        Self { store, services, trusted, versions: OnceLock::new() }
    }

    /// For messages.
    pub(super) fn place(&self, name: &str) -> String {
        format!("{}/{name}", self.store.url().trim_end_matches('/'))
    }

    pub(super) fn key(&self, name: &str) -> Result<Key> {
        Key::new(name).map_err(|e| Error::new(Kind::Invalid, "name", name, e.detail))
    }

    /// That none are kept is asked again each time: it may show only in what is written.
    pub(super) async fn versions(&self) -> Result<Option<&dyn Versions>> {
        if let Some(kept) = self.versions.get() {
            return Ok(Some(&**kept));
        }
        match self.store.versions().await.map_err(of_store("read"))? {
            Some(kept) => Ok(Some(&**self.versions.get_or_init(|| kept))),
            None => Ok(None),
        }
    }

    /// What is at the name.
    pub(super) async fn bytes(&self, name: &str) -> Result<Bytes> {
        let range = GetRange::Bounded { start: 0, end: FETCH_BYTES };
        let got = self.store.get(&self.key(name)?, range).await.map_err(of_store("read"))?;
        got.bytes().await.map_err(of_store("read"))
    }

    /// The record of that name, which it proves itself to be.
    pub(super) async fn record(&self, name: &KeyRecordName) -> Result<KeyRecord> {
        let (text, id) = (name.record(), name.id);
        let bytes = self.bytes(&text).await?;
        let decoded = KeyRecord::decode(&bytes).and_then(|record| {
            let id = id.unwrap_or(record.id);
            record.check_is(id, &name.cluster_id, name.topic_id, &name.period).map(|()| record)
        });
        decoded.map_err(|e| {
            let kind = match e {
                varve_format::Error::FutureVersion { .. } => Kind::Invalid,
                _ => Kind::Corrupt,
            };
            Error::new(kind, "read", self.place(&text), e.to_string())
        })
    }

    /// # Errors
    /// [`Kind::Destroyed`] of a key that has a tombstone, by either of a record's names.
    pub(super) async fn refuse_destroyed(&self, record: &KeyRecord, name: &KeyRecordName) -> Result<()> {
        let by_id = key_record_name(&name.cluster_id, name.topic_id, &name.period, record.id);
        self.refuse_tombstone(&by_id).await?;
        if name.record() != by_id { self.refuse_tombstone(&name.record()).await } else { Ok(()) }
    }

    pub(super) async fn refuse_tombstone(&self, record: &str) -> Result<()> {
        let name = tombstone_name(record);
        match self.store.head(&self.key(&name)?).await {
            Ok(_) => {
                let detail = "the data key was destroyed on purpose: a tombstone says so";
                Err(Error::new(Kind::Destroyed, "read", self.place(&name), detail))
            }
            Err(e) if e.kind == varve_store::Kind::NotFound => Ok(()),
            Err(e) => Err(of_store("read")(e)),
        }
    }

    /// The key of the record, by whatever wrapped it.
    pub(super) async fn open(&self, record: &KeyRecord) -> Result<DataKey> {
        let wrapped = wrapped(record)?;
        self.trusted.check(&wrapped.wrapped_by)?;
        let secret = self.services.unwrap(&wrapped, &record.aad()).await?;
        Ok(record.data_key(&secret))
    }

    /// The key of that id.
    pub(super) async fn load(&self, period: &Period, id: Id) -> Result<DataKey> {
        let Period { cluster_id, topic_id, period } = period;
        let name = KeyRecordName {
            cluster_id: cluster_id.clone(),
            topic_id: *topic_id,
            period: period.clone(),
            id: Some(id),
            is_tombstone: false,
        };
        let text = name.record();
        let (destroyed, found) = futures::join!(self.refuse_tombstone(&text), self.record(&name));
        destroyed?;
        let record = match found {
            Err(e) if e.kind == Kind::NotFound => self.of_version_1(&name, id).await?,
            found => found?,
        };
        self.open(&record).await
    }

    /// From before each key had a record of its own.
    async fn of_version_1(&self, name: &KeyRecordName, id: Id) -> Result<KeyRecord> {
        let older = KeyRecordName { id: None, ..name.clone() };
        let text = key_record_1_name(&name.cluster_id, name.topic_id, &name.period);
        let lost = |what: &str| {
            let detail = format!("data key {id} of period {}: {what}", name.period);
            Error::new(Kind::NotFound, "read", self.place(&name.record()), detail)
        };
        self.refuse_tombstone(&text).await?;
        match self.record(&older).await {
            Ok(record) if record.id == id => Ok(record),
            Ok(_) => Err(lost("no record has it")),
            Err(e) if e.kind == Kind::NotFound => {
                Err(lost("its record is not there: it was destroyed, or never copied here"))
            }
            Err(e) => Err(e),
        }
    }

    /// What a writer goes on with that holds this key: `None`, and so with another, once it was destroyed.
    ///
    /// A record that is gone was not destroyed on purpose. We may be the last who have the key: it is written again.
    ///
    /// # Errors
    /// [`Kind::Refused`] of a record that opens to another key than ours: somebody else may know that one.
    pub(super) async fn renewed(
        &self,
        period: &Period,
        kek: &KeyUrl,
        held: DataKey,
        now_ms: i64,
    ) -> Result<Option<DataKey>> {
        let Period { cluster_id, topic_id, period: of } = period;
        let name = key_record_name(cluster_id, *topic_id, of, held.id);
        match self.load(period, held.id).await {
            Ok(key) if key.secret() == held.secret() => return Ok(Some(key)),
            Ok(_) => {
                let detail = "it opens to another data key than it did: somebody replaced it. Put the true record \
                              back (an older version, a copy): what was sealed needs it";
                tracing::error!(record = name, "{detail}");
                return Err(Error::new(Kind::Refused, "read", self.place(&name), detail));
            }
            Err(e) if e.kind == Kind::Destroyed => {
                tracing::warn!(
                    record = name,
                    "a data key in use was destroyed: what comes is sealed by another"
                );
                return Ok(None);
            }
            // The record, not the key that wraps it.
            Err(e) if e.kind == Kind::NotFound && e.operation == "read" => {}
            Err(e) => return Err(e),
        }
        tracing::error!(record = name, "the record of a data key in use is gone: it is written again");
        self.make(period, kek, held.id, held.secret(), now_ms).await?;
        match self.refuse_tombstone(&name).await {
            Ok(()) => Ok(Some(held)),
            Err(e) if e.kind == Kind::Destroyed => {
                self.remove(&name).await?;
                Ok(None)
            }
            Err(e) => Err(e),
        }
    }

    /// A key of the period that `kek` vouches for.
    ///
    /// # Errors
    /// [`Kind::Refused`] where a file's key opens none of what a key of its id has wrapped: likely it is another one,
    /// and what would be sealed now could not be read later beside what is there. A service's key is what it says.
    pub(super) async fn find(&self, period: &Period, kek: &KeyUrl) -> Result<Option<DataKey>> {
        let prefix = key_prefix(&period.cluster_id, period.topic_id, &period.period);
        let page = self.store.list(&prefix, None, PAGE_KEYS).await.map_err(of_store("list"))?;
        let names = page.objects.iter().filter_map(|object| KeyRecordName::parse(object.key.as_str()));
        let names = names.filter(|name| !name.is_tombstone && name.id.is_some());
        let of_ring = kek.service() == Service::Ring;
        // To ask a ring takes nobody's time, and strangers' records must not hide the one that proves it.
        let looked_at_max = if of_ring { PAGE_KEYS } else { LOOKED_AT_MAX };
        let mut refused = None;
        for name in names.take(looked_at_max) {
            match self.vouched(&name, kek).await {
                Ok(Some(key)) => return Ok(Some(key)),
                Ok(None) => {}
                Err(e) if e.kind == Kind::Unavailable => return Err(e),
                Err(e) if e.kind == Kind::Refused && of_ring => refused = Some(e),
                Err(e) => tracing::warn!(record = name.record(), "passed over a key record: {e}"),
            }
        }
        refused.map_or(Ok(None), |e| Err(wrong_ring(kek, &self.place(&prefix), &e)))
    }

    async fn vouched(&self, name: &KeyRecordName, kek: &KeyUrl) -> Result<Option<DataKey>> {
        let record = self.record(name).await?;
        let wrapped = wrapped(&record)?;
        if record.rewrapped || wrapped.anyone_can_wrap() || kek.covers(&wrapped.wrapped_by) != Some(true) {
            return Ok(None);
        }
        self.refuse_tombstone(&name.record()).await?;
        // The very bytes that were judged.
        self.open(&record).await.map(Some)
    }

    /// Makes a key, and its record.
    pub(super) async fn create(&self, period: &Period, kek: &KeyUrl, now_ms: i64) -> Result<DataKey> {
        let (id, secret) = (Id(*random()?), random::<32>()?);
        self.make(period, kek, id, &secret, now_ms).await
    }

    async fn make(
        &self,
        period: &Period,
        kek: &KeyUrl,
        id: Id,
        secret: &[u8; 32],
        now_ms: i64,
    ) -> Result<DataKey> {
        let Period { cluster_id, topic_id, period } = period;
        let name = key_record_name(cluster_id, *topic_id, period, id);
        let record = KeyRecord::new(id, cluster_id, *topic_id, period, now_ms);
        let record = record.map_err(|e| Error::new(Kind::Invalid, "make", &name, e.to_string()))?;
        let wrapped = self.services.wrap(kek, secret, &record.aad()).await?;
        self.prove(&wrapped, kek, secret, &record.aad()).await?;
        let record = KeyRecord { wrapping: wrapping(wrapped), ..record };
        self.put(&name, &record, Create::IfAbsent).await?;
        Ok(record.data_key(secret))
    }

    /// That what was wrapped opens, and not for anything else: before its record is written.
    pub(super) async fn prove(
        &self,
        wrapped: &Wrapped,
        kek: &KeyUrl,
        secret: &[u8; 32],
        aad: &[u8],
    ) -> Result<()> {
        if *self.services.unwrap(wrapped, aad).await? != *secret {
            return Err(Error::new(Kind::Other, "wrap", kek, "what was wrapped opens to another key"));
        }
        if kek.service() == Service::Vault {
            let mut other = aad.to_vec();
            other.iter_mut().take(1).for_each(|byte| *byte ^= 1);
            match self.services.unwrap(wrapped, &other).await {
                Err(e) if e.kind == Kind::Refused => {}
                Err(e) => return Err(e),
                Ok(_) => {
                    let detail =
                        "it opens whatever it was bound to: this Vault knows no associated data, upgrade it";
                    return Err(Error::new(Kind::Invalid, "wrap", kek, detail));
                }
            }
        }
        Ok(())
    }

    /// Writes a record, and reads it back: the keys of a month of objects are lost with one that was cut short.
    pub(super) async fn put(&self, name: &str, record: &KeyRecord, create: Create) -> Result<()> {
        let encoded = record.encode().map(Bytes::from);
        let encoded = encoded.map_err(|e| Error::new(Kind::Other, "write", name, e.to_string()))?;
        let options = PutOptions { create, storage_class: None };
        let refused = match self.store.put(&self.key(name)?, encoded.clone(), &options).await {
            Ok(_) => None,
            // An answer that was lost may come back as this: what is there tells.
            Err(e) if e.kind == varve_store::Kind::AlreadyExists => Some(e),
            Err(e) => return Err(of_store("write")(e)),
        };
        if self.bytes(name).await? == encoded {
            return Ok(());
        }
        let detail = "another record is there than was written: somebody else wrote it, or it was cut short";
        Err(refused
            .map_or_else(|| Error::new(Kind::Other, "write", self.place(name), detail), of_store("write")))
    }
}

/// A file's key opens nothing of what a key of its id wrapped, at `place`.
pub(super) fn wrong_ring(kek: &KeyUrl, place: &str, refused: &Error) -> Error {
    let detail = format!(
        "none of the key records at {place} opens with it: {}; is it another key of the same id?",
        refused.detail
    );
    Error::new(Kind::Refused, "unwrap", kek, detail)
}

/// What a key service is asked to open.
pub(super) fn wrapped(record: &KeyRecord) -> Result<Wrapped> {
    let Wrapping { wrapped_by, algorithm, wrapped } = &record.wrapping;
    let wrapped_by = KeyUrl::parse(wrapped_by)?;
    Ok(Wrapped { wrapped_by, algorithm: algorithm.clone(), bytes: wrapped.clone() })
}

pub(super) fn wrapping(wrapped: Wrapped) -> Wrapping {
    let Wrapped { wrapped_by, algorithm, bytes } = wrapped;
    Wrapping { wrapped_by: wrapped_by.as_str().to_owned(), algorithm, wrapped: bytes }
}

/// Of the store that records are in.
pub(super) fn of_store(operation: &'static str) -> impl Fn(varve_store::Error) -> Error {
    use varve_store::Kind as Store;

    move |e| {
        let kind = match e.kind {
            Store::NotFound => Kind::NotFound,
            Store::Denied => Kind::Denied,
            Store::Unavailable => Kind::Unavailable,
            Store::NoSpace => Kind::NoSpace,
            Store::Invalid | Store::Unsupported => Kind::Invalid,
            // Also an object that is shorter than any record.
            Store::Truncated | Store::InvalidRange => Kind::Corrupt,
            Store::AlreadyExists | Store::Frozen | Store::Other => Kind::Other,
        };
        Error::new(kind, operation, &e.object, &e.detail)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use varve_store::MemoryStore;

    use super::*;
    use crate::wrapped::algorithm;

    #[tokio::test]
    async fn what_anyone_can_wrap_is_never_sealed_under() {
        let kek = KeyUrl::parse("azure-kms://a.vault.azure.net/keys/k").unwrap();
        let store: SharedStore = Arc::new(MemoryStore::new());
        let services = KeyServices::new(&BTreeMap::new(), None).unwrap();
        let records = Records::new(store.clone(), services, Trusted::new([kek.clone()], false));
        let (topic_id, period) = (Id([1; 16]), "2026-11".to_owned());
        let period = Period { cluster_id: "cluster".to_owned(), topic_id, period };
        let mut record = KeyRecord::new(Id([2; 16]), "cluster", topic_id, "2026-11", 5).unwrap();
        record.wrapping = Wrapping {
            wrapped_by: "azure-kms://a.vault.azure.net/keys/k/0a".to_owned(),
            algorithm: algorithm::AZURE_RSA.to_owned(),
            wrapped: vec![7; 300],
        };
        let name = key_record_name("cluster", topic_id, "2026-11", record.id);
        let (key, options) = (Key::new(name).unwrap(), PutOptions::default());
        store.put(&key, record.encode().unwrap().into(), &options).await.unwrap();
        // No service is asked: there is none here.
        assert!(records.find(&period, &kek).await.unwrap().is_none());
    }
}
