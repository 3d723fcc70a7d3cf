//! `.index`: from offsets to byte positions of the log. Entries of 8 bytes: offset relative to the segment's
//! base i32, position i32; both ascend.

use super::cursor::Cursor;
use super::error::{ProtocolError, Result};

pub const OFFSET_INDEX_ENTRY_BYTES: usize = 8;
const WHAT: &str = "offset index";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OffsetIndexEntry {
    pub offset: i64,
    pub position: u32,
}

impl OffsetIndexEntry {
    /// Appends the entry as it is in the file. The offset is at most [`i32::MAX`] after the base.
    pub(super) fn encode(self, base_offset: i64, file: &mut Vec<u8>) {
        file.extend((self.offset.wrapping_sub(base_offset) as i32).to_be_bytes());
        file.extend(self.position.to_be_bytes());
    }
}

/// All entries. The zeros with which a broker pads the index of its active segment are left out.
pub fn parse_offset_index(bytes: &[u8], base_offset: i64) -> Result<Vec<OffsetIndexEntry>> {
    check_length(WHAT, bytes, OFFSET_INDEX_ENTRY_BYTES)?;
    let mut c = Cursor::new(WHAT, 0, bytes);
    let mut entries: Vec<OffsetIndexEntry> = Vec::with_capacity(bytes.len() / OFFSET_INDEX_ENTRY_BYTES);
    while c.remaining() > 0 {
        let at = c.position();
        let (relative, position) = (c.i32()?, c.i32()?);
        if relative == 0 && position == 0 && only_zeros(bytes, c.at()) {
            break;
        }
        let (Ok(relative), Ok(position)) = (u32::try_from(relative), u32::try_from(position)) else {
            return Err(ProtocolError::corrupt(WHAT, at, "no negative", format!("{relative}, {position}")));
        };
        let entry = OffsetIndexEntry { offset: base_offset.saturating_add(i64::from(relative)), position };
        if let Some(last) = entries.last()
            && (entry.offset <= last.offset || entry.position <= last.position)
        {
            let (expected, found) = (format!("more than {last:?}"), format!("{entry:?}"));
            return Err(ProtocolError::corrupt(WHAT, at, expected, found));
        }
        entries.push(entry);
    }
    Ok(entries)
}

/// An index file is a whole number of entries.
pub(super) fn check_length(what: &'static str, bytes: &[u8], entry_bytes: usize) -> Result<()> {
    let extra = bytes.len() % entry_bytes;
    if extra == 0 {
        return Ok(());
    }
    Err(ProtocolError::Truncated {
        what,
        position: (bytes.len() - extra) as u64,
        needed: entry_bytes as u64,
        available: extra as u64,
    })
}

/// Whether `bytes` hold nothing but padding from `from` on.
pub(super) fn only_zeros(bytes: &[u8], from: usize) -> bool {
    bytes.get(from..).unwrap_or_default().iter().all(|b| *b == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_padding_and_disorder() {
        let bytes = [0, 0, 0, 5, 0, 0, 16, 0, 0, 0, 0, 9, 0, 0, 32, 0];
        let entries = parse_offset_index(&bytes, 1000).unwrap();
        assert_eq!(
            entries,
            [
                OffsetIndexEntry { offset: 1005, position: 4096 },
                OffsetIndexEntry { offset: 1009, position: 8192 }
            ]
        );
        let padded = [&bytes[..], &[0; 80]].concat();
        assert_eq!(parse_offset_index(&padded, 1000).unwrap(), entries);
        let swapped = [&bytes[8..], &bytes[..8]].concat();
        assert!(matches!(parse_offset_index(&swapped, 0), Err(ProtocolError::Corrupt { position: 8, .. })));
        let cut = parse_offset_index(&bytes[..11], 0);
        assert!(matches!(cut, Err(ProtocolError::Truncated { position: 8, .. })), "{cut:?}");
    }
}
