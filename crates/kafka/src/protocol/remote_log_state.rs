//! What `__remote_log_metadata` amounts to: per partition and segment the last state.
//!
//! Records of one partition come in order from one partition of the topic; records of different partitions
//! may interleave in any way. As in the broker, an update that does not fit (unknown segment, impossible
//! step) changes nothing; it is handed back so that it can be reported.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use varve_format::Id;

use super::leader_epochs::EpochEntry;
use super::remote_log_metadata::{
    PartitionDeleteState, RemoteLogRecord, SegmentRecord, SegmentSnapshot, SegmentState, SegmentUpdate,
};

/// Topic id and partition.
pub type PartitionKey = (Id, i32);

/// One segment of the tier.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteSegment {
    pub segment_id: Id,
    pub start_offset: i64,
    /// Inclusive.
    pub end_offset: i64,
    pub max_timestamp_ms: i64,
    pub size_bytes: i32,
    pub leader_epochs: Vec<EpochEntry>,
    /// The latest that a record gave.
    pub custom_metadata: Option<Bytes>,
    pub state: SegmentState,
    /// Of the last record.
    pub event_timestamp_ms: i64,
    pub broker_id: i32,
}

/// A record that does not follow from those before it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Anomaly {
    #[error("segment {segment_id} of {topic}-{partition}: {state} without a COPY_SEGMENT_STARTED before it")]
    UnknownSegment { topic: String, partition: i32, segment_id: Id, state: &'static str },
    #[error("segment {segment_id} of {topic}-{partition}: {to} does not follow {from}")]
    Transition { topic: String, partition: i32, segment_id: Id, from: &'static str, to: &'static str },
}

/// The last state of everything, kept in memory: about 200 bytes per segment.
#[derive(Clone, Debug, Default)]
pub struct RemoteLogState {
    partitions: HashMap<PartitionKey, Partition>,
    /// Names as last seen.
    topics: BTreeMap<Id, String>,
}

#[derive(Clone, Debug, Default)]
struct Partition {
    segments: BTreeMap<Id, RemoteSegment>,
    deletion: Option<PartitionDeleteState>,
}

impl RemoteLogState {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn apply(&mut self, record: RemoteLogRecord) -> Result<(), Anomaly> {
        match record {
            RemoteLogRecord::Segment(record) => self.describe(record),
            RemoteLogRecord::Update(update) => self.update(update),
            RemoteLogRecord::PartitionDeletion(deletion) => {
                let key = (deletion.partition.topic_id, deletion.partition.partition);
                self.topics.insert(deletion.partition.topic_id, deletion.partition.topic);
                self.partitions.entry(key).or_default().deletion = Some(deletion.state);
                Ok(())
            }
            // Has no partition: it is found in brokers' files only.
            RemoteLogRecord::Snapshot(_) => Ok(()),
        }
    }

    pub fn topic_name(&self, topic_id: Id) -> Option<&str> {
        self.topics.get(&topic_id).map(String::as_str)
    }

    pub fn partitions(&self) -> impl Iterator<Item = PartitionKey> + '_ {
        self.partitions.keys().copied()
    }

    /// In the order of segment ids; the deleted ones too.
    pub fn segments(&self, partition: PartitionKey) -> impl Iterator<Item = &RemoteSegment> {
        self.partitions.get(&partition).into_iter().flat_map(|p| p.segments.values())
    }

    pub fn segment(&self, partition: PartitionKey, segment_id: Id) -> Option<&RemoteSegment> {
        self.partitions.get(&partition)?.segments.get(&segment_id)
    }

    pub fn deletion(&self, partition: PartitionKey) -> Option<PartitionDeleteState> {
        self.partitions.get(&partition)?.deletion
    }

    fn describe(&mut self, record: SegmentRecord) -> Result<(), Anomaly> {
        let key = (record.partition.topic_id, record.partition.partition);
        let partition = self.partitions.entry(key).or_default();
        let segment = RemoteSegment::from(record.description);
        if let Some(known) = partition.segments.get(&segment.segment_id)
            && !follows(known.state, segment.state)
        {
            return Err(Anomaly::Transition {
                topic: record.partition.topic,
                partition: record.partition.partition,
                segment_id: segment.segment_id,
                from: known.state.name(),
                to: segment.state.name(),
            });
        }
        self.topics.insert(record.partition.topic_id, record.partition.topic);
        partition.segments.insert(segment.segment_id, segment);
        Ok(())
    }

    fn update(&mut self, update: SegmentUpdate) -> Result<(), Anomaly> {
        let key = (update.partition.topic_id, update.partition.partition);
        let known = self.partitions.get_mut(&key).and_then(|p| p.segments.get_mut(&update.segment_id));
        let Some(segment) = known else {
            return Err(Anomaly::UnknownSegment {
                topic: update.partition.topic,
                partition: update.partition.partition,
                segment_id: update.segment_id,
                state: update.state.name(),
            });
        };
        if !follows(segment.state, update.state) {
            return Err(Anomaly::Transition {
                topic: update.partition.topic,
                partition: update.partition.partition,
                segment_id: update.segment_id,
                from: segment.state.name(),
                to: update.state.name(),
            });
        }
        segment.state = update.state;
        segment.event_timestamp_ms = update.event_timestamp_ms;
        segment.broker_id = update.broker_id;
        if update.custom_metadata.is_some() {
            segment.custom_metadata = update.custom_metadata;
        }
        Ok(())
    }
}

impl From<SegmentSnapshot> for RemoteSegment {
    fn from(d: SegmentSnapshot) -> Self {
        Self {
            segment_id: d.segment_id,
            start_offset: d.start_offset,
            end_offset: d.end_offset,
            max_timestamp_ms: d.max_timestamp_ms,
            size_bytes: d.size_bytes,
            leader_epochs: d.leader_epochs,
            custom_metadata: d.custom_metadata,
            state: d.state,
            event_timestamp_ms: d.event_timestamp_ms,
            broker_id: d.broker_id,
        }
    }
}

/// Whether `to` may come after `from`: repeating a state is how brokers retry.
fn follows(from: SegmentState, to: SegmentState) -> bool {
    use SegmentState::{CopyFinished, CopyStarted, DeleteFinished, DeleteStarted};
    from == to
        || matches!(
            (from, to),
            (CopyStarted, CopyFinished)
                | (CopyStarted | CopyFinished, DeleteStarted)
                | (DeleteStarted, DeleteFinished)
        )
}
