//! Writes an object from front to back. The caller brings plain bytes, frame by frame, in the order of the
//! [`Plan`], and puts what comes out, one after the other, into one object.

use crate::FORMAT_VERSION;
use crate::crypt::{DataKey, ObjectKey, SALT_BYTES};
use crate::custom_metadata::{ArchiveReference, CustomMetadata};
use crate::digest::{Digest, DigestAlgorithm, Hasher, merkle_root};
use crate::error::{Error, Result};
use crate::extent::{Codec, Extent, ExtentKind};
use crate::footer::{EncryptionInfo, Footer, SegmentInfo, check_sizes};
use crate::id::Id;
use crate::trailer::Trailer;

/// How frames are compressed, each for itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Compression {
    #[default]
    None,
    Zstd {
        level: i32,
    },
    /// A chunk is compressed only where its first frame shrinks to nine tenths or less.
    Auto {
        level: i32,
    },
}

#[derive(Clone, Debug)]
pub struct Encryption {
    pub key: DataKey,
    pub period: String,
    /// Random, and new for each attempt to write the object.
    pub salt: [u8; SALT_BYTES],
}

#[derive(Clone, Debug)]
pub struct WriteOptions {
    pub frame_bytes: u32,
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
    extents: Vec<(ExtentKind, u64)>,
    log_bytes: u64,
}

impl Plan {
    /// `sections` in the order of [`ExtentKind::SECTIONS`]; those that do not exist are left out.
    pub fn new(log_bytes: u64, chunk_bytes: u32, sections: &[(ExtentKind, u64)]) -> Result<Self> {
        if chunk_bytes == 0 {
            return Err(Error::invalid("chunk size", 0, "more than 0"));
        }
        let chunk_bytes = u64::from(chunk_bytes);
        let chunks = log_bytes.div_ceil(chunk_bytes);
        let mut extents: Vec<_> =
            (0..chunks).map(|n| (ExtentKind::Log, chunk_bytes.min(log_bytes - n * chunk_bytes))).collect();
        for (kind, bytes) in sections {
            if *kind == ExtentKind::Log || extents.last().is_some_and(|(last, _)| last >= kind) {
                return Err(Error::invalid("section", kind.name(), "each kind once, in their order"));
            }
            extents.push((*kind, *bytes));
        }
        Ok(Self { extents, log_bytes })
    }

    /// Kind and plain bytes of each extent.
    pub fn extents(&self) -> &[(ExtentKind, u64)] {
        &self.extents
    }
}

/// What the writer keeps of a finished object.
#[derive(Clone, Debug)]
pub struct Finished {
    pub footer: Footer,
    pub trailer: Trailer,
    /// BLAKE3 over footer and trailer.
    pub footer_digest: Digest,
    identity: bool,
}

impl Finished {
    pub fn custom_metadata(&self, store_id: &str, archive: Option<ArchiveReference>) -> CustomMetadata {
        CustomMetadata {
            store_id: store_id.to_owned(),
            identity: self.identity,
            frame_bytes: self.footer.frame_bytes,
            data_end: self.trailer.data_end,
            footer_offset: self.trailer.footer_offset,
            footer_bytes: self.trailer.footer_bytes,
            footer_digest: self.footer_digest,
            archive,
        }
    }
}

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
}

impl Encoder {
    pub fn new(options: WriteOptions, plan: Plan) -> Result<Self> {
        check_sizes(options.frame_bytes, options.chunk_bytes)?;
        let key =
            options.encryption.as_ref().map(|e| e.key.object_key(&e.salt, options.object_id)).transpose()?;
        let zstd = match options.compression {
            Compression::None => None,
            Compression::Zstd { level } | Compression::Auto { level } => Some(
                zstd::bulk::Compressor::new(level)
                    .map_err(|e| Error::invalid("zstd level", format!("{level}: {e}"), "a level of zstd"))?,
            ),
        };
        let frame_count =
            plan.extents.iter().map(|(_, bytes)| bytes.div_ceil(options.frame_bytes.into())).sum();
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
        let (_, bytes) = self.plan.extents.get(self.extents.len().checked_sub(1)?)?;
        let left = bytes - self.taken;
        (left > 0).then(|| left.min(self.options.frame_bytes.into()) as usize)
    }

