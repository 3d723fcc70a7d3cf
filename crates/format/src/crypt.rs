//! AES-256-GCM frames under the key hierarchy: key-encryption key → data key of a (topic, period) → object
//! key, derived with a salt that is fresh for each upload attempt. So no object key ever seals two different
//! objects, and a frame's number is nonce enough; the number after the last frame's seals the footer. The
//! associated data binds a frame to its object, its place and the number of frames: none can be swapped, dropped or
//! replayed. It does not hold the location: copies must open.
//!
//! Where frames are sealed before their number is known, it is 0 in their associated data, and the footer, which
//! has it, is sealed in a nonce space of its own: after a footer no frame can be sealed under the same nonce.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::hkdf;
use zeroize::Zeroizing;

use crate::error::{Error, Result};
use crate::id::Id;

/// What encryption adds to a frame.
pub const TAG_BYTES: usize = 16;
/// Length of an object's salt.
pub const SALT_BYTES: usize = 32;

/// The key of one (topic, period). Its `Debug` shows its id alone.
#[derive(Clone)]
pub struct DataKey {
    pub id: Id,
    secret: Zeroizing<[u8; 32]>,
}

impl std::fmt::Debug for DataKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DataKey").field("id", &self.id).finish_non_exhaustive()
    }
}

impl DataKey {
    /// `secret` is random.
    pub fn new(id: Id, secret: [u8; 32]) -> Self {
        Self { id, secret: Zeroizing::new(secret) }
    }

    /// For whoever wraps it, and nobody else.
    pub fn secret(&self) -> &[u8; 32] {
        &self.secret
    }

    /// The key of one object: HKDF-SHA-256 (RFC 5869), info = `varve segment v1` and the object's id.
    pub fn object_key(&self, salt: &[u8; SALT_BYTES], object_id: Id) -> Result<ObjectKey> {
        let mut secret = Zeroizing::new([0; 32]);
        let prk = hkdf::Salt::new(hkdf::HKDF_SHA256, salt).extract(self.secret.as_slice());
        let info = [b"varve segment v1".as_slice(), &object_id.0];
        prk.expand(&info, OkmBytes(32))
            .and_then(|okm| okm.fill(secret.as_mut_slice()))
            .map_err(|_| Error::invalid("object key", "underivable", "HKDF-SHA-256"))?;
        ObjectKey::new(&secret, object_id, self.id)
    }
}

struct OkmBytes(usize);

impl hkdf::KeyType for OkmBytes {
    fn len(&self) -> usize {
        self.0
    }
}

/// Seals and opens the frames and the footer of one object.
pub struct ObjectKey {
    aead: LessSafeKey,
    object_id: Id,
    data_key_id: Id,
}

impl std::fmt::Debug for ObjectKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ObjectKey").field("object_id", &self.object_id).finish_non_exhaustive()
    }
}

impl ObjectKey {
    fn new(secret: &[u8; 32], object_id: Id, data_key_id: Id) -> Result<Self> {
        let key = UnboundKey::new(&AES_256_GCM, secret)
            .map_err(|_| Error::invalid("object key", "refused", "32 bytes"))?;
        Ok(Self { aead: LessSafeKey::new(key), object_id, data_key_id })
    }

    /// Encrypts `bytes` in place.
    pub(crate) fn seal(&self, nonce: [u8; 12], aad: &[u8], bytes: &mut [u8]) -> Result<[u8; TAG_BYTES]> {
        let tag = self
            .aead
            .seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), Aad::from(aad), bytes)
            .map_err(|_| Error::invalid("frame to seal", bytes.len(), "less than 64 GiB"))?;
        let mut out = [0; TAG_BYTES];
        out.copy_from_slice(tag.as_ref());
        Ok(out)
    }

    /// Decrypts `sealed` (ciphertext and tag) into `plain`, which is `TAG_BYTES` shorter.
    pub(crate) fn open(
        &self,
        what: &'static str,
        offset: u64,
        nonce: [u8; 12],
        aad: &[u8],
        sealed: &[u8],
        plain: &mut [u8],
    ) -> Result<()> {
        let refused = || Error::KeyRefused { what, offset, key_id: self.data_key_id.to_string() };
        let split = sealed.len().checked_sub(TAG_BYTES).filter(|n| *n == plain.len()).ok_or_else(refused)?;
        let (ciphertext, tag) = sealed.split_at(split);
        self.aead
            .open_separate_gather(Nonce::assume_unique_for_key(nonce), Aad::from(aad), ciphertext, tag, plain)
            .map_err(|_| refused())
    }

    /// Decrypts `sealed` (ciphertext and tag) where it is. How many bytes of it are plain then; after an error none.
    pub(crate) fn open_in_place(
        &self,
        what: &'static str,
        offset: u64,
        nonce: [u8; 12],
        aad: &[u8],
        sealed: &mut [u8],
    ) -> Result<usize> {
        let opened = self.aead.open_in_place(Nonce::assume_unique_for_key(nonce), Aad::from(aad), sealed);
        opened.map(|plain| plain.len()).map_err(|_| Error::KeyRefused {
            what,
            offset,
            key_id: self.data_key_id.to_string(),
        })
    }

    pub(crate) fn frame_aad(&self, number: u64, count: u64) -> [u8; 32] {
        let mut aad = [0; 32];
        let values = self.object_id.0.into_iter().chain(number.to_be_bytes()).chain(count.to_be_bytes());
        aad.iter_mut().zip(values).for_each(|(to, from)| *to = from);
        aad
    }
}

/// Of a frame.
pub(crate) fn frame_nonce(number: u64) -> [u8; 12] {
    nonce(0, number)
}

/// Of the footer of an object of `frame_count` frames.
pub(crate) fn footer_nonce(frame_count: u64, streamed: bool) -> [u8; 12] {
    nonce(u32::from(streamed), frame_count)
}

fn nonce(space: u32, number: u64) -> [u8; 12] {
    let mut bytes = [0; 12];
    let values = space.to_be_bytes().into_iter().chain(number.to_be_bytes());
    bytes.iter_mut().zip(values).for_each(|(to, from)| *to = from);
    bytes
}
