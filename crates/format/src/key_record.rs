//! The small object that holds one wrapped data key of a (topic, period). Only this is rewritten when a
//! key-encryption key is rotated, and destroying it erases all that the data key sealed.
//!
//! Version 2 is written: it binds the cluster too, and any key service may have wrapped it. Version 1, of the file
//! key ring alone, is read as if it were version 2 with associated data of its own.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::crypt::DataKey;
use crate::error::{Error, Flaw, Result};
use crate::footer::check_period;
use crate::id::Id;
use crate::key_ring::KeyRing;
use crate::names::cluster_id_flaw;
use crate::text::check_printable;

/// A longer key record is refused before it is parsed.
pub const KEY_RECORD_MAX_BYTES: usize = 64 * 1024;
/// A longer wrapped key is refused.
const WRAPPED_MAX_BYTES: usize = 8 * 1024;

/// A data key, wrapped. Stored as JSON.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRecord {
    /// Of the data key.
    pub id: Id,
    /// `None` in version 1, which does not bind it.
    pub cluster_id: Option<String>,
    pub topic_id: Id,
    /// `2026-11`, for instance: whatever text the writer's period gives.
    pub period: String,
    pub created_ms: i64,
    /// Wrapped anew: whoever could open it before still can, and so it seals nothing new.
    pub rewrapped: bool,
    pub wrapping: Wrapping,
}

