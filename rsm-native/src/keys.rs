//! Data keys: made and wrapped when a topic's period begins, looked up when an object is opened.
//!
//! A key's record is created only if it is absent, so of several brokers that begin a period at once, one
//! key wins and all use it. The record is durable before the first object is sealed with its key.

use std::collections::HashMap;
use std::io::Read as _;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;
use varve_format::{
    DataKey, EncryptionInfo, Id, KEY_RECORD_MAX_BYTES, KEY_RING_MAX_BYTES, KeyRecord, KeyRing,
    key_record_name,
};
use varve_store::{Create, GetRange, Key, PutOptions, SharedStore};
use zeroize::Zeroizing;

use crate::config::{Config, KeyPeriod};
use crate::error::{Error, Kind, Result};

/// How long an unwrapped key is kept: a key that was destroyed opens nothing after that.
const KEEP: Duration = Duration::from_secs(600);
const KEPT_MAX: usize = 10_000;
/// One byte more than is allowed, so that a longer one is refused, not cut.
const RECORD_FETCH_BYTES: u64 = KEY_RECORD_MAX_BYTES as u64 + 1;

#[derive(Debug)]
pub struct Keys {
    store: SharedStore,
    ring: Option<KeyRing>,
    period: KeyPeriod,
    kept: Mutex<HashMap<String, (DataKey, Instant)>>,
}

impl Keys {
    pub fn new(config: &Config, store: SharedStore) -> Result<Self> {
        let ring = match &config.key_ring_file {
            None => None,
            Some(path) => {
                let read = read_ring(path);
                let text = read.map_err(|e| {
                    Error::config("encryption.key.ring.file", &path.display().to_string(), &e.to_string())
                })?;
                let parsed = KeyRing::parse(&text);
                Some(parsed.map_err(|e| {
                    Error::config("encryption.key.ring.file", &path.display().to_string(), &e.to_string())
                })?)
            }
        };
        Ok(Self { store, ring, period: config.key_period, kept: Mutex::default() })
    }

    /// The key for new objects of a topic, and its period.
    pub async fn for_write(&self, cluster_id: &str, topic_id: Id, now_ms: i64) -> Result<(DataKey, String)> {
        let period = period_of(self.period, now_ms);
        let name = key_record_name(cluster_id, topic_id, &period);
        if let Some(key) = self.kept(&name) {
            return Ok((key, period));
        }
        let key = match self.load(&name, topic_id, &period).await {
            Err(e) if e.kind == Kind::NotFound => self.create(&name, topic_id, &period, now_ms).await?,
            loaded => loaded?,
        };
        self.keep(name, &key);
        Ok((key, period))
    }

    /// The key that an object names.
    pub async fn for_read(&self, cluster_id: &str, topic_id: Id, info: &EncryptionInfo) -> Result<DataKey> {
        let name = key_record_name(cluster_id, topic_id, &info.period);
        // One of the same name may have been destroyed and replaced.
        let key = match self.kept(&name).filter(|key| key.id == info.data_key_id) {
            Some(key) => key,
            None => {
                let key = self.load(&name, topic_id, &info.period).await.map_err(|e| match e.kind {
                    Kind::NotFound => Error::new(
                        Kind::Denied,
                        format!(
                            "data key {} of period {}: {e}: the key was destroyed or never copied here",
                            info.data_key_id, info.period
                        ),
                    ),
                    _ => e,
                })?;
                self.keep(name, &key);
                key
            }
        };
        if key.id == info.data_key_id {
            return Ok(key);
        }
        Err(Error::new(
            Kind::Denied,
            format!(
                "the object needs data key {}, but period {} has key {}",
                info.data_key_id, info.period, key.id
            ),
        ))
    }

    fn ring(&self) -> Result<&KeyRing> {
        self.ring.as_ref().ok_or_else(|| {
            Error::new(Kind::Denied, "the object is encrypted and no encryption.key.ring.file is configured")
        })
    }

