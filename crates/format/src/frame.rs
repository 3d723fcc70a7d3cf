//! From stored bytes to plain ones: checksum, then decryption, then decompression, frame by frame.
//!
//! Of an encrypted object nothing is decoded before its footer was authenticated ([`Footer::unlock`]): who can
//! alter the extent table could else have a compressed frame pass for a plain one.

use std::ops::Range;

use crate::crypt::{ObjectKey, TAG_BYTES, frame_nonce};
use crate::error::{Error, Result};
use crate::extent::{Codec, Extent, ExtentKind};
use crate::footer::Footer;

const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// What RFC 8878 asks every decoder for.
const ZSTD_WINDOW_MAX_BYTES: u64 = 8 << 20;

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
    ///
    /// # Errors
    /// [`Error::Invalid`] for a number that is not below [`Footer::frame_count`].
    pub fn frame(&self, number: u64) -> Result<FrameRef> {
        self.find_frame(number)
            .ok_or_else(|| Error::invalid("frame number", number, format!("below {}", self.frame_count())))
    }

    fn find_frame(&self, number: u64) -> Option<FrameRef> {
        let extent = self.extents.get(self.extents.partition_point(|e| e.end_frame() <= number))?;
        let index = usize::try_from(number.checked_sub(extent.first_frame)?).ok()?;
        let shape = self.shape();
        let (start, end) = extent.frame_span(index, shape.frame_bytes, shape.overhead())?;
        Some(FrameRef {
            number,
            stored: extent.stored_offset.checked_add(start)?..extent.stored_offset.checked_add(end)?,
            plain_bytes: extent.frame_plain_bytes(index, shape.frame_bytes),
            codec: extent.codec,
            crc: *extent.crcs.get(index)?,
        })
    }

    /// Number of the frame that holds the log's byte `position`, which must be below `log_bytes`: frames
    /// beyond belong to the sections.
    pub fn frame_at(&self, position: u64) -> u64 {
        position.checked_div(self.frame_bytes.into()).unwrap_or(0)
    }

    /// The chunk that holds the log's byte `position`; `None` beyond the log.
    pub fn chunk_at(&self, position: u64) -> Option<&Extent> {
        let index = usize::try_from(position.checked_div(self.chunk_bytes.into())?).ok()?;
        self.extents.get(index).filter(|e| e.kind == ExtentKind::Log && position < self.log_bytes)
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
    /// `key` is needed for an encrypted object, and so is that its footer was unlocked with it.
    ///
    /// # Errors
    /// [`Error::KeyMissing`] without a key that is needed, [`Error::Invalid`] if the footer is still sealed.
    pub fn new(footer: &'a Footer, key: Option<&'a ObjectKey>) -> Result<Self> {
        if let (Some(e), None) = (&footer.encryption, key) {
            return Err(Error::KeyMissing { what: "object", key_id: e.data_key_id.to_string() });
        }
        if footer.sealed {
            return Err(Error::invalid("footer", "still sealed", "one that was unlocked"));
        }
        let key = footer.encryption.as_ref().and(key);
        Ok(Self { footer, key, zstd: None, scratch: Vec::new() })
    }

    /// Checks the frame's stored bytes and writes the plain ones to `plain`, of exactly `frame.plain_bytes`.
    /// After an error `plain` holds nothing that may be used.
    ///
    /// # Errors
    /// [`Error::Corrupt`] and [`Error::TooShort`] if the stored bytes are damaged, [`Error::KeyRefused`] if they
    /// were altered or the key is another's, [`Error::Invalid`] for a buffer of the wrong length.
    pub fn decode(&mut self, frame: &FrameRef, stored: &[u8], plain: &mut [u8]) -> Result<()> {
        frame.check(stored)?;
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
            (Some(key), Codec::None) => frame.open(self.footer, key, stored, plain),
            (Some(key), Codec::Zstd) => {
                let compressed = stored
                    .len()
                    .checked_sub(TAG_BYTES)
                    .ok_or_else(|| mismatch(frame, TAG_BYTES, stored.len()))?;
                self.scratch.resize(compressed, 0);
                frame.open(self.footer, key, stored, &mut self.scratch)?;
                decompress(&mut self.zstd, frame, &self.scratch, plain)
            }
        }
    }

    /// The same for a frame that is not compressed, where it is: how many of its bytes are plain ones then. Of an
    /// encrypted one the tag alone is looked at, which proves more than its CRC32C.
    ///
    /// # Errors
    /// As [`decode`](Self::decode), but for an encrypted frame that is damaged [`Error::KeyRefused`]; and
    /// [`Error::Invalid`] for a frame that is compressed.
    pub fn decode_in_place(&mut self, frame: &FrameRef, stored: &mut [u8]) -> Result<usize> {
        let plain = match (self.key, frame.codec) {
            (_, Codec::Zstd) => return Err(Error::invalid("frame", "compressed", "one that is not")),
            (None, Codec::None) => {
                frame.check(stored)?;
                stored.len()
            }
            (Some(key), Codec::None) => {
                frame.check_length(stored)?;
                let aad = frame.aad(self.footer, key);
                key.open_in_place("frame", frame.stored.start, frame_nonce(frame.number), &aad, stored)?
            }
        };
        if plain == frame.plain_bytes as usize {
            Ok(plain)
        } else {
            Err(mismatch(frame, frame.plain_bytes as usize, plain))
        }
    }
}