/// How a data key is wrapped, and by what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrapping {
    /// URL of the key-encryption key, `ring:2026` for instance.
    pub wrapped_by: String,
    /// The key service's name for what it does; `AES-256-GCM` of the key ring.
    pub algorithm: String,
    /// What the key service gave; of the key ring nonce (12), ciphertext (32) and tag (16).
    pub wrapped: Vec<u8>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Json1 {
    varve_key: u16,
    id: String,
    topic_id: String,
    period: String,
    created_ms: i64,
    algorithm: String,
    wrapped_by: String,
    nonce: String,
    wrapped: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Json2 {
    varve_key: u16,
    id: String,
    cluster_id: String,
    topic_id: String,
    period: String,
    created_ms: i64,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    rewrapped: bool,
    algorithm: String,
    wrapped_by: String,
    wrapped: String,
}

#[derive(Deserialize)]
struct Version {
    varve_key: u16,
}

const WHAT: &str = "key record";
const VERSION: u16 = 2;
/// What the key ring does.
const ALGORITHM: &str = "AES-256-GCM";
const RING: &str = "ring:";
const NONCE_BYTES: usize = 12;
/// Of the key ring: nonce, ciphertext, tag.
const RING_WRAPPED_BYTES: usize = NONCE_BYTES + 32 + 16;

/// What a wrapped key is bound to.
fn aad(id: Id, cluster_id: Option<&str>, topic_id: Id, period: &str, rewrapped: bool) -> Vec<u8> {
    match cluster_id {
        None => [b"varve key v1".as_slice(), &id.0, &topic_id.0, period.as_bytes()].concat(),
        // A cluster id and a period are safe text, so that `/` ends them.
        Some(cluster) => {
            let end: &[u8] = if rewrapped { b"/rewrapped" } else { b"" };
            let (cluster, period) = (cluster.as_bytes(), period.as_bytes());
            [b"varve key v2".as_slice(), &id.0, &topic_id.0, cluster, b"/", period, end].concat()
        }
    }
}

impl KeyRecord {
    /// A record without its wrapping yet: what that is to be bound to is [`aad`](Self::aad).
    ///
    /// # Errors
    /// [`Error::Invalid`] for a cluster id or a period that may not stand in a name.
    pub fn new(id: Id, cluster_id: &str, topic_id: Id, period: &str, created_ms: i64) -> Result<Self> {
        cluster_id_flaw(cluster_id).map_err(Flaw::invalid)?;
        check_period(period).map_err(Flaw::invalid)?;
        let wrapping = Wrapping { wrapped_by: String::new(), algorithm: String::new(), wrapped: Vec::new() };
        let (cluster_id, period) = (Some(cluster_id.to_owned()), period.to_owned());
        Ok(Self { id, cluster_id, topic_id, period, created_ms, rewrapped: false, wrapping })
    }

    /// The associated data of the wrapped key.
    pub fn aad(&self) -> Vec<u8> {
        aad(self.id, self.cluster_id.as_deref(), self.topic_id, &self.period, self.rewrapped)
    }

    /// The record of `key`, wrapped with the ring's active key. `nonce` is random.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn wrap(
        ring: &KeyRing,
        key: &DataKey,
        cluster_id: &str,
        topic_id: Id,
        period: &str,
        created_ms: i64,
        nonce: [u8; NONCE_BYTES],
    ) -> Result<Self> {
        let record = Self::new(key.id, cluster_id, topic_id, period, created_ms)?;
        let sealed = ring.wrap(nonce, &record.aad(), key.secret())?;
        let wrapping = Wrapping {
            wrapped_by: format!("{RING}{}", ring.active()),
            algorithm: ALGORITHM.to_owned(),
            wrapped: [nonce.as_slice(), &sealed].concat(),
        };
        Ok(Self { wrapping, ..record })
    }

    /// The data key of a record that a key of the ring wrapped.
    ///
    /// # Errors
    /// [`Error::KeyMissing`] if the ring does not hold the key it was wrapped by, [`Error::KeyRefused`] if that
    /// does not open it.
    pub fn unwrap(&self, ring: &KeyRing) -> Result<DataKey> {
        let wrapping = &self.wrapping;
        let missing = || Error::KeyMissing { what: "data key", key_id: wrapping.wrapped_by.clone() };
        let ring_id = wrapping.wrapped_by.strip_prefix(RING).ok_or_else(missing)?;
        let (nonce, sealed) = wrapping.wrapped.split_first_chunk().ok_or_else(missing)?;
        let secret: Zeroizing<[u8; 32]> = ring.unwrap(ring_id, *nonce, &self.aad(), sealed)?;
        Ok(self.data_key(&secret))
    }

    /// The data key, of what its wrapping was opened to.
    pub fn data_key(&self, secret: &[u8; 32]) -> DataKey {
        DataKey::new(self.id, *secret)
    }

    /// The stored JSON, in the record's version.
    pub fn encode(&self) -> Result<Vec<u8>> {
        let (id, topic_id) = (self.id.to_string(), self.topic_id.to_string());
        let (period, created_ms) = (self.period.clone(), self.created_ms);
        let Wrapping { wrapped_by, algorithm, wrapped } = self.wrapping.clone();
        let encoded = match &self.cluster_id {
            Some(cluster_id) => serde_json::to_vec_pretty(&Json2 {
                varve_key: VERSION,
                id,
                cluster_id: cluster_id.clone(),
                topic_id,
                period,
                created_ms,
                rewrapped: self.rewrapped,
                algorithm,
                wrapped_by,
                wrapped: STANDARD.encode(wrapped),
            }),
            None => {
                let (nonce, sealed) = wrapped.split_at_checked(NONCE_BYTES).unwrap_or_default();
                serde_json::to_vec_pretty(&Json1 {
                    varve_key: 1,
                    id,
                    topic_id,
                    period,
                    created_ms,
                    algorithm,
                    wrapped_by: wrapped_by.strip_prefix(RING).unwrap_or_default().to_owned(),
                    nonce: STANDARD.encode(nonce),
                    wrapped: STANDARD.encode(sealed),
                })
            }
        };
        encoded.map_err(|e| Error::invalid(WHAT, e, "JSON"))
    }

    /// Whether this is the record of that key, topic and period: its name proves nothing.
    ///
    /// # Errors
    /// [`Error::Mistaken`], naming what differs.
    pub fn check_is(&self, id: Id, cluster_id: &str, topic_id: Id, period: &str) -> Result<()> {
        // Version 1 has no cluster of its own.
        let cluster = self.cluster_id.clone().unwrap_or_else(|| cluster_id.to_owned());
        let pairs = [
            ("data key", id.to_string(), self.id.to_string()),
            ("cluster id", cluster_id.to_owned(), cluster),
            ("topic id", topic_id.to_string(), self.topic_id.to_string()),
            ("period", period.to_owned(), self.period.clone()),
        ];
        Error::unless_same(WHAT, &pairs)
    }

    /// Parses the stored JSON, of at most [`KEY_RECORD_MAX_BYTES`].
    ///
    /// # Errors
    /// [`Error::Corrupt`], or [`Error::FutureVersion`] from a newer Varve.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        if bytes.len() > KEY_RECORD_MAX_BYTES {
            let expected = format!("at most {KEY_RECORD_MAX_BYTES} bytes");
            return Err(Error::corrupt(WHAT, 0, expected, bytes.len()));
        }
        // The version first: a later record may have other members.
        let version = serde_json::from_slice::<Version>(bytes).map_err(|e| bad("its JSON", &e))?;
        match version.varve_key {
            1 => decode_1(bytes),
            VERSION => decode_2(bytes),
            0 => Err(bad("varve_key 1 or 2", &0)),
            found => Err(Error::FutureVersion { found, supported: VERSION }),
        }
    }
}

