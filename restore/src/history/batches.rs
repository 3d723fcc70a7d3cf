//! Whole batches out of a log that arrives in pieces. Holds one batch, and what arrived of the next.

use bytes::BytesMut;
use varve_archive::LogStream;
use varve_kafka::protocol::{BATCH_HEADER_BYTES, Batch, BatchHeader, OldMessageSet, ProtocolError};

use crate::error::{Error, Result};

/// What stands in a log.
#[derive(Clone, Debug)]
pub enum Found {
    Batch(Batch),
    /// Of magic 0 or 1: passed over.
    OldSet(OldMessageSet),
}

/// See the module.
#[derive(Debug)]
pub struct BatchReader {
    object: String,
    stream: LogStream,
    buffer: BytesMut,
    /// Where `buffer` begins.
    position: u64,
}

impl BatchReader {
    /// `stream` begins where a batch does; `object` is for messages.
    pub fn new(object: &str, stream: LogStream) -> Self {
        let position = stream.position();
        Self { object: object.to_owned(), stream, buffer: BytesMut::new(), position }
    }

    fn protocol(&self, source: ProtocolError) -> Error {
        Error::Protocol { object: self.object.clone(), source }
    }

    /// The next batch, its CRC checked; `None` at the log's end.
    ///
    /// # Errors
    /// Of the archive; what is no batch, or is cut.
    pub async fn next(&mut self) -> Result<Option<Found>> {
        if !self.fill(BATCH_HEADER_BYTES as u64).await? && self.buffer.is_empty() {
            return Ok(None);
        }
        let (size_bytes, old) = match BatchHeader::parse(&self.buffer, self.position) {
            Ok(header) => (header.size_bytes(), None),
            Err(ProtocolError::OldMagic { position, magic, last_offset, size_bytes }) => {
                (size_bytes, Some(OldMessageSet { position, magic, last_offset, size_bytes }))
            }
            Err(e) => return Err(self.protocol(e)),
        };
        if !self.fill(size_bytes).await? {
            let cut = ProtocolError::Truncated {
                what: "record batch",
                position: self.position,
                needed: size_bytes,
                available: self.buffer.len() as u64,
            };
            return Err(self.protocol(cut));
        }
        let bytes = self.buffer.split_to(size_bytes as usize).freeze();
        let position = self.position;
        self.position += size_bytes;
        if let Some(set) = old {
            return Ok(Some(Found::OldSet(set)));
        }
        let header = BatchHeader::parse(&bytes, position).map_err(|e| self.protocol(e))?;
        let batch = Batch { header, position, bytes };
        batch.check_crc().map_err(|e| self.protocol(e))?;
        Ok(Some(Found::Batch(batch)))
    }

    /// Whether there are as many bytes.
    async fn fill(&mut self, bytes: u64) -> Result<bool> {
        while (self.buffer.len() as u64) < bytes {
            match self.stream.next().await? {
                Some(piece) => self.buffer.extend_from_slice(&piece),
                None => return Ok(false),
            }
        }
        Ok(true)
    }
}
