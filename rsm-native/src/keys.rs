//! The plug-in's data keys: which key-encryption key is for which topic, and what failures mean to the broker.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::sync::Arc;

use tokio::time::Instant;
use varve_format::{DataKey, EncryptionInfo, Id, KEY_RING_MAX_BYTES, KeyRing};
use varve_keys::{DataKeys, KeyPeriod, KeyServices, KeyUrl, Trusted};
use varve_store::SharedStore;
use zeroize::Zeroizing;

use crate::config::Config;
use crate::error::{Error, Kind, Result};

#[derive(Debug)]
pub struct Keys {
    data_keys: DataKeys,
    period: KeyPeriod,
    /// The key ring's active key: what topics without a key of their own are encrypted with.
    ring: Option<KeyUrl>,
    /// Without any key, an encrypted object says so.
    has_keys: bool,
}

impl Keys {
    pub fn new(config: &Config, store: SharedStore) -> Result<Self> {
        let ring = config.key_ring_file.as_deref().map(read_ring).transpose()?.map(Arc::new);
        let services = KeyServices::new(config.key_settings(), ring.clone()).map_err(of_settings)?;
        let trusted: Vec<KeyUrl> = config.trusted_keys().cloned().collect();
        let has_keys = ring.is_some() || !trusted.is_empty();
        let trusted = Trusted::new(trusted, ring.is_some());
        let ring = ring.map(|ring| KeyUrl::parse(&format!("ring:{}", ring.active()))).transpose();
        Ok(Self {
            data_keys: DataKeys::new(store, services, trusted, config.key_cache),
            period: config.key_period,
            ring: ring.map_err(of_settings)?,
            has_keys,
        })
    }

    /// The key for new objects of a topic, its period, and until when it may be used without asking again. `kek` wraps
    /// it; without one the ring's active key.
    pub async fn for_write(
        &self,
        cluster_id: &str,
        topic_id: Id,
        kek: Option<&KeyUrl>,
        now_ms: i64,
    ) -> Result<(DataKey, String, Instant)> {
        let Some(kek) = kek.or(self.ring.as_ref()) else {
            return Err(Error::config("encryption.enabled", "true", "needs encryption.key"));
        };
        Ok(self.data_keys.for_write_until(cluster_id, topic_id, kek, self.period, now_ms).await?)
    }

    /// The key that an object names, and until when it may be used without asking again.
    pub async fn for_read(
        &self,
        cluster_id: &str,
        topic_id: Id,
        info: &EncryptionInfo,
    ) -> Result<(DataKey, Instant)> {
        if !self.has_keys {
            return Err(Error::new(
                Kind::Denied,
                "the object is encrypted, and neither encryption.key, encryption.trusted.keys nor encryption.key.ring.file is configured",
            ));
        }
        Ok(self.data_keys.for_read_until(cluster_id, topic_id, info).await?)
    }
}

impl From<varve_keys::Error> for Error {
    fn from(e: varve_keys::Error) -> Self {
        use varve_keys::Kind as Keys;

        let kind = match e.kind {
            Keys::Unavailable => Kind::Retry,
            Keys::NotFound | Keys::Denied | Keys::Disabled | Keys::Refused | Keys::Destroyed => Kind::Denied,
            Keys::NoSpace => Kind::NoSpace,
            Keys::Corrupt => Kind::Corrupt,
            Keys::Invalid | Keys::Other => Kind::Invalid,
        };
        Self::new(kind, e.to_string())
    }
}

fn of_settings(e: varve_keys::Error) -> Error {
    Error::new(Kind::Config, e.to_string())
}

/// All that [`Keys::new`] would refuse of the key services' settings.
pub fn check(settings: &BTreeMap<String, String>) -> Result<()> {
    KeyServices::check(settings).into_iter().next().map_or(Ok(()), |flaw| Err(of_settings(flaw)))
}

fn read_ring(path: &std::path::Path) -> Result<KeyRing> {
    let refuse = |e: String| Error::config("encryption.key.ring.file", &path.display().to_string(), &e);
    let text = read_bounded(path).map_err(|e| refuse(e.to_string()))?;
    KeyRing::parse(&text).map_err(|e| refuse(e.to_string()))
}

/// Of the key ring's file no more than it may hold.
fn read_bounded(path: &std::path::Path) -> std::io::Result<Zeroizing<String>> {
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
