//! Data keys: made and wrapped when a topic's period begins, looked up when an object is opened.
//!
//! * **Durable first.** A key's record is in the store before the first object is sealed with it. Records have the
//!   key's random id in their names, so none is ever in another's way, and writers that begin a period at once may
//!   begin it with several keys; those that come later use one that is there.
//! * **Whose keys.** A writer seals only under a key that it made itself or that the configured key-encryption key
//!   vouches for: that of a key pair, with which anyone can wrap, vouches for nothing. A reader asks only keys that are
//!   [`Trusted`], and a record counts only for the cluster, topic, period and id that it was looked for by. What was
//!   wrapped anew seals nothing new: whoever could open it before still may have it.
//! * **Bounded time.** A key in the clear is used for `cache`, from the moment at which it was asked for. From half of
//!   that on it is asked for anew: while the key service is away the rest of the time is used up, and then calls fail
//!   with [`Kind::Unavailable`]. Any other answer than "away" counts at once.
//! * **Destroyed keys** have a tombstone beside where the record was: a record that is put back counts for nothing.
//!
//! A crash leaves a record that nothing uses, at most.

mod change;
mod records;
mod versions;

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;
use varve_format::{DataKey, EncryptionInfo, Id, KeyRecordName};
use varve_store::SharedStore;

use crate::error::{Error, Kind, Result};
use crate::key_url::KeyUrl;
use crate::period::KeyPeriod;
use crate::services::KeyServices;
use crate::trusted::Trusted;

pub use change::Rewrapped;
use records::Records;

/// Keys in the clear that are held at once.
const HELD_MAX: usize = 10_000;
/// After a key service was away, a key that still may be used is asked for again so much later.
const AGAIN: Duration = Duration::from_secs(15);

/// Whose key it is, of which time.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Period {
    cluster_id: String,
    topic_id: Id,
    period: String,
}

/// See the module. Cheap to clone.
#[derive(Clone)]
pub struct DataKeys {
    inner: Arc<Inner>,
}

struct Inner {
    records: Records,
    cache: Duration,
    writing: Held<(Period, KeyUrl)>,
    reading: Held<(Period, Id)>,
}

impl fmt::Debug for DataKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DataKeys").field("cache", &self.inner.cache).finish_non_exhaustive()
    }
}

impl DataKeys {
    /// `cache`: how long a key in the clear is used.
    pub fn new(store: SharedStore, services: KeyServices, trusted: Trusted, cache: Duration) -> Self {
        for key in trusted.keys() {
            services.trust(key);
        }
        let records = Records::new(store, services, trusted);
        let inner = Inner { records, cache, writing: Held::default(), reading: Held::default() };
        Self { inner: Arc::new(inner) }
    }

    /// The key to seal new objects of a topic with, its period, and until when it may be used without asking again.
    /// `kek` wraps it.
    ///
    /// # Errors
    /// [`Kind::Unavailable`] of store or key service: to be tried again later. Others are for people.
    pub async fn for_write_until(
        &self,
        cluster_id: &str,
        topic_id: Id,
        kek: &KeyUrl,
        period: KeyPeriod,
        now_ms: i64,
    ) -> Result<(DataKey, String, Instant)> {
        let period = Period { cluster_id: cluster_id.to_owned(), topic_id, period: period.at(now_ms) };
        let slot = self.inner.writing.slot(&(period.clone(), kek.clone()), self.inner.cache);
        let records = &self.inner.records;
        let load = |held: Option<DataKey>| {
            let period = period.clone();
            async move {
                if let Some(held) = held
                    && let Some(key) = records.renewed(&period, kek, held, now_ms).await?
                {
                    return Ok(key);
                }
                match records.find(&period, kek).await? {
                    Some(key) => Ok(key),
                    None => records.create(&period, kek, now_ms).await,
                }
            }
        };
        let (key, until) = slot.current(self.inner.cache, load).await?;
        Ok((key, period.period, until))
    }

    /// The key that an object names.
    ///
    /// # Errors
    /// [`Kind::Destroyed`], [`Kind::NotFound`], [`Kind::Denied`]: it can't be read, and why. [`Kind::Unavailable`]:
    /// to be tried again later.
    pub async fn for_read(&self, cluster_id: &str, topic_id: Id, info: &EncryptionInfo) -> Result<DataKey> {
        self.for_read_until(cluster_id, topic_id, info).await.map(|(key, _)| key)
    }

