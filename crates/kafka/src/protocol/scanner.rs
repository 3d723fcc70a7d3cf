//! Batches of a log that arrives in pieces, checked without being held: memory is one header, or one
//! transaction marker, whatever the size of the log or of a batch. For listing, verifying and building.

use super::batch::{BATCH_HEADER_BYTES, BatchHeader, BatchLine, CRC_COVERS_FROM, PREFIX_BYTES, Prefix};
use super::error::{ProtocolError, Result};

/// Of a batch with a transaction marker, which brokers write in 78 bytes. A larger one is not handed out.
pub(super) const MARKER_LIMIT_BYTES: u64 = 64 * 1024;

/// What a scan found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scanned {
    Batch { header: BatchHeader, position: u64, crc_found: u32 },
    OldMessageSet(OldMessageSet),
}

/// A message set of magic 0 or 1: passed over, its content unchecked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OldMessageSet {
    pub position: u64,
    pub magic: i8,
    pub last_offset: i64,
    pub size_bytes: u64,
}

impl Scanned {
    pub fn crc_is_valid(&self) -> bool {
        match self {
            Scanned::Batch { header, crc_found, .. } => header.crc == *crc_found,
            Scanned::OldMessageSet(_) => true,
        }
    }

    /// The line of `kafka-dump-log`, for batches of magic 2.
    pub fn line(&self) -> Option<BatchLine<'_>> {
        match self {
            Scanned::Batch { header, position, .. } => Some(header.line(*position, self.crc_is_valid())),
            Scanned::OldMessageSet(_) => None,
        }
    }
}

/// Takes a log piece by piece. After an error it must not be fed again.
#[derive(Debug, Default)]
pub struct BatchScanner {
    /// Of the next byte to come.
    position: u64,
    head: Vec<u8>,
    body: Option<Body>,
}

#[derive(Debug)]
struct Body {
    scanned: Scanned,
    remaining: u64,
    crc: u32,
    /// What came of a transaction marker; of anything else, nothing is kept.
    marker: Vec<u8>,
}

impl BatchScanner {
    pub fn new() -> Self {
        Self::default()
    }

    /// Calls `found` for each batch that ends in `piece`.
    pub fn feed(&mut self, piece: &[u8], mut found: impl FnMut(Scanned)) -> Result<()> {
        self.feed_with_markers(piece, &mut |scanned, _| {
            found(scanned);
            Ok(())
        })
    }

    /// As [`BatchScanner::feed`]; `found` also gets the whole batch, if that is a transaction marker of at most
    /// [`MARKER_LIMIT_BYTES`], and else no bytes.
    pub(super) fn feed_with_markers(
        &mut self,
        mut piece: &[u8],
        found: &mut impl FnMut(Scanned, &[u8]) -> Result<()>,
    ) -> Result<()> {
        while !piece.is_empty() {
            let used = match self.body.take() {
                Some(body) => self.feed_body(body, piece, found)?,
                None => match self.whole_batch(piece, found)? {
                    Some(used) => used,
                    None => self.feed_head(piece, found)?,
                },
            };
            self.position = self.position.saturating_add(used as u64);
            piece = piece.get(used..).unwrap_or_default();
        }
        Ok(())
    }

    /// The usual case, without copies: `piece` begins with a whole batch of magic 2. Returns its size.
    fn whole_batch(
        &mut self,
        piece: &[u8],
        found: &mut impl FnMut(Scanned, &[u8]) -> Result<()>,
    ) -> Result<Option<usize>> {
        if !self.head.is_empty() || piece.len() < BATCH_HEADER_BYTES {
            return Ok(None);
        }
        let header = match BatchHeader::parse(piece, self.position) {
            Err(ProtocolError::OldMagic { .. }) => return Ok(None),
            other => other?,
        };
        let size = usize::try_from(header.size_bytes()).unwrap_or(usize::MAX);
        let Some(batch) = piece.get(..size) else { return Ok(None) };
        let crc_found = varve_format::crc32c(batch.get(CRC_COVERS_FROM..).unwrap_or_default());
        let marker = if is_marker(&header) { batch } else { &[] };
        found(Scanned::Batch { header, position: self.position, crc_found }, marker)?;
        Ok(Some(size))
    }

