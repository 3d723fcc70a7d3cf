//! A file of key-encryption keys: several for reading, one of them active for writing.

use std::collections::BTreeMap;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use zeroize::{Zeroize as _, Zeroizing};

use crate::error::{Error, Result};

/// A longer key ring is refused before it is parsed.
pub const KEY_RING_MAX_BYTES: usize = 1024 * 1024;
const ID_MAX_BYTES: usize = 64;
/// Of what is written: an id, at most twice as long in quotes, 44 characters of base64, and what stands around them.
const LINE_MAX_BYTES: usize = 256;

/// `{"active": "2026", "keys": {"2025": "<32 bytes in base64>", "2026": "…"}}`.
pub struct KeyRing {
    active: String,
    keys: BTreeMap<String, Zeroizing<[u8; 32]>>,
}

impl std::fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ids: Vec<_> = self.keys.keys().collect();
        f.debug_struct("KeyRing").field("active", &self.active).field("ids", &ids).finish()
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    active: String,
    #[serde(deserialize_with = "each_once")]
    keys: BTreeMap<String, String>,
}

/// JSON allows a member twice, and parsers differ in which they take: a key ring must not depend on that.
fn each_once<'de, D: Deserializer<'de>>(from: D) -> Result<BTreeMap<String, String>, D::Error> {
    struct Keys;
    impl<'de> Visitor<'de> for Keys {
        type Value = BTreeMap<String, String>;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("keys by their ids")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut from: A) -> Result<Self::Value, A::Error> {
            let mut out = BTreeMap::new();
            while let Some((id, key)) = from.next_entry::<String, String>()? {
                if out.insert(id, key).is_some() {
                    return Err(A::Error::custom("a key id twice"));
                }
            }
            Ok(out)
        }
    }
    from.deserialize_map(Keys)
}

impl KeyRing {
    /// Parses the file's text, of at most [`KEY_RING_MAX_BYTES`]. No message holds any of it but key ids.
    ///
    /// # Errors
    /// [`Error::Invalid`], naming the place or the key id.
    pub fn parse(text: &str) -> Result<Self> {
        if text.len() > KEY_RING_MAX_BYTES {
            let found = format!("{} bytes", text.len());
            return Err(Error::invalid("key ring", found, format!("at most {KEY_RING_MAX_BYTES} bytes")));
        }
        let shape = r#"{"active": "<id>", "keys": {"<id>": "<32 bytes in base64>"}}"#;
        let file: File = serde_json::from_str(text).map_err(|e| {
            Error::invalid("key ring", format!("not this at line {} column {}", e.line(), e.column()), shape)
        })?;
        let mut keys = BTreeMap::new();
        for (id, mut encoded) in file.keys {
            check_id(&id)?;
            let decoded = STANDARD.decode(&encoded).map(Zeroizing::new);
            encoded.zeroize();
            let secret =
                decoded.ok().and_then(|bytes| <[u8; 32]>::try_from(bytes.as_slice()).ok()).ok_or_else(
                    || Error::invalid("key", format!("of id {id}, not shown"), "32 bytes in base64"),
                )?;
            keys.insert(id, Zeroizing::new(secret));
        }
        if !keys.contains_key(&file.active) {
            return Err(Error::invalid(
                "active key id",
                format!("{:?}", file.active),
                "one of the ids in \"keys\"",
            ));
        }
        Ok(Self { active: file.active, keys })
    }

    /// The id that new keys are wrapped with.
    pub fn active(&self) -> &str {
        &self.active
    }

