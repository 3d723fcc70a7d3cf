//! The archive's hash: names of manifests, and what a snapshot proves by.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use varve_format::DigestAlgorithm;

/// `H` of docs/ARCHIVE-FORMAT.md.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HashAlgorithm {
    #[default]
    Blake3,
    Sha256,
}

/// 32 bytes; its text is 64 lowercase hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hash(pub [u8; 32]);

impl HashAlgorithm {
    /// Of all parts, one after the other.
    pub fn of(self, parts: &[&[u8]]) -> Hash {
        match self {
            Self::Blake3 => {
                let mut hasher = blake3::Hasher::new();
                parts.iter().for_each(|part| {
                    hasher.update(part);
                });
                Hash(*hasher.finalize().as_bytes())
            }
            Self::Sha256 => {
                let mut context = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
                parts.iter().for_each(|part| context.update(part));
                let mut out = [0; 32];
                out.copy_from_slice(context.finish().as_ref());
                Hash(out)
            }
        }
    }

    /// The same, of segments' digests.
    pub fn digest(self) -> DigestAlgorithm {
        match self {
            Self::Blake3 => DigestAlgorithm::Blake3,
            Self::Sha256 => DigestAlgorithm::Sha256,
        }
    }
}

impl Hash {
    /// `None` for anything but 64 lowercase hexadecimal digits.
    pub fn parse(text: &str) -> Option<Self> {
        let nibble = |b: u8| match b {
            b'0'..=b'9' => Some(b.wrapping_sub(b'0')),
            b'a'..=b'f' => Some(b.wrapping_sub(b'a').wrapping_add(10)),
            _ => None,
        };
        let (pairs, rest) = text.as_bytes().as_chunks::<2>();
        if pairs.len() != 32 || !rest.is_empty() {
            return None;
        }
        let mut out = [0; 32];
        for (byte, [high, low]) in out.iter_mut().zip(pairs) {
            *byte = nibble(*high)? << 4 | nibble(*low)?;
        }
        Some(Self(out))
    }

    /// Nibble `index`, the high one of a byte first; 0 beyond the end.
    pub(crate) fn nibble(&self, index: u8) -> u8 {
        let byte = self.0.get(usize::from(index / 2)).copied().unwrap_or(0);
        if index.is_multiple_of(2) { byte >> 4 } else { byte & 15 }
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Hash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Hash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| de::Error::custom("expected 64 lowercase hexadecimal digits"))
    }
}
