//! What will be written: options, and the extents to come. All that can be refused about an object before
//! its first byte is refused here, not after gigabytes of upload.

use crate::crypt::{DataKey, SALT_BYTES};
use crate::digest::DigestAlgorithm;
use crate::error::{Error, Result};
use crate::extent::ExtentKind;
use crate::id::Id;
use crate::{CHUNK_MAX_BYTES, FOOTER_MAX_BYTES, SECTION_MAX_BYTES};

/// How frames are compressed, each for itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Compression {
    #[default]
    None,
    /// Always; `level` is zstd's.
    Zstd { level: i32 },
    /// A chunk is compressed only where its first frame shrinks to nine tenths or less.
    Auto { level: i32 },
}

/// The key to encrypt with.
#[derive(Clone, Debug)]
pub struct Encryption {
    pub key: DataKey,
    /// The period of `key`, as in its record.
    pub period: String,
    /// Random, and new for each attempt to write the object.
    pub salt: [u8; SALT_BYTES],
}

/// How an object is written.
#[derive(Clone, Debug)]
pub struct WriteOptions {
    /// Plain bytes of a frame: a power of two from 4 KiB to 1 MiB.
    pub frame_bytes: u32,
    /// Plain bytes of a chunk: a multiple of `frame_bytes`, at most 128 MiB.
    pub chunk_bytes: u32,
    pub compression: Compression,
    pub digest: DigestAlgorithm,
    pub encryption: Option<Encryption>,
    /// Random, and new for each attempt.
    pub object_id: Id,
}

/// The extents to come, in order: what is read next and how much of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    pub(crate) extents: Vec<(ExtentKind, u64)>,
    pub(crate) log_bytes: u64,
    pub(crate) chunk_bytes: u32,
    /// The log goes on until its end is told: `extents` holds what was begun of it.
    pub(crate) open: bool,
}

/// What of the footer is kept free for the fields that are not known when an object is begun.
const INFO_MAX_BYTES: u64 = 64 * 1024;
/// Head of an extent in the table, and its digest.
const EXTENT_MIN_BYTES: u64 = 20 + 32;

fn check_chunk(chunk_bytes: u32) -> Result<()> {
    if chunk_bytes == 0 || chunk_bytes > CHUNK_MAX_BYTES {
        return Err(Error::invalid("chunk size", chunk_bytes, format!("1 to {CHUNK_MAX_BYTES}")));
    }
    Ok(())
}

impl Plan {
    /// Lengths in plain bytes; `sections` in the order of their kinds; those that do not exist are left out.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a section out of order, repeated or above [`SECTION_MAX_BYTES`], for a chunk
    /// size of 0 or above [`CHUNK_MAX_BYTES`], and for more chunks than a footer can describe.
    pub fn new(log_bytes: u64, chunk_bytes: u32, sections: &[(ExtentKind, u64)]) -> Result<Self> {
        check_chunk(chunk_bytes)?;
        let chunk = u64::from(chunk_bytes);
        let chunks_max = u64::from(FOOTER_MAX_BYTES) / EXTENT_MIN_BYTES;
        if log_bytes.div_ceil(chunk) > chunks_max {
            let allowed = format!("at most {chunks_max} chunks of {chunk_bytes} bytes: choose larger chunks");
            return Err(Error::invalid("log", log_bytes, allowed));
        }
        let mut extents = Vec::new();
        let mut left = log_bytes;
        while left > 0 {
            let bytes = left.min(chunk);
            extents.push((ExtentKind::Log, bytes));
            left = left.saturating_sub(bytes);
        }
        for (kind, bytes) in sections {
            let exists = ExtentKind::from_code(kind.code()) == Some(*kind);
            if !exists || *kind == ExtentKind::Log || extents.last().is_some_and(|(last, _)| last >= kind) {
                return Err(Error::invalid("section", kind.name(), "each kind once, in their order"));
            }
            if *bytes > SECTION_MAX_BYTES {
                return Err(Error::invalid(kind.name(), bytes, format!("at most {SECTION_MAX_BYTES} bytes")));
            }
            extents.push((*kind, *bytes));
        }
        Ok(Self { extents, log_bytes, chunk_bytes, open: false })
    }

    /// Of a log whose length is not known yet: [`Encoder::end_log`](crate::Encoder::end_log) tells it.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a chunk size out of bounds.
    pub fn open(chunk_bytes: u32) -> Result<Self> {
        check_chunk(chunk_bytes)?;
        Ok(Self { extents: Vec::new(), log_bytes: 0, chunk_bytes, open: true })
    }

    /// Kind and plain bytes of each extent.
    pub fn extents(&self) -> &[(ExtentKind, u64)] {
        &self.extents
    }

    /// Frames of the whole object; refuses what a footer could not describe.
    pub(crate) fn frame_count(&self, options: &WriteOptions) -> Result<u64> {
        if options.chunk_bytes != self.chunk_bytes {
            return Err(Error::invalid(
                "chunk size",
                options.chunk_bytes,
                format!("the plan's {}", self.chunk_bytes),
            ));
        }
        let frame = u64::from(options.frame_bytes);
        let frames =
            self.extents.iter().fold(0_u64, |sum, (_, bytes)| sum.saturating_add(bytes.div_ceil(frame)));
        let entry = if options.compression == Compression::None { 4 } else { 8 };
        let footer = (self.extents.len() as u64)
            .saturating_mul(EXTENT_MIN_BYTES)
            .saturating_add(frames.saturating_mul(entry))
            .saturating_add(INFO_MAX_BYTES);
        if footer > FOOTER_MAX_BYTES.into() {
            let allowed = format!("a footer of at most {FOOTER_MAX_BYTES} bytes: choose larger frames");
            return Err(Error::invalid("frame size", options.frame_bytes, allowed));
        }
        Ok(frames)
    }
}
