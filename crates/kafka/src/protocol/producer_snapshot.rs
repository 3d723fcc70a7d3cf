//! `.snapshot`: the state of each producer at the offset that the file is named by, a segment's begin (a plug-in
//! for tiered storage gets a segment's log with the snapshot of its *end*). Version i16 (1), CRC32C u32 of all
//! that follows it, count i32, and entries of 46 bytes.

use super::cursor::Cursor;
use super::error::{ProtocolError, Result};

const WHAT: &str = "producer snapshot";
const VERSION: i16 = 1;
const ENTRY_BYTES: usize = 46;
const CRC_COVERS_FROM: usize = 6;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProducerEntry {
    pub producer_id: i64,
    pub producer_epoch: i16,
    /// -1 if the producer has written no data batch that is still known.
    pub last_sequence: i32,
    pub last_offset: i64,
    /// Last minus first offset of the last batch.
    pub offset_delta: i32,
    pub timestamp_ms: i64,
    pub coordinator_epoch: i32,
    /// Of the transaction that is open.
    pub current_txn_first_offset: Option<i64>,
}

pub fn parse_producer_snapshot(bytes: &[u8]) -> Result<Vec<ProducerEntry>> {
    let mut c = Cursor::new(WHAT, 0, bytes);
    let version = c.i16()?;
    if version != VERSION {
        let (found, supported) = (i64::from(version), i64::from(VERSION));
        return Err(ProtocolError::UnknownVersion { what: WHAT, position: 0, found, supported });
    }
    let crc = c.u32()?;
    let found = varve_format::crc32c(bytes.get(CRC_COVERS_FROM..).unwrap_or_default());
    if crc != found {
        return Err(ProtocolError::corrupt(
            "producer snapshot (CRC32C)",
            2,
            format!("{crc:08x}"),
            format!("{found:08x}"),
        ));
    }
    let count = c.i32()?;
    let room = c.remaining() / ENTRY_BYTES;
    let Some(count) = usize::try_from(count).ok().filter(|n| *n <= room) else {
        return Err(c.corrupt(format!("at most {room} entries"), count));
    };
    let mut entries = Vec::with_capacity(count);
    for _ in 0..count {
        entries.push(ProducerEntry {
            producer_id: c.i64()?,
            producer_epoch: c.i16()?,
            last_sequence: c.i32()?,
            last_offset: c.i64()?,
            offset_delta: c.i32()?,
            timestamp_ms: c.i64()?,
            coordinator_epoch: c.i32()?,
            current_txn_first_offset: Some(c.i64()?).filter(|offset| *offset >= 0),
        });
    }
    c.end()?;
    Ok(entries)
}

/// The file with these entries, in this order.
pub fn encode_producer_snapshot(entries: &[ProducerEntry]) -> Vec<u8> {
    let mut file = VERSION.to_be_bytes().to_vec();
    file.extend([0; 4]);
    // So many that the count doesn't fit would take 98 GB.
    file.extend((entries.len() as i32).to_be_bytes());
    for entry in entries {
        file.extend(entry.producer_id.to_be_bytes());
        file.extend(entry.producer_epoch.to_be_bytes());
        file.extend(entry.last_sequence.to_be_bytes());
        file.extend(entry.last_offset.to_be_bytes());
        file.extend(entry.offset_delta.to_be_bytes());
        file.extend(entry.timestamp_ms.to_be_bytes());
        file.extend(entry.coordinator_epoch.to_be_bytes());
        file.extend(entry.current_txn_first_offset.unwrap_or(-1).to_be_bytes());
    }
    let crc = varve_format::crc32c(file.get(CRC_COVERS_FROM..).unwrap_or_default());
    if let Some(field) = file.get_mut(2..CRC_COVERS_FROM) {
        field.copy_from_slice(&crc.to_be_bytes());
    }
    file
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot() -> Vec<u8> {
        let mut body = 1_i32.to_be_bytes().to_vec();
        body.extend(4002_i64.to_be_bytes());
        body.extend(3_i16.to_be_bytes());
        body.extend(17_i32.to_be_bytes());
        body.extend(900_i64.to_be_bytes());
        body.extend(2_i32.to_be_bytes());
        body.extend(1_700_000_000_000_i64.to_be_bytes());
        body.extend((-1_i32).to_be_bytes());
        body.extend((-1_i64).to_be_bytes());
        let crc = varve_format::crc32c(&body);
        [&1_i16.to_be_bytes()[..], &crc.to_be_bytes(), &body].concat()
    }

    #[test]
    fn entry_and_any_flipped_bit() {
        let bytes = snapshot();
        let entries = parse_producer_snapshot(&bytes).unwrap();
        assert_eq!((entries[0].producer_id, entries[0].last_sequence), (4002, 17));
        assert_eq!(entries[0].current_txn_first_offset, None);
        assert_eq!(encode_producer_snapshot(&entries), bytes);
        assert_eq!(parse_producer_snapshot(&encode_producer_snapshot(&[])), Ok(vec![]));
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(parse_producer_snapshot(&flipped).is_err(), "bit {bit}");
        }
    }
}
