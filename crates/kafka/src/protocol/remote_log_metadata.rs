//! The values of topic `__remote_log_metadata`, by which brokers know what is in the tier.
//!
//! `frame version (1) | api key | version` as unsigned varints, then a flexible message of that key:
//! 0 a segment's begin (or its whole state), 1 an update of its state, 2 the deletion of a partition,
//! 3 a segment in a broker's own snapshot file. Keys of the topic's records are null.

use bytes::Bytes;
use varve_format::Id;

use super::cursor::Cursor;
use super::error::{ProtocolError, Result};
use super::leader_epochs::EpochEntry;

const WHAT: &str = "remote log metadata record";
const FRAME_VERSION: u32 = 1;
const MESSAGE_VERSION: u32 = 0;
/// Of key 0 and 3, from 4.0 on.
const TAG_TXN_INDEX_EMPTY: u32 = 0;

/// Where a segment is in its life. Each is followed by itself or by the one after it; a copy that failed
/// goes from `CopyStarted` to `DeleteStarted`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SegmentState {
    CopyStarted,
    CopyFinished,
    DeleteStarted,
    DeleteFinished,
}

impl SegmentState {
    /// Kafka's name.
    pub fn name(self) -> &'static str {
        match self {
            SegmentState::CopyStarted => "COPY_SEGMENT_STARTED",
            SegmentState::CopyFinished => "COPY_SEGMENT_FINISHED",
            SegmentState::DeleteStarted => "DELETE_SEGMENT_STARTED",
            SegmentState::DeleteFinished => "DELETE_SEGMENT_FINISHED",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PartitionDeleteState {
    Marked,
    Started,
    Finished,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicIdPartition {
    pub topic_id: Id,
    pub topic: String,
    pub partition: i32,
}

/// A segment as it is described when its copy begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentRecord {
    pub partition: TopicIdPartition,
    pub description: SegmentSnapshot,
}

/// What is known of one segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentSnapshot {
    pub segment_id: Id,
    pub start_offset: i64,
    /// Inclusive.
    pub end_offset: i64,
    pub broker_id: i32,
    pub max_timestamp_ms: i64,
    pub event_timestamp_ms: i64,
    pub leader_epochs: Vec<EpochEntry>,
    pub size_bytes: i32,
    pub custom_metadata: Option<Bytes>,
    pub state: SegmentState,
    /// Told by 4.0 and newer; `false` elsewhere.
    pub txn_index_empty: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentUpdate {
    pub partition: TopicIdPartition,
    pub segment_id: Id,
    pub broker_id: i32,
    pub event_timestamp_ms: i64,
    pub custom_metadata: Option<Bytes>,
    pub state: SegmentState,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionDeletion {
    pub partition: TopicIdPartition,
    pub broker_id: i32,
    pub event_timestamp_ms: i64,
    pub state: PartitionDeleteState,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RemoteLogRecord {
    Segment(SegmentRecord),
    Update(SegmentUpdate),
    PartitionDeletion(PartitionDeletion),
    /// Only in files of brokers, not in the topic.
    Snapshot(SegmentSnapshot),
}

/// `value` is the value of one record of the topic.
pub fn decode_remote_log_record(value: &[u8]) -> Result<RemoteLogRecord> {
    let mut c = Cursor::new(WHAT, 0, value);
    let frame = c.unsigned_varint()?;
    if frame != FRAME_VERSION {
        return Err(unknown_version("remote log metadata frame", 0, frame, FRAME_VERSION));
    }
    let key = c.unsigned_varint()?;
    let at = c.position();
    let version = c.unsigned_varint()?;
    if version != MESSAGE_VERSION {
        return Err(unknown_version(WHAT, at, version, MESSAGE_VERSION));
    }
    let record = match key {
        0 => {
            let partition = topic_id_partition(&mut c)?;
            let segment_id = id(&mut c)?;
            tags(&mut c, |_, _| Ok(()))?;
            RemoteLogRecord::Segment(SegmentRecord {
                partition,
                description: description(&mut c, segment_id)?,
            })
        }
        1 => RemoteLogRecord::Update(update(&mut c)?),
        2 => RemoteLogRecord::PartitionDeletion(partition_deletion(&mut c)?),
        3 => {
            let segment_id = id(&mut c)?;
            RemoteLogRecord::Snapshot(description(&mut c, segment_id)?)
        }
        n => return Err(ProtocolError::corrupt(WHAT, 1, "an api key from 0 to 3", n)),
    };
    c.end()?;
    Ok(record)
}

fn unknown_version(what: &'static str, position: u64, found: u32, supported: u32) -> ProtocolError {
    ProtocolError::UnknownVersion { what, position, found: found.into(), supported: supported.into() }
}

fn description(c: &mut Cursor<'_>, segment_id: Id) -> Result<SegmentSnapshot> {
    let start_offset = c.i64()?;
    let end_offset = c.i64()?;
    let broker_id = c.i32()?;
    let max_timestamp_ms = c.i64()?;
    let event_timestamp_ms = c.i64()?;
    let leader_epochs = leader_epochs(c)?;
    let size_bytes = c.i32()?;
    let custom_metadata = nullable_bytes(c)?;
    let state = segment_state(c)?;
    let mut txn_index_empty = false;
    tags(c, |tag, value| {
        if tag == TAG_TXN_INDEX_EMPTY {
            txn_index_empty = value.first().is_some_and(|b| *b != 0);
        }
        Ok(())
    })?;
    Ok(SegmentSnapshot {
        segment_id,
        start_offset,
        end_offset,
        broker_id,
        max_timestamp_ms,
        event_timestamp_ms,
        leader_epochs,
        size_bytes,
        custom_metadata,
        state,
        txn_index_empty,
    })
}

fn update(c: &mut Cursor<'_>) -> Result<SegmentUpdate> {
    let partition = topic_id_partition(c)?;
    let segment_id = id(c)?;
    tags(c, |_, _| Ok(()))?;
    let update = SegmentUpdate {
        partition,
        segment_id,
        broker_id: c.i32()?,
        event_timestamp_ms: c.i64()?,
        custom_metadata: nullable_bytes(c)?,
        state: segment_state(c)?,
    };
    tags(c, |_, _| Ok(()))?;
    Ok(update)
}

fn partition_deletion(c: &mut Cursor<'_>) -> Result<PartitionDeletion> {
    let partition = topic_id_partition(c)?;
    let broker_id = c.i32()?;
    let event_timestamp_ms = c.i64()?;
    let state = match c.i8()? {
        0 => PartitionDeleteState::Marked,
        1 => PartitionDeleteState::Started,
        2 => PartitionDeleteState::Finished,
        n => return Err(c.corrupt("a partition's delete state from 0 to 2", n)),
    };
    tags(c, |_, _| Ok(()))?;
    Ok(PartitionDeletion { partition, broker_id, event_timestamp_ms, state })
}

fn topic_id_partition(c: &mut Cursor<'_>) -> Result<TopicIdPartition> {
    let length = c.unsigned_varint()?;
    let Some(length) = length.checked_sub(1) else { return Err(c.corrupt("a topic name", "null")) };
    let name = c.take(length as usize)?;
    let topic = std::str::from_utf8(name).map_err(|_| c.corrupt("a topic name in UTF-8", "other bytes"))?;
    let partition = TopicIdPartition { topic_id: id(c)?, topic: topic.to_owned(), partition: c.i32()? };
    tags(c, |_, _| Ok(()))?;
    Ok(partition)
}

fn id(c: &mut Cursor<'_>) -> Result<Id> {
    Ok(Id(c.array()?))
}

fn leader_epochs(c: &mut Cursor<'_>) -> Result<Vec<EpochEntry>> {
    let Some(count) = c.unsigned_varint()?.checked_sub(1) else {
        return Err(c.corrupt("leader epochs", "null"));
    };
    // An entry takes 13 bytes at least.
    let room = c.remaining() / 13;
    if count as usize > room {
        return Err(c.corrupt(format!("at most {room} leader epochs"), count));
    }
    let mut entries = Vec::with_capacity(count as usize);
    for _ in 0..count {
        entries.push(EpochEntry { epoch: c.i32()?, start_offset: c.i64()? });
        tags(c, |_, _| Ok(()))?;
    }
    // Brokers write them out of a map, in no order.
    entries.sort_by_key(|e| e.epoch);
    Ok(entries)
}

fn nullable_bytes(c: &mut Cursor<'_>) -> Result<Option<Bytes>> {
    match c.unsigned_varint()?.checked_sub(1) {
        None => Ok(None),
        Some(length) => Ok(Some(Bytes::copy_from_slice(c.take(length as usize)?))),
    }
}

fn segment_state(c: &mut Cursor<'_>) -> Result<SegmentState> {
    Ok(match c.i8()? {
        0 => SegmentState::CopyStarted,
        1 => SegmentState::CopyFinished,
        2 => SegmentState::DeleteStarted,
        3 => SegmentState::DeleteFinished,
        n => return Err(c.corrupt("a segment state from 0 to 3", n)),
    })
}

/// Tagged fields: unknown ones are passed over, as flexible versions ask.
fn tags(c: &mut Cursor<'_>, mut field: impl FnMut(u32, &[u8]) -> Result<()>) -> Result<()> {
    for _ in 0..c.unsigned_varint()? {
        let tag = c.unsigned_varint()?;
        let length = c.unsigned_varint()?;
        field(tag, c.take(length as usize)?)?;
    }
    Ok(())
}