    /// The log ends here: whether it ends with a whole batch.
    pub fn finish(self) -> Result<()> {
        let missing = match &self.body {
            Some(body) => body.remaining,
            None if self.head.is_empty() => return Ok(()),
            None => (BATCH_HEADER_BYTES - self.head.len()) as u64,
        };
        Err(ProtocolError::Truncated {
            what: "record batch",
            position: self.position,
            needed: missing,
            available: 0,
        })
    }

    fn feed_head(
        &mut self,
        piece: &[u8],
        found: &mut impl FnMut(Scanned, &[u8]) -> Result<()>,
    ) -> Result<usize> {
        let begins = self.position.saturating_sub(self.head.len() as u64);
        let wanted = if self.head.len() < PREFIX_BYTES { PREFIX_BYTES } else { BATCH_HEADER_BYTES };
        let used = piece.len().min(wanted - self.head.len());
        self.head.extend_from_slice(piece.get(..used).unwrap_or_default());
        if self.head.len() < wanted {
            return Ok(used);
        }
        if wanted == PREFIX_BYTES {
            let prefix = Prefix::parse(&self.head, begins)?;
            if prefix.magic != 2 {
                self.head.clear();
                let set = OldMessageSet {
                    position: begins,
                    magic: prefix.magic,
                    last_offset: prefix.base_offset,
                    size_bytes: prefix.size_bytes,
                };
                let remaining = prefix.size_bytes.saturating_sub(PREFIX_BYTES as u64);
                let scanned = Scanned::OldMessageSet(set);
                self.begin(Body { scanned, remaining, crc: 0, marker: Vec::new() }, found)?;
            }
            return Ok(used);
        }
        let header = BatchHeader::parse(&self.head, begins)?;
        let crc = varve_format::crc32c(self.head.get(CRC_COVERS_FROM..).unwrap_or_default());
        let marker = if is_marker(&header) { self.head.clone() } else { Vec::new() };
        self.head.clear();
        let remaining = header.size_bytes().saturating_sub(BATCH_HEADER_BYTES as u64);
        let scanned = Scanned::Batch { header, position: begins, crc_found: 0 };
        self.begin(Body { scanned, remaining, crc, marker }, found)?;
        Ok(used)
    }

    fn feed_body(
        &mut self,
        mut body: Body,
        piece: &[u8],
        found: &mut impl FnMut(Scanned, &[u8]) -> Result<()>,
    ) -> Result<usize> {
        let used = usize::try_from(body.remaining).unwrap_or(usize::MAX).min(piece.len());
        let bytes = piece.get(..used).unwrap_or_default();
        body.crc = varve_format::crc32c_append(body.crc, bytes);
        if !body.marker.is_empty() {
            body.marker.extend_from_slice(bytes);
        }
        body.remaining -= used as u64;
        self.begin(body, found)?;
        Ok(used)
    }

    /// Keeps the body for what is still to come of it, or reports it.
    fn begin(&mut self, body: Body, found: &mut impl FnMut(Scanned, &[u8]) -> Result<()>) -> Result<()> {
        if body.remaining > 0 {
            self.body = Some(body);
            return Ok(());
        }
        let scanned = match body.scanned {
            Scanned::Batch { header, position, .. } => {
                Scanned::Batch { header, position, crc_found: body.crc }
            }
            old => old,
        };
        found(scanned, &body.marker)
    }
}

fn is_marker(header: &BatchHeader) -> bool {
    header.attributes.is_control() && header.producer_id >= 0 && header.size_bytes() <= MARKER_LIMIT_BYTES
}
