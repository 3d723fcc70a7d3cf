//! Writes an object from front to back. The caller brings plain bytes, frame by frame, in the order of the
//! [`Plan`], and puts what comes out, one after the other, into one object.
//!
//! After an error the encoder and what it appended are of no use: the object is begun anew, with a new salt
//! and id. What is finished was decoded again first, so that nothing is written that would not be read.

#![allow(clippy::arithmetic_side_effects)] // Counts bytes that the caller brought, within the plan's bounds.

use crate::crypt::{ObjectKey, TAG_BYTES, frame_nonce};
use crate::custom_metadata::{ArchiveReference, CustomMetadata};
use crate::digest::{Digest, Hasher};
use crate::error::{Error, Flaw, Result};
use crate::extent::{Codec, Extent, ExtentKind};
use crate::footer::{EncryptionInfo, Footer, SegmentInfo, check_period, check_sizes};
use crate::plan::{Compression, Plan, WriteOptions};
use crate::trailer::Trailer;
use crate::{FOOTER_MAX_BYTES, FORMAT_VERSION};

/// What the writer keeps of a finished object.
#[derive(Clone, Debug)]
pub struct Finished {
    pub footer: Footer,
    pub trailer: Trailer,
    /// BLAKE3 over footer and trailer.
    pub footer_digest: Digest,
}

impl Finished {
    /// What Kafka is to keep about the object, which lies in `store_id`.
    pub fn custom_metadata(&self, store_id: &str, archive: Option<ArchiveReference>) -> CustomMetadata {
        CustomMetadata {
            store_id: store_id.to_owned(),
            identity: self.footer.is_identity(),
            frame_bytes: self.footer.frame_bytes,
            data_end: self.trailer.data_end,
            footer_offset: self.trailer.footer_offset,
            footer_bytes: self.trailer.footer_bytes,
            footer_digest: self.footer_digest,
            archive,
        }
    }
}

/// See the module's documentation.
pub struct Encoder {
    options: WriteOptions,
    plan: Plan,
    key: Option<ObjectKey>,
    zstd: Option<zstd::bulk::Compressor<'static>>,
    extents: Vec<Extent>,
    digests: Vec<Digest>,
    hasher: Option<Hasher>,
    /// Plain bytes of the current extent that were taken.
    taken: u64,
    stored: u64,
    frames: u64,
    frame_count: u64,
    /// Frames are sealed before their number is known.
    streamed: bool,
}

impl Encoder {
    /// Begins an object.
    ///
    /// # Errors
    /// [`Error::Invalid`] for sizes or a period out of bounds, a plan of another chunk size, more frames than
    /// a footer can describe, or a zstd level that does not exist.
    pub fn new(options: WriteOptions, plan: Plan) -> Result<Self> {
        check_sizes(options.frame_bytes, options.chunk_bytes).map_err(Flaw::invalid)?;
        if let Some(e) = &options.encryption {
            check_period(&e.period).map_err(Flaw::invalid)?;
        }
        let frame_count = plan.frame_count(&options)?;
        let streamed = plan.open && options.encryption.is_some();
        let key =
            options.encryption.as_ref().map(|e| e.key.object_key(&e.salt, options.object_id)).transpose()?;
        let zstd = match options.compression {
            Compression::None => None,
            Compression::Zstd { level } | Compression::Auto { level } => Some(compressor(level)?),
        };
        let mut encoder = Self {
            options,
            plan,
            key,
            zstd,
            extents: Vec::new(),
            digests: Vec::new(),
            hasher: None,
            taken: 0,
            stored: 0,
            frames: 0,
            frame_count,
            streamed,
        };
        encoder.begin_extents();
        Ok(encoder)
    }

    /// Stored bytes are the plain ones: [`Encoder::pass`] will do, and nothing need be copied.
    pub fn is_identity(&self) -> bool {
        self.key.is_none() && self.zstd.is_none()
    }

    /// Plain bytes that the next frame takes; `None` when all were taken.
    pub fn next_frame_bytes(&self) -> Option<usize> {
        let extent = self.extents.last()?;
        let left = extent.plain_bytes - self.taken;
        (left > 0).then(|| left.min(self.options.frame_bytes.into()) as usize)
    }

    /// Stored bytes so far: where the next frame will lie.
    pub fn stored_bytes(&self) -> u64 {
        self.stored
    }

    /// Ends a log whose length was not known: `rest_bytes` of it are still to come, in one frame of less than
    /// the full size, or none. `sections` follow, as in [`Plan::new`].
    ///
    /// # Errors
    /// [`Error::Invalid`] for another rest, or what [`Plan::new`] and [`Encoder::new`] would refuse.
    pub fn end_log(&mut self, rest_bytes: u64, sections: &[(ExtentKind, u64)]) -> Result<()> {
        if !self.plan.open || rest_bytes >= self.next_frame_bytes().unwrap_or(0) as u64 {
            return Err(Error::invalid("rest of the log", rest_bytes, "less than a frame, once"));
        }
        let before = (self.extents.len().saturating_sub(1)) as u64 * u64::from(self.options.chunk_bytes);
        let plan = Plan::new(before + self.taken + rest_bytes, self.options.chunk_bytes, sections)?;
        self.frame_count = plan.frame_count(&self.options)?;
        self.plan = plan;
        // The chunk that was begun is shorter than was thought, or is not there at all.
        let last = self.taken + rest_bytes;
        match self.extents.last_mut() {
            Some(extent) if last > 0 => {
                extent.plain_bytes = last;
                if rest_bytes == 0 {
                    self.end_extent();
                    self.begin_extents();
                }
            }
            _ => {
                self.extents.pop();
                self.hasher = None;
                self.begin_extents();
            }
        }
        Ok(())
    }

