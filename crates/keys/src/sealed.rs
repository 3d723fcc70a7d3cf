//! AES-256-GCM by a key for one use, for services that bind nothing to what they wrap.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use zeroize::Zeroizing;

use crate::error::Kind;
use crate::retry::Failure;

pub(crate) const NONCE_BYTES: usize = 12;
/// 32 bytes and a tag.
pub(crate) const SEALED_BYTES: usize = 48;

/// Random bytes, good for keys.
pub(crate) fn fresh<const N: usize>() -> Result<Zeroizing<[u8; N]>, Failure> {
    let mut bytes = Zeroizing::new([0; N]);
    let filled = SystemRandom::new().fill(bytes.as_mut_slice());
    filled.map_err(|_| Failure::last(Kind::Other, "the system gives no random bytes"))?;
    Ok(bytes)
}

fn aead(key: &[u8; 32]) -> Result<LessSafeKey, Failure> {
    let key = UnboundKey::new(&AES_256_GCM, key);
    Ok(LessSafeKey::new(key.map_err(|_| Failure::last(Kind::Other, "AES-256-GCM takes no such key"))?))
}

/// Nonce and sealed bytes.
pub(crate) fn seal(key: &[u8; 32], secret: &[u8; 32], aad: &[u8]) -> Result<Vec<u8>, Failure> {
    let nonce = fresh::<NONCE_BYTES>()?;
    let mut sealed = Vec::with_capacity(SEALED_BYTES);
    sealed.extend_from_slice(secret);
    aead(key)?
        .seal_in_place_append_tag(Nonce::assume_unique_for_key(*nonce), Aad::from(aad), &mut sealed)
        .map_err(|_| Failure::last(Kind::Other, "AES-256-GCM refused to seal"))?;
    Ok([nonce.as_slice(), &sealed].concat())
}

/// Opens what [`seal`] gave.
pub(crate) fn open(key: &[u8; 32], bytes: &[u8], aad: &[u8]) -> Result<Zeroizing<[u8; 32]>, Failure> {
    let refused = || Failure::last(Kind::Refused, "the sealed part does not open");
    let (nonce, sealed) = bytes.split_first_chunk::<NONCE_BYTES>().ok_or_else(refused)?;
    let mut buffer = Zeroizing::new(sealed.to_vec());
    let plain = aead(key)?
        .open_in_place(Nonce::assume_unique_for_key(*nonce), Aad::from(aad), &mut buffer)
        .map_err(|_| refused())?;
    plain_key(plain).ok_or_else(refused)
}

/// The 32 bytes, if they are 32.
pub(crate) fn plain_key(bytes: &[u8]) -> Option<Zeroizing<[u8; 32]>> {
    <[u8; 32]>::try_from(bytes).ok().map(Zeroizing::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opens_only_what_was_sealed_so() {
        let (key, other) = ([1; 32], [2; 32]);
        let sealed = seal(&key, &[7; 32], b"here").unwrap();
        assert_eq!(sealed.len(), NONCE_BYTES + SEALED_BYTES);
        assert_eq!(*open(&key, &sealed, b"here").unwrap(), [7; 32]);
        let kinds = |outcome: Result<Zeroizing<[u8; 32]>, Failure>| outcome.unwrap_err().kind;
        assert_eq!(kinds(open(&key, &sealed, b"there")), Kind::Refused);
        assert_eq!(kinds(open(&other, &sealed, b"here")), Kind::Refused);
        for at in 0..sealed.len() {
            let mut altered = sealed.clone();
            altered[at] ^= 1;
            assert_eq!(kinds(open(&key, &altered, b"here")), Kind::Refused, "{at}");
            assert_eq!(kinds(open(&key, &sealed[..at], b"here")), Kind::Refused, "{at}");
        }
    }
}
