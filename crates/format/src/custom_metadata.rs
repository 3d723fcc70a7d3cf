//! What the broker keeps for us beside each segment's metadata, at most 128 bytes: where the object's footer
//! is and what it must hash to, so that a read never lists and never trusts the store.

use crate::bytes::Cursor;
use crate::digest::Digest;
use crate::error::{Error, Flaw, Result};
use crate::footer::Footer;
use crate::id::Id;
use crate::text::check_printable;
use crate::trailer::{TRAILER_BYTES, Trailer};
use crate::{FOOTER_MAX_BYTES, FRAME_MAX_BYTES, FRAME_MIN_BYTES};

/// With the longest store id and a reference, 121 of Kafka's 128 bytes are used.
pub const STORE_ID_MAX_BYTES: usize = 32;
const WHAT: &str = "custom metadata";
const FOOTER_OFFSET_MAX: u64 = 1 << 60;
const VERSION: u8 = 1;
const FLAG_IDENTITY: u8 = 1;
const KIND_OWN: u8 = 0;
const KIND_ARCHIVE: u8 = 1;

/// See the module's documentation. Positions and lengths are in bytes of the object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CustomMetadata {
    /// Which of the configured stores holds the object.
    pub store_id: String,
    /// The stored bytes of all extents are the plain ones: reading may begin before the footer has arrived.
    pub identity: bool,
    /// Plain bytes of a frame; a power of two.
    pub frame_bytes: u32,
    pub data_end: u64,
    pub footer_offset: u64,
    pub footer_bytes: u32,
    /// BLAKE3 over footer and trailer.
    pub footer_digest: Digest,
    /// Set for a segment of an archive that is read in place and never deleted.
    pub archive: Option<ArchiveReference>,
}

/// Which segment of an archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ArchiveReference {
    pub topic_id: Id,
    pub partition: i32,
    pub branch: u32,
    pub base_offset: i64,
}

impl CustomMetadata {
    /// Length of the whole object.
    pub fn object_bytes(&self) -> u64 {
        self.footer_offset.saturating_add(u64::from(self.footer_bytes)).saturating_add(TRAILER_BYTES as u64)
    }

    /// Whether this was written with the object of this footer, whose bytes and the trailer's hash to
    /// `footer_digest`. Who opens an object by its custom metadata asks before using any of it.
    ///
    /// # Errors
    /// [`Error::Mistaken`], naming what differs.
    pub fn check_object(&self, trailer: &Trailer, footer: &Footer, footer_digest: &Digest) -> Result<()> {
        let pairs = [
            ("footer digest", self.footer_digest.to_string(), footer_digest.to_string()),
            ("data end", self.data_end.to_string(), trailer.data_end.to_string()),
            ("footer offset", self.footer_offset.to_string(), trailer.footer_offset.to_string()),
            ("footer bytes", self.footer_bytes.to_string(), trailer.footer_bytes.to_string()),
            ("frame bytes", self.frame_bytes.to_string(), footer.frame_bytes.to_string()),
            ("identity", self.identity.to_string(), footer.is_identity().to_string()),
        ];
        Error::unless_same("object", &pairs)?;
        let Some(archive) = &self.archive else { return Ok(()) };
        let pairs = [
            ("topic id", archive.topic_id.to_string(), footer.info.topic_id.to_string()),
            ("partition", archive.partition.to_string(), footer.info.partition.to_string()),
            ("base offset", archive.base_offset.to_string(), footer.info.base_offset.to_string()),
        ];
        Error::unless_same("archived segment", &pairs)
    }

    /// The bytes for Kafka, at most 121.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a value that [`CustomMetadata::decode`] would refuse.
    pub fn encode(&self) -> Result<Vec<u8>> {
        self.check().map_err(Flaw::invalid)?;
        let id = self.store_id.as_bytes();
        let mut out = Vec::with_capacity(128);
        out.push(VERSION);
        out.push(if self.archive.is_some() { KIND_ARCHIVE } else { KIND_OWN });
        out.push(if self.identity { FLAG_IDENTITY } else { 0 });
        out.push(self.frame_bytes.trailing_zeros() as u8);
        out.push(id.len() as u8);
        out.extend_from_slice(id);
        out.extend_from_slice(&self.data_end.to_be_bytes());
        out.extend_from_slice(&self.footer_offset.to_be_bytes());
        out.extend_from_slice(&self.footer_bytes.to_be_bytes());
        out.extend_from_slice(&self.footer_digest.0);
        if let Some(a) = &self.archive {
            out.extend_from_slice(&a.topic_id.0);
            out.extend_from_slice(&a.partition.to_be_bytes());
            out.extend_from_slice(&a.branch.to_be_bytes());
            out.extend_from_slice(&a.base_offset.to_be_bytes());
        }
        Ok(out)
    }

    /// # Errors
    /// [`Error::Corrupt`], [`Error::TooShort`], or [`Error::FutureVersion`] from a newer Varve.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let mut c = Cursor::new(WHAT, 0, bytes);
        let version = c.u8()?;
        if version > VERSION {
            return Err(Error::FutureVersion { found: version.into(), supported: VERSION.into() });
        }
        let kind = c.u8()?;
        let flags = c.u8()?;
        let frame_log2 = c.u8()?;
        if version == 0 || kind > KIND_ARCHIVE || flags > FLAG_IDENTITY || !(12..=20).contains(&frame_log2) {
            return Err(Error::corrupt(
                WHAT,
                0,
                "version 1, kind 0 or 1, flags 0 or 1, frame 12 to 20",
                format!("{version}, {kind}, {flags}, {frame_log2}"),
            ));
        }
        let id_bytes = c.u8()? as usize;
        let out = Self {
            store_id: c.string(id_bytes)?,
            identity: flags & FLAG_IDENTITY != 0,
            frame_bytes: 1 << frame_log2,
            data_end: c.u64()?,
            footer_offset: c.u64()?,
            footer_bytes: c.u32()?,
            footer_digest: Digest(c.array()?),
            archive: match kind {
                KIND_ARCHIVE => Some(ArchiveReference {
                    topic_id: Id(c.array()?),
                    partition: c.i32()?,
                    branch: c.u32()?,
                    base_offset: c.i64()?,
                }),
                _ => None,
            },
        };
        c.end()?;
        out.check().map_err(|flaw| flaw.corrupt(0))?;
        Ok(out)
    }

    /// Bounds, so that no fetch is absurd and nothing overflows.
    fn check(&self) -> Result<(), Flaw> {
        check_printable("store id", &self.store_id, STORE_ID_MAX_BYTES)?;
        if !self.frame_bytes.is_power_of_two()
            || !(FRAME_MIN_BYTES..=FRAME_MAX_BYTES).contains(&self.frame_bytes)
        {
            return Err(Flaw::new("frame size", self.frame_bytes, "a power of two from 4 KiB to 1 MiB"));
        }
        if self.data_end > self.footer_offset
            || self.footer_offset > FOOTER_OFFSET_MAX
            || self.footer_bytes > FOOTER_MAX_BYTES
        {
            let found = format!("{}, {}, {}", self.data_end, self.footer_offset, self.footer_bytes);
            return Err(Flaw::new(
                "custom metadata",
                found,
                "data that ends before a footer of bounded size",
            ));
        }
        match &self.archive {
            Some(a) if a.partition < 0 || a.base_offset < 0 => {
                let found = format!("partition {}, base offset {}", a.partition, a.base_offset);
                Err(Flaw::new("archive reference", found, "neither below 0"))
            }
            _ => Ok(()),
        }
    }
}
