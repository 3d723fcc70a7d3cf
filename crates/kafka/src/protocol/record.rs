//! The records inside a batch.

use std::ops::Range;

use bytes::Bytes;

use super::batch::{BATCH_HEADER_BYTES, Codec, TimestampType};
use super::batches::Batch;
use super::cursor::Cursor;
use super::decompress::decompress;
use super::error::{ProtocolError, Result};

const WHAT: &str = "record";

/// A record, its bytes shared with the batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub offset: i64,
    pub timestamp_ms: i64,
    pub key: Option<Bytes>,
    /// `None` is a tombstone.
    pub value: Option<Bytes>,
    pub headers: Vec<Header>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// UTF-8 by Kafka's rules, but not checked by brokers.
    pub key: Bytes,
    pub value: Option<Bytes>,
}

/// The records of one batch, in order. Ends after the first error.
#[derive(Clone, Debug)]
pub struct Records {
    plain: Bytes,
    at: usize,
    left: i32,
    /// Of the batch in its file. Inside compressed records, errors count from the unpacked bytes' begin.
    position: u64,
    base_offset: i64,
    last_offset_delta: i32,
    base_timestamp_ms: i64,
    log_append_time_ms: Option<i64>,
}

impl Batch {
    /// Unpacks the records into at most `limit_bytes`. The CRC is not checked here.
    pub fn records(&self, limit_bytes: usize) -> Result<Records> {
        let h = &self.header;
        let position = self.position + BATCH_HEADER_BYTES as u64;
        let packed = self.bytes.slice(BATCH_HEADER_BYTES.min(self.bytes.len())..);
        let plain = match h.attributes.codec() {
            Codec::None => packed,
            // Nothing was packed: an empty batch keeps its producer's codec.
            _ if h.records_count == 0 && packed.is_empty() => packed,
            codec => Bytes::from(decompress(codec, &packed, position, limit_bytes)?),
        };
        if h.records_count < 0 {
            return Err(ProtocolError::corrupt(
                "record count",
                self.position + 57,
                "0 or more",
                h.records_count,
            ));
        }
        Ok(Records {
            plain,
            at: 0,
            left: h.records_count,
            position,
            base_offset: h.base_offset,
            last_offset_delta: h.last_offset_delta,
            base_timestamp_ms: h.base_timestamp_ms,
            log_append_time_ms: (h.attributes.timestamp_type() == TimestampType::LogAppendTime)
                .then_some(h.max_timestamp_ms),
        })
    }
}

impl Records {
    fn step(&mut self) -> Result<Record> {
        let rest = self.plain.slice(self.at..);
        let origin = self.position.saturating_add(self.at as u64);
        let mut c = Cursor::new(WHAT, origin, &rest);
        let length = c.varint()?;
        let Some(length) = c.checked_length(length)? else {
            return Err(c.corrupt("a length", -1));
        };
        let begin = c.at();
        self.at += begin + length;
        let body = rest.slice(begin..begin + length);
        self.body(&body, origin.saturating_add(begin as u64))
    }

    fn body(&self, body: &Bytes, origin: u64) -> Result<Record> {
        let mut c = Cursor::new(WHAT, origin, body);
        let _attributes = c.i8()?;
        let timestamp_delta = c.varlong()?;
        let offset_delta = c.varint()?;
        if !(0..=self.last_offset_delta).contains(&offset_delta) {
            return Err(
                c.corrupt(format!("an offset delta from 0 to {}", self.last_offset_delta), offset_delta)
            );
        }
        let key = nullable(&mut c)?.map(|r| body.slice(r));
        let value = nullable(&mut c)?.map(|r| body.slice(r));
        let count = c.varint()?;
        // A header takes two bytes at least, so a hostile count can't make this allocate much.
        let Some(count) = usize::try_from(count).ok().filter(|n| *n <= c.remaining() / 2) else {
            return Err(c.corrupt(format!("at most {} headers", c.remaining() / 2), count));
        };
        let mut headers = Vec::with_capacity(count);
        for _ in 0..count {
            let key = nullable(&mut c)?.ok_or_else(|| c.corrupt("a header key", "null"))?;
            let value = nullable(&mut c)?;
            headers.push(Header { key: body.slice(key), value: value.map(|r| body.slice(r)) });
        }
        c.end()?;
        Ok(Record {
            offset: self.base_offset.saturating_add(i64::from(offset_delta)),
            timestamp_ms: self
                .log_append_time_ms
                .unwrap_or_else(|| self.base_timestamp_ms.saturating_add(timestamp_delta)),
            key,
            value,
            headers,
        })
    }
}

fn nullable(c: &mut Cursor<'_>) -> Result<Option<Range<usize>>> {
    let length = c.varint()?;
    let Some(length) = c.checked_length(length)? else { return Ok(None) };
    let begin = c.at();
    c.take(length)?;
    Ok(Some(begin..begin + length))
}

impl Iterator for Records {
    type Item = Result<Record>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.left == 0 {
            let extra = self.plain.len().saturating_sub(self.at);
            self.at = self.plain.len();
            let position = self.position;
            return (extra > 0).then(|| {
                Err(ProtocolError::corrupt(
                    "records",
                    position,
                    "as many as counted",
                    format!("{extra} more bytes"),
                ))
            });
        }
        let item = self.step();
        self.left = if item.is_ok() { self.left - 1 } else { 0 };
        if item.is_err() {
            self.at = self.plain.len();
        }
        Some(item)
    }
}
