//! A data key as a key service wrapped it.

use crate::error::{Error, Kind, Result};
use crate::key_url::{KeyUrl, Service};

/// More is refused: the longest known, of an RSA key of 4096 bits, is below 1 KiB.
pub const WRAPPED_MAX_BYTES: usize = 8 * 1024;
/// Of what a wrapped key is bound to.
pub const AAD_MAX_BYTES: usize = 512;

/// A longer answer of a key service is not read.
#[allow(dead_code, reason = "the file key ring alone needs none")]
pub(crate) const ANSWER_MAX_BYTES: usize = 64 * 1024;

/// Algorithms, as they stand in [`Wrapped::algorithm`]. What is frozen in records must never change its meaning.
pub mod algorithm {
    /// By the file key ring: nonce (12 bytes), then the sealed key (48).
    pub const RING: &str = "AES-256-GCM";
    /// By AWS, bound by the encryption context `varve`, which is the AAD in base64.
    pub const AWS: &str = "AWS-SYMMETRIC_DEFAULT";
    /// By Google, bound by its additional authenticated data.
    pub const GCP: &str = "GCP-SYMMETRIC";
    /// By Vault's or OpenBao's transit engine: the text `vault:vN:…`, bound by its associated data.
    pub const VAULT: &str = "VAULT-TRANSIT";
    /// By Azure: RSA-OAEP-256 wraps a key for one use, under which AES-256-GCM seals the data key with the AAD.
    /// Length of the RSA part (2 bytes, big-endian), RSA part, nonce (12), sealed key (48).
    pub const AZURE_RSA: &str = "RSA-OAEP-256+AES-256-GCM";
    /// By Azure's Managed HSM: length of the IV (1 byte), IV, length of the tag (1 byte), tag, sealed key.
    pub const AZURE_HSM: &str = "A256GCM";
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrapped {
    /// As the service answered: what to unwrap with. Where the asked name was an alias or had no version, this is
    /// the key or the version that was used (AWS, Azure).
    pub wrapped_by: KeyUrl,
    /// One of [`algorithm`].
    pub algorithm: String,
    pub bytes: Vec<u8>,
}

impl Wrapped {
    /// Whether whoever has the key's public part can wrap: what was wrapped so proves nothing about who wrapped it.
    pub fn anyone_can_wrap(&self) -> bool {
        self.algorithm == algorithm::AZURE_RSA
    }

    /// Whether both were wrapped by the same version of the same key, as far as it shows.
    pub fn is_by_the_same_key_as(&self, other: &Self) -> bool {
        let version = |wrapped: &Self| match wrapped.wrapped_by.service() {
            // `vault:vN:`.
            Service::Vault => wrapped.bytes.split(|b| *b == b':').nth(1).map(<[u8]>::to_vec),
            _ => None,
        };
        let same = self.wrapped_by == other.wrapped_by && self.algorithm == other.algorithm;
        same && version(self) == version(other)
    }

    /// That the bytes are of a size that we write, and the algorithm is one of this service's.
    pub(crate) fn check(&self, operation: &'static str, kind: Kind) -> Result<()> {
        if self.bytes.is_empty() || self.bytes.len() > WRAPPED_MAX_BYTES {
            let detail = format!("{} wrapped bytes: expected 1 to {WRAPPED_MAX_BYTES}", self.bytes.len());
            return Err(Error::new(kind, operation, &self.wrapped_by, detail));
        }
        let known: &[&str] = match self.wrapped_by.service() {
            Service::Ring => &[algorithm::RING],
            Service::AwsKms => &[algorithm::AWS],
            Service::GcpKms => &[algorithm::GCP],
            Service::AzureKms => &[algorithm::AZURE_RSA, algorithm::AZURE_HSM],
            Service::Vault => &[algorithm::VAULT],
        };
        if !known.contains(&self.algorithm.as_str()) {
            let detail = format!("algorithm {:?}: expected {}", self.algorithm, known.join(" or "));
            return Err(Error::new(kind, operation, &self.wrapped_by, detail));
        }
        Ok(())
    }
}
