//! The footer: all that a stranger needs to know of the segment, without Kafka and without us.

use crate::bytes::{Cursor, Field, fields, put_field};
use crate::crypt::{ObjectKey, SALT_BYTES, TAG_BYTES};
use crate::digest::{Digest, DigestAlgorithm, merkle_root};
use crate::error::{Error, Result};
use crate::extent::{self, Extent, ExtentKind, Shape};
use crate::features::{Features, OPTIONAL_DIGESTS, REQUIRED_AES_256_GCM, REQUIRED_ZSTD};
use crate::id::Id;
use crate::trailer::Trailer;
use crate::{CHUNK_MAX_BYTES, FRAME_MAX_BYTES, FRAME_MIN_BYTES};

const WHAT: &str = "footer";

mod tag {
    pub(super) const WRITER: u16 = 1;
    pub(super) const OBJECT_ID: u16 = 2;
    pub(super) const CLUSTER_ID: u16 = 3;
    pub(super) const TOPIC_ID: u16 = 4;
    pub(super) const TOPIC: u16 = 5;
    pub(super) const PARTITION: u16 = 6;
    pub(super) const SEGMENT_ID: u16 = 7;
    pub(super) const BASE_OFFSET: u16 = 8;
    pub(super) const LAST_OFFSET: u16 = 9;
    pub(super) const MAX_TIMESTAMP: u16 = 10;
    pub(super) const CREATED: u16 = 11;
    pub(super) const BROKER: u16 = 12;
    pub(super) const LEADER_EPOCHS: u16 = 13;
    pub(super) const LOG_BYTES: u16 = 14;
    pub(super) const FRAME_BYTES: u16 = 15;
    pub(super) const CHUNK_BYTES: u16 = 16;
    pub(super) const DIGEST: u16 = 17;
    pub(super) const EXTENTS: u16 = 18;
    pub(super) const OBSERVED: u16 = 19;
    pub(super) const ENCRYPTION: u16 = 20;
    pub(super) const PRIVATE: u16 = 0xfff0;
    pub(super) const SEALED: u16 = 0xfff1;
    pub(super) const PRIVATE_ROOT: u16 = 1;
    pub(super) const PRIVATE_DIGESTS: u16 = 2;
}

/// Where an epoch's leader began to append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EpochStart {
    pub epoch: i32,
    pub start_offset: i64,
}

/// What was seen of the partition, and when: point-in-time restore goes by these, not by record timestamps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Observed {
    pub time_ms: i64,
    pub high_watermark: i64,
    pub last_stable_offset: i64,
}

/// Where a segment comes from and what it covers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentInfo {
    /// Program and version that wrote the object.
    pub writer: String,
    pub cluster_id: String,
    pub topic_id: Id,
    pub topic: String,
    pub partition: i32,
    /// The tier's id of this copy; none for what never was in a tier.
    pub segment_id: Option<Id>,
    pub base_offset: i64,
    /// The last record's offset, inclusive.
    pub last_offset: i64,
    pub max_timestamp_ms: i64,
    pub created_ms: i64,
    pub broker_id: Option<i32>,
    pub leader_epochs: Vec<EpochStart>,
    pub observed: Vec<Observed>,
}

/// Which key opens the object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncryptionInfo {
    pub data_key_id: Id,
    pub period: String,
    pub salt: [u8; SALT_BYTES],
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Footer {
    pub info: SegmentInfo,
    pub object_id: Id,
    pub log_bytes: u64,
    pub frame_bytes: u32,
    pub chunk_bytes: u32,
    pub digest: DigestAlgorithm,
    pub encryption: Option<EncryptionInfo>,
    pub extents: Vec<Extent>,
    /// Digest of each extent's plain bytes; empty where digests are off, or the footer is still sealed.
    pub digests: Vec<Digest>,
    pub root: Option<Digest>,
}

impl Footer {
    pub(crate) fn shape(&self) -> Shape {
        Shape {
            frame_bytes: self.frame_bytes,
            chunk_bytes: self.chunk_bytes,
            encrypted: self.encryption.is_some(),
            log_bytes: self.log_bytes,
        }
    }

