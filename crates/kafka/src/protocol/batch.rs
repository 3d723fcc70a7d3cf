//! The header of a record batch of magic 2, and its line in a dump.
//!
//! ```text
//!  0 base offset i64 | 8 length i32 (of what follows) | 12 partition leader epoch i32 | 16 magic i8
//! 17 CRC32C u32 (of all that follows it) | 21 attributes i16 | 23 last offset delta i32
//! 27 base timestamp i64 | 35 max timestamp i64 | 43 producer id i64 | 51 producer epoch i16
//! 53 base sequence i32 | 57 record count i32 | 61 records
//! ```

use std::fmt;

use super::cursor::Cursor;
use super::error::{ProtocolError, Result};

/// Bytes before the records.
pub const BATCH_HEADER_BYTES: usize = 61;
/// Base offset and length: what the length field does not count.
pub(crate) const LOG_OVERHEAD_BYTES: usize = 12;
/// Enough to tell the size and the magic.
pub(crate) const PREFIX_BYTES: usize = 17;
/// Where the bytes begin that the CRC covers.
pub(crate) const CRC_COVERS_FROM: usize = 21;
/// CRC, magic, attributes, and two lengths: the least of a message set of magic 0.
const OLD_MIN_LENGTH: i32 = 14;

const WHAT: &str = "record batch";

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Codec {
    None,
    Gzip,
    Snappy,
    Lz4,
    Zstd,
    /// A number that Kafka does not assign.
    Unknown(u8),
}

impl fmt::Display for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Codec::None => f.write_str("none"),
            Codec::Gzip => f.write_str("gzip"),
            Codec::Snappy => f.write_str("snappy"),
            Codec::Lz4 => f.write_str("lz4"),
            Codec::Zstd => f.write_str("zstd"),
            Codec::Unknown(n) => write!(f, "unknown({n})"),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TimestampType {
    CreateTime,
    LogAppendTime,
}

impl fmt::Display for TimestampType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// The attributes of a batch, as its 16 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Attributes(pub i16);

impl Attributes {
    pub fn codec(self) -> Codec {
        match self.0 & 0x07 {
            0 => Codec::None,
            1 => Codec::Gzip,
            2 => Codec::Snappy,
            3 => Codec::Lz4,
            4 => Codec::Zstd,
            n => Codec::Unknown(n as u8),
        }
    }

    pub fn timestamp_type(self) -> TimestampType {
        if self.0 & 0x08 == 0 { TimestampType::CreateTime } else { TimestampType::LogAppendTime }
    }

    pub fn is_transactional(self) -> bool {
        self.0 & 0x10 != 0
    }

    pub fn is_control(self) -> bool {
        self.0 & 0x20 != 0
    }

    pub fn has_delete_horizon(self) -> bool {
        self.0 & 0x40 != 0
    }
}

/// The header of a batch of magic 2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchHeader {
    pub base_offset: i64,
    /// Of what follows the length field.
    pub length_bytes: i32,
    pub partition_leader_epoch: i32,
    /// As stored; see [`Batch::crc_found`](super::Batch::crc_found) for the true one.
    pub crc: u32,
    pub attributes: Attributes,
    pub last_offset_delta: i32,
    pub base_timestamp_ms: i64,
    pub max_timestamp_ms: i64,
    pub producer_id: i64,
    pub producer_epoch: i16,
    pub base_sequence: i32,
    pub records_count: i32,
}

/// Size and magic, which all formats have at the same place.
pub(crate) struct Prefix {
    pub(crate) base_offset: i64,
    pub(crate) size_bytes: u64,
    pub(crate) magic: i8,
}

impl Prefix {
    /// `bytes` begin at `position` of the file and hold at least [`PREFIX_BYTES`].
    pub(crate) fn parse(bytes: &[u8], position: u64) -> Result<Self> {
        let mut c = Cursor::new(WHAT, position, bytes);
        let base_offset = c.i64()?;
        let length = c.i32()?;
        let _epoch = c.i32()?;
        let magic = c.i8()?;
        let min = match magic {
            2 => (BATCH_HEADER_BYTES - LOG_OVERHEAD_BYTES) as i32,
            0 | 1 => OLD_MIN_LENGTH,
            _ => return Err(ProtocolError::corrupt(WHAT, position + 16, "magic 0, 1 or 2", magic)),
        };
        if length < min {
            return Err(ProtocolError::corrupt(
                WHAT,
                position + 8,
                format!("a length of at least {min}"),
                length,
            ));
        }
        Ok(Self { base_offset, size_bytes: LOG_OVERHEAD_BYTES as u64 + length as u64, magic })
    }
}

