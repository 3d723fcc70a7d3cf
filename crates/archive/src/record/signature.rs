//! Signatures of records: Ed25519 over the record without its signature, in a context of its kind.

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use crate::canonical::{Record, RecordError, flaw};

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
    /// By another key than the record names or than is trusted, or over other bytes.
    Refused,
}

/// Signs records.
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

    pub(crate) fn sign(&self, message: &[u8]) -> Signature {
        Signature {
            algorithm: SignatureAlgorithm::Ed25519,
            public_key: STANDARD.encode(self.public_key()),
            value: STANDARD.encode(self.0.sign(message).as_ref()),
        }
    }
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Signer")
    }
}

impl Signature {
    /// The key that it says it is by.
    pub fn key(&self) -> Option<[u8; 32]> {
        STANDARD.decode(&self.public_key).ok()?.try_into().ok()
    }

    pub(crate) fn check(&self) -> Result<(), RecordError> {
        let value = STANDARD.decode(&self.value).is_ok_and(|v| v.len() == 64);
        if value && self.key().is_some() {
            return Ok(());
        }
        Err(flaw("signature", "32 and 64 bytes in base64", "others"))
    }

    /// Whether the key that it names is trusted, and signed this.
    pub(crate) fn holds(&self, message: &[u8], trusted: &[[u8; 32]]) -> Signed {
        let (Some(key), Ok(value)) = (self.key(), STANDARD.decode(&self.value)) else {
            return Signed::Refused;
        };
        let by_it = UnparsedPublicKey::new(&ED25519, &key).verify(message, &value).is_ok();
        if by_it && trusted.contains(&key) { Signed::ByTrusted } else { Signed::Refused }
    }
}

/// A record that may be signed: over its context and its canonical form without the signature.
pub trait Signable: Record + Clone {
    /// Of its kind, so that a signature of one kind is none of another.
    const CONTEXT: &'static [u8];

    /// Where its signature stands.
    fn signature_mut(&mut self) -> &mut Option<Signature>;

    /// # Errors
    /// As [`Record::encode`].
    fn sign(&mut self, signer: &Signer) -> Result<(), RecordError> {
        *self.signature_mut() = None;
        let signature = signer.sign(&[Self::CONTEXT, &self.bytes()?].concat());
        *self.signature_mut() = Some(signature);
        Ok(())
    }

    /// Whether one of `trusted` signed it.
    fn signed(&self, trusted: &[[u8; 32]]) -> Signed {
        let mut unsigned = self.clone();
        let Some(signature) = unsigned.signature_mut().take() else { return Signed::Not };
        match unsigned.bytes() {
            Ok(bytes) => signature.holds(&[Self::CONTEXT, &bytes].concat(), trusted),
            Err(_) => Signed::Refused,
        }
    }
}
