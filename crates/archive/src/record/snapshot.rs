//! A snapshot: a recovery point, proven by one hash, in a chain that can't fork.

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use varve_format::Id;

use super::SMALL_MAX_BYTES;
use super::node::NodeRef;
use crate::canonical::{Record, RecordError, V1, flaw, id_text, rule};
use crate::hash::Hash;

pub const CLUSTER_STATE_MAX_BYTES: u64 = 256 << 20;
const SIGNED: &[u8] = b"varve snapshot v1";

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SnapshotRecord {
    pub varve_snapshot: V1,
    #[serde(with = "id_text")]
    pub archive_id: Id,
    pub sequence: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<Hash>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root: Option<NodeRef>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster_state: Option<DocumentRef>,
    pub writer: String,
    pub created_ms: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<Signature>,
}

/// A document that this crate does not look into.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DocumentRef {
    pub hash: Hash,
    pub bytes: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Signature {
    pub algorithm: SignatureAlgorithm,
    pub public_key: String,
    pub value: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SignatureAlgorithm {
    Ed25519,
}

/// What a look at a signature gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signed {
    /// By one of the keys that are trusted.
    ByTrusted,
    /// Not at all.
    Not,
    /// By another key, or over other bytes.
    Refused,
}

/// Signs snapshots.
pub struct Signer(Ed25519KeyPair);

impl Signer {
    /// # Errors
    /// [`RecordError::Corrupt`] for what is no PKCS#8 document of an Ed25519 key.
    pub fn from_pkcs8(document: &[u8]) -> Result<Self, RecordError> {
        let pair = Ed25519KeyPair::from_pkcs8(document)
            .or_else(|_| Ed25519KeyPair::from_pkcs8_maybe_unchecked(document));
        pair.map(Self).map_err(|e| flaw("signing key", "an Ed25519 key in PKCS#8", e))
    }

    /// # Errors
    /// [`RecordError::Corrupt`] for anything but 32 bytes that an Ed25519 key can have.
    pub fn from_seed(seed: &[u8; 32]) -> Result<Self, RecordError> {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed);
        pair.map(Self).map_err(|e| flaw("signing key", "a seed of 32 bytes", e))
    }

    pub fn public_key(&self) -> [u8; 32] {
        let mut key = [0; 32];
        key.copy_from_slice(self.0.public_key().as_ref());
        key
    }
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Signer")
    }
}

impl SnapshotRecord {
    /// What is signed.
    fn message(&self) -> Result<Vec<u8>, RecordError> {
        let unsigned = Self { signature: None, ..self.clone() };
        Ok([SIGNED, &unsigned.bytes()?].concat())
    }

    /// # Errors
    /// As [`Record::encode`].
    pub fn sign(&mut self, signer: &Signer) -> Result<(), RecordError> {
        let value = signer.0.sign(&self.message()?);
        self.signature = Some(Signature {
            algorithm: SignatureAlgorithm::Ed25519,
            public_key: STANDARD.encode(signer.public_key()),
            value: STANDARD.encode(value.as_ref()),
        });
        Ok(())
    }

    /// Whether one of `trusted` signed it. The key that the record names counts for nothing.
    pub fn signed(&self, trusted: &[[u8; 32]]) -> Signed {
        let Some(signature) = &self.signature else { return Signed::Not };
        let (Ok(value), Ok(message)) = (STANDARD.decode(&signature.value), self.message()) else {
            return Signed::Refused;
        };
        let by = |key: &[u8; 32]| UnparsedPublicKey::new(&ED25519, key).verify(&message, &value).is_ok();
        if trusted.iter().any(by) { Signed::ByTrusted } else { Signed::Refused }
    }
}

impl Record for SnapshotRecord {
    const NAME: &'static str = "varve_snapshot";
    const MAX_BYTES: u64 = SMALL_MAX_BYTES;

    fn check(&self) -> Result<(), RecordError> {
        rule::sequence(self.sequence)?;
        if self.previous.is_none() != (self.sequence == 1) {
            return Err(flaw("previous", "a hash, but of the first", format!("{:?}", self.previous)));
        }
        if let Some(root) = &self.root {
            root.check()?;
            if root.partitions == 0 {
                return Err(flaw("root", "left out where there is no partition", 0));
            }
        }
        if self.cluster_state.as_ref().is_some_and(|d| d.bytes > CLUSTER_STATE_MAX_BYTES) {
            return Err(flaw("cluster_state", "at most 256 MiB", "more"));
        }
        if let Some(signature) = &self.signature {
            let bytes = |text: &str, n: usize| STANDARD.decode(text).is_ok_and(|b| b.len() == n);
            if !bytes(&signature.public_key, 32) || !bytes(&signature.value, 64) {
                return Err(flaw("signature", "32 and 64 bytes in base64", "others"));
            }
        }
        rule::written(&self.writer, self.created_ms)
    }
}