impl BatchHeader {
    /// `bytes` begin at `position` of the file. The records need not be there yet.
    pub fn parse(bytes: &[u8], position: u64) -> Result<Self> {
        if let Some(prefix) = bytes.get(..PREFIX_BYTES) {
            let prefix = Prefix::parse(prefix, position)?;
            if prefix.magic != 2 {
                return Err(ProtocolError::OldMagic {
                    position,
                    magic: prefix.magic,
                    last_offset: prefix.base_offset,
                    size_bytes: prefix.size_bytes,
                });
            }
        }
        let mut c = Cursor::new(WHAT, position, bytes);
        let base_offset = c.i64()?;
        let length_bytes = c.i32()?;
        let partition_leader_epoch = c.i32()?;
        let _magic = c.i8()?;
        Ok(Self {
            base_offset,
            length_bytes,
            partition_leader_epoch,
            crc: c.u32()?,
            attributes: Attributes(c.i16()?),
            last_offset_delta: c.i32()?,
            base_timestamp_ms: c.i64()?,
            max_timestamp_ms: c.i64()?,
            producer_id: c.i64()?,
            producer_epoch: c.i16()?,
            base_sequence: c.i32()?,
            records_count: c.i32()?,
        })
    }

    /// Of the whole batch, its first bytes included.
    pub fn size_bytes(&self) -> u64 {
        LOG_OVERHEAD_BYTES as u64 + u64::from(self.length_bytes.unsigned_abs())
    }

    pub fn last_offset(&self) -> i64 {
        self.base_offset.saturating_add(i64::from(self.last_offset_delta))
    }

    /// The next offset after this batch.
    pub fn next_offset(&self) -> i64 {
        self.last_offset().saturating_add(1)
    }

    /// -1 where there is no sequence; sequences go on at 0 after `i32::MAX`.
    pub fn last_sequence(&self) -> i32 {
        if self.base_sequence < 0 {
            return -1;
        }
        let sum = i64::from(self.base_sequence) + i64::from(self.last_offset_delta);
        (sum & i64::from(i32::MAX)) as i32
    }

    /// When tombstones and markers of this batch may go, as the log cleaner noted it.
    pub fn delete_horizon_ms(&self) -> Option<i64> {
        self.attributes.has_delete_horizon().then_some(self.base_timestamp_ms)
    }

    /// The batch as one line of `kafka-dump-log`.
    pub fn line(&self, position: u64, crc_is_valid: bool) -> BatchLine<'_> {
        BatchLine { header: self, position, crc_is_valid }
    }
}

/// Prints as `kafka-dump-log` prints a batch.
#[derive(Clone, Copy, Debug)]
pub struct BatchLine<'a> {
    header: &'a BatchHeader,
    position: u64,
    crc_is_valid: bool,
}

impl fmt::Display for BatchLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let h = self.header;
        let a = h.attributes;
        write!(
            f,
            "baseOffset: {} lastOffset: {} count: {} baseSequence: {} lastSequence: {} producerId: {} \
             producerEpoch: {} partitionLeaderEpoch: {} isTransactional: {} isControl: {} deleteHorizonMs: ",
            h.base_offset,
            h.last_offset(),
            h.records_count,
            h.base_sequence,
            h.last_sequence(),
            h.producer_id,
            h.producer_epoch,
            h.partition_leader_epoch,
            a.is_transactional(),
            a.is_control()
        )?;
        match h.delete_horizon_ms() {
            Some(ms) => write!(f, "OptionalLong[{ms}]")?,
            None => f.write_str("OptionalLong.empty")?,
        }
        write!(
            f,
            " position: {} {}: {} size: {} magic: 2 compresscodec: {} crc: {} isvalid: {}",
            self.position,
            a.timestamp_type(),
            h.max_timestamp_ms,
            h.size_bytes(),
            a.codec(),
            h.crc,
            self.crc_is_valid
        )
    }
}