    pub fn features(&self) -> Features {
        let zstd = self.extents.iter().any(|e| e.codec == crate::Codec::Zstd);
        Features {
            required: if zstd { REQUIRED_ZSTD } else { 0 }
                | if self.encryption.is_some() { REQUIRED_AES_256_GCM } else { 0 },
            optional: if self.digest == DigestAlgorithm::None { 0 } else { OPTIONAL_DIGESTS },
        }
    }

    pub fn chunks(&self) -> &[Extent] {
        let n = self.extents.iter().take_while(|e| e.kind == ExtentKind::Log).count();
        self.extents.get(..n).unwrap_or_default()
    }

    pub fn section(&self, kind: ExtentKind) -> Option<&Extent> {
        self.extents.iter().find(|e| e.kind == kind && kind != ExtentKind::Log)
    }

    pub fn frame_count(&self) -> u64 {
        self.extents.last().map_or(0, |e| e.first_frame + e.frame_count())
    }

    /// End of the chunks, and of the sections: where the footer begins.
    pub(crate) fn ends(&self) -> (u64, u64) {
        let end = |e: &Extent| e.stored_offset + e.stored_bytes;
        (self.chunks().last().map_or(0, end), self.extents.last().map_or(0, end))
    }

    pub(crate) fn encode(&self, key: Option<&ObjectKey>) -> Result<Vec<u8>> {
        let mut out = Vec::with_capacity(1024 + self.frame_count() as usize * 4);
        self.encode_public(&mut out);
        let mut private = Vec::new();
        if let Some(root) = &self.root {
            put_field(&mut private, tag::PRIVATE_ROOT, &root.0);
            put_field(
                &mut private,
                tag::PRIVATE_DIGESTS,
                &self.digests.iter().flat_map(|d| d.0).collect::<Vec<_>>(),
            );
        }
        match key {
            None => put_field(&mut out, tag::PRIVATE, &private),
            Some(key) => {
                let aad = sealed_aad(self.object_id, &out);
                let tag_bytes = key.seal(self.frame_count(), &aad, &mut private)?;
                private.extend_from_slice(&tag_bytes);
                put_field(&mut out, tag::SEALED, &private);
            }
        }
        Ok(out)
    }

    fn encode_public(&self, out: &mut Vec<u8>) {
        let i = &self.info;
        put_field(out, tag::WRITER, i.writer.as_bytes());
        put_field(out, tag::OBJECT_ID, &self.object_id.0);
        put_field(out, tag::CLUSTER_ID, i.cluster_id.as_bytes());
        put_field(out, tag::TOPIC_ID, &i.topic_id.0);
        put_field(out, tag::TOPIC, i.topic.as_bytes());
        put_field(out, tag::PARTITION, &i.partition.to_be_bytes());
        if let Some(id) = &i.segment_id {
            put_field(out, tag::SEGMENT_ID, &id.0);
        }
        put_field(out, tag::BASE_OFFSET, &i.base_offset.to_be_bytes());
        put_field(out, tag::LAST_OFFSET, &i.last_offset.to_be_bytes());
        put_field(out, tag::MAX_TIMESTAMP, &i.max_timestamp_ms.to_be_bytes());
        put_field(out, tag::CREATED, &i.created_ms.to_be_bytes());
        if let Some(broker) = i.broker_id {
            put_field(out, tag::BROKER, &broker.to_be_bytes());
        }
        let epochs = i
            .leader_epochs
            .iter()
            .flat_map(|e| [&e.epoch.to_be_bytes()[..], &e.start_offset.to_be_bytes()].concat());
        put_field(out, tag::LEADER_EPOCHS, &epochs.collect::<Vec<_>>());
        put_field(out, tag::LOG_BYTES, &self.log_bytes.to_be_bytes());
        put_field(out, tag::FRAME_BYTES, &self.frame_bytes.to_be_bytes());
        put_field(out, tag::CHUNK_BYTES, &self.chunk_bytes.to_be_bytes());
        put_field(out, tag::DIGEST, &[self.digest.code()]);
        let mut table = Vec::new();
        extent::encode(&self.extents, &mut table);
        put_field(out, tag::EXTENTS, &table);
        if !i.observed.is_empty() {
            let samples = i.observed.iter().flat_map(|o| [o.time_ms, o.high_watermark, o.last_stable_offset]);
            put_field(out, tag::OBSERVED, &samples.flat_map(i64::to_be_bytes).collect::<Vec<_>>());
        }
        if let Some(e) = &self.encryption {
            let value = [&[1_u8][..], &e.data_key_id.0, &e.salt, e.period.as_bytes()].concat();
            put_field(out, tag::ENCRYPTION, &value);
        }
    }

