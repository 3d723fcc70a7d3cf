//! From stored bytes to plain ones: checksum, then decryption, then decompression, frame by frame.

use std::ops::Range;

use crate::crypt::{ObjectKey, TAG_BYTES};
use crate::error::{Error, Result};
use crate::extent::{Codec, Extent, ExtentKind};
use crate::footer::Footer;

/// One frame and where it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrameRef {
    /// In the object, from 0. A log position's frame is `position / frame_bytes`.
    pub number: u64,
    pub stored: Range<u64>,
    pub plain_bytes: u32,
    pub codec: Codec,
    /// CRC32C of the stored bytes.
    pub crc: u32,
}

impl Footer {
    /// Frame `number` of the object.
    pub fn frame(&self, number: u64) -> Result<FrameRef> {
        let none = || Error::invalid("frame number", number, format!("below {}", self.frame_count()));
        let at = self.extents.partition_point(|e| e.first_frame + e.frame_count() <= number);
        let extent = self.extents.get(at).ok_or_else(none)?;
        let index = usize::try_from(number - extent.first_frame).map_err(|_| none())?;
        let shape = self.shape();
        let (start, end) = extent.frame_span(index, shape.frame_bytes, shape.overhead()).ok_or_else(none)?;
        Ok(FrameRef {
            number,
            stored: extent.stored_offset + start..extent.stored_offset + end,
            plain_bytes: extent.frame_plain_bytes(index, shape.frame_bytes),
            codec: extent.codec,
            crc: *extent.crcs.get(index).ok_or_else(none)?,
        })
    }

    /// Number of the frame that holds the log's byte `position`.
    pub fn frame_at(&self, position: u64) -> u64 {
        position / u64::from(self.frame_bytes)
    }

    /// The chunk that holds the log's byte `position`.
    pub fn chunk_at(&self, position: u64) -> Option<&Extent> {
        let index = usize::try_from(position / u64::from(self.chunk_bytes)).ok()?;
        self.extents.get(index).filter(|e| e.kind == ExtentKind::Log)
    }
}

/// Turns stored frames of one object into plain ones. Keeps a decompressor: one for each thread of work.
pub struct Decoder<'a> {
    footer: &'a Footer,
    key: Option<&'a ObjectKey>,
    zstd: Option<zstd::bulk::Decompressor<'static>>,
    scratch: Vec<u8>,
}

impl<'a> Decoder<'a> {
    /// `key` is needed for an encrypted object.
    pub fn new(footer: &'a Footer, key: Option<&'a ObjectKey>) -> Result<Self> {
        if let (Some(e), None) = (&footer.encryption, key) {
            return Err(Error::KeyMissing { what: "object", key_id: e.data_key_id.to_string() });
        }
        let key = footer.encryption.as_ref().and(key);
        Ok(Self { footer, key, zstd: None, scratch: Vec::new() })
    }

    /// Checks the frame's stored bytes and writes the plain ones to `plain`, of exactly `frame.plain_bytes`.
    pub fn decode(&mut self, frame: &FrameRef, stored: &[u8], plain: &mut [u8]) -> Result<()> {
        check(frame, stored)?;
        if plain.len() != frame.plain_bytes as usize {
            return Err(Error::invalid("frame buffer", plain.len(), frame.plain_bytes));
        }
        match (self.key, frame.codec) {
            (None, Codec::None) => {
                if stored.len() != plain.len() {
                    return Err(mismatch(frame, plain.len(), stored.len()));
                }
                plain.copy_from_slice(stored);
                Ok(())
            }
            (None, Codec::Zstd) => decompress(&mut self.zstd, frame, stored, plain),
            (Some(key), Codec::None) => open(key, self.footer, frame, stored, plain),
            (Some(key), Codec::Zstd) => {
                let compressed = stored
                    .len()
                    .checked_sub(TAG_BYTES)
                    .ok_or_else(|| mismatch(frame, TAG_BYTES, stored.len()))?;
                self.scratch.resize(compressed, 0);
                open(key, self.footer, frame, stored, &mut self.scratch)?;
                decompress(&mut self.zstd, frame, &self.scratch, plain)
            }
        }
    }
}

fn check(frame: &FrameRef, stored: &[u8]) -> Result<()> {
    let expected_bytes = frame.stored.end - frame.stored.start;
    if stored.len() as u64 != expected_bytes {
        return Err(Error::TooShort {
            what: "frame",
            offset: frame.stored.start,
            needed: expected_bytes,
            available: stored.len() as u64,
        });
    }
    let crc = crc32c::crc32c(stored);
    if crc == frame.crc {
        return Ok(());
    }
    Err(Error::corrupt(
        "frame",
        frame.stored.start,
        format!("CRC32C {:08x}", frame.crc),
        format!("{crc:08x}"),
    ))
}

fn open(key: &ObjectKey, footer: &Footer, frame: &FrameRef, stored: &[u8], plain: &mut [u8]) -> Result<()> {
    let aad = key.frame_aad(frame.number, footer.frame_count());
    key.open("frame", frame.stored.start, frame.number, &aad, stored, plain)
}

fn decompress(
    zstd: &mut Option<zstd::bulk::Decompressor<'static>>,
    frame: &FrameRef,
    compressed: &[u8],
    plain: &mut [u8],
) -> Result<()> {
    let fail = |e: std::io::Error| {
        Error::corrupt("zstd frame", frame.stored.start, format!("{} plain bytes", frame.plain_bytes), e)
    };
    let decompressor = match zstd {
        Some(d) => d,
        None => zstd.insert(zstd::bulk::Decompressor::new().map_err(fail)?),
    };
    match decompressor.decompress_to_buffer(compressed, plain).map_err(fail)? {
        n if n == plain.len() => Ok(()),
        n => Err(mismatch(frame, plain.len(), n)),
    }
}

fn mismatch(frame: &FrameRef, expected: usize, found: usize) -> Error {
    Error::corrupt("frame", frame.stored.start, format!("{expected} bytes"), found)
}
