//! The file key ring as a key service: AES-256-GCM, all in this process.

use std::sync::Arc;

use varve_format::{Error as FormatError, KeyRing};
use zeroize::Zeroizing;

use crate::error::{Error, Kind, Result};
use crate::key_url::{KeyUrl, Name};
use crate::sealed::{NONCE_BYTES, SEALED_BYTES, fresh};
use crate::wrapped::{Wrapped, algorithm};

fn ring_of<'a>(ring: Option<&'a Arc<KeyRing>>, operation: &'static str, key: &KeyUrl) -> Result<&'a KeyRing> {
    let none = "there is no file key ring: name its file in the configuration";
    ring.map(Arc::as_ref).ok_or_else(|| Error::new(Kind::Invalid, operation, key, none))
}

fn id_of(key: &KeyUrl) -> &str {
    match key.name() {
        Name::Ring { id } => id,
        _ => "",
    }
}

pub(crate) fn wrap(
    ring: Option<&Arc<KeyRing>>,
    key: &KeyUrl,
    secret: &[u8; 32],
    aad: &[u8],
) -> Result<Wrapped> {
    let ring = ring_of(ring, "wrap", key)?;
    // What a ring wraps with is said in its file alone, so that a rotation there can't be missed.
    if ring.active() != id_of(key) {
        let detail = format!("the ring's active key is {}, which new keys are wrapped by", ring.active());
        return Err(Error::new(Kind::Invalid, "wrap", key, detail));
    }
    let nonce =
        fresh::<NONCE_BYTES>().map_err(|failure| Error::new(failure.kind, "wrap", key, failure.detail))?;
    let sealed = ring.wrap(*nonce, aad, secret).map_err(|error| of(&error, "wrap", key))?;
    let bytes = [nonce.as_slice(), &sealed].concat();
    Ok(Wrapped { wrapped_by: key.clone(), algorithm: algorithm::RING.to_owned(), bytes })
}

pub(crate) fn unwrap(
    ring: Option<&Arc<KeyRing>>,
    wrapped: &Wrapped,
    aad: &[u8],
) -> Result<Zeroizing<[u8; 32]>> {
    let key = &wrapped.wrapped_by;
    let ring = ring_of(ring, "unwrap", key)?;
    let parts = wrapped.bytes.split_first_chunk::<NONCE_BYTES>();
    let Some((nonce, sealed)) = parts.filter(|(_, sealed)| sealed.len() == SEALED_BYTES) else {
        let detail =
            format!("{} wrapped bytes: expected {}", wrapped.bytes.len(), NONCE_BYTES + SEALED_BYTES);
        return Err(Error::new(Kind::Refused, "unwrap", key, detail));
    };
    ring.unwrap(id_of(key), *nonce, aad, sealed).map_err(|error| of(&error, "unwrap", key))
}

fn of(error: &FormatError, operation: &'static str, key: &KeyUrl) -> Error {
    let (kind, detail) = match error {
        FormatError::KeyMissing { .. } => (Kind::NotFound, "the file key ring holds no such key".to_owned()),
        FormatError::KeyRefused { .. } => (Kind::Refused, "does not open with this key".to_owned()),
        other => (Kind::Other, other.to_string()),
    };
    Error::new(kind, operation, key, detail)
}
