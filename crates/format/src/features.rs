//! Feature bits: what a reader must know (required) and may ignore (optional).

use crate::error::{Error, Result};

/// At least one extent is compressed with zstd.
pub const REQUIRED_ZSTD: u64 = 1 << 0;
/// The object is encrypted.
pub const REQUIRED_AES_256_GCM: u64 = 1 << 1;
/// The object is encrypted, and its frames were sealed before their number was known.
pub const REQUIRED_STREAMED: u64 = 1 << 2;
/// The footer holds digests of the plain bytes.
pub const OPTIONAL_DIGESTS: u64 = 1 << 0;

const REQUIRED_KNOWN: u64 = REQUIRED_ZSTD | REQUIRED_AES_256_GCM | REQUIRED_STREAMED;
pub(crate) const OPTIONAL_KNOWN: u64 = OPTIONAL_DIGESTS;

/// The two words of the trailer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Features {
    pub required: u64,
    pub optional: u64,
}

impl Features {
    /// Refuses what this build can't read, by name.
    pub fn check(&self) -> Result<()> {
        let unknown = self.required & !REQUIRED_KNOWN;
        if unknown == 0 {
            return Ok(());
        }
        let names: Vec<_> =
            (0..64).filter(|bit| unknown >> bit & 1 == 1).map(|bit| format!("required bit {bit}")).collect();
        Err(Error::UnknownFeatures(names.join(", ")))
    }
}