    /// Takes the next frame, of exactly [`Encoder::next_frame_bytes`], where the stored bytes are the plain ones.
    ///
    /// # Errors
    /// [`Error::Invalid`] for another length, or where [`Encoder::is_identity`] is false.
    pub fn pass(&mut self, plain: &[u8]) -> Result<()> {
        if !self.is_identity() {
            return Err(Error::invalid("call", "pass", "only where bytes are stored as they are"));
        }
        self.check_frame(plain.len())?;
        self.hash(plain);
        self.take(plain.len(), plain.len(), crate::crc32c(plain));
        Ok(())
    }

    /// How much longer than a frame its stored bytes are, where they can be made in place: they are encrypted, and not
    /// compressed.
    pub fn seals_in_place(&self) -> Option<usize> {
        (self.key.is_some() && self.zstd.is_none()).then_some(TAG_BYTES)
    }

    /// Takes the next frame: of `bytes` the first [`Encoder::next_frame_bytes`] are plain, and
    /// [`Encoder::seals_in_place`] more are room. All of them are stored bytes then.
    ///
    /// # Errors
    /// [`Error::Invalid`] for another length, or where frames can't be sealed in place.
    pub fn seal(&mut self, bytes: &mut [u8]) -> Result<()> {
        let (stored_bytes, room) = (bytes.len(), self.seals_in_place().unwrap_or(usize::MAX));
        self.check_frame(stored_bytes.wrapping_sub(room))?;
        let Some((plain, last)) = bytes.split_last_chunk_mut::<TAG_BYTES>() else {
            return Err(Error::invalid("frame", stored_bytes, "a frame with room for its tag"));
        };
        self.hash(plain);
        let Some(key) = &self.key else { return Err(Error::invalid("call", "seal", "only with a key")) };
        let aad = key.frame_aad(self.frames, if self.streamed { 0 } else { self.frame_count });
        *last = key.seal(frame_nonce(self.frames), &aad, plain)?;
        let (plain_bytes, crc) = (plain.len(), crate::crc32c(bytes));
        self.take(plain_bytes, stored_bytes, crc);
        Ok(())
    }

    /// Takes the next frame, of exactly [`Encoder::next_frame_bytes`], and appends its stored bytes to `out`.
    ///
    /// # Errors
    /// [`Error::Invalid`] for another length.
    pub fn frame(&mut self, plain: &[u8], out: &mut Vec<u8>) -> Result<()> {
        self.check_frame(plain.len())?;
        let start = out.len();
        self.compress(plain, out)?;
        if let Some(key) = &self.key {
            let aad = key.frame_aad(self.frames, if self.streamed { 0 } else { self.frame_count });
            let tag = key.seal(frame_nonce(self.frames), &aad, out.get_mut(start..).unwrap_or_default())?;
            out.extend_from_slice(&tag);
        }
        let stored = out.get(start..).unwrap_or_default();
        let (bytes, crc) = (stored.len(), crate::crc32c(stored));
        self.hash(plain);
        self.take(plain.len(), bytes, crc);
        Ok(())
    }

    /// Appends footer and trailer to `out`, when all frames were taken.
    ///
    /// # Errors
    /// [`Error::Invalid`] if frames are missing, `info` holds what the format does not allow (see
    /// [`SegmentInfo::check`]), or the footer would exceed its limit.
    pub fn finish(self, info: SegmentInfo, out: &mut Vec<u8>) -> Result<Finished> {
        if self.plan.open
            || self.next_frame_bytes().is_some()
            || self.extents.len() != self.plan.extents.len()
        {
            return Err(Error::invalid(
                "finish",
                format!("{} of {} frames", self.frames, self.frame_count),
                "all frames",
            ));
        }
        info.check()?;
        let encryption = self.options.encryption.map(|e| EncryptionInfo {
            data_key_id: e.key.id,
            period: e.period,
            salt: e.salt,
        });
        let mut footer = Footer {
            info,
            object_id: self.options.object_id,
            log_bytes: self.plan.log_bytes,
            frame_bytes: self.options.frame_bytes,
            chunk_bytes: self.options.chunk_bytes,
            digest: self.options.digest,
            encryption,
            streamed: self.streamed,
            extents: self.extents,
            digests: self.digests,
            root: None,
            sealed: false,
        };
        footer.root = footer.computed_root();
        let bytes = footer.encode(self.key.as_ref())?;
        let (data_end, footer_offset) = footer.ends();
        let trailer = Trailer {
            data_end,
            footer_offset,
            footer_bytes: u32::try_from(bytes.len())
                .ok()
                .filter(|n| *n <= FOOTER_MAX_BYTES)
                .ok_or_else(|| Error::invalid("footer", bytes.len(), "at most 16 MiB"))?,
            version: FORMAT_VERSION,
            features: footer.features(),
            footer_crc: crate::crc32c(&bytes),
        };
        let end = trailer.encode();
        let mut read_back = Footer::decode(&bytes, &trailer)?;
        if let Some(key) = &self.key {
            read_back.unlock(&bytes, key, footer_offset)?;
        }
        if read_back != footer {
            return Err(Error::invalid(
                "footer",
                "one that reads back otherwise",
                "what reads back the same",
            ));
        }
        let mut hasher = blake3::Hasher::new();
        hasher.update(&bytes).update(&end);
        out.extend_from_slice(&bytes);
        out.extend_from_slice(&end);
        Ok(Finished { footer, trailer, footer_digest: Digest(*hasher.finalize().as_bytes()) })
    }