impl FrameRef {
    /// Whether `stored` are this frame's bytes: their number and their CRC32C. Of a frame that is neither
    /// compressed nor encrypted they are the plain bytes.
    ///
    /// # Errors
    /// [`Error::TooShort`] for another number of bytes, [`Error::Corrupt`] for another CRC32C.
    pub fn check(&self, stored: &[u8]) -> Result<()> {
        self.check_length(stored)?;
        let crc = crate::crc32c(stored);
        if crc == self.crc {
            return Ok(());
        }
        let expected = format!("CRC32C {:08x}", self.crc);
        Err(Error::corrupt("frame", self.stored.start, expected, format!("{crc:08x}")))
    }

    fn check_length(&self, stored: &[u8]) -> Result<()> {
        let (offset, needed) = (self.stored.start, self.stored.end.saturating_sub(self.stored.start));
        if stored.len() as u64 == needed {
            return Ok(());
        }
        Err(Error::TooShort { what: "frame", offset, needed, available: stored.len() as u64 })
    }

    fn open(&self, footer: &Footer, key: &ObjectKey, stored: &[u8], plain: &mut [u8]) -> Result<()> {
        let aad = self.aad(footer, key);
        key.open("frame", self.stored.start, frame_nonce(self.number), &aad, stored, plain)
    }

    fn aad(&self, footer: &Footer, key: &ObjectKey) -> [u8; 32] {
        let count = if footer.streamed { 0 } else { footer.frame_count() };
        key.frame_aad(self.number, count)
    }
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
    if let Some(found) = zstd_flaw(compressed, frame.plain_bytes) {
        let expected = format!("one zstd frame of {} plain bytes", frame.plain_bytes);
        return Err(Error::corrupt("zstd frame", frame.stored.start, expected, found));
    }
    let decompressor = match zstd {
        Some(d) => d,
        None => zstd.insert(zstd::bulk::Decompressor::new().map_err(fail)?),
    };
    match decompressor.decompress_to_buffer(compressed, plain).map_err(fail)? {
        n if n == plain.len() => Ok(()),
        n => Err(mismatch(frame, plain.len(), n)),
    }
}

/// What makes `compressed` other than exactly one zstd frame (RFC 8878 section 3.1.1) as this format has it. The
/// library takes more: frames of its first versions, dictionaries, windows of any size.
fn zstd_flaw(compressed: &[u8], plain_bytes: u32) -> Option<String> {
    let (Some(magic), Some(descriptor)) = (compressed.first_chunk::<4>(), compressed.get(4)) else {
        return Some(format!("{} bytes", compressed.len()));
    };
    if *magic != ZSTD_MAGIC {
        return Some(format!("magic {magic:02x?}"));
    }
    if descriptor & 0b11 != 0 {
        return Some("a dictionary id".to_owned());
    }
    // A frame of a single segment has no window descriptor: its window is its content.
    if descriptor & 0x20 == 0 {
        let window = compressed.get(5).copied().map_or(0, zstd_window_bytes);
        if window > ZSTD_WINDOW_MAX_BYTES {
            return Some(format!("a window of {window} bytes"));
        }
    }
    let content = zstd::zstd_safe::get_frame_content_size(compressed).ok().flatten();
    if content != Some(plain_bytes.into()) {
        return Some(content.map_or("no content size".to_owned(), |n| format!("a content size of {n}")));
    }
    let end = zstd::zstd_safe::find_frame_compressed_size(compressed).ok();
    (end != Some(compressed.len())).then(|| "another end, or none".to_owned())
}

/// RFC 8878 section 3.1.1.1.2: exponent and mantissa.
fn zstd_window_bytes(descriptor: u8) -> u64 {
    let base = 1024_u64.checked_shl(u32::from(descriptor >> 3)).unwrap_or(u64::MAX);
    base.saturating_add((base / 8).saturating_mul(u64::from(descriptor & 7)))
}

fn mismatch(frame: &FrameRef, expected: usize, found: usize) -> Error {
    Error::corrupt("frame", frame.stored.start, format!("{expected} bytes"), found)
}
