//! `.timeindex`: from timestamps to offsets. Entries of 12 bytes: timestamp i64, offset relative to the
//! segment's base i32; neither descends.

use super::cursor::Cursor;
use super::error::{ProtocolError, Result};
use super::offset_index::{check_length, only_zeros};

pub const TIME_INDEX_ENTRY_BYTES: usize = 12;
const WHAT: &str = "time index";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeIndexEntry {
    pub timestamp_ms: i64,
    pub offset: i64,
}

impl TimeIndexEntry {
    /// Appends the entry as it is in the file. The offset is at most [`i32::MAX`] after the base.
    pub(super) fn encode(self, base_offset: i64, file: &mut Vec<u8>) {
        file.extend(self.timestamp_ms.to_be_bytes());
        file.extend((self.offset.wrapping_sub(base_offset) as i32).to_be_bytes());
    }
}

/// All entries. The zeros with which a broker pads the index of its active segment are left out.
pub fn parse_time_index(bytes: &[u8], base_offset: i64) -> Result<Vec<TimeIndexEntry>> {
    check_length(WHAT, bytes, TIME_INDEX_ENTRY_BYTES)?;
    let mut c = Cursor::new(WHAT, 0, bytes);
    let mut entries: Vec<TimeIndexEntry> = Vec::with_capacity(bytes.len() / TIME_INDEX_ENTRY_BYTES);
    while c.remaining() > 0 {
        let at = c.position();
        let (timestamp_ms, relative) = (c.i64()?, c.i32()?);
        if timestamp_ms == 0 && relative == 0 && only_zeros(bytes, c.at()) {
            break;
        }
        let Ok(relative) = u32::try_from(relative) else {
            return Err(ProtocolError::corrupt(WHAT, at + 8, "no negative", relative));
        };
        let entry = TimeIndexEntry { timestamp_ms, offset: base_offset.saturating_add(i64::from(relative)) };
        if let Some(last) = entries.last()
            && (entry.timestamp_ms < last.timestamp_ms || entry.offset < last.offset)
        {
            let (expected, found) = (format!("not less than {last:?}"), format!("{entry:?}"));
            return Err(ProtocolError::corrupt(WHAT, at, expected, found));
        }
        entries.push(entry);
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_and_disorder() {
        let entry = |ms: i64, offset: i32| [&ms.to_be_bytes()[..], &offset.to_be_bytes()].concat();
        let bytes = [entry(1_700_000_000_000, 3), entry(1_700_000_000_001, 3)].concat();
        let entries = parse_time_index(&bytes, 10).unwrap();
        assert_eq!(entries[1], TimeIndexEntry { timestamp_ms: 1_700_000_000_001, offset: 13 });
        assert_eq!(parse_time_index(&[&bytes[..], &[0; 24]].concat(), 10).unwrap(), entries);
        assert!(parse_time_index(&[entry(5, 3), entry(4, 9)].concat(), 0).is_err());
        assert!(parse_time_index(&bytes[..23], 0).is_err());
    }
}