    /// Reads the footer that `trailer` describes. Of an encrypted object the digests stay sealed until
    /// [`Footer::unlock`].
    pub fn decode(bytes: &[u8], trailer: &Trailer) -> Result<Self> {
        let origin = trailer.footer_offset;
        if bytes.len() != trailer.footer_bytes as usize {
            return Err(Error::TooShort {
                what: WHAT,
                offset: origin,
                needed: trailer.footer_bytes.into(),
                available: bytes.len() as u64,
            });
        }
        let crc = crc32c::crc32c(bytes);
        if crc != trailer.footer_crc {
            return Err(Error::corrupt(
                WHAT,
                origin,
                format!("CRC32C {:08x}", trailer.footer_crc),
                format!("{crc:08x}"),
            ));
        }
        let table = Table { fields: fields(WHAT, origin, bytes)?, origin };
        let mut footer = table.footer()?;
        let required = table.required(tag::EXTENTS)?;
        footer.extents = extent::decode(
            required.value,
            required.offset,
            &footer.shape(),
            trailer.data_end,
            trailer.footer_offset,
        )?;
        let found = footer.features();
        if found.required != trailer.features.required {
            return Err(Error::corrupt(
                WHAT,
                origin,
                format!("required features {:#x}", trailer.features.required),
                format!("{:#x}", found.required),
            ));
        }
        if footer.encryption.is_none() {
            let private = table.required(tag::PRIVATE)?;
            footer.read_private(private.value, private.offset)?;
        } else {
            table.required(tag::SEALED)?;
        }
        Ok(footer)
    }

    /// Authenticates the footer of an encrypted object and opens its digests. `bytes` are those decoded.
    pub fn unlock(&mut self, bytes: &[u8], key: &ObjectKey, origin: u64) -> Result<()> {
        let table = Table { fields: fields(WHAT, origin, bytes)?, origin };
        let sealed = table.required(tag::SEALED)?;
        // What came after it would not be authenticated.
        if table.fields.last().map(|f| f.tag) != Some(tag::SEALED) {
            return Err(Error::corrupt(
                WHAT,
                sealed.offset,
                "the sealed field to be the last",
                "more fields",
            ));
        }
        let public = bytes.get(..sealed.block_at - 6).unwrap_or_default();
        let plain_bytes = sealed.value.len().checked_sub(TAG_BYTES).ok_or(Error::TooShort {
            what: WHAT,
            offset: sealed.offset,
            needed: TAG_BYTES as u64,
            available: sealed.value.len() as u64,
        })?;
        let mut private = vec![0; plain_bytes];
        let aad = sealed_aad(self.object_id, public);
        key.open(WHAT, sealed.offset, self.frame_count(), &aad, sealed.value, &mut private)?;
        self.read_private(&private, sealed.offset)
    }

    fn read_private(&mut self, bytes: &[u8], origin: u64) -> Result<()> {
        let table = Table { fields: fields("footer digests", origin, bytes)?, origin };
        if self.digest == DigestAlgorithm::None {
            return Ok(());
        }
        let digests = table.required(tag::PRIVATE_DIGESTS)?;
        let mut c = Cursor::new("footer digests", digests.offset, digests.value);
        self.digests = self.extents.iter().map(|_| Ok(Digest(c.array()?))).collect::<Result<_>>()?;
        c.end()?;
        let stored = Digest(table.array(tag::PRIVATE_ROOT)?);
        let computed = merkle_root(self.digest, &self.digests);
        if computed != Some(stored) {
            return Err(Error::corrupt(
                "Merkle root",
                origin,
                format!("{stored}"),
                computed.map_or(String::new(), |d| d.to_string()),
            ));
        }
        self.root = Some(stored);
        Ok(())
    }
}

