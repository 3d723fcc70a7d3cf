//! The small object that holds the wrapped data key of one (topic, period). Only this is rewritten when a
//! key-encryption key is rotated, and destroying it erases all that the data key sealed.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use crate::crypt::DataKey;
use crate::error::{Error, Flaw, Result};
use crate::footer::check_period;
use crate::id::Id;
use crate::key_ring::KeyRing;

/// A longer key record is refused before it is parsed.
pub const KEY_RECORD_MAX_BYTES: usize = 64 * 1024;

/// A data key, wrapped. Stored as JSON.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRecord {
    pub id: Id,
    pub topic_id: Id,
    /// `2026-11`, for instance: whatever text the writer's period gives.
    pub period: String,
    pub created_ms: i64,
    /// Id of the key-encryption key.
    pub wrapped_by: String,
    pub nonce: [u8; 12],
    pub wrapped: Vec<u8>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Json {
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

#[derive(Deserialize)]
struct Version {
    varve_key: u16,
}

const WHAT: &str = "key record";
const VERSION: u16 = 1;
const ALGORITHM: &str = "AES-256-GCM";

impl KeyRecord {
    /// Wraps `key` with the ring's active key. `nonce` is random.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a period that may not stand in a name.
    pub fn wrap(
        ring: &KeyRing,
        key: &DataKey,
        topic_id: Id,
        period: &str,
        created_ms: i64,
        nonce: [u8; 12],
    ) -> Result<Self> {
        check_period(period).map_err(Flaw::invalid)?;
        let wrapped = ring.wrap(nonce, &aad(key.id, topic_id, period), key.secret())?;
        Ok(Self {
            id: key.id,
            topic_id,
            period: period.to_owned(),
            created_ms,
            wrapped_by: ring.active().to_owned(),
            nonce,
            wrapped,
        })
    }

    /// The data key.
    ///
    /// # Errors
    /// [`Error::KeyMissing`] if the ring does not hold the key it was wrapped by, [`Error::KeyRefused`] if that
    /// does not open it.
    pub fn unwrap(&self, ring: &KeyRing) -> Result<DataKey> {
        let aad = aad(self.id, self.topic_id, &self.period);
        let secret = ring.unwrap(&self.wrapped_by, self.nonce, &aad, &self.wrapped)?;
        Ok(DataKey::new(self.id, *secret))
    }

    /// The stored JSON.
    pub fn encode(&self) -> Result<Vec<u8>> {
        let json = Json {
            varve_key: VERSION,
            id: self.id.to_string(),
            topic_id: self.topic_id.to_string(),
            period: self.period.clone(),
            created_ms: self.created_ms,
            algorithm: ALGORITHM.to_owned(),
            wrapped_by: self.wrapped_by.clone(),
            nonce: STANDARD.encode(self.nonce),
            wrapped: STANDARD.encode(&self.wrapped),
        };
        serde_json::to_vec_pretty(&json).map_err(|e| Error::invalid("key record", e, "JSON"))
    }

    /// Whether this is the record of that topic and period: its name proves nothing.
    ///
    /// # Errors
    /// [`Error::Mistaken`], naming what differs.
    pub fn check_is(&self, topic_id: Id, period: &str) -> Result<()> {
        let pairs = [
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
            return Err(Error::corrupt(
                WHAT,
                0,
                format!("at most {KEY_RECORD_MAX_BYTES} bytes"),
                bytes.len(),
            ));
        }
        // The version first: a later record may have other members.
        let version =
            serde_json::from_slice::<Version>(bytes).map_err(|e| Error::corrupt(WHAT, 0, "its JSON", e))?;
        if version.varve_key > VERSION {
            return Err(Error::FutureVersion { found: version.varve_key, supported: VERSION });
        }
        let bad = |expected: &str, found: &dyn ToString| Error::corrupt(WHAT, 0, expected, found.to_string());
        let json: Json = serde_json::from_slice(bytes).map_err(|e| bad("its JSON", &e))?;
        if json.varve_key != VERSION || json.algorithm != ALGORITHM {
            return Err(bad(
                "varve_key 1 and AES-256-GCM",
                &format!("{} and {:?}", json.varve_key, json.algorithm),
            ));
        }
        check_period(&json.period).map_err(|flaw| flaw.corrupt(0))?;
        let nonce = STANDARD.decode(&json.nonce).ok().and_then(|b| b.try_into().ok());
        let wrapped = STANDARD.decode(&json.wrapped).ok().filter(|b| b.len() == 48);
        Ok(Self {
            id: Id::parse(&json.id).map_err(|_| bad("an id", &json.id))?,
            topic_id: Id::parse(&json.topic_id).map_err(|_| bad("an id", &json.topic_id))?,
            period: json.period,
            created_ms: json.created_ms,
            wrapped_by: json.wrapped_by,
            nonce: nonce.ok_or_else(|| bad("a nonce of 12 bytes", &json.nonce))?,
            wrapped: wrapped.ok_or_else(|| bad("48 wrapped bytes", &json.wrapped.len()))?,
        })
    }
}

fn aad(id: Id, topic_id: Id, period: &str) -> Vec<u8> {
    [b"varve key v1".as_slice(), &id.0, &topic_id.0, period.as_bytes()].concat()
}