fn decode_1(bytes: &[u8]) -> Result<KeyRecord> {
    let json: Json1 = serde_json::from_slice(bytes).map_err(|e| bad("its JSON", &e))?;
    if json.algorithm != ALGORITHM {
        return Err(bad(ALGORITHM, &json.algorithm));
    }
    check_period(&json.period).map_err(|flaw| flaw.corrupt(0))?;
    let nonce = base64(&json.nonce, "a nonce of 12 bytes").and_then(|nonce| match nonce.len() {
        NONCE_BYTES => Ok(nonce),
        other => Err(bad("a nonce of 12 bytes", &other)),
    })?;
    let sealed = base64(&json.wrapped, "48 wrapped bytes")?;
    let wrapped = [nonce, sealed].concat();
    if wrapped.len() != RING_WRAPPED_BYTES {
        return Err(bad("48 wrapped bytes", &wrapped.len().saturating_sub(NONCE_BYTES)));
    }
    let wrapped_by = format!("{RING}{}", json.wrapped_by);
    Ok(KeyRecord {
        id: id(&json.id)?,
        cluster_id: None,
        topic_id: id(&json.topic_id)?,
        period: json.period,
        created_ms: json.created_ms,
        rewrapped: false,
        wrapping: Wrapping { wrapped_by, algorithm: json.algorithm, wrapped },
    })
}

fn decode_2(bytes: &[u8]) -> Result<KeyRecord> {
    let json: Json2 = serde_json::from_slice(bytes).map_err(|e| bad("its JSON", &e))?;
    check_period(&json.period).map_err(|flaw| flaw.corrupt(0))?;
    cluster_id_flaw(&json.cluster_id).map_err(|flaw| flaw.corrupt(0))?;
    check_printable("algorithm", &json.algorithm, 64).map_err(|flaw| flaw.corrupt(0))?;
    check_printable("key-encryption key", &json.wrapped_by, 512).map_err(|flaw| flaw.corrupt(0))?;
    let wrapped = base64(&json.wrapped, "the wrapped key in base64")?;
    let of_ring = json.wrapped_by.starts_with(RING);
    if of_ring && (wrapped.len() != RING_WRAPPED_BYTES || json.algorithm != ALGORITHM) {
        let found = format!("{} by {:?}", wrapped.len(), json.algorithm);
        return Err(bad("60 wrapped bytes by AES-256-GCM", &found));
    }
    if wrapped.is_empty() || wrapped.len() > WRAPPED_MAX_BYTES {
        return Err(bad("1 to 8,192 wrapped bytes", &wrapped.len()));
    }
    Ok(KeyRecord {
        id: id(&json.id)?,
        cluster_id: Some(json.cluster_id),
        topic_id: id(&json.topic_id)?,
        period: json.period,
        created_ms: json.created_ms,
        rewrapped: json.rewrapped,
        wrapping: Wrapping { wrapped_by: json.wrapped_by, algorithm: json.algorithm, wrapped },
    })
}

fn bad(expected: &str, found: &dyn ToString) -> Error {
    Error::corrupt(WHAT, 0, expected, found.to_string())
}

fn base64(text: &str, expected: &str) -> Result<Vec<u8>> {
    STANDARD.decode(text).map_err(|_| bad(expected, &"no standard base64"))
}

fn id(text: &str) -> Result<Id> {
    Id::parse(text).map_err(|_| bad("an id", &text))
}
