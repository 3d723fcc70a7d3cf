//! From bytes to the footer, and its authentication.

use super::encode::format_value;
use super::{
    EncryptionInfo, EpochStart, Footer, Observed, SegmentInfo, WHAT, check_period, check_sizes, sealed_aad,
    tag,
};
use crate::bytes::{Cursor, Field, fields};
use crate::crypt::{ObjectKey, TAG_BYTES, footer_nonce};
use crate::digest::{Digest, DigestAlgorithm};
use crate::error::{Error, Result};
use crate::extent;
use crate::features::{OPTIONAL_KNOWN, REQUIRED_AES_256_GCM, REQUIRED_STREAMED};
use crate::id::Id;
use crate::trailer::Trailer;

impl Footer {
    /// Reads the footer that `trailer` describes. Of an encrypted object it is of no use but to find the key
    /// until [`Footer::unlock`].
    ///
    /// # Errors
    /// [`Error::TooShort`] if `bytes` is not the whole footer, [`Error::Corrupt`] for anything that the format
    /// does not allow, [`Error::UnknownFeatures`].
    pub fn decode(bytes: &[u8], trailer: &Trailer) -> Result<Self> {
        let origin = trailer.footer_offset;
        if bytes.len() as u64 != u64::from(trailer.footer_bytes) {
            let (needed, available) = (trailer.footer_bytes.into(), bytes.len() as u64);
            return Err(Error::TooShort { what: WHAT, offset: origin, needed, available });
        }
        let crc = crate::crc32c(bytes);
        if crc != trailer.footer_crc {
            let expected = format!("CRC32C {:08x}", trailer.footer_crc);
            return Err(Error::corrupt(WHAT, origin, expected, format!("{crc:08x}")));
        }
        trailer.features.check()?;
        let table = Table { fields: fields(WHAT, origin, bytes)?, origin };
        table.check_format(trailer)?;
        let mut footer = table.footer()?;
        footer.streamed = trailer.features.required & REQUIRED_STREAMED != 0;
        let required = table.required(tag::EXTENTS)?;
        let (data_end, stored_end) = (trailer.data_end, trailer.footer_offset);
        footer.extents =
            extent::decode(required.value, required.offset, &footer.shape(), data_end, stored_end)?;
        let (found, stated) = (footer.features(), trailer.features);
        if found.required != stated.required || found.optional != stated.optional & OPTIONAL_KNOWN {
            return Err(Error::corrupt(WHAT, origin, format!("{stated:x?}"), format!("{found:x?}")));
        }
        if footer.encryption.is_some() {
            footer.sealed = true;
        } else {
            let private = table.required(tag::PRIVATE)?;
            footer.read_private(private.value, private.offset)?;
        }
        Ok(footer)
    }

    /// Authenticates the footer of an encrypted object and opens its digests. `bytes` are those it was decoded
    /// from, `origin` their place in the object (for messages).
    ///
    /// # Errors
    /// [`Error::KeyRefused`] with another key or for altered bytes, [`Error::Corrupt`] for what the format does
    /// not allow, [`Error::Invalid`] if the object is not encrypted.
    pub fn unlock(&mut self, bytes: &[u8], key: &ObjectKey, origin: u64) -> Result<()> {
        if self.encryption.is_none() {
            return Err(Error::invalid("footer", "not encrypted", "one that is sealed"));
        }
        let table = Table { fields: fields(WHAT, origin, bytes)?, origin };
        let sealed = table.required(tag::SEALED)?;
        // Before the value stand tag and length, 6 bytes.
        let public = sealed.block_at.checked_sub(6).and_then(|end| bytes.get(..end)).unwrap_or_default();
        let plain_bytes = sealed.value.len().checked_sub(TAG_BYTES).ok_or(Error::TooShort {
            what: WHAT,
            offset: sealed.offset,
            needed: TAG_BYTES as u64,
            available: sealed.value.len() as u64,
        })?;
        let mut private = vec![0; plain_bytes];
        let aad = sealed_aad(self.object_id, public);
        let nonce = footer_nonce(self.frame_count(), self.streamed);
        key.open(WHAT, sealed.offset, nonce, &aad, sealed.value, &mut private)?;
        self.read_private(&private, sealed.offset)?;
        self.sealed = false;
        Ok(())
    }

