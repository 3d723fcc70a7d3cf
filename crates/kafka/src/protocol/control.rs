//! Control records: the one record of a control batch, written by brokers.

use std::fmt;

use super::batches::Batch;
use super::cursor::Cursor;
use super::error::Result;
use super::scanner::MARKER_LIMIT_BYTES;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ControlType {
    Abort,
    Commit,
    LeaderChange,
    SnapshotHeader,
    SnapshotFooter,
    KraftVersion,
    KraftVoters,
    /// A number that this build does not know.
    Unknown(i16),
}

impl fmt::Display for ControlType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ControlType::Abort => f.write_str("ABORT"),
            ControlType::Commit => f.write_str("COMMIT"),
            ControlType::LeaderChange => f.write_str("LEADER_CHANGE"),
            ControlType::SnapshotHeader => f.write_str("SNAPSHOT_HEADER"),
            ControlType::SnapshotFooter => f.write_str("SNAPSHOT_FOOTER"),
            ControlType::KraftVersion => f.write_str("KRAFT_VERSION"),
            ControlType::KraftVoters => f.write_str("KRAFT_VOTERS"),
            ControlType::Unknown(n) => write!(f, "UNKNOWN({n})"),
        }
    }
}

impl Batch {
    /// What a control batch says, and when that was written. As for a broker, the first record decides; a batch that
    /// compaction has emptied has none.
    pub fn control(&self) -> Result<Option<(ControlRecord, i64)>> {
        let Some(record) = self.records(MARKER_LIMIT_BYTES as usize)?.next() else { return Ok(None) };
        let record = record?;
        let key = record.key.as_deref().unwrap_or_default();
        let control = ControlRecord::parse(key, record.value.as_deref().unwrap_or_default())?;
        Ok(Some((control, record.timestamp_ms)))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ControlRecord {
    pub control_type: ControlType,
    /// Of the transaction coordinator, in COMMIT and ABORT.
    pub coordinator_epoch: Option<i32>,
}

impl ControlRecord {
    /// From the key and value of a record of a control batch.
    pub fn parse(key: &[u8], value: &[u8]) -> Result<Self> {
        let mut c = Cursor::new("control record key", 0, key);
        let _version = c.i16()?;
        let control_type = match c.i16()? {
            0 => ControlType::Abort,
            1 => ControlType::Commit,
            2 => ControlType::LeaderChange,
            3 => ControlType::SnapshotHeader,
            4 => ControlType::SnapshotFooter,
            5 => ControlType::KraftVersion,
            6 => ControlType::KraftVoters,
            n => ControlType::Unknown(n),
        };
        let coordinator_epoch = match control_type {
            ControlType::Abort | ControlType::Commit => {
                let mut c = Cursor::new("end transaction marker", 0, value);
                let _version = c.i16()?;
                Some(c.i32()?)
            }
            _ => None,
        };
        Ok(Self { control_type, coordinator_epoch })
    }
}