    /// Takes the next frame where the stored bytes are the plain ones.
    pub fn pass(&mut self, plain: &[u8]) -> Result<()> {
        if !self.is_identity() {
            return Err(Error::invalid("call", "pass", "only where bytes are stored as they are"));
        }
        self.check_frame(plain)?;
        self.take(plain, plain.len(), crc32c::crc32c(plain));
        Ok(())
    }

    /// Takes the next frame and appends its stored bytes to `out`.
    pub fn frame(&mut self, plain: &[u8], out: &mut Vec<u8>) -> Result<()> {
        self.check_frame(plain)?;
        let start = out.len();
        self.compress(plain, out)?;
        if let Some(key) = &self.key {
            let aad = key.frame_aad(self.frames, self.frame_count);
            let tag = key.seal(self.frames, &aad, out.get_mut(start..).unwrap_or_default())?;
            out.extend_from_slice(&tag);
        }
        let stored = out.get(start..).unwrap_or_default();
        let (bytes, crc) = (stored.len(), crc32c::crc32c(stored));
        self.take(plain, bytes, crc);
        Ok(())
    }

    /// Appends footer and trailer to `out`.
    pub fn finish(self, info: SegmentInfo, out: &mut Vec<u8>) -> Result<Finished> {
        if self.next_frame_bytes().is_some() || self.extents.len() != self.plan.extents.len() {
            return Err(Error::invalid(
                "finish",
                format!("{} of {} frames", self.frames, self.frame_count),
                "all frames",
            ));
        }
        let identity = self.is_identity();
        let root = merkle_root(self.options.digest, &self.digests);
        let encryption = self.options.encryption.map(|e| EncryptionInfo {
            data_key_id: e.key.id,
            period: e.period,
            salt: e.salt,
        });
        let footer = Footer {
            info,
            object_id: self.options.object_id,
            log_bytes: self.plan.log_bytes,
            frame_bytes: self.options.frame_bytes,
            chunk_bytes: self.options.chunk_bytes,
            digest: self.options.digest,
            encryption,
            extents: self.extents,
            digests: self.digests,
            root,
        };
        let bytes = footer.encode(self.key.as_ref())?;
        let (data_end, footer_offset) = footer.ends();
        let trailer = Trailer {
            data_end,
            footer_offset,
            footer_bytes: u32::try_from(bytes.len())
                .ok()
                .filter(|n| *n <= crate::FOOTER_MAX_BYTES)
                .ok_or_else(|| {
                    Error::invalid("footer", bytes.len(), "at most 16 MiB: choose larger frames")
                })?,
            version: FORMAT_VERSION,
            features: footer.features(),
            footer_crc: crc32c::crc32c(&bytes),
        };
        let end = trailer.encode();
        let mut hasher = blake3::Hasher::new();
        hasher.update(&bytes).update(&end);
        out.extend_from_slice(&bytes);
        out.extend_from_slice(&end);
        Ok(Finished { footer, trailer, footer_digest: Digest(*hasher.finalize().as_bytes()), identity })
    }

    fn check_frame(&self, plain: &[u8]) -> Result<()> {
        if self.next_frame_bytes() == Some(plain.len()) {
            return Ok(());
        }
        Err(Error::invalid("frame", plain.len(), format!("{:?}", self.next_frame_bytes())))
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

    /// Records a frame of `stored_bytes` and moves on.
    fn take(&mut self, plain: &[u8], stored_bytes: usize, crc: u32) {
        if let Some(hasher) = &mut self.hasher {
            hasher.update(plain);
        }
        if let Some(extent) = self.extents.last_mut() {
            extent.crcs.push(crc);
            extent.stored_bytes += stored_bytes as u64;
            if extent.codec == Codec::Zstd {
                extent.ends.push(extent.stored_bytes as u32);
            }
        }
        self.stored += stored_bytes as u64;
        self.frames += 1;
        self.taken += plain.len() as u64;
        if self.next_frame_bytes().is_none() {
            self.end_extent();
            self.begin_extents();
        }
    }

    /// Begins the next extent, and ends at once those that are empty.
    fn begin_extents(&mut self) {
        while let Some((kind, plain_bytes)) = self.plan.extents.get(self.extents.len()).copied() {
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

    fn end_extent(&mut self) {
        self.digests.extend(self.hasher.take().map(Hasher::finish));
    }
}