    /// The same, and until when it may be used without asking again.
    ///
    /// # Errors
    /// As [`for_read`](Self::for_read).
    pub async fn for_read_until(
        &self,
        cluster_id: &str,
        topic_id: Id,
        info: &EncryptionInfo,
    ) -> Result<(DataKey, Instant)> {
        let period = Period { cluster_id: cluster_id.to_owned(), topic_id, period: info.period.clone() };
        let id = info.data_key_id;
        let slot = self.inner.reading.slot(&(period.clone(), id), self.inner.cache);
        slot.current(self.inner.cache, |_| self.inner.records.load(&period, id)).await
    }

    /// The key of a record by its name, from the store and the key service, whatever is held.
    ///
    /// # Errors
    /// As [`for_read`](Self::for_read).
    pub async fn try_open(&self, name: &KeyRecordName) -> Result<DataKey> {
        let records = &self.inner.records;
        // First of all: of a destroyed key there is no record to ask.
        records.refuse_tombstone(&name.record()).await?;
        let record = records.record(name).await?;
        records.refuse_destroyed(&record, name).await?;
        records.open(&record).await
    }

    fn forget(&self) {
        self.inner.writing.clear();
        self.inner.reading.clear();
    }
}

/// Keys in the clear, each behind a slot of its own: of many that ask at once one goes, and the others wait for it.
struct Held<K>(Mutex<HashMap<K, Arc<Slot>>>);

impl<K> Default for Held<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Hash + Eq + Clone> Held<K> {
    fn slot(&self, of: &K, cache: Duration) -> Arc<Slot> {
        let mut held = self.0.lock();
        if let Some(slot) = held.get(of) {
            return Arc::clone(slot);
        }
        if held.len() >= HELD_MAX {
            held.retain(|_, slot| slot.is_usable(cache));
        }
        if held.len() >= HELD_MAX {
            held.clear();
        }
        Arc::clone(held.entry(of.clone()).or_default())
    }

    fn clear(&self) {
        self.0.lock().clear();
    }
}

#[derive(Default)]
struct Slot {
    state: Mutex<State>,
    turn: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct State {
    key: Option<Known>,
    failed: Option<(Error, Instant)>,
}

struct Known {
    key: DataKey,
    asked: Instant,
    /// Before that it isn't asked for anew.
    renew: Instant,
}

impl Slot {
    fn is_usable(&self, cache: Duration) -> bool {
        self.state.lock().key.as_ref().is_some_and(|known| known.asked.elapsed() < cache)
    }

    fn held(&self, cache: Duration, may_be_old: bool) -> Option<(DataKey, Instant)> {
        let state = self.state.lock();
        let known = state.key.as_ref().filter(|known| known.asked.elapsed() < cache)?;
        let fresh = may_be_old || Instant::now() < known.renew;
        fresh.then(|| (known.key.clone(), known.asked + cache))
    }

    /// The key, held or by `load`, which is given the one before.
    async fn current<F>(
        &self,
        cache: Duration,
        load: impl FnOnce(Option<DataKey>) -> F,
    ) -> Result<(DataKey, Instant)>
    where
        F: Future<Output = Result<DataKey>>,
    {
        if let Some(held) = self.held(cache, false) {
            return Ok(held);
        }
        let came = Instant::now();
        let _turn = self.turn.lock().await;
        if let Some(held) = self.held(cache, false) {
            return Ok(held);
        }
        // Whoever was before us asked for the same, after we came.
        if let Some((error, at)) = &self.state.lock().failed
            && *at >= came
        {
            return Err(error.clone());
        }
        let (asked, before) = (Instant::now(), self.state.lock().key.as_ref().map(|known| known.key.clone()));
        let loaded = load(before).await;
        let away = matches!(&loaded, Err(error) if error.kind == Kind::Unavailable);
        if let (true, Some(held)) = (away, self.held(cache, true)) {
            let mut state = self.state.lock();
            if let Some(known) = &mut state.key {
                known.renew = Instant::now() + AGAIN;
            }
            return Ok(held);
        }
        let mut state = self.state.lock();
        match loaded {
            Ok(key) => {
                let known = Known { key: key.clone(), asked, renew: asked + cache / 2 };
                *state = State { key: Some(known), failed: None };
                Ok((key, asked + cache))
            }
            Err(error) => {
                *state = State { key: None, failed: Some((error.clone(), Instant::now())) };
                Err(error)
            }
        }
    }
}