    fn read_private(&mut self, bytes: &[u8], origin: u64) -> Result<()> {
        if self.digest == DigestAlgorithm::None {
            return match bytes.len() {
                0 => Ok(()),
                n => Err(Error::corrupt("footer digests", origin, "no bytes where there are no digests", n)),
            };
        }
        let table = Table { fields: fields("footer digests", origin, bytes)?, origin };
        let digests = table.required(tag::PRIVATE_DIGESTS)?;
        let mut c = Cursor::new("footer digests", digests.offset, digests.value);
        self.digests = self.extents.iter().map(|_| Ok(Digest(c.array()?))).collect::<Result<_>>()?;
        c.end()?;
        let stored = Digest(table.array(tag::PRIVATE_ROOT)?);
        match self.computed_root() {
            Some(computed) if computed == stored => {
                self.root = Some(stored);
                Ok(())
            }
            computed => {
                Err(Error::corrupt("Merkle root", origin, format!("{computed:?}"), format!("{stored}")))
            }
        }
    }
}

struct Table<'a> {
    fields: Vec<Field<'a>>,
    origin: u64,
}

impl<'a> Table<'a> {
    fn get(&self, tag: u16) -> Option<&Field<'a>> {
        let at = self.fields.binary_search_by_key(&tag, |f| f.tag).ok()?;
        self.fields.get(at)
    }

    fn required(&self, tag: u16) -> Result<&Field<'a>> {
        self.get(tag).ok_or_else(|| Error::corrupt(WHAT, self.origin, format!("field {tag:#x}"), "none"))
    }

    fn forbidden(&self, tag: u16) -> Result<()> {
        match self.get(tag) {
            None => Ok(()),
            Some(f) => Err(Error::corrupt(WHAT, f.offset, format!("no field {tag:#x} here"), "one")),
        }
    }

    fn array<const N: usize>(&self, tag: u16) -> Result<[u8; N]> {
        let f = self.required(tag)?;
        let expected = || format!("{N} bytes in field {tag:#x}");
        f.value.try_into().map_err(|_| Error::corrupt(WHAT, f.offset, expected(), f.value.len()))
    }

    fn string(&self, tag: u16) -> Result<String> {
        let f = self.required(tag)?;
        Cursor::new(WHAT, f.offset, f.value).string(f.value.len())
    }

    fn optional<T>(&self, tag: u16, read: impl FnOnce() -> Result<T>) -> Result<Option<T>> {
        self.get(tag).map(|_| read()).transpose()
    }

    /// A list of entries of a fixed size. One without entries is left out, not stored empty.
    fn list<T>(&self, tag: u16, read: impl Fn(&mut Cursor<'_>) -> Result<T>) -> Result<Vec<T>> {
        let Some(f) = self.get(tag) else { return Ok(Vec::new()) };
        if f.value.is_empty() {
            return Err(Error::corrupt(
                WHAT,
                f.offset,
                format!("an entry in field {tag:#x}, or no field"),
                "none",
            ));
        }
        let mut c = Cursor::new(WHAT, f.offset, f.value);
        let mut out = Vec::new();
        while c.remaining() > 0 {
            out.push(read(&mut c)?);
        }
        Ok(out)
    }

    /// What decides how the rest is read: it must say the same as the trailer, which nothing authenticates,
    /// and the fields of the two cases must not mix.
    fn check_format(&self, trailer: &Trailer) -> Result<()> {
        let field = self.required(tag::FORMAT)?;
        let expected = format_value(trailer.version, trailer.features);
        if field.value != expected {
            let (expected, found) = (format!("{expected:02x?}"), shorten(field.value));
            return Err(Error::corrupt("footer field 0x15", field.offset, expected, found));
        }
        if trailer.features.required & REQUIRED_AES_256_GCM == 0 {
            self.forbidden(tag::ENCRYPTION)?;
            self.forbidden(tag::SEALED)
        } else {
            self.required(tag::ENCRYPTION)?;
            self.required(tag::SEALED)?;
            self.forbidden(tag::PRIVATE)
        }
    }

    fn footer(&self) -> Result<Footer> {
        let info = self.info()?;
        info.flaw().map_err(|flaw| flaw.corrupt(self.origin))?;
        let [digest] = self.array(tag::DIGEST)?;
        let footer = Footer {
            info,
            object_id: Id(self.array(tag::OBJECT_ID)?),
            log_bytes: u64::from_be_bytes(self.array(tag::LOG_BYTES)?),
            frame_bytes: u32::from_be_bytes(self.array(tag::FRAME_BYTES)?),
            chunk_bytes: u32::from_be_bytes(self.array(tag::CHUNK_BYTES)?),
            digest: DigestAlgorithm::from_code(digest, self.origin)?,
            encryption: self.optional(tag::ENCRYPTION, || self.encryption())?,
            streamed: false,
            extents: Vec::new(),
            digests: Vec::new(),
            root: None,
            sealed: false,
        };
        check_sizes(footer.frame_bytes, footer.chunk_bytes).map_err(|flaw| flaw.corrupt(self.origin))?;
        Ok(footer)
    }

    fn info(&self) -> Result<SegmentInfo> {
        Ok(SegmentInfo {
            writer: self.string(tag::WRITER)?,
            cluster_id: self.string(tag::CLUSTER_ID)?,
            topic_id: Id(self.array(tag::TOPIC_ID)?),
            topic: self.string(tag::TOPIC)?,
            partition: i32::from_be_bytes(self.array(tag::PARTITION)?),
            segment_id: self.optional(tag::SEGMENT_ID, || Ok(Id(self.array(tag::SEGMENT_ID)?)))?,
            base_offset: i64::from_be_bytes(self.array(tag::BASE_OFFSET)?),
            last_offset: i64::from_be_bytes(self.array(tag::LAST_OFFSET)?),
            max_timestamp_ms: i64::from_be_bytes(self.array(tag::MAX_TIMESTAMP)?),
            created_ms: i64::from_be_bytes(self.array(tag::CREATED)?),
            broker_id: self.optional(tag::BROKER, || Ok(i32::from_be_bytes(self.array(tag::BROKER)?)))?,
            leader_epochs: self
                .list(tag::LEADER_EPOCHS, |c| Ok(EpochStart { epoch: c.i32()?, start_offset: c.i64()? }))?,
            observed: self.list(tag::OBSERVED, |c| {
                Ok(Observed { time_ms: c.i64()?, high_watermark: c.i64()?, last_stable_offset: c.i64()? })
            })?,
        })
    }

    fn encryption(&self) -> Result<EncryptionInfo> {
        let f = self.required(tag::ENCRYPTION)?;
        let mut c = Cursor::new(WHAT, f.offset, f.value);
        let algorithm = c.u8()?;
        if algorithm != 1 {
            return Err(Error::corrupt(WHAT, f.offset, "encryption algorithm 1", algorithm));
        }
        let info = EncryptionInfo {
            data_key_id: Id(c.array()?),
            salt: c.array()?,
            period: c.string(c.remaining())?,
        };
        check_period(&info.period).map_err(|flaw| flaw.corrupt(f.offset))?;
        Ok(info)
    }
}

/// A message must not carry megabytes.
fn shorten(bytes: &[u8]) -> String {
    match bytes.get(..32) {
        None => format!("{bytes:02x?}"),
        Some(head) => format!("{} bytes that begin with {head:02x?}", bytes.len()),
    }
}
