//! `.txnindex`: the aborted transactions of a segment. Entries of 34 bytes: version i16 (0), producer id,
//! first offset, last offset (of the marker), last stable offset at that time, each i64.

use super::cursor::Cursor;
use super::error::{ProtocolError, Result};
use super::offset_index::check_length;

pub const TRANSACTION_INDEX_ENTRY_BYTES: usize = 34;
const WHAT: &str = "transaction index";
const VERSION: i16 = 0;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AbortedTransaction {
    pub producer_id: i64,
    pub first_offset: i64,
    pub last_offset: i64,
    pub last_stable_offset: i64,
}

impl AbortedTransaction {
    /// Appends the entry as it is in the file.
    pub(super) fn encode(self, file: &mut Vec<u8>) {
        file.extend(VERSION.to_be_bytes());
        for field in [self.producer_id, self.first_offset, self.last_offset, self.last_stable_offset] {
            file.extend(field.to_be_bytes());
        }
    }
}

pub fn parse_transaction_index(bytes: &[u8]) -> Result<Vec<AbortedTransaction>> {
    check_length(WHAT, bytes, TRANSACTION_INDEX_ENTRY_BYTES)?;
    let mut c = Cursor::new(WHAT, 0, bytes);
    let mut entries: Vec<AbortedTransaction> =
        Vec::with_capacity(bytes.len() / TRANSACTION_INDEX_ENTRY_BYTES);
    while c.remaining() > 0 {
        let at = c.position();
        let version = c.i16()?;
        if version != VERSION {
            let (found, supported) = (i64::from(version), i64::from(VERSION));
            return Err(ProtocolError::UnknownVersion { what: WHAT, position: at, found, supported });
        }
        let entry = AbortedTransaction {
            producer_id: c.i64()?,
            first_offset: c.i64()?,
            last_offset: c.i64()?,
            last_stable_offset: c.i64()?,
        };
        if let Some(last) = entries.last()
            && entry.last_offset <= last.last_offset
        {
            let expected = format!("a last offset above {}", last.last_offset);
            return Err(ProtocolError::corrupt(WHAT, at + 18, expected, entry.last_offset));
        }
        entries.push(entry);
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_versions_and_disorder() {
        let entry = |version: i16, last: i64| {
            [
                &version.to_be_bytes()[..],
                &7_i64.to_be_bytes(),
                &1_i64.to_be_bytes(),
                &last.to_be_bytes(),
                &[0; 8],
            ]
            .concat()
        };
        let entries = parse_transaction_index(&[entry(0, 5), entry(0, 9)].concat()).unwrap();
        assert_eq!(entries[1].last_offset, 9);
        assert_eq!(entries[0].producer_id, 7);
        assert!(parse_transaction_index(&[entry(0, 9), entry(0, 9)].concat()).is_err());
        let newer = parse_transaction_index(&entry(1, 5));
        assert!(matches!(newer, Err(ProtocolError::UnknownVersion { found: 1, .. })), "{newer:?}");
    }
}
