//! Batches in memory, one after the other, not decoded.

use bytes::Bytes;

use super::batch::{BatchHeader, CRC_COVERS_FROM};
use super::error::{ProtocolError, Result};

/// One whole batch of magic 2.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    pub header: BatchHeader,
    /// Where it begins in its file or stream.
    pub position: u64,
    /// All of it, header included.
    pub bytes: Bytes,
}

impl Batch {
    /// The CRC32C of the batch as it is.
    pub fn crc_found(&self) -> u32 {
        varve_format::crc32c(self.bytes.get(CRC_COVERS_FROM..).unwrap_or_default())
    }

    pub fn check_crc(&self) -> Result<()> {
        Self::compare_crc(&self.header, self.position, self.crc_found())
    }

    /// The same of one that lies in several places: `parts` one behind the other, the first with the whole header.
    pub fn check_crc_of(header: &BatchHeader, position: u64, parts: &[Bytes]) -> Result<()> {
        let (mut before, mut crc) = (CRC_COVERS_FROM, 0);
        for part in parts {
            crc = varve_format::crc32c_append(crc, part.get(before..).unwrap_or_default());
            before = before.saturating_sub(part.len());
        }
        Self::compare_crc(header, position, crc)
    }

    pub(super) fn compare_crc(header: &BatchHeader, position: u64, found: u32) -> Result<()> {
        if found == header.crc {
            return Ok(());
        }
        Err(ProtocolError::corrupt(
            "record batch (CRC32C)",
            position,
            format!("{:08x}", header.crc),
            format!("{found:08x} (base offset {})", header.base_offset),
        ))
    }
}

/// Splits bytes into batches. After [`ProtocolError::OldMagic`] it goes on behind the message set; any other
/// error is the last item. A batch that is cut off at the end (usual in fetch responses) is `Truncated`.
#[derive(Clone, Debug)]
pub struct Batches {
    rest: Bytes,
    position: u64,
}

impl Batches {
    /// `bytes` begin at `position` of their file.
    pub fn new(bytes: Bytes, position: u64) -> Self {
        Self { rest: bytes, position }
    }

    /// How many of the leading bytes are whole batches or message sets, and the end offset of the last batch.
    pub fn whole(bytes: &Bytes) -> Result<(usize, Option<i64>)> {
        let mut next_offset = None;
        let mut whole_bytes = 0;
        for item in Self::new(bytes.clone(), 0) {
            match item {
                Ok(batch) => {
                    whole_bytes += batch.bytes.len();
                    next_offset = Some(batch.header.next_offset());
                }
                Err(ProtocolError::OldMagic { last_offset, size_bytes, .. }) => {
                    whole_bytes += usize::try_from(size_bytes).unwrap_or(0);
                    next_offset = Some(last_offset.saturating_add(1));
                }
                Err(ProtocolError::Truncated { .. }) => break,
                Err(e) => return Err(e),
            }
        }
        Ok((whole_bytes, next_offset))
    }

    fn step(&mut self) -> Result<Batch> {
        let header = match BatchHeader::parse(&self.rest, self.position) {
            Err(e @ ProtocolError::OldMagic { size_bytes, .. }) => {
                self.split(size_bytes, "message set")?;
                return Err(e);
            }
            other => other?,
        };
        let position = self.position;
        let bytes = self.split(header.size_bytes(), "record batch")?;
        Ok(Batch { header, position, bytes })
    }

    fn split(&mut self, size_bytes: u64, what: &'static str) -> Result<Bytes> {
        let available = self.rest.len() as u64;
        if size_bytes > available {
            return Err(ProtocolError::Truncated {
                what,
                position: self.position,
                needed: size_bytes,
                available,
            });
        }
        self.position += size_bytes;
        Ok(self.rest.split_to(size_bytes as usize))
    }
}

impl Iterator for Batches {
    type Item = Result<Batch>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let item = self.step();
        if matches!(&item, Err(e) if !matches!(e, ProtocolError::OldMagic { .. })) {
            self.rest.clear();
        }
        Some(item)
    }
}
