//! Digests of plain bytes, one per extent, and the Merkle root over them that proves the whole object.

use std::fmt;

use crate::error::{Error, Result};
use crate::extent::ExtentKind;

/// The hash of digests and Merkle tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum DigestAlgorithm {
    None,
    #[default]
    Blake3,
    Sha256,
}

/// 32 bytes, printed in hexadecimal.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest(pub [u8; 32]);

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl DigestAlgorithm {
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::None => 0,
            Self::Blake3 => 1,
            Self::Sha256 => 2,
        }
    }

    pub(crate) fn from_code(code: u8, offset: u64) -> Result<Self> {
        match code {
            0 => Ok(Self::None),
            1 => Ok(Self::Blake3),
            2 => Ok(Self::Sha256),
            other => Err(Error::corrupt("digest algorithm", offset, "0, 1 or 2", other)),
        }
    }

    /// `None` where digests are off.
    pub fn hasher(self) -> Option<Hasher> {
        match self {
            Self::None => None,
            Self::Blake3 => Some(Hasher::Blake3(Box::new(blake3::Hasher::new()))),
            Self::Sha256 => {
                Some(Hasher::Sha256(Box::new(aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256))))
            }
        }
    }
}

/// An incremental digest.
pub enum Hasher {
    Blake3(Box<blake3::Hasher>),
    Sha256(Box<aws_lc_rs::digest::Context>),
}

impl Hasher {
    /// Takes more bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Blake3(h) => {
                h.update(bytes);
            }
            Self::Sha256(h) => h.update(bytes),
        }
    }

    /// The digest of all bytes taken.
    pub fn finish(self) -> Digest {
        match self {
            Self::Blake3(h) => Digest(*h.finalize().as_bytes()),
            Self::Sha256(h) => {
                let mut out = [0; 32];
                out.copy_from_slice(h.finish().as_ref());
                Digest(out)
            }
        }
    }
}

/// What the Merkle tree says of one extent. Kind and length are part of the leaf, so that the root proves
/// what the bytes are, not only that they are there somewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leaf {
    pub kind: ExtentKind,
    pub plain_bytes: u64,
    /// Digest of the extent's plain bytes.
    pub digest: Digest,
}

/// The root of a tree shaped as in RFC 6962 section 2.1: a leaf is `H(0x00 | kind | plain bytes | digest)`, a
/// node `H(0x01 | left | right)`, an odd one is carried up; of no leaves it is `H(0x02)`.
/// `None` where digests are off.
pub fn merkle_root(algorithm: DigestAlgorithm, leaves: impl Iterator<Item = Leaf>) -> Option<Digest> {
    let hash = |parts: &[&[u8]]| {
        algorithm.hasher().map(|mut h| {
            parts.iter().for_each(|part| h.update(part));
            h.finish()
        })
    };
    let mut level = leaves
        .map(|l| hash(&[&[0, l.kind.code()], &l.plain_bytes.to_be_bytes(), &l.digest.0]))
        .collect::<Option<Vec<_>>>()?;
    while level.len() > 1 {
        level = level
            .chunks(2)
            .map(|pair| match pair {
                [left, right] => hash(&[&[1], &left.0, &right.0]),
                [odd] => Some(*odd),
                _ => None,
            })
            .collect::<Option<Vec<_>>>()?;
    }
    match level.pop() {
        Some(root) => Some(root),
        None => hash(&[&[2]]),
    }
}