    async fn load(&self, name: &str, topic_id: Id, period: &str) -> Result<DataKey> {
        let key = Key::new(name)?;
        let bytes = self
            .store
            .get(&key, GetRange::Bounded { start: 0, end: RECORD_FETCH_BYTES })
            .await?
            .bytes()
            .await?;
        let open = || {
            let record = KeyRecord::decode(&bytes)?;
            record.check_is(topic_id, period)?;
            record.unwrap(self.ring.as_ref().ok_or(varve_format::Error::KeyMissing {
                what: "data key",
                key_id: "none configured".into(),
            })?)
        };
        self.ring()?;
        open().map_err(|e| {
            let damaged =
                matches!(e, varve_format::Error::Corrupt { .. } | varve_format::Error::Mistaken { .. });
            let kind = if damaged { Kind::Corrupt } else { Kind::Denied };
            Error::new(kind, format!("{}/{name}: {e}", self.store.url()))
        })
    }

    async fn create(&self, name: &str, topic_id: Id, period: &str, now_ms: i64) -> Result<DataKey> {
        let ring = self.ring()?;
        let secret = Zeroizing::new(random::<32>()?);
        let made = DataKey::new(Id(random()?), *secret);
        let record =
            KeyRecord::wrap(ring, &made, topic_id, period, now_ms, random()?).and_then(|r| r.encode());
        let record = record.map_err(|e| Error::format(name, e))?;
        let options = PutOptions { create: Create::IfAbsent, storage_class: None };
        match self.store.put(&Key::new(name)?, Bytes::from(record), &options).await {
            Ok(_) => Ok(made),
            // Another broker was first, or our own answer was lost: what is stored counts.
            Err(e) if e.kind == varve_store::Kind::AlreadyExists => self.load(name, topic_id, period).await,
            Err(e) => Err(e.into()),
        }
    }

    fn kept(&self, name: &str) -> Option<DataKey> {
        let kept = self.kept.lock();
        kept.get(name).filter(|(_, since)| since.elapsed() < KEEP).map(|(key, _)| key.clone())
    }

    fn keep(&self, name: String, key: &DataKey) {
        let mut kept = self.kept.lock();
        if kept.len() >= KEPT_MAX {
            kept.retain(|_, (_, since)| since.elapsed() < KEEP);
        }
        if kept.len() < KEPT_MAX {
            kept.insert(name, (key.clone(), Instant::now()));
        }
    }
}

/// Of the key ring's file no more than it may hold.
fn read_ring(path: &std::path::Path) -> std::io::Result<Zeroizing<String>> {
    let mut file = std::fs::File::open(path)?.take(KEY_RING_MAX_BYTES as u64 + 1);
    // All at once: a text that grows leaves copies of itself behind.
    let mut text = Zeroizing::new(String::with_capacity(KEY_RING_MAX_BYTES + 1));
    file.read_to_string(&mut text)?;
    Ok(text)
}

/// Bytes of the system's generator.
pub fn random<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| Error::internal("random generator", "it failed"))?;
    Ok(bytes)
}

/// `2026-11-21`, `2026-11` or `2026`, in UTC.
fn period_of(period: KeyPeriod, now_ms: i64) -> String {
    let now = time::OffsetDateTime::from_unix_timestamp(now_ms.div_euclid(1000))
        .unwrap_or(time::OffsetDateTime::UNIX_EPOCH);
    let (year, month, day) = now.to_calendar_date();
    match period {
        KeyPeriod::Day => format!("{year:04}-{:02}-{day:02}", u8::from(month)),
        KeyPeriod::Month => format!("{year:04}-{:02}", u8::from(month)),
        KeyPeriod::Year => format!("{year:04}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn periods() {
        let day = 86_400_000;
        assert_eq!(period_of(KeyPeriod::Day, 0), "1970-01-01");
        assert_eq!(period_of(KeyPeriod::Day, 11_016 * day), "2000-02-29");
        assert_eq!(period_of(KeyPeriod::Month, 1_795_219_200_000), "2026-11");
        assert_eq!(period_of(KeyPeriod::Year, -1), "1969");
    }
}