    fn check_frame(&self, plain_bytes: usize) -> Result<()> {
        if self.next_frame_bytes() == Some(plain_bytes) {
            return Ok(());
        }
        Err(Error::invalid("frame", plain_bytes, format!("{:?}", self.next_frame_bytes())))
    }

    fn compress(&mut self, plain: &[u8], out: &mut Vec<u8>) -> Result<()> {
        let (Some(zstd), Some(extent)) = (&mut self.zstd, self.extents.last_mut()) else {
            out.extend_from_slice(plain);
            return Ok(());
        };
        let first = self.taken == 0;
        if !first && extent.codec == Codec::None {
            out.extend_from_slice(plain);
            return Ok(());
        }
        let start = out.len();
        let bound = zstd::zstd_safe::compress_bound(plain.len());
        out.resize(start + bound, 0);
        let bytes = zstd
            .compress_to_buffer(plain, out.get_mut(start..).unwrap_or_default())
            .map_err(|e| Error::invalid("frame to compress", e, "what zstd takes"))?;
        out.truncate(start + bytes);
        if first
            && matches!(self.options.compression, Compression::Auto { .. })
            && bytes > plain.len() / 10 * 9
        {
            extent.codec = Codec::None;
            out.truncate(start);
            out.extend_from_slice(plain);
        }
        Ok(())
    }

    fn hash(&mut self, plain: &[u8]) {
        if let Some(hasher) = &mut self.hasher {
            hasher.update(plain);
        }
    }

    /// Records a frame and moves on.
    fn take(&mut self, plain_bytes: usize, stored_bytes: usize, crc: u32) {
        if let Some(extent) = self.extents.last_mut() {
            extent.crcs.push(crc);
            extent.stored_bytes += stored_bytes as u64;
            if extent.codec == Codec::Zstd {
                // An extent has at most 1 GiB of plain bytes, and zstd adds little: far from 4 GiB.
                extent.ends.push(u32::try_from(extent.stored_bytes).unwrap_or(u32::MAX));
            }
        }
        self.stored += stored_bytes as u64;
        self.frames += 1;
        self.taken += plain_bytes as u64;
        if self.next_frame_bytes().is_none() {
            self.end_extent();
            self.begin_extents();
        }
    }

    /// Begins the next extent, and ends at once those that are empty.
    fn begin_extents(&mut self) {
        while let Some((kind, plain_bytes)) = self.next_extent() {
            let plain_offset = match kind {
                ExtentKind::Log => self.extents.len() as u64 * u64::from(self.options.chunk_bytes),
                _ => 0,
            };
            self.extents.push(Extent {
                kind,
                codec: if self.zstd.is_some() && plain_bytes > 0 { Codec::Zstd } else { Codec::None },
                plain_offset,
                plain_bytes,
                stored_offset: self.stored,
                stored_bytes: 0,
                first_frame: self.frames,
                crcs: Vec::new(),
                ends: Vec::new(),
            });
            self.taken = 0;
            self.hasher = self.options.digest.hasher();
            if plain_bytes > 0 {
                return;
            }
            self.end_extent();
        }
    }

    fn next_extent(&self) -> Option<(ExtentKind, u64)> {
        if self.plan.open {
            return Some((ExtentKind::Log, self.options.chunk_bytes.into()));
        }
        self.plan.extents.get(self.extents.len()).copied()
    }

    fn end_extent(&mut self) {
        self.digests.extend(self.hasher.take().map(Hasher::finish));
    }
}

fn compressor(level: i32) -> Result<zstd::bulk::Compressor<'static>> {
    let levels = zstd::compression_level_range();
    // zstd itself would take the nearest.
    if !levels.contains(&level) {
        return Err(Error::invalid("zstd level", level, format!("{levels:?}")));
    }
    zstd::bulk::Compressor::new(level)
        .map_err(|e| Error::invalid("zstd level", format!("{level}: {e}"), format!("{levels:?}")))
}