    /// All ids, for reading.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        self.keys.keys().map(String::as_str)
    }

    /// The ring with another key in it, `secret`; it is not the active one.
    ///
    /// # Errors
    /// [`Error::Invalid`] for an id that may not stand in a ring, or that is in it: a key that has wrapped anything must
    /// not be replaced.
    pub fn with_key(mut self, id: &str, secret: Zeroizing<[u8; 32]>) -> Result<Self> {
        check_id(id)?;
        if self.keys.contains_key(id) {
            return Err(Error::invalid("key id", format!("{id:?}"), "one that is not in the ring yet"));
        }
        self.keys.insert(id.to_owned(), secret);
        Ok(self)
    }

    /// The ring with the key `id` as the active one.
    ///
    /// # Errors
    /// [`Error::Invalid`] for an id that is not in it.
    pub fn with_active(mut self, id: &str) -> Result<Self> {
        if !self.keys.contains_key(id) {
            let ids: Vec<_> = self.ids().collect();
            return Err(Error::invalid("active key id", format!("{id:?}"), format!("one of {ids:?}")));
        }
        self.active = id.to_owned();
        Ok(self)
    }

    /// The file's text. It is built in one piece of memory, which is wiped.
    pub fn encode(&self) -> Zeroizing<String> {
        let lines = self.keys.len().saturating_add(4);
        let mut text = Zeroizing::new(String::with_capacity(lines.saturating_mul(LINE_MAX_BYTES)));
        text.push_str("{\n  \"active\": ");
        push_quoted(&mut text, &self.active);
        text.push_str(",\n  \"keys\": {");
        for (number, (id, secret)) in self.keys.iter().enumerate() {
            text.push_str(if number == 0 { "\n    " } else { ",\n    " });
            push_quoted(&mut text, id);
            text.push_str(": \"");
            STANDARD.encode_string(secret.as_slice(), &mut text);
            text.push('"');
        }
        text.push_str("\n  }\n}\n");
        text
    }

    /// Seals `secret` with the active key: 48 bytes. `nonce` is random, `aad` what the key is bound to.
    pub fn wrap(&self, nonce: [u8; 12], aad: &[u8], secret: &[u8; 32]) -> Result<Vec<u8>> {
        let mut out = secret.to_vec();
        self.aead(&self.active)?
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(aad), &mut out)
            .map_err(|_| Error::invalid("key to wrap", "refused", "32 bytes"))?;
        Ok(out)
    }

    /// Opens what [`KeyRing::wrap`] sealed with key `id`.
    ///
    /// # Errors
    /// [`Error::KeyMissing`], [`Error::KeyRefused`].
    pub fn unwrap(
        &self,
        id: &str,
        nonce: [u8; 12],
        aad: &[u8],
        wrapped: &[u8],
    ) -> Result<Zeroizing<[u8; 32]>> {
        let refused = || Error::KeyRefused { what: "wrapped data key", offset: 0, key_id: id.to_owned() };
        let mut buffer = Zeroizing::new(wrapped.to_vec());
        let plain = self
            .aead(id)?
            .open_in_place(Nonce::assume_unique_for_key(nonce), Aad::from(aad), &mut buffer)
            .map_err(|_| refused())?;
        Ok(Zeroizing::new(<[u8; 32]>::try_from(&*plain).map_err(|_| refused())?))
    }

    fn aead(&self, id: &str) -> Result<LessSafeKey> {
        let secret =
            self.keys.get(id).ok_or_else(|| Error::KeyMissing { what: "data key", key_id: id.to_owned() })?;
        let key = UnboundKey::new(&AES_256_GCM, secret.as_slice())
            .map_err(|_| Error::invalid("key", format!("of id {id}"), "32 bytes"))?;
        Ok(LessSafeKey::new(key))
    }
}

fn check_id(id: &str) -> Result<()> {
    if id.is_empty() || id.len() > ID_MAX_BYTES || !id.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(Error::invalid("key id", format!("{id:?}"), "1 to 64 printable ASCII characters"));
    }
    Ok(())
}

/// An id in JSON: of printable ASCII only these two need an escape.
fn push_quoted(text: &mut String, id: &str) {
    text.push('"');
    for c in id.chars() {
        if matches!(c, '"' | '\\') {
            text.push('\\');
        }
        text.push(c);
    }
    text.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ring_comes_back_from_its_text() {
        let first = r#"{"active": "a", "keys": {"a": "AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI="}}"#;
        let ring = KeyRing::parse(first).unwrap();
        let sealed = ring.wrap([1; 12], b"here", &[9; 32]).unwrap();
        let odd = r#"b"\c"#;
        let ring = ring.with_key(odd, Zeroizing::new([3; 32])).unwrap();
        assert_eq!(ring.active(), "a");
        let ring = ring.with_active(odd).unwrap();
        let text = ring.encode();
        let again = KeyRing::parse(&text).unwrap();
        assert_eq!((again.active(), again.ids().collect::<Vec<_>>()), (odd, vec!["a", odd]));
        assert_eq!(*again.unwrap("a", [1; 12], b"here", &sealed).unwrap(), [9; 32]);
        assert_eq!(*again.encode(), *text);
    }

    #[test]
    fn a_key_is_never_replaced() {
        let first = r#"{"active": "a", "keys": {"a": "AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI="}}"#;
        for (id, says) in [("a", "not in the ring yet"), ("", "printable"), ("ä", "printable")] {
            let refused = KeyRing::parse(first).unwrap().with_key(id, Zeroizing::new([3; 32])).unwrap_err();
            assert!(refused.to_string().contains(says), "{refused}");
        }
        assert!(KeyRing::parse(first).unwrap().with_active("b").is_err());
    }
}
