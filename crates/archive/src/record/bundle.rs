//! A bundle of the journal: whole segment objects of many partitions, an index, and a trailer.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use varve_format::Id;

use super::branch::{EpochEntry, check_epochs};
use super::more::{More, check_more};
use crate::canonical::{Record, RecordError, V1, flaw, id_text, rule};
use crate::hash::Hash;

pub const TRAILER_BYTES: usize = 40;
pub const ENTRIES_MAX: usize = 50_000;
pub const ENTRY_MAX_BYTES: u64 = 64 << 20;
pub const BUNDLE_MAX_BYTES: u64 = 1 << 30;
pub const INDEX_MAX_BYTES: u64 = 32 << 20;
const MAGIC: &[u8; 8] = b"VARVEJNL";

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BundleIndex {
    pub varve_bundle: V1,
    #[serde(with = "id_text")]
    pub archive_id: Id,
    pub archiver: String,
    pub sequence: u64,
    pub entries: Vec<BundleEntry>,
    pub writer: String,
    pub created_ms: i64,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub more: Vec<More>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BundleEntry {
    #[serde(with = "id_text")]
    pub topic_id: Id,
    pub partition: i32,
    pub branch: u32,
    pub first_offset: i64,
    pub end_offset: i64,
    pub position: u64,
    pub bytes: u64,
    pub footer: Hash,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub leader_epochs: Vec<EpochEntry>,
}

/// Where a bundle's index is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BundleTrailer {
    pub index_offset: u64,
    pub index_bytes: u32,
    pub index_crc: u32,
}

impl Record for BundleIndex {
    const NAME: &'static str = "varve_bundle";
    const MAX_BYTES: u64 = INDEX_MAX_BYTES;

    fn check(&self) -> Result<(), RecordError> {
        rule::safe("archiver", &self.archiver, 64)?;
        rule::sequence(self.sequence)?;
        rule::at_most("entries", self.entries.len(), ENTRIES_MAX)?;
        let order = |e: &BundleEntry| (e.topic_id, e.partition, e.branch, e.first_offset);
        if self.entries.is_empty() || !self.entries.is_sorted_by(|a, b| order(a) < order(b)) {
            return Err(flaw("entries", "1 or more, strictly ascending", self.entries.len()));
        }
        let mut position = 0_u64;
        for entry in &self.entries {
            rule::positive("partition", entry.partition)?;
            rule::range("entry", entry.first_offset, entry.end_offset)?;
            if entry.bytes > ENTRY_MAX_BYTES {
                return Err(flaw("bytes of an entry", "at most 64 MiB", entry.bytes));
            }
            check_epochs(&entry.leader_epochs)?;
            if entry.position != position {
                return Err(flaw("position", position, entry.position));
            }
            position = position.saturating_add(entry.bytes);
        }
        if position > BUNDLE_MAX_BYTES {
            return Err(flaw("bundle", "at most 1 GiB", position));
        }
        rule::written(&self.writer, self.created_ms)?;
        check_more(&self.more)
    }
}

impl BundleTrailer {
    pub fn object_bytes(&self) -> u64 {
        let end = self.index_offset.saturating_add(u64::from(self.index_bytes));
        end.saturating_add(TRAILER_BYTES as u64)
    }

    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(TRAILER_BYTES);
        out.extend_from_slice(&self.index_offset.to_be_bytes());
        out.extend_from_slice(&self.index_bytes.to_be_bytes());
        out.extend_from_slice(&1_u16.to_be_bytes());
        out.extend_from_slice(&[0; 2]);
        out.extend_from_slice(&self.object_bytes().to_be_bytes());
        out.extend_from_slice(&self.index_crc.to_be_bytes());
        out.extend_from_slice(&varve_format::crc32c(&out).to_be_bytes());
        out.extend_from_slice(MAGIC);
        out
    }

    /// Of an object of `object_bytes`, whose last bytes are `bytes`.
    ///
    /// # Errors
    /// [`RecordError`] for what is no trailer of a bundle of this length.
    pub fn decode(bytes: &[u8; TRAILER_BYTES], object_bytes: u64) -> Result<Self, RecordError> {
        let [a @ .., _, _, _, _, _, _, _, _] = bytes;
        let (head, crc) = a.split_at(28);
        if !bytes.ends_with(MAGIC) {
            return Err(flaw("trailer of a bundle", "VARVEJNL", "another magic"));
        }
        if varve_format::crc32c(head).to_be_bytes() != crc {
            return Err(flaw("trailer of a bundle", "its CRC32C", "another"));
        }
        let number = |from: usize, to: usize| {
            head.get(from..to).unwrap_or_default().iter().fold(0_u64, |n, b| n << 8 | u64::from(*b))
        };
        match number(12, 14) {
            1 => {}
            0 => return Err(flaw("version of a bundle", 1, 0)),
            found => return Err(RecordError::Future { found, supported: 1 }),
        }
        let trailer = Self {
            index_offset: number(0, 8),
            index_bytes: number(8, 12) as u32,
            index_crc: number(24, 28) as u32,
        };
        let fits = number(14, 16) == 0
            && number(16, 24) == object_bytes
            && trailer.object_bytes() == object_bytes
            && u64::from(trailer.index_bytes) <= INDEX_MAX_BYTES;
        if fits {
            return Ok(trailer);
        }
        let found = format!("an index of {} at {}", trailer.index_bytes, trailer.index_offset);
        Err(flaw("trailer of a bundle", format!("an object of {object_bytes} bytes"), found))
    }
}

impl BundleIndex {
    /// Index and trailer of a bundle whose objects end at `index_offset`.
    ///
    /// # Errors
    /// As [`Record::encode`].
    pub fn tail(&self) -> Result<Bytes, RecordError> {
        let mut out = self.encode()?;
        let end = self.entries.last().map_or(0, |e| e.position.saturating_add(e.bytes));
        let trailer = BundleTrailer {
            index_offset: end,
            index_bytes: out.len() as u32,
            index_crc: varve_format::crc32c(&out),
        };
        out.extend_from_slice(&trailer.encode());
        Ok(Bytes::from(out))
    }

    /// The index that `trailer` describes.
    ///
    /// # Errors
    /// [`RecordError`] for other bytes.
    pub fn decode_at(bytes: &[u8], trailer: &BundleTrailer) -> Result<Self, RecordError> {
        if varve_format::crc32c(bytes) != trailer.index_crc {
            return Err(flaw("index of a bundle", "its CRC32C", "another"));
        }
        let index = Self::decode(bytes)?;
        let end = index.entries.last().map_or(0, |e| e.position.saturating_add(e.bytes));
        if end == trailer.index_offset {
            Ok(index)
        } else {
            Err(flaw("index_offset", end, trailer.index_offset))
        }
    }
}