/// Associated data of the sealed field: all that stands before it.
fn sealed_aad(object_id: Id, public: &[u8]) -> Vec<u8> {
    [b"varve footer v1".as_slice(), &object_id.0, public].concat()
}

struct Table<'a> {
    fields: Vec<Field<'a>>,
    origin: u64,
}

impl<'a> Table<'a> {
    fn get(&self, tag: u16) -> Option<&Field<'a>> {
        self.fields.iter().find(|f| f.tag == tag)
    }

    fn required(&self, tag: u16) -> Result<&Field<'a>> {
        self.get(tag).ok_or_else(|| Error::corrupt(WHAT, self.origin, format!("field {tag}"), "none"))
    }

    fn array<const N: usize>(&self, tag: u16) -> Result<[u8; N]> {
        let f = self.required(tag)?;
        f.value
            .try_into()
            .map_err(|_| Error::corrupt(WHAT, f.offset, format!("{N} bytes in field {tag}"), f.value.len()))
    }

    fn string(&self, tag: u16) -> Result<String> {
        let f = self.required(tag)?;
        Cursor::new(WHAT, f.offset, f.value).string(f.value.len())
    }

    fn optional<T>(&self, tag: u16, read: impl FnOnce() -> Result<T>) -> Result<Option<T>> {
        self.get(tag).map(|_| read()).transpose()
    }

    /// A list of entries of a fixed size.
    fn list<T>(&self, tag: u16, read: impl Fn(&mut Cursor<'_>) -> Result<T>) -> Result<Vec<T>> {
        let Some(f) = self.get(tag) else { return Ok(Vec::new()) };
        let mut c = Cursor::new(WHAT, f.offset, f.value);
        let mut out = Vec::new();
        while c.remaining() > 0 {
            out.push(read(&mut c)?);
        }
        Ok(out)
    }

    fn footer(&self) -> Result<Footer> {
        let info = SegmentInfo {
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
        };
        let footer = Footer {
            info,
            object_id: Id(self.array(tag::OBJECT_ID)?),
            log_bytes: u64::from_be_bytes(self.array(tag::LOG_BYTES)?),
            frame_bytes: u32::from_be_bytes(self.array(tag::FRAME_BYTES)?),
            chunk_bytes: u32::from_be_bytes(self.array(tag::CHUNK_BYTES)?),
            digest: DigestAlgorithm::from_code(self.array::<1>(tag::DIGEST)?[0], self.origin)?,
            encryption: self.optional(tag::ENCRYPTION, || self.encryption())?,
            extents: Vec::new(),
            digests: Vec::new(),
            root: None,
        };
        check_sizes(footer.frame_bytes, footer.chunk_bytes)?;
        Ok(footer)
    }

    fn encryption(&self) -> Result<EncryptionInfo> {
        let f = self.required(tag::ENCRYPTION)?;
        let mut c = Cursor::new(WHAT, f.offset, f.value);
        let algorithm = c.u8()?;
        if algorithm != 1 {
            return Err(Error::corrupt(WHAT, f.offset, "encryption algorithm 1", algorithm));
        }
        Ok(EncryptionInfo { data_key_id: Id(c.array()?), salt: c.array()?, period: c.string(c.remaining())? })
    }
}

pub(crate) fn check_sizes(frame_bytes: u32, chunk_bytes: u32) -> Result<()> {
    if !frame_bytes.is_power_of_two() || !(FRAME_MIN_BYTES..=FRAME_MAX_BYTES).contains(&frame_bytes) {
        return Err(Error::invalid("frame size", frame_bytes, "a power of two from 4 KiB to 1 MiB"));
    }
    if chunk_bytes == 0 || chunk_bytes > CHUNK_MAX_BYTES || !chunk_bytes.is_multiple_of(frame_bytes) {
        return Err(Error::invalid(
            "chunk size",
            chunk_bytes,
            format!("a multiple of the frame's {frame_bytes} bytes, at most {CHUNK_MAX_BYTES}"),
        ));
    }
    Ok(())
}
